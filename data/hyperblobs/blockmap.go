package hyperblobs

import (
	"context"
	"errors"
	"sort"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
)

const (
	maxMapBlocks  = 64   // the most blocks that a block map has
	maxMapEntries = 8192 // the most entries that each of them has
)

// A blockMap lists the blocks of a blob in their order (SPEC 13).
type blockMap []extent

// An extent is one of them.
type extent struct {
	index  uint64 // the block
	offset uint64 // where in the blob its first byte is
	length uint64 // how many bytes it has
}

func (m blockMap) size() int64 {
	if len(m) == 0 {
		return 0
	}
	last := m[len(m)-1]
	return int64(last.offset + last.length)
}

// add appends a block.
func (m blockMap) add(index, length uint64) blockMap {
	return append(m, extent{index, uint64(m.size()), length})
}

// find returns the position of the extent that has the byte at pos; len(m)
// where none has.
func (m blockMap) find(pos uint64) int {
	return sort.Search(len(m), func(i int) bool { return m[i].offset+m[i].length > pos })
}

// spans joins the blocks that follow each other.
func (m blockMap) spans() (spans []Span) {
	for _, e := range m {
		if n := len(spans); n > 0 && spans[n-1].End == e.index {
			spans[n-1].End++
			continue
		}
		spans = append(spans, Span{e.index, e.index + 1})
	}
	return spans
}

// encode returns the map's blocks.
func (m blockMap) encode() (blocks [][]byte) {
	for len(m) > 0 {
		part := m[:min(len(m), maxMapEntries)]
		b := compact.AppendUint(nil, 0)
		b = compact.AppendUint(b, uint64(len(part)))
		for _, e := range part {
			b = compact.AppendUint(compact.AppendUint(b, e.index), e.length)
		}
		blocks = append(blocks, b)
		m = m[len(part):]
	}
	return blocks
}

// decode appends what one of a map's blocks lists. A map ends where its bytes
// are more than a number can say.
func (m blockMap) decode(block []byte) (blockMap, error) {
	d := compact.NewDecoder(block)
	if version := d.Uint(); version != 0 {
		d.Fail(cloudpal.E("", cloudpal.Invalid, errors.New("a block map of a later version")))
	}
	for range d.Count(maxMapEntries, 2) {
		index, length := d.Uint(), d.Uint()
		if index >= compact.MaxUint || uint64(m.size())+length > compact.MaxUint {
			d.Fail(compact.ErrLarge)
		}
		if d.Err() != nil {
			break
		}
		m = m.add(index, length)
	}
	return m, d.Err()
}

// readMap returns the map of a blob whose ID has been checked.
func (b *Blobs) readMap(ctx context.Context, id ID) (m blockMap, err error) {
	if id.BlockLength > maxMapBlocks {
		return nil, damaged("its block map has %d blocks, more than %d", id.BlockLength, maxMapBlocks)
	}
	for i := id.BlockOffset; i < id.End(); i++ {
		block, err := b.log.Get(ctx, i)
		if err != nil {
			return nil, cloudpal.E("read a block map", "", err)
		}
		if m, err = m.decode(block); err != nil {
			return nil, cloudpal.E("read a block map", cloudpal.Corrupt, err)
		}
	}
	return m, nil
}
