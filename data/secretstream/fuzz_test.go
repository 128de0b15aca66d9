package secretstream

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/iotest"
)

// A tape is a connection on which something was said already, and where nobody
// listens.
type tape struct{ io.Reader }

func (tape) Write(b []byte) (int, error) { return len(b), nil }
func (tape) Close() error                { return nil }

// fixed is randomness for a test that must do the same each time.
func fixed(seed byte) io.Reader {
	return io.MultiReader(bytes.NewReader(key(seed).Seed()), bytes.NewReader(make([]byte, headerSize)))
}

// FuzzHandshake has both sides hear anything. With fixed randomness, what the
// corpus has of a whole conversation is accepted, so that what comes after a
// handshake is reached as well.
func FuzzHandshake(f *testing.F) {
	a, b := pipes(1 << 20)
	ta, tb := &tap{ReadWriteCloser: a}, &tap{ReadWriteCloser: b}
	initiator, responder := pair(f, ta, tb, Config{Key: key(1), random: fixed(0x11)}, Config{Key: key(2), random: fixed(0x22)})
	initiator.WriteMessage([]byte("hello"))
	responder.WriteMessage([]byte("hello"))
	f.Add(ta.wrote.Bytes(), false)
	f.Add(tb.wrote.Bytes(), true)
	f.Add(ta.wrote.Bytes()[:40], false)
	f.Add([]byte{0xff, 0xff, 0xff}, true)
	for _, p := range badPoints(f) {
		f.Add(append(appendLength(nil, 32), p...), false)
	}
	f.Fuzz(func(t *testing.T, said []byte, initiator bool) {
		c := Config{Key: key(2), random: fixed(0x22), KeepAlive: -1}
		if initiator {
			c = Config{Key: key(1), random: fixed(0x11), KeepAlive: -1, Initiator: true}
		}
		conn, err := Handshake(context.Background(), tape{bytes.NewReader(said)}, c)
		if err != nil {
			return
		}
		defer conn.Close()
		other := *public(key(1))
		if initiator {
			other = *public(key(2))
		}
		if conn.RemoteKey() != other && !initiator && bytes.HasPrefix(said, ta.wrote.Bytes()[:102]) {
			t.Errorf("a handshake of %x was taken for that of %x", other, conn.RemoteKey())
		}
		for err == nil {
			_, err = conn.ReadMessage()
		}
	})
}

// FuzzFrames reads frames, in pieces of all sizes, and compares them with a
// plain cutting up.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{1, 0, 0, 7, 2, 0, 0, 8, 9}, true)
	f.Add(append([]byte{0, 0x20, 0}, make([]byte, 0x2000)...), false)
	f.Add([]byte{0, 0, 0}, false)
	f.Add([]byte{0xff, 0xff, 0xff, 1}, false)
	f.Add(bytes.Repeat([]byte{3, 0, 0, 1, 2, 3}, 3000), false)
	f.Fuzz(func(t *testing.T, b []byte, slowly bool) {
		r := io.Reader(bytes.NewReader(b))
		if slowly {
			r = iotest.OneByteReader(r)
		}
		const least, most = 1, 1 << 14
		frames := newFrameReader(r)
		for rest := b; ; {
			frame, err := frames.next(least, most)
			if err != nil {
				checkFrameEnd(t, rest, err, least, most)
				return
			}
			n := int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16
			if !bytes.Equal(frame[blockSize-1:], rest[lengthSize:lengthSize+n]) {
				t.Fatalf("got %x, want %x", frame[blockSize-1:], rest[lengthSize:lengthSize+n])
			}
			clear(frame) // as the cipher may
			rest = rest[lengthSize+n:]
			if len(frames.buf) > 2*largeRead {
				t.Fatalf("a buffer of %d bytes", len(frames.buf))
			}
		}
	})
}

// checkFrameEnd checks why there is no further frame in rest.
func checkFrameEnd(t *testing.T, rest []byte, err error, least, most int) {
	t.Helper()
	size := -1
	if len(rest) >= lengthSize {
		size = int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16
	}
	want := errCut
	switch {
	case len(rest) == 0:
		want = io.EOF
	case size >= 0 && (size < least || size > most):
		want = errFrameSize
	}
	if err != want {
		t.Fatalf("before %.20x: got %v, want %v", rest, err, want)
	}
}
