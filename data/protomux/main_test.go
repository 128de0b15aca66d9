package protomux

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// A wire is one end of a connection of messages in memory, of which each
// direction holds at most so many bytes before a write waits.
type wire struct {
	in, out *lane
	first   bool
}

type lane struct {
	mu     sync.Mutex
	cond   sync.Cond
	frames [][]byte
	bytes  int
	holds  int
	ended  bool // no more will be written
	closed bool // nobody reads or writes any more
	log    [][]byte
	keep   bool
}

// wires returns both ends of a connection.
func wires(holds int) (a, b *wire) {
	there, back := newLane(holds), newLane(holds)
	return &wire{in: back, out: there, first: true}, &wire{in: there, out: back}
}

func newLane(holds int) *lane {
	l := &lane{holds: holds}
	l.cond.L = &l.mu
	return l
}

func (w *wire) WriteMessage(b []byte) error { return w.out.write(b) }

func (l *lane) write(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.bytes >= l.holds && !l.closed && !l.ended {
		l.cond.Wait()
	}
	if l.closed || l.ended {
		return net.ErrClosed
	}
	b = slices.Clone(b)
	l.frames = append(l.frames, b)
	if l.keep {
		l.log = append(l.log, b)
	}
	l.bytes += len(b)
	l.cond.Broadcast()
	return nil
}

func (w *wire) ReadMessage() ([]byte, error) {
	l := w.in
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.frames) == 0 && !l.closed && !l.ended {
		l.cond.Wait()
	}
	if l.closed {
		return nil, net.ErrClosed
	}
	if len(l.frames) == 0 {
		return nil, io.EOF
	}
	b := l.frames[0]
	l.frames = l.frames[1:]
	l.bytes -= len(b)
	l.cond.Broadcast()
	return b, nil
}

func (w *wire) CloseWrite() error {
	w.out.set(&w.out.ended)
	return nil
}

func (w *wire) Close() error {
	w.out.set(&w.out.ended)
	w.in.set(&w.in.closed)
	return nil
}

func (l *lane) set(b *bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*b = true
	l.cond.Broadcast()
}

func (w *wire) HandshakeHash() [64]byte { return [64]byte{1} }
func (w *wire) Initiator() bool         { return w.first }
func (w *wire) RemoteKey() [32]byte     { return [32]byte{2} }

// A peer is a Mux that runs.
type peer struct {
	*Mux
	t    testing.TB
	done chan error
}

// run starts a Mux; the test waits for its end.
func run(t testing.TB, m *Mux) *peer {
	p := &peer{Mux: m, t: t, done: make(chan error, 1)}
	go func() { p.done <- m.Run(context.Background()) }()
	t.Cleanup(func() { m.Destroy(errors.New("the test is over")) })
	return p
}

// ended waits for Run, and returns what it did.
func (p *peer) ended() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(time.Minute):
		p.t.Fatal("Run does not return")
		return nil
	}
}

// A stranger speaks in frames of its own to a Mux.
type stranger struct {
	t testing.TB
	*wire
}

// meet returns a Mux that runs, and who is at the other end.
func meet(t testing.TB, limits Limits) (*peer, *stranger) {
	a, b := wires(64 << 20)
	return run(t, NewLimited(a, limits)), &stranger{t, b}
}

func (s *stranger) says(frames ...string) {
	s.t.Helper()
	for _, f := range frames {
		b, err := hex.DecodeString(f)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := s.WriteMessage(b); err != nil {
			s.t.Fatal(err)
		}
	}
}

// hears waits for frames.
func (s *stranger) hears(frames ...string) {
	s.t.Helper()
	for i, want := range frames {
		b, err := s.ReadMessage()
		if err != nil {
			s.t.Fatalf("frame %d: %v, want %s", i, err, want)
		}
		if got := hex.EncodeToString(b); got != want {
			s.t.Fatalf("frame %d: got %s, want %s", i, got, want)
		}
	}
}

// A diary is what handlers were told, in order.
type diary chan string

func (d diary) options(protocol string, id ...byte) ChannelOptions {
	return ChannelOptions{
		Protocol: protocol,
		ID:       id,
		OnOpen: func(handshake []byte) error {
			d <- fmt.Sprintf("%s opened %s", protocol, handshake)
			return nil
		},
		OnMessage: func(typ uint64, payload []byte) error {
			d <- fmt.Sprintf("%s %d %s", protocol, typ, payload)
			return nil
		},
		OnClose: func(reason error) { d <- fmt.Sprintf("%s closed: %v", protocol, reason) },
	}
}

// reads waits for entries.
func (d diary) reads(t testing.TB, entries ...string) {
	t.Helper()
	for i, want := range entries {
		select {
		case got := <-d:
			if got != want {
				t.Fatalf("entry %d: got %q, want %q", i, got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("entry %d: nothing, want %q", i, want)
		}
	}
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// send sends a text.
func send(t testing.TB, c *Channel, typ uint64, text string) {
	t.Helper()
	if err := c.Send(typ, []byte(text)); err != nil {
		t.Fatal(err)
	}
}
