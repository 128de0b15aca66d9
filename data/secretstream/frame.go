package secretstream

import (
	"errors"
	"io"
)

const (
	lengthSize = 3             // before each frame, little endian
	maxFrame   = 1<<24 - 1     // the largest that the length can say
	frontRoom  = 64            // free bytes before the first frame, for the box of stream.open
	smallRead  = 4 << 10       // what a quiet connection has
	largeRead  = 128 << 10     // what a busy one has, and the most asked for at once
	keepFrames = 64            // so many small frames after a large one, its buffer is given back
	shrinkOver = 2 * largeRead // a buffer of at most so much is kept
)

// What frames are refused with.
var (
	errFrameSize = errors.New("a frame of a size that none has")
	errCut       = errors.New("it ends inside a frame")
)

// A frameReader cuts what it reads into frames. A frame stays in the buffer it
// was read into, and is decrypted there. Memory is taken for what has arrived,
// never for what a length claims.
type frameReader struct {
	r          io.Reader
	buf        []byte
	start, end int  // what was read and not yet returned
	full       bool // the last read filled the buffer
	small      int  // frames since the last that needed much of the buffer
}

func newFrameReader(r io.Reader) frameReader {
	return frameReader{r: r, buf: make([]byte, smallRead), start: frontRoom, end: frontRoom}
}

// next returns the next frame with blockSize-1 bytes of room before it, which
// the caller may overwrite; both are valid until the next call. A frame must
// have from least to most bytes. At the end between two frames it returns
// io.EOF.
func (f *frameReader) next(least, most int) ([]byte, error) {
	if err := f.fill(lengthSize); err != nil {
		return nil, err
	}
	b := f.buf[f.start:]
	size := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if size < least || size > most {
		return nil, errFrameSize
	}
	if err := f.fill(lengthSize + size); err != nil {
		return nil, noEOF(err)
	}
	f.shrink(size)
	body := f.start + lengthSize
	f.start = body + size
	return f.buf[body-blockSize+1 : f.start], nil
}

// noEOF is for an end where there should be none.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return errCut
	}
	return err
}

// fill reads until n bytes are there.
func (f *frameReader) fill(n int) error {
	for f.end-f.start < n {
		f.room(n)
		read, err := f.r.Read(f.buf[f.end:])
		f.end += read
		f.full = f.end == len(f.buf)
		if err != nil && f.end-f.start < n {
			return f.cut(err)
		}
	}
	return nil
}

// cut tells an end inside a frame from one between two.
func (f *frameReader) cut(err error) error {
	if f.end > f.start {
		return noEOF(err)
	}
	return err
}

// room makes room to read into, towards a frame of n bytes of which some may
// be there.
func (f *frameReader) room(n int) {
	if f.start == f.end {
		f.start, f.end = frontRoom, frontRoom
	}
	if f.full && len(f.buf) < largeRead {
		f.move(min(4*len(f.buf), largeRead)) // much is coming: ask for more at once
		return
	}
	if f.start+n <= len(f.buf) {
		return
	}
	size := len(f.buf)
	if f.start <= frontRoom && f.end == size {
		size = min(2*size, frontRoom+n)
	}
	f.move(size)
}

// move brings what is there to the front of a buffer of a size.
func (f *frameReader) move(size int) {
	to := f.buf
	if size != len(f.buf) {
		to = make([]byte, size)
	}
	have := copy(to[frontRoom:], f.buf[f.start:f.end])
	f.buf, f.start, f.end, f.full = to, frontRoom, frontRoom+have, false
}

// shrink gives a large buffer back when frames have been small for a while.
func (f *frameReader) shrink(size int) {
	if len(f.buf) <= shrinkOver || size > len(f.buf)/4 {
		f.small = 0
		return
	}
	if f.small++; f.small >= keepFrames && f.end-f.start <= largeRead-frontRoom {
		f.move(largeRead)
		f.small = 0
	}
}
