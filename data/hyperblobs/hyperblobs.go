// Package hyperblobs keeps byte strings of any size in a hypercore, in the
// format of the JavaScript hyperblobs 2: a blob is cut into blocks that are
// appended one after the other, and its ID says where they are.
//
//	blobs := hyperblobs.New(core)
//	id, err := blobs.Put(ctx, picture)
//	picture, err = blobs.Get(ctx, id)
//
// What does not fit into memory is written and read as a stream. A Writer
// holds up to 1 MiB and keeps other large writers waiting until it is closed,
// because the blocks of a blob follow each other. One that is Shared keeps
// nobody waiting: it writes a block map behind the data, which lists the
// blocks wherever they are. One that deduplicates does that, too, and lists
// blocks that are there already instead of writing them again.
//
//	plain:  | data | data | data |              id = the data blocks
//	mapped: | data | other blob | data | map |  id = the map blocks
//
// IDs come from strangers. Whatever an ID or a block map claims, reading takes
// memory only for blocks that are there, and one that does not fit its blocks
// is an error, cloudpal.Corrupt.
//
// The methods of Blobs may be called by many goroutines at once. A Writer or a
// Reader belongs to one.
package hyperblobs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/hypercore"
)

const (
	// BlockSize is how many bytes a block has, but for the last of a blob.
	BlockSize = 64 << 10
	// MaxBlockSize is the largest size of a block that a writer may choose.
	// Others append blocks of up to 15 MiB, which are read too.
	MaxBlockSize = 8 << 20
	// appendSize is how many bytes are held until they are appended, when the
	// blocks are not larger: 16 blocks, as the original does.
	appendSize = 16 * BlockSize
)

// A Log is what blobs need of a *hypercore.Core, of which bytes and lengths are
// those before encryption. Append appends all blocks or none, returns the
// length after them, and keeps none of the slices. Get and Seek may wait for a
// peer until ctx ends. Clear forgets blocks here; peers keep theirs.
type Log interface {
	Length() uint64
	ByteLength() uint64
	Append(blocks ...[]byte) (length uint64, err error)
	Get(ctx context.Context, index uint64) ([]byte, error)
	Seek(ctx context.Context, byteOffset uint64) (index, offset uint64, err error)
	Clear(start, end uint64) error
}

// A Fetcher is a Log of which blocks may be with peers. Readers ask it for
// all that they will need ahead, rather than for one block after the other.
// A *hypercore.Core is one.
type Fetcher interface {
	Has(index uint64) bool
	Download(ctx context.Context, r hypercore.Range) error
}

// A lender is a Log that reads a block that is here into memory of the caller's.
// A *hypercore.Core is one.
type lender interface {
	AppendBlock(dst []byte, index uint64) ([]byte, error)
}

// An ID says where a blob is. Bytes are counted without what encryption adds.
type ID struct {
	BlockOffset uint64 // the first block
	ByteOffset  uint64 // how many bytes the log has before it
	BlockLength uint64 // how many blocks; none for a blob of no bytes
	ByteLength  uint64 // how many bytes these blocks have
	BlockMap    bool   // the blocks are not the data, but list the blocks that are
}

// End returns the length that the log needs to hold the blob.
func (id ID) End() uint64 { return id.BlockOffset + id.BlockLength }

// Check returns an error, cloudpal.Invalid, where no log can hold such a blob.
func (id ID) Check() error {
	for _, n := range []uint64{id.BlockOffset, id.ByteOffset, id.BlockLength, id.ByteLength, id.End(), id.ByteOffset + id.ByteLength} {
		if n > compact.MaxUint {
			return cloudpal.E("read a blob", cloudpal.Invalid, errors.New("its id has numbers above 2^53"))
		}
	}
	if id.BlockLength == 0 && id.ByteLength > 0 {
		return cloudpal.E("read a blob", cloudpal.Invalid, errors.New("its id has bytes but no blocks"))
	}
	return nil
}

// Blobs are the blobs of one log, all of whose blocks are written here.
type Blobs struct {
	log  Log
	turn chan struct{} // full while somebody appends blocks that must follow each other
}

// New returns the blobs of a log. While it is in use nobody else appends to
// the log; an append that finds otherwise fails with cloudpal.Busy.
func New(log Log) *Blobs { return &Blobs{log: log, turn: make(chan struct{}, 1)} }

// lock waits for the writers before, until ctx ends.
func (b *Blobs) lock(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return cloudpal.E("write a blob", cloudpal.Busy, ctx.Err())
	}
}

