package hyperblobs

import (
	"context"
	"errors"
	"io"

	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal"
)

// Options say how a blob is written.
type Options struct {
	// BlockSize is how many bytes a block has; 0 is BlockSize, and the most is
	// MaxBlockSize.
	BlockSize int
	// Shared lets others write at the same time: a blob of more than 1 MiB gets
	// a block map. It has then at most 524,288 blocks; the second half of them
	// are of 1 MiB where BlockSize is less, which makes 272 GiB by default.
	Shared bool
	// BlockMap writes a block map in any case.
	BlockMap bool
	// Deduplicate writes a block map in which equal blocks are one.
	Deduplicate bool
	// Like is a blob whose blocks a deduplicated one may use. It is read in
	// full first.
	Like *ID
}

// laterBlockSize is the size of blocks in the second half of a block map.
const laterBlockSize = 1 << 20

// A Writer writes one blob. Close ends the blob, after which ID says where it
// is; Cancel gives it up. One of the two must be called.
type Writer struct {
	blobs   *Blobs
	ctx     context.Context // of the write, as a request's is: an io.Writer has no other place for it
	options Options

	buf    []byte
	id     ID
	size   int64
	locked bool // the blobs are ours until the end
	seen   map[[32]byte]extent
	m      blockMap
	err    error // the first, or why there can be no more
}

var errClosed = cloudpal.E("write a blob", cloudpal.Invalid, errors.New("the writer is closed"))

// NewWriter returns a Writer. ctx ends its waiting for other writers, and with
// it the writer.
func (b *Blobs) NewWriter(ctx context.Context, o Options) *Writer {
	if o.BlockSize == 0 {
		o.BlockSize = BlockSize
	}
	w := &Writer{blobs: b, ctx: ctx, options: o, id: ID{BlockMap: o.Shared || o.BlockMap || o.Deduplicate}}
	if o.BlockSize < 0 || o.BlockSize > MaxBlockSize {
		w.err = cloudpal.E("write a blob", cloudpal.Invalid, errors.New("a block is from 1 byte to 8 MiB long"))
	}
	return w
}

// ID returns where the blob is, once Close has returned without an error.
func (w *Writer) ID() ID { return w.id }

// Size returns how many bytes were written.
func (w *Writer) Size() int64 { return w.size }

// Write takes bytes of the blob; it appends them to the log when there are
// enough of them.
func (w *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.err == nil && len(w.buf) >= w.room() {
			w.fail(w.flush())
		}
		if w.err != nil {
			return n, w.err
		}
		k := min(len(p), w.room()-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p, n, w.size = p[k:], n+k, w.size+int64(k)
	}
	return n, w.err
}

// ReadFrom writes all that r has. What r fails with is the writer's error,
// too, so that half a blob cannot become one.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	for w.err == nil {
		if len(w.buf) >= w.room() {
			w.fail(w.flush())
			continue
		}
		w.grow()
		k, err := r.Read(w.buf[len(w.buf):min(cap(w.buf), w.room())])
		w.buf, n, w.size = w.buf[:len(w.buf)+k], n+int64(k), w.size+int64(k)
		if err == io.EOF {
			return n, nil
		}
		w.fail(err)
	}
	return n, w.err
}

// grow makes room in the buffer, in steps, as most blobs are small.
func (w *Writer) grow() {
	if len(w.buf) < cap(w.buf) {
		return
	}
	larger := make([]byte, len(w.buf), min(max(4<<10, 4*len(w.buf)), w.room()))
	copy(larger, w.buf)
	w.buf = larger
}

// room returns how many bytes are held at most: whole blocks.
func (w *Writer) room() int {
	size := w.blockSize()
	return max(appendSize/size, 1) * size
}

func (w *Writer) blockSize() int {
	if len(w.m) >= maxMapBlocks*maxMapEntries/2 {
		return max(w.options.BlockSize, laterBlockSize)
	}
	return w.options.BlockSize
}

func (w *Writer) fail(err error) {
	if w.err == nil && err != nil {
		w.err = err
	}
}

// flush appends what is held.
func (w *Writer) flush() error {
	if w.ctx.Err() != nil {
		return cloudpal.E("write a blob", cloudpal.Timeout, w.ctx.Err())
	}
	blocks := cut(make([][]byte, 0, 16), w.buf, w.blockSize())
	write := w.flushPlain
	if w.id.BlockMap {
		write = w.flushMapped
	}
	err := write(blocks)
	w.buf = w.buf[:0]
	return err
}

