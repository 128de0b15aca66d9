package data_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// A cutter passes connections on to a port, and cuts each after a number of
// bytes, counted both ways: the first ones soon, in the middle of handshakes, the
// later ones after more and more. When it has cut often enough it cuts no more.
type cutter struct {
	port int
	to   int

	mu   sync.Mutex
	rng  *rand.Rand
	left int // how often it will still cut
	made int // connections so far
}

func newCutter(t testing.TB, to int, seed uint64, cuts int) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	c := &cutter{port: ln.Addr().(*net.TCPAddr).Port, to: to, rng: rand.New(rand.NewPCG(seed, 1)), left: cuts}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			passing.Go(func() { c.pass(conn) })
		}
	})
	t.Cleanup(func() { ln.Close() })
	return c
}

// allowance is how many bytes the next connection may carry; less than zero if
// all it likes.
func (c *cutter) allowance() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	if c.left == 0 {
		return -1
	}
	c.left--
	return 1 + c.rng.Int64N(int64(200*c.made*c.made))
}

// cutsLeft is how often it will still cut.
func (c *cutter) cutsLeft() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}

func (c *cutter) pass(conn net.Conn) {
	defer conn.Close()
	far, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", c.to))
	if err != nil {
		return
	}
	defer far.Close()
	budget := &budget{left: c.allowance()}
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{conn, far}, {far, conn}} {
		go func() {
			io.Copy(way[0], budget.reader(way[1]))
			conn.Close()
			far.Close()
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}

// A budget of bytes that both directions of a connection share.
type budget struct {
	mu   sync.Mutex
	left int64
}

func (b *budget) reader(r io.Reader) io.Reader { return budgeted{r, b} }

type budgeted struct {
	io.Reader
	*budget
}

// Read gives what was read as far as the budget goes: the last bytes before the
// cut are still passed on.
func (b budgeted) Read(buf []byte) (int, error) {
	n, err := b.Reader.Read(buf)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < 0 || err != nil {
		return n, err
	}
	n = int(min(int64(n), b.left))
	b.left -= int64(n)
	if b.left == 0 {
		return n, io.EOF
	}
	return n, nil
}
