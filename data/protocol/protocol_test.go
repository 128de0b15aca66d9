package protocol

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/protomux"
	"github.com/tradle/cloudpal/data/secretstream"
	"github.com/tradle/cloudpal/data/storage"
)

// Two peers bring the second up to date, and all blocks are the same.
func TestFull(t *testing.T) {
	writer := newWriter(t, hypercore.Options{})
	fill(t, writer, 0, 3000)
	reader := newReader(t, writer, hypercore.Options{})
	connect(t, writer, Options{}, reader, Options{Full: true})
	waitAll(t, reader, 3000)
	sameBlocks(t, writer, reader, 0, 3000)
	if writer.TreeHash() != reader.TreeHash() {
		t.Error("the trees differ")
	}
}

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return c
}

func newWriter(t testing.TB, o hypercore.Options) *hypercore.Core {
	t.Helper()
	s := storage.Memory()
	t.Cleanup(func() { s.Close() })
	c, err := hypercore.Create(s, o)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func newReader(t testing.TB, writer *hypercore.Core, o hypercore.Options) *hypercore.Core {
	t.Helper()
	s := storage.Memory()
	t.Cleanup(func() { s.Close() })
	c, err := hypercore.Open(s, writer.Key(), o)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func block(i uint64) []byte { return fmt.Appendf(nil, "block %d", i) }

func fill(t testing.TB, c *hypercore.Core, start, end uint64) {
	t.Helper()
	var blocks [][]byte
	for i := start; i < end; i++ {
		blocks = append(blocks, block(i))
	}
	_, err := c.Append(blocks...)
	must(t, err)
}

// connect joins two cores, and returns their replicators.
func connect(t testing.TB, a *hypercore.Core, ao Options, b *hypercore.Core, bo Options) (*Replicator, *Replicator) {
	t.Helper()
	ra, rb := replicator(t, a, ao), replicator(t, b, bo)
	link(t, ra, rb)
	return ra, rb
}

func replicator(t testing.TB, c *hypercore.Core, o Options) *Replicator {
	t.Helper()
	r := NewReplicator(c, o)
	t.Cleanup(func() { r.Close() })
	return r
}

// A wire is a connection of two peers.
type wire struct {
	a, b *protomux.Mux
	errs chan error
}

// link connects two replicators.
func link(t testing.TB, a, b *Replicator) *wire {
	t.Helper()
	w := newWire(t)
	must(t, a.Open(w.a))
	must(t, b.Open(w.b))
	w.run(t)
	return w
}

func newWire(t testing.TB) *wire {
	t.Helper()
	one, two := conns(t)
	type result struct {
		conn *secretstream.Conn
		err  error
	}
	other := make(chan result, 1)
	go func() {
		c, err := secretstream.Handshake(context.Background(), two, secretstream.Config{})
		other <- result{c, err}
	}()
	first, err := secretstream.Handshake(context.Background(), one, secretstream.Config{Initiator: true})
	must(t, err)
	second := <-other
	must(t, second.err)
	return &wire{protomux.New(first), protomux.New(second.conn), make(chan error, 2)}
}

// conns returns two ends of a connection that holds some bytes in between.
func conns(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	a, err = net.Dial("tcp4", ln.Addr().String())
	must(t, err)
	b, err = ln.Accept()
	must(t, err)
	return a, b
}

func (w *wire) run(t testing.TB) {
	running, stop := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	for _, m := range []*protomux.Mux{w.a, w.b} {
		go func() {
			w.errs <- m.Run(running)
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		stop()
		<-done
		<-done
	})
}

// waitAll waits until a core has length blocks, all of them here.
func waitAll(t testing.TB, c *hypercore.Core, length uint64) {
	t.Helper()
	waitFor(t, c, func() bool { return c.Length() == length && c.Contiguous() == length })
}

// waitFor waits until something is true of a core.
func waitFor(t testing.TB, c *hypercore.Core, ok func() bool) {
	t.Helper()
	changed := make(chan struct{}, 1)
	stop := c.Watch(func(hypercore.Event) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer stop()
	end := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-changed:
		case <-end:
			t.Fatalf("length %d, contiguous %d, fork %d after a minute", c.Length(), c.Contiguous(), c.Fork())
		}
	}
}

func sameBlocks(t testing.TB, want, got *hypercore.Core, start, end uint64) {
	t.Helper()
	for i := start; i < end; i++ {
		a, err := want.Local(i)
		must(t, err)
		b, err := got.Local(i)
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Fatalf("block %d is %q, want %q", i, b, a)
		}
	}
}
