package hyperblobs

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
)

// A Reader reads a blob from any place on, one block in memory at a time. It
// must be closed.
type Reader struct {
	ctx  context.Context // of the reading, as a request's is: an io.Reader has no other place for it
	log  Log
	id   ID
	m    blockMap // nil where the blocks follow each other
	size int64

	pos    int64  // of the next byte
	rest   []byte // what is left of the current block, which begins at pos
	buf    []byte // that blocks are read into
	placed bool   // next is the block after rest
	next   uint64 // the next block: an index of the log, or of m
	index  uint64 // the block that was read last

	ahead sync.WaitGroup // the goroutine that downloads ahead
	stop  func()         // ends it
}

// NewReader returns a Reader of a blob. ctx ends all waiting for blocks that
// are not here.
func (b *Blobs) NewReader(ctx context.Context, id ID) (*Reader, error) {
	if err := id.Check(); err != nil {
		return nil, err
	}
	r := &Reader{ctx: ctx, log: b.log, id: id, size: int64(id.ByteLength)}
	if id.BlockMap {
		m, err := b.readMap(ctx, id)
		if err != nil {
			return nil, err
		}
		r.m, r.size = m, m.size()
	}
	return r, nil
}

// Size returns how many bytes the blob has.
func (r *Reader) Size() int64 { return r.size }

// Read waits for the next block where it is not here.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.rest)
	r.take(n)
	return n, nil
}

// WriteTo writes the rest of the blob without copying it first.
func (r *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		block, err := r.nextBlock()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		k, err := w.Write(block)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
}

// Seek sets where the next read begins. It waits for nothing.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, cloudpal.E("seek in a blob", cloudpal.Invalid, errors.New("there is no such place"))
	}
	if d := offset - r.pos; d >= 0 && d < int64(len(r.rest)) {
		r.take(int(d))
	} else if d != 0 {
		r.pos, r.rest, r.placed = offset, nil, false
	}
	return offset, nil
}

// Close ends the downloading ahead. The Reader is of no use afterwards.
func (r *Reader) Close() error {
	if r.stop != nil {
		r.stop()
		r.ahead.Wait()
	}
	r.rest, r.buf, r.placed, r.pos, r.size = nil, nil, false, 0, 0
	return nil
}

// nextBlock returns the rest of the current block, or the next.
func (r *Reader) nextBlock() ([]byte, error) {
	if err := r.fill(); err != nil {
		return nil, err
	}
	block := r.rest
	r.take(len(block))
	return block, nil
}

func (r *Reader) take(n int) {
	r.rest = r.rest[n:]
	r.pos += int64(n)
}

// fill sees to it that rest has a byte.
func (r *Reader) fill() error {
	var skip uint64
	for len(r.rest) == 0 {
		if r.pos >= r.size {
			return io.EOF
		}
		if !r.placed {
			var err error
			if skip, err = r.place(); err != nil {
				return err
			}
		}
		block, err := r.get()
		if err != nil {
			return err
		}
		if skip > uint64(len(block)) {
			return damaged("a block has %d bytes, too few", len(block))
		}
		r.rest = block[skip:]
		r.rest = r.rest[:min(int64(len(r.rest)), r.size-r.pos)]
		skip = 0
	}
	return nil
}

// place sets next to the block that has the byte at pos, and returns how many
// bytes of it come before.
func (r *Reader) place() (skip uint64, err error) {
	r.placed = true
	if r.m != nil {
		i := r.m.find(uint64(r.pos))
		r.next = uint64(i)
		return uint64(r.pos) - r.m[i].offset, nil
	}
	if r.pos == 0 {
		r.next = r.id.BlockOffset
		return 0, nil
	}
	r.next, skip, err = r.log.Seek(r.ctx, r.id.ByteOffset+uint64(r.pos))
	if err != nil {
		r.placed = false
		return 0, cloudpal.E("read a blob", "", err)
	}
	if r.next < r.id.BlockOffset || r.next >= r.id.End() {
		r.placed = false
		return 0, damaged("its byte %d is not in its blocks", r.pos)
	}
	return skip, nil
}

// get reads the next block.
func (r *Reader) get() ([]byte, error) {
	index, length := r.next, int64(-1)
	if r.m != nil {
		index, length = r.m[r.next].index, int64(r.m[r.next].length)
	} else if index >= r.id.End() {
		return nil, damaged("its blocks end %d bytes too early", r.size-r.pos)
	}
	r.readAhead(index)
	block, err := r.block(index)
	if err != nil {
		return nil, cloudpal.E("read a blob", "", err)
	}
	if length >= 0 && int64(len(block)) != length {
		return nil, damaged("a block has %d bytes, not %d", len(block), length)
	}
	r.index = index
	r.next++
	return block, nil
}

// block reads one into memory that the next is read into as well, or waits for it.
func (r *Reader) block(index uint64) ([]byte, error) {
	if log, ok := r.log.(lender); ok {
		block, err := log.AppendBlock(r.buf[:0], index)
		if err == nil {
			r.buf = block
			return block, nil
		}
		if !errors.Is(err, cloudpal.NotExist) {
			return nil, err
		}
	}
	return r.log.Get(r.ctx, index)
}

// readAhead begins to download what is left of the blob when a block of it is
// the first that is not here.
func (r *Reader) readAhead(index uint64) {
	log, ok := r.log.(Fetcher)
	if !ok || r.stop != nil || log.Has(index) {
		return
	}
	spans := []Span{{index, r.id.End()}}
	if r.m != nil {
		spans = r.m[r.next:].spans()
	}
	ctx, stop := context.WithCancel(r.ctx)
	r.stop = stop
	r.ahead.Go(func() {
		for _, s := range spans {
			if log.Download(ctx, hypercore.Range{Start: s.Start, End: s.End}) != nil {
				return // the reader asks for each block itself, and finds out why
			}
		}
	})
}
