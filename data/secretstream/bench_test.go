package secretstream

import (
	"fmt"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// sizes are those of small messages and of blocks; one byte more is the way of
// lengths that are no multiple of 8.
var sizes = []int{16, 1 << 10, 1<<10 + 1, 64 << 10, 64<<10 + 1}

// BenchmarkSeal is the cipher beside the AEAD that it is made of.
func BenchmarkSeal(b *testing.B) {
	for _, n := range sizes {
		box := make([]byte, blockSize+n+tagSize)
		b.Run(fmt.Sprint("secretstream/", n), func(b *testing.B) {
			var s stream
			s.init([32]byte{1}, make([]byte, headerSize))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				s.seal(box)
			}
		})
		b.Run(fmt.Sprint("aead/", n), func(b *testing.B) {
			aead, err := chacha20poly1305.New(make([]byte, 32))
			if err != nil {
				b.Fatal(err)
			}
			nonce := make([]byte, 12)
			b.SetBytes(int64(n))
			for b.Loop() {
				aead.Seal(box[:0], nonce, box[:n], nil)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var tx, rx stream
			tx.init([32]byte{1}, make([]byte, headerSize))
			frame := sealed(&tx, make([]byte, n))
			box := make([]byte, blockSize-1+len(frame))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				copy(box[blockSize-1:], frame)
				rx.init([32]byte{1}, make([]byte, headerSize)) // the same message again
				if _, err := rx.open(box); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTCP sends messages over loopback: raw, each written by itself, and
// queued, as a protomux does.
func BenchmarkTCP(b *testing.B) {
	for _, n := range []int{1 << 10, 64 << 10} {
		message := make([]byte, n)
		b.Run(fmt.Sprint("raw/", n), func(b *testing.B) {
			from, to := tcp(b)
			done := make(chan bool)
			go func() {
				defer close(done)
				buf := make([]byte, largeRead)
				for got := 0; got < b.N*n; {
					m, err := to.Read(buf)
					if err != nil {
						return
					}
					got += m
				}
			}()
			b.SetBytes(int64(n))
			b.ResetTimer()
			for range b.N {
				if _, err := from.Write(message); err != nil {
					b.Fatal(err)
				}
			}
			<-done
		})
		for name, send := range map[string]func(c *Conn) error{
			"written/": func(c *Conn) error { return c.WriteMessage(message) },
			"queued/":  func(c *Conn) error { return c.QueueMessage(message) },
		} {
			b.Run(name+fmt.Sprint(n), func(b *testing.B) { benchmarkConn(b, n, send) })
		}
	}
}

func benchmarkConn(b *testing.B, n int, send func(c *Conn) error) {
	from, to := tcp(b)
	initiator, responder := pair(b, from, to, Config{}, Config{})
	done := make(chan bool)
	go func() {
		defer close(done)
		for range b.N {
			if _, err := responder.ReadMessage(); err != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := send(initiator); err != nil {
			b.Fatal(err)
		}
	}
	if err := initiator.Flush(); err != nil {
		b.Fatal(err)
	}
	<-done
}

func BenchmarkHandshake(b *testing.B) {
	for b.Loop() {
		x, y := pipes(1 << 20)
		initiator, responder := pair(b, x, y, Config{Key: key(1)}, Config{Key: key(2)})
		initiator.Close()
		responder.Close()
	}
}
