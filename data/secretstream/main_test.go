package secretstream

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"os"
	"sync"
	"testing"
)

// A hexBytes is bytes that a vector has as hex.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	*h, err = hex.DecodeString(s)
	return err
}

// readVectors reads what the JavaScript originals made.
func readVectors(t testing.TB, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/secret-stream.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

// key returns the key whose seed is 32 times b.
func key(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32))
}

// public returns a key's public half.
func public(k ed25519.PrivateKey) *[32]byte { return (*[32]byte)(k[32:]) }

// tcp returns the two ends of a connection over loopback.
func tcp(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// pair returns two Conns that have shaken hands over a and b.
func pair(t testing.TB, a, b io.ReadWriteCloser, ca, cb Config) (initiator, responder *Conn) {
	t.Helper()
	ca.Initiator, cb.Initiator = true, false
	done := make(chan error, 1)
	go func() {
		var err error
		responder, err = Handshake(context.Background(), b, cb)
		done <- err
	}()
	initiator, err := Handshake(context.Background(), a, ca)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { initiator.Close(); responder.Close() })
	return initiator, responder
}

// A tap keeps what is written.
type tap struct {
	io.ReadWriteCloser
	mu    sync.Mutex
	wrote bytes.Buffer
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.wrote.Write(b)
	p.mu.Unlock()
	return p.ReadWriteCloser.Write(b)
}

// want reads a message and compares it.
func want(t testing.TB, c *Conn, message []byte) {
	t.Helper()
	got, err := c.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, message) {
		t.Fatalf("got a message of %d bytes, want one of %d: %.40x, not %.40x", len(got), len(message), got, message)
	}
}

// A pipe is one end of a connection in memory, of which each direction holds
// at most so many bytes before a write waits.
type pipe struct{ in, out *lane }

type lane struct {
	mu    sync.Mutex
	cond  sync.Cond
	bytes []byte
	holds int
	ended bool
}

// pipes returns both ends of a connection.
func pipes(holds int) (a, b *pipe) {
	there, back := &lane{holds: holds}, &lane{holds: holds}
	there.cond.L, back.cond.L = &there.mu, &back.mu
	return &pipe{in: back, out: there}, &pipe{in: there, out: back}
}

func (p *pipe) Write(b []byte) (int, error) {
	l := p.out
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := 0; n < len(b); {
		for len(l.bytes) >= l.holds && !l.ended {
			l.cond.Wait()
		}
		if l.ended {
			return n, io.ErrClosedPipe
		}
		more := min(len(b)-n, l.holds-len(l.bytes))
		l.bytes = append(l.bytes, b[n:n+more]...)
		n += more
		l.cond.Broadcast()
	}
	return len(b), nil
}

func (p *pipe) Read(b []byte) (int, error) {
	l := p.in
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.bytes) == 0 && !l.ended {
		l.cond.Wait()
	}
	if len(l.bytes) == 0 {
		return 0, io.EOF
	}
	n := copy(b, l.bytes)
	l.bytes = l.bytes[n:]
	l.cond.Broadcast()
	return n, nil
}

func (p *pipe) Close() error {
	for _, l := range []*lane{p.in, p.out} {
		l.mu.Lock()
		l.ended = true
		l.cond.Broadcast()
		l.mu.Unlock()
	}
	return nil
}
