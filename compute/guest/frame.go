package guest

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A FrameKind says what a frame of an exec stream carries.
type FrameKind byte

// The kinds. The host sends the first four, the guest the last three. The
// stream ends with FrameExit.
const (
	FrameStdin    FrameKind = 'i' // bytes for the process; an empty one is allowed
	FrameStdinEOF FrameKind = 'c' // there will be no more
	FrameResize   FrameKind = 'w' // JSON Size
	FrameSignal   FrameKind = 's' // a signal's name, "SIGINT"
	FrameStdout   FrameKind = 'o'
	FrameStderr   FrameKind = 'e'
	FrameExit     FrameKind = 'x' // JSON Exit
)

// MaxFrame bounds a frame's payload in bytes.
const MaxFrame = 32 << 10

// frameHeader is one byte of kind and four of length, big endian.
const frameHeader = 5

// WriteFrame writes one frame in one Write. The payload is at most MaxFrame
// bytes.
func WriteFrame(w io.Writer, kind FrameKind, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("a frame of %d bytes; at most %d are allowed", len(payload), MaxFrame)
	}
	b := make([]byte, frameHeader, frameHeader+len(payload))
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

// ReadFrame reads one frame. The payload is in buf where that is large enough
// (MaxFrame always is). io.EOF means that the stream ended between frames.
func ReadFrame(r io.Reader, buf []byte) (FrameKind, []byte, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes; at most %d are allowed", n, MaxFrame)
	}
	if int(n) > len(buf) {
		buf = make([]byte, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, noEOF(err)
	}
	return FrameKind(h[0]), buf[:n], nil
}

// noEOF makes an end in the middle of something an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