func (b *Blobs) unlock() { <-b.turn }

// Put writes a blob.
func (b *Blobs) Put(ctx context.Context, data []byte) (ID, error) {
	if len(data) <= appendSize {
		ids, err := b.PutAll(ctx, data)
		if err != nil {
			return ID{}, err
		}
		return ids[0], nil
	}
	w := b.NewWriter(ctx, Options{})
	if _, err := w.Write(data); err != nil {
		w.Cancel()
		return ID{}, err
	}
	err := w.Close()
	return w.ID(), err
}

// PutAll writes many blobs at once, all or none, which costs one signature and
// one commit; all of them are in memory meanwhile.
func (b *Blobs) PutAll(ctx context.Context, blobs ...[]byte) ([]ID, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.unlock()
	ids := make([]ID, len(blobs))
	blocks := make([][]byte, 0, len(blobs))
	next := ID{BlockOffset: b.log.Length(), ByteOffset: b.log.ByteLength()}
	for i, data := range blobs {
		from := len(blocks)
		blocks = cut(blocks, data, BlockSize)
		next.BlockLength, next.ByteLength = uint64(len(blocks)-from), uint64(len(data))
		ids[i] = next
		next = ID{BlockOffset: next.End(), ByteOffset: next.ByteOffset + next.ByteLength}
	}
	_, err := b.appendAt(next.BlockOffset-uint64(len(blocks)), blocks)
	return ids, err
}

// cut appends data's blocks to blocks, without copying.
func cut(blocks [][]byte, data []byte, size int) [][]byte {
	for len(data) > size {
		blocks = append(blocks, data[:size:size])
		data = data[size:]
	}
	if len(data) > 0 {
		blocks = append(blocks, data)
	}
	return blocks
}

// appendAt appends blocks that must come to be at start, and returns the
// length after them.
func (b *Blobs) appendAt(start uint64, blocks [][]byte) (uint64, error) {
	if len(blocks) == 0 {
		return start, nil
	}
	length, err := b.log.Append(blocks...)
	if err != nil {
		return 0, cloudpal.E("write a blob", "", err)
	}
	if length != start+uint64(len(blocks)) {
		return 0, cloudpal.E("write a blob", cloudpal.Busy, errors.New("somebody else appended to its log"))
	}
	return length, nil
}

// Get returns a blob, waiting until ctx ends for blocks that are not here.
// Blobs may be larger than memory: look at Size before, or read a stream.
func (b *Blobs) Get(ctx context.Context, id ID) ([]byte, error) {
	r, err := b.NewReader(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, 0, min(r.size, 1<<20)) // an ID's word is good for so much memory
	for {
		block, err := r.nextBlock()
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		data = append(data, block...)
	}
}

// Size returns how many bytes a blob has. Those of one with a block map are
// in the map, which may have to be waited for.
func (b *Blobs) Size(ctx context.Context, id ID) (int64, error) {
	if err := id.Check(); err != nil {
		return 0, err
	}
	if !id.BlockMap {
		return int64(id.ByteLength), nil
	}
	m, err := b.readMap(ctx, id)
	if err != nil {
		return 0, err
	}
	return m.size(), nil
}

// A Span is some blocks of a log, from Start to before End.
type Span struct{ Start, End uint64 }

// Spans returns the blocks that a blob is made of, with its block map's.
func (b *Blobs) Spans(ctx context.Context, id ID) ([]Span, error) {
	if err := id.Check(); err != nil || id.BlockLength == 0 {
		return nil, err
	}
	own := Span{id.BlockOffset, id.End()}
	if !id.BlockMap {
		return []Span{own}, nil
	}
	m, err := b.readMap(ctx, id)
	if err != nil {
		return nil, err
	}
	return append(m.spans(), own), nil
}

// Clear forgets a blob's blocks here; peers keep theirs, and blocks that are
// read again come from them. Other blobs lose the blocks that they share with
// it by deduplication, and it must not be one that is being written.
func (b *Blobs) Clear(ctx context.Context, id ID) error {
	spans, err := b.Spans(ctx, id)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if err := b.log.Clear(s.Start, s.End); err != nil {
			return cloudpal.E("clear a blob", "", err)
		}
	}
	return nil
}

// damaged says what does not fit about a blob.
func damaged(format string, args ...any) error {
	return cloudpal.E("read a blob", cloudpal.Corrupt, fmt.Errorf(format, args...))
}