// flushPlain appends blocks behind those before, and has the blobs from the
// first of them on.
func (w *Writer) flushPlain(blocks [][]byte) error {
	if !w.locked {
		if err := w.blobs.lock(w.ctx); err != nil {
			return err
		}
		w.locked = true
		w.id = ID{BlockOffset: w.blobs.log.Length(), ByteOffset: w.blobs.log.ByteLength()}
	}
	_, err := w.blobs.appendAt(w.id.End(), blocks)
	if err == nil {
		w.id.BlockLength += uint64(len(blocks))
		w.id.ByteLength += uint64(len(w.buf))
	}
	return err
}

// flushMapped appends blocks wherever the log ends, and notes where that is.
func (w *Writer) flushMapped(blocks [][]byte) error {
	if len(w.m)+len(blocks) > maxMapBlocks*maxMapEntries {
		return cloudpal.E("write a blob", cloudpal.NoSpace, errors.New("a block map lists no more blocks"))
	}
	if err := w.prepare(); err != nil {
		return err
	}
	if err := w.blobs.lock(w.ctx); err != nil {
		return err
	}
	defer w.blobs.unlock()
	start := w.blobs.log.Length()
	fresh := w.place(start, blocks)
	_, err := w.blobs.appendAt(start, fresh)
	return err
}

// place adds blocks to the map, and returns those that have to be written, the
// first of them at start.
func (w *Writer) place(start uint64, blocks [][]byte) (fresh [][]byte) {
	for _, block := range blocks {
		at := extent{index: start + uint64(len(fresh)), length: uint64(len(block))}
		if w.options.Deduplicate {
			hash := blake2b.Sum256(block)
			if same, ok := w.seen[hash]; ok {
				w.m = w.m.add(same.index, same.length)
				continue
			}
			w.seen[hash] = at
		}
		w.m = w.m.add(at.index, at.length)
		fresh = append(fresh, block)
	}
	return fresh
}

// prepare reads the blob whose blocks may be used again.
func (w *Writer) prepare() error {
	if !w.options.Deduplicate || w.seen != nil {
		return nil
	}
	w.seen = map[[32]byte]extent{}
	if w.options.Like == nil {
		return nil
	}
	r, err := w.blobs.NewReader(w.ctx, *w.options.Like)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		block, err := r.nextBlock()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		w.seen[blake2b.Sum256(block)] = extent{index: r.index, length: uint64(len(block))}
	}
}

// Close appends what is left and ends the blob.
func (w *Writer) Close() error {
	if w.err == nil {
		w.fail(w.finish())
	}
	if w.err != nil {
		err := w.err
		w.Cancel()
		return err
	}
	w.release()
	w.err = errClosed
	return nil
}

func (w *Writer) finish() error {
	if w.m == nil && !w.options.BlockMap && !w.options.Deduplicate {
		w.id.BlockMap = false // all of it is held, and can be appended at once
	}
	if len(w.buf) > 0 || !w.locked {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if !w.id.BlockMap {
		return nil
	}
	if err := w.blobs.lock(w.ctx); err != nil {
		return err
	}
	defer w.blobs.unlock()
	blocks := w.m.encode()
	w.id.BlockOffset, w.id.ByteOffset = w.blobs.log.Length(), w.blobs.log.ByteLength()
	w.id.BlockLength = uint64(len(blocks))
	for _, b := range blocks {
		w.id.ByteLength += uint64(len(b))
	}
	_, err := w.blobs.appendAt(w.id.BlockOffset, blocks)
	return err
}

// Cancel gives the blob up; what is in the log of it already is cleared here,
// save blocks that a deduplicated one may share. It does nothing after Close.
func (w *Writer) Cancel() {
	if w.err == errClosed {
		return
	}
	var spans []Span
	if w.locked {
		spans = []Span{{w.id.BlockOffset, w.id.End()}}
	} else if !w.options.Deduplicate {
		spans = w.m.spans()
	}
	for _, s := range spans {
		_ = w.blobs.log.Clear(s.Start, s.End) // these blocks mean nothing to anybody, they only take room
	}
	w.release()
	w.id, w.m, w.err = ID{}, nil, errClosed
}

func (w *Writer) release() {
	if w.locked {
		w.locked = false
		w.blobs.unlock()
	}
	w.buf, w.seen = nil, nil
}
