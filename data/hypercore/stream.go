package hypercore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/tradle/cloudpal"
)

// A Range is blocks from Start up to End; an End of 0 is the length that the log
// has at the beginning.
type Range struct {
	Start, End uint64
	Reverse    bool // from the last to the first
	Live       bool // go on with blocks to come, for ever; End is not looked at
}

// A Block is one of a log.
type Block struct {
	Index uint64
	Value []byte
}

// Blocks yields the blocks of a range. It waits for those that are not here, and
// ends after an error. Values are the caller's.
func (c *Core) Blocks(ctx context.Context, r Range) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		end := r.End
		if end == 0 {
			end = c.Length()
		}
		if r.Live {
			end = ^uint64(0)
		}
		for n := r.Start; n < end; n++ {
			i := n
			if r.Reverse && !r.Live {
				i = end - 1 - (n - r.Start)
			}
			value, err := c.Get(ctx, i)
			if !yield(Block{i, value}, err) || err != nil {
				return
			}
		}
	}
}

// A ByteRange is Length bytes from Start on; a Length of 0 is all that the log has
// at the beginning.
type ByteRange struct{ Start, Length uint64 }

// A Reader reads the blocks of a core one after the other, as one file. It is for
// one goroutine.
type Reader struct {
	ctx        context.Context
	core       *Core
	start, end uint64 // of the range, in bytes of the log
	at         uint64 // the next byte
	index      uint64 // the next block
	rest       []byte // of the block before it
	placed     bool   // index and rest are those of at
	closed     bool
}

// NewReader returns a Reader of a range of bytes. What is not here is waited for
// until ctx ends.
func (c *Core) NewReader(ctx context.Context, r ByteRange) *Reader {
	end := c.ByteLength()
	if r.Length > 0 && r.Length < end-min(r.Start, end) {
		end = r.Start + r.Length
	}
	start := min(r.Start, end)
	return &Reader{ctx: ctx, core: c, start: start, end: end, at: start}
}

// Size returns how many bytes the range has.
func (r *Reader) Size() uint64 { return r.end - r.start }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (n int, err error) {
	if r.closed {
		return 0, cloudpal.E("read", cloudpal.Invalid, errors.New("the reader is closed"))
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.at >= r.end {
		return 0, io.EOF // also inside of a block
	}
	for len(r.rest) == 0 || !r.placed {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n = copy(p[:min(uint64(len(p)), r.end-r.at)], r.rest)
	r.rest = r.rest[n:]
	r.at += uint64(n)
	return n, nil
}

// next gets the block that has the next byte.
func (r *Reader) next() error {
	var skip uint64
	if !r.placed {
		index, offset, err := r.core.Seek(r.ctx, r.at)
		if err != nil {
			return err
		}
		r.index, skip, r.placed = index, offset, true
	}
	block, err := r.core.Get(r.ctx, r.index)
	if err != nil {
		return err
	}
	if skip > uint64(len(block)) {
		return cloudpal.E(fmt.Sprintf("read block %d", r.index), cloudpal.Corrupt, errors.New("it is shorter than the tree says"))
	}
	r.rest = block[skip:]
	r.index++
	return nil
}

// Seek implements io.Seeker. It reads nothing.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	base := int64(0)
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		base = int64(r.at - r.start)
	case io.SeekEnd:
		base = int64(r.end - r.start)
	default:
		return 0, cloudpal.E("seek", cloudpal.Invalid, fmt.Errorf("whence %d", whence))
	}
	to := base + offset
	if to < 0 {
		return 0, cloudpal.E("seek", cloudpal.Invalid, errors.New("to before the start"))
	}
	if next := r.start + uint64(to); next != r.at {
		r.at, r.rest, r.placed = next, nil, false
	}
	return to, nil
}

// Close ends the Reader.
func (r *Reader) Close() error {
	r.closed, r.rest = true, nil
	return nil
}

// DefaultBlock is how large the blocks are that a Writer makes: 64 KiB.
const DefaultBlock = 64 << 10

// A Writer appends a stream of bytes, cut into blocks. It is for one goroutine.
type Writer struct {
	// BlockSize is how large blocks are; the last may be shorter. It may be
	// changed before the first Write.
	BlockSize int

	core   *Core
	buf    []byte
	blocks [][]byte
	closed bool
}

// writerBatch is how many bytes a Writer appends at a time, at most about.
const writerBatch = 1 << 20

// NewWriter returns a Writer. Close it to have the last bytes appended; Sync is
// up to the caller.
func (c *Core) NewWriter() *Writer { return &Writer{BlockSize: DefaultBlock, core: c} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (n int, err error) {
	if w.closed {
		return 0, cloudpal.E("write", cloudpal.Invalid, errors.New("the writer is closed"))
	}
	size := min(max(w.BlockSize, 1), MaxBlock)
	limit := max(writerBatch/size, 1) * size
	for len(p) > 0 {
		take := min(limit-len(w.buf), len(p))
		w.buf = append(w.buf, p[:take]...)
		p, n = p[take:], n+take
		if len(w.buf) == limit {
			if err := w.flush(size); err != nil {
				return n - take, err
			}
		}
	}
	return n, nil
}

// flush appends all that is there.
func (w *Writer) flush(size int) error {
	w.blocks = w.blocks[:0]
	for rest := w.buf; len(rest) > 0; {
		take := min(size, len(rest))
		w.blocks = append(w.blocks, rest[:take])
		rest = rest[take:]
	}
	if _, err := w.core.Append(w.blocks...); err != nil {
		return err
	}
	w.buf = w.buf[:0]
	return nil
}

// Close appends what is left.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	return w.flush(min(max(w.BlockSize, 1), MaxBlock))
}
