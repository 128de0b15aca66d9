package secretstream

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"filippo.io/edwards25519"

	"github.com/tradle/cloudpal"
)

// badPoints are encodings of what is no public key, by why.
func badPoints(t testing.TB) map[string][]byte {
	t.Helper()
	bad := map[string][]byte{}
	for name, text := range map[string]string{
		"the identity":                   "0100000000000000000000000000000000000000000000000000000000000000",
		"order 2":                        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"order 4":                        "0000000000000000000000000000000000000000000000000000000000000000",
		"order 4, negative":              "0000000000000000000000000000000000000000000000000000000000000080",
		"order 8":                        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"order 8, another":               "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"p, which is 0":                  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"p+1, which is 1":                "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"the identity, and a minus sign": "0100000000000000000000000000000000000000000000000000000000000080",
		"not on the curve":               "0200000000000000000000000000000000000000000000000000000000000000",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		bad[name] = b
	}
	good, err := new(edwards25519.Point).SetBytes(public(key(1))[:])
	if err != nil {
		t.Fatal(err)
	}
	small, err := new(edwards25519.Point).SetBytes(bad["order 8"])
	if err != nil {
		t.Fatal(err)
	}
	bad["a key and a point of order 8"] = good.Add(good, small).Bytes()
	return bad
}

func TestBadPublicKeys(t *testing.T) {
	for name, b := range badPoints(t) {
		if shared, err := (edwards{}).DH(key(1).Seed(), b); err == nil {
			t.Errorf("%s: agreed on %x", name, shared)
		}
		a, other := tcp(t)
		go func() { a.Write(append(appendLength(nil, 32), b...)) }()
		if _, err := Handshake(t.Context(), other, Config{}); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s, in a handshake: got %v, want %v", name, err, cloudpal.Invalid)
		}
	}
}

// TestGarbage has strangers say things that are no handshake.
func TestGarbage(t *testing.T) {
	for name, say := range map[string][]byte{
		"another protocol":      []byte("GET / HTTP/1.1\r\n\r\n"),
		"a frame of no bytes":   {0, 0, 0},
		"a frame of 16 MiB":     {0xff, 0xff, 0xff},
		"a message too long":    append(appendLength(nil, 33), make([]byte, 33)...),
		"a message of zeros":    append(appendLength(nil, 32), make([]byte, 32)...),
		"a message 3 of zeros":  append(append(appendLength(nil, 32), public(key(1))[:]...), append(appendLength(nil, 64), make([]byte, 64)...)...),
		"message 1 of 16 bytes": append(appendLength(nil, 16), make([]byte, 16)...),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcp(t)
			go a.Write(say)
			begun := time.Now()
			_, err := Handshake(t.Context(), b, Config{})
			if !errors.Is(err, cloudpal.Invalid) || time.Since(begun) > 5*time.Second {
				t.Errorf("after %v: got %v, want %v", time.Since(begun), err, cloudpal.Invalid)
			}
			a.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, a); errors.Is(err, cloudpal.Timeout) {
				t.Error("the connection is not closed")
			}
		})
	}
}

// TestReplay says again all that an initiator said before, to the same
// responder and, as the responder, to the same initiator.
func TestReplay(t *testing.T) {
	a, b := tcp(t)
	ta, tb := &tap{ReadWriteCloser: a}, &tap{ReadWriteCloser: b}
	initiator, responder := pair(t, ta, tb, Config{Key: key(1)}, Config{Key: key(2)})
	initiator.WriteMessage([]byte("pay eve"))
	want(t, responder, []byte("pay eve"))
	for _, again := range []struct {
		said []byte
		to   Config
	}{{ta.wrote.Bytes(), Config{Key: key(2)}}, {tb.wrote.Bytes(), Config{Key: key(1), Initiator: true}}} {
		c, d := tcp(t)
		go io.Copy(io.Discard, c)
		go c.Write(again.said)
		if _, err := Handshake(t.Context(), d, again.to); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("initiator %v: got %v, want %v", again.to.Initiator, err, cloudpal.Invalid)
		}
	}
}

// TestTampered changes, repeats, drops and swaps frames on the way.
func TestTampered(t *testing.T) {
	for name, tamper := range map[string]func(frames [][]byte) [][]byte{
		"a bit":             func(f [][]byte) [][]byte { f[1][10] ^= 1; return f },
		"the header's id":   func(f [][]byte) [][]byte { f[0][lengthSize] ^= 1; return f },
		"the header":        func(f [][]byte) [][]byte { f[0][lengthSize+idSize] ^= 1; return f },
		"said twice":        func(f [][]byte) [][]byte { return [][]byte{f[0], f[1], f[1]} },
		"one is missing":    func(f [][]byte) [][]byte { return [][]byte{f[0], f[2]} },
		"in another order":  func(f [][]byte) [][]byte { return [][]byte{f[0], f[2], f[1]} },
		"the header twice":  func(f [][]byte) [][]byte { return [][]byte{f[0], f[0], f[1]} },
		"no header":         func(f [][]byte) [][]byte { return [][]byte{f[1], f[2]} },
		"a frame too short": func(f [][]byte) [][]byte { return append(f, []byte{16, 0, 0}, make([]byte, 16)) },
		"a frame too long":  func(f [][]byte) [][]byte { return append(f, []byte{0xff, 0xff, 0x7f}) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcp(t)
			m := &mute{ReadWriteCloser: a, after: 2*lengthSize + 32 + 64}
			ta := &tap{ReadWriteCloser: m}
			initiator, responder := pair(t, ta, b, Config{}, Config{MaxMessage: 1 << 10})
			initiator.WriteMessage([]byte("first message"))
			initiator.WriteMessage([]byte("second message"))
			frames := cut(ta.wrote.Bytes())[2:]
			for _, f := range tamper(frames) {
				a.Write(f)
			}
			var err error
			for read := 0; err == nil && read < 4; read++ {
				_, err = responder.ReadMessage()
			}
			if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				t.Fatalf("got %v", err)
			}
			if _, again := responder.ReadMessage(); again == nil {
				t.Error("reading goes on after that")
			}
			if err := responder.WriteMessage(nil); err == nil {
				t.Error("writing goes on after that")
			}
		})
	}
}

// cut returns the frames of what was written.
func cut(b []byte) (frames [][]byte) {
	for len(b) > 0 {
		n := lengthSize + int(b[0]) + int(b[1])<<8 + int(b[2])<<16
		frames = append(frames, bytes.Clone(b[:n]))
		b = b[n:]
	}
	return frames
}

// TestMirror sends an initiator what it says itself.
func TestMirror(t *testing.T) {
	a, b := tcp(t)
	go io.Copy(b, b)
	if _, err := Handshake(t.Context(), a, Config{Initiator: true}); err == nil {
		t.Error("shook hands with itself")
	}
}

// TestTwoOfAKind has two responders, or two initiators, fail rather than wait.
func TestTwoOfAKind(t *testing.T) {
	a, b := tcp(t)
	errs := make(chan error)
	for _, c := range []net.Conn{a, b} {
		go func() {
			_, err := Handshake(t.Context(), c, Config{Initiator: true})
			errs <- err
		}()
	}
	for range 2 {
		if err := <-errs; err == nil {
			t.Error("two initiators shook hands")
		}
	}
}
