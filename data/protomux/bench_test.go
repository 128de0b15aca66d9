package protomux

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/tradle/cloudpal/data/secretstream"
)

// TestNoAllocations has the ways of a message, in and out, allocate nothing.
func TestNoAllocations(t *testing.T) {
	m, handled := idle(t)
	c := m.local[0].channel
	payload := make([]byte, 1<<10)
	send := func() {
		if err := c.Send(0, payload[:8], payload[8:]); err != nil {
			t.Fatal(err)
		}
		m.out, m.queued = m.out[:0], 0
	}
	frame := append([]byte{1, 0}, payload...)
	receive := func() {
		if err := m.receive(frame); err != nil {
			t.Fatal(err)
		}
	}
	b := c.Batch()
	batch := func() {
		for range 10 {
			b.Add(0, payload)
		}
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
		m.out, m.queued = m.out[:0], 0
	}
	for name, f := range map[string]func(){"Send": send, "Batch": batch, "receive": receive} {
		if n := testing.AllocsPerRun(100, f); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if *handled != 101 {
		t.Errorf("%d messages were handled, want 101", *handled)
	}
}

// idle returns a Mux that is not run, with a channel that is open.
func idle(t testing.TB) (m *Mux, handled *int) {
	a, _ := wires(1 << 30)
	m = New(a)
	handled = new(int)
	open(t, m, ChannelOptions{Protocol: "x",
		OnMessage: func(uint64, []byte) error { *handled++; return nil },
		OnBatch:   func() error { return nil }})
	if err := m.receive([]byte{0, controlOpen, 1, 1, 'x', 0}); err != nil {
		t.Fatal(err)
	}
	m.out, m.queued = m.out[:0], 0
	return m, handled
}

func BenchmarkReceive(b *testing.B) {
	m, _ := idle(b)
	frame := append([]byte{1, 0}, make([]byte, 1<<10)...)
	b.SetBytes(1 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.receive(frame); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTCP sends messages on a channel of a secretstream over loopback: one
// by one, and 64 KiB or more in a batch.
func BenchmarkTCP(b *testing.B) {
	for _, n := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprint("Send/", n), func(b *testing.B) {
			message := make([]byte, n)
			benchmark(b, n, func(c *Channel) error {
				for range b.N {
					if err := c.Send(0, message); err != nil {
						return err
					}
				}
				return nil
			})
		})
		b.Run(fmt.Sprint("Batch/", n), func(b *testing.B) {
			message := make([]byte, n)
			benchmark(b, n, func(c *Channel) error {
				batch := c.Batch()
				for range b.N {
					batch.Add(0, message)
					if batch.Len() < 64<<10 {
						continue
					}
					if err := batch.Send(); err != nil {
						return err
					}
				}
				return batch.Send()
			})
		})
	}
}

func benchmark(b *testing.B, n int, send func(c *Channel) error) {
	from, to := secretPair(b)
	got := 0
	done := make(chan bool)
	open(b, to.Mux, ChannelOptions{Protocol: "x", OnMessage: func(uint64, []byte) error {
		if got++; got == b.N {
			close(done)
		}
		return nil
	}})
	c := open(b, from.Mux, ChannelOptions{Protocol: "x"})
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	if err := send(c); err != nil {
		b.Fatal(err)
	}
	<-done
}

// secretPair returns two Muxes over a secretstream over TCP.
func secretPair(t testing.TB) (a, b *peer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan Conn, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		conn, err := secretstream.Handshake(context.Background(), raw, secretstream.Config{})
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := secretstream.Handshake(context.Background(), raw, secretstream.Config{Initiator: true})
	if err != nil {
		t.Fatal(err)
	}
	return run(t, New(conn)), run(t, New(<-accepted))
}
