package hypercore

import (
	"context"
	"errors"
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/merkle"
)

// Get returns a block. Where it is not here, Get waits until a peer has sent it
// or the writer has appended it, or until ctx ends: then the error is Timeout.
func (c *Core) Get(ctx context.Context, index uint64) ([]byte, error) {
	block, err := c.AppendBlock(nil, index)
	if err == nil || !errors.Is(err, cloudpal.NotExist) || c.snap != nil && index >= c.snap.head.Length {
		return block, err
	}
	return c.wait(ctx, index)
}

// Local returns a block that is here, or NotExist.
func (c *Core) Local(index uint64) ([]byte, error) { return c.AppendBlock(nil, index) }

// AppendBlock appends a block that is here to dst, so that memory can be used
// again; or it returns NotExist.
func (c *Core) AppendBlock(dst []byte, index uint64) ([]byte, error) {
	if err := c.check("read"); err != nil {
		return dst, err
	}
	n := len(dst)
	dst, err := c.appendStored(dst, index)
	if err != nil {
		return dst, notHere(index, err)
	}
	if c.cipher == nil {
		return dst, nil
	}
	block, err := c.cipher.open(index, dst[n:])
	if err != nil {
		return dst[:n], err
	}
	if n == 0 {
		return block, nil
	}
	return append(dst[:n], block...), nil
}

// appendStored appends a block as it is stored.
func (c *Core) appendStored(dst []byte, index uint64) ([]byte, error) {
	if c.snap != nil {
		return c.snap.appendStored(c.log, dst, index)
	}
	return c.log.core.AppendBlock(dst, index)
}

// notHere makes an error of what storage says. That of a block that is not here
// is made without memory of its own: waiting readers ask often.
func notHere(index uint64, err error) error {
	if err == cloudpal.NotExist {
		return absent(index)
	}
	return cloudpal.E(fmt.Sprintf("read block %d", index), "", err)
}

// absent is the error of a block that is not here.
type absent uint64

func (a absent) Error() string {
	return fmt.Sprintf("read block %d: %v here", uint64(a), cloudpal.NotExist)
}

func (a absent) Unwrap() error { return cloudpal.NotExist }

// Has reports whether a block is here.
func (c *Core) Has(index uint64) bool { return c.HasAll(index, index+1) }

// HasAll reports whether all blocks from start up to end are here.
func (c *Core) HasAll(start, end uint64) bool {
	if end <= c.log.contiguous.Load() {
		return true
	}
	_, missing := c.NextMissing(start, end)
	return !missing
}

// NextMissing returns the first block from start up to end that is not here, if
// there is one. It reads nothing from disk but, once, the bitfield.
func (c *Core) NextMissing(start, end uint64) (index uint64, ok bool) {
	index = start
	c.withBits(func(b *bitfield) { index = b.next(start, end, false) })
	return index, index < end
}

// NextPresent returns the first block from start up to end that is here, if
// there is one.
func (c *Core) NextPresent(start, end uint64) (index uint64, ok bool) {
	index = end
	c.withBits(func(b *bitfield) { index = b.next(start, min(end, c.log.head.Length), true) })
	return index, index < min(end, c.Length())
}

// Bitfield fills words with which blocks are here: block start+n is bit n&31 of
// word n>>5. Start is a multiple of 32.
func (c *Core) Bitfield(start uint64, words []uint32) {
	clear(words)
	c.withBits(func(b *bitfield) {
		end := start + 32*uint64(len(words))
		for i := b.next(start, end, true); i < end; i = b.next(i, end, true) {
			stop := b.next(i, end, false)
			fillWords(words, i-start, stop-start)
			i = stop
		}
	})
}

func fillWords(words []uint32, start, end uint64) {
	for start < end {
		n := min(end-start, 32-start&31)
		words[start>>5] |= (^uint32(0) >> (32 - n)) << (start & 31)
		start += n
	}
}

// withBits runs f with the bitfield loaded. Where it cannot be read, f does not
// run: then nothing counts as being here.
func (c *Core) withBits(f func(b *bitfield)) {
	l := c.log
	l.mu.RLock()
	if l.bits.loaded || l.bits.whole(l.head.Length) {
		defer l.mu.RUnlock()
		f(&l.bits)
		return
	}
	l.mu.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bits.load() == nil {
		f(&l.bits)
	}
}

// Node returns a node of the tree that is stored here.
func (c *Core) Node(index uint64) (n merkle.Node, ok bool, err error) {
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	return c.log.core.Node(index)
}

// HasRoots reports whether all roots of a tree of that length are here, so that
// an upgrade from there can be proved.
func (c *Core) HasRoots(length uint64) bool {
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	if length > c.log.head.Length {
		return false
	}
	var indexes [64]uint64
	for _, i := range flat.AppendFullRoots(indexes[:0], length) {
		if _, ok, err := c.log.core.Node(i); !ok || err != nil {
			return false
		}
	}
	return true
}

// Missing returns how many nodes are not here on the way up from a block: what a
// request for it says.
func (c *Core) Missing(block uint64) (nodes uint64, err error) {
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	return merkle.Missing(c.log.core, block, c.log.head.Length)
}

// Seek returns which block has the byte at an offset from the start, and where in
// the block. The offset ByteLength is at offset 0 of block Length. It may wait
// for peers, who tell sizes, until ctx ends.
func (c *Core) Seek(ctx context.Context, byteOffset uint64) (index, offset uint64, err error) {
	for {
		p, err := c.seek(byteOffset)
		if err != nil {
			return 0, 0, cloudpal.E(fmt.Sprintf("seek byte %d", byteOffset), "", err)
		}
		if p.Found() {
			return p.Start, p.Offset, nil
		}
		if err := c.fetch(ctx, func(ctx context.Context, f Fetcher) error { return f.Seek(ctx, byteOffset, c.padding()) }); err != nil {
			return 0, 0, cloudpal.E(fmt.Sprintf("seek byte %d", byteOffset), "", err)
		}
	}
}

func (c *Core) seek(bytes uint64) (merkle.Position, error) {
	if err := c.check("seek"); err != nil {
		return merkle.Position{}, err
	}
	if c.snap != nil {
		return merkle.Seek(snapReader{c.log, c.snap}, c.snap.head, bytes, c.padding())
	}
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	return merkle.Seek(c.log.core, c.log.head, bytes, c.padding())
}
