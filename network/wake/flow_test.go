//go:build linux

package wake

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAPacketWakesAndIsDelivered(t *testing.T) {
	n, woken := opened(t)
	known(t, n, "a", 16, 0)
	v4, v6 := addresses(16)
	for i, addr := range []netip.Addr{v4, v6} {
		tell(t, port(t, addr), i)
		if got := await(t, woken, "a packet's wake"); got != addr {
			t.Errorf("got a wake for %v, want %v", got, addr)
		}
	}
	g := plugged(t, n, "a")
	defer g.close()
	if err := n.Admit("a"); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got := numberOf(g.receive()); got != i {
			t.Errorf("got %d, want %d", got, i)
		}
	}
	conn := port(t, v4)
	tell(t, conn, 2)
	if got := numberOf(g.receive()); got != 2 {
		t.Errorf("got %d, want 2", got)
	}
	g.send(datagram(netip.AddrPortFrom(v4, 7), local(conn), number(3)))
	if got := heard(t, conn); got != 3 {
		t.Errorf("the answer: got %d, want 3", got)
	}
	in, out, err := n.Stats("a")
	if err != nil || in < 3*32 || out < 32 {
		t.Errorf("got %d bytes in, %d out, %v", in, out, err)
	}
}

func TestAPacketToNobodyWakesNobody(t *testing.T) {
	n, woken := opened(t)
	known(t, n, "a", 16, 0)
	stranger, _ := addresses(17)
	v4, _ := addresses(16)
	tell(t, port(t, stranger), 1)
	tell(t, port(t, v4), 2)
	if got := await(t, woken, "a packet's wake"); got != v4 {
		t.Errorf("got a wake for %v, want only %v", got, v4)
	}
}

// inFlight is how many datagrams may be on their way: fewer than are held for
// one VM, so that none is dropped with reason.
const inFlight = 300

// A stream sends numbers to a VM without a pause, as fast as it takes them.
type stream struct {
	window chan struct{} // a place in it for each datagram on its way
	stop   chan struct{}
	ended  chan struct{}
	sent   atomic.Int64 // how many are sent, or being sent

	count     int // of those that were received
	newest    int // of those
	twice     []int
	overtaken []pair
	admitted  []pair // how many were sent when packets were let flow, and when they did
}

// A pair is a lesser number and a greater one.
type pair struct{ from, to int }

func startStream(t *testing.T, to netip.Addr) *stream {
	s := &stream{
		window: make(chan struct{}, inFlight), stop: make(chan struct{}), ended: make(chan struct{}), newest: -1,
	}
	conn := port(t, to)
	go func() {
		defer close(s.ended)
		for {
			select {
			case s.window <- struct{}{}:
			case <-s.stop:
				return
			}
			i := int(s.sent.Add(1)) - 1
			if _, err := conn.Write(number(i)); err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		}
	}()
	return s
}

// take counts the next packet that g has. It returns false when g is gone.
func (s *stream) take(g *guest) bool {
	ip := g.receive()
	if ip == nil {
		return false
	}
	got := numberOf(ip)
	if got < s.newest {
		s.overtaken = append(s.overtaken, pair{got, s.newest})
	}
	s.newest = max(s.newest, got)
	s.count++
	select {
	case <-s.window:
	default:
		s.twice = append(s.twice, got)
	}
	return true
}

// nap lets a guest have some packets and be gone in the middle of reading, with
// more on their way, and plugs it out. Asleep says that packets are held before
// it is gone.
func (s *stream) nap(t *testing.T, n *Network, packets int, asleep bool) {
	t.Helper()
	g := plugged(t, n, "a")
	defer g.close()
	read, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for i := 0; s.take(g); i++ {
			if i == packets {
				close(read)
			}
		}
	}()
	from := int(s.sent.Load())
	if err := n.Admit("a"); err != nil {
		t.Fatal(err)
	}
	s.admitted = append(s.admitted, pair{from, int(s.sent.Load())})
	await(t, read, "packets")
	if asleep {
		if err := n.Hold("a"); err != nil {
			t.Fatal(err)
		}
	}
	g.gone()
	await(t, gone, "the guest's end")
	if err := n.Unplug("a"); err != nil {
		t.Fatal(err)
	}
}

// inOrder fails the test if a packet overtook another, save where both were sent
// while packets were being let flow: there, what one core sends passes what the
// kernel had kept and sends on another. Order among those that were held, and
// before and behind them, is promised.
func (s *stream) inOrder(t *testing.T) {
	t.Helper()
	for _, o := range s.overtaken {
		if !slices.ContainsFunc(s.admitted, func(a pair) bool { return a.from <= o.from && o.to <= a.to }) {
			t.Errorf("got %d behind %d; packets were let flow at %v", o.from, o.to, s.admitted)
		}
	}
}

// TestNoneIsLostAndAllAreInOrder has a VM fall asleep, wake, and die in the
// middle of reading, again and again, while it is sent packets.
func TestNoneIsLostAndAllAreInOrder(t *testing.T) {
	v4, v6 := addresses(16)
	for _, addr := range []netip.Addr{v4, v6} {
		t.Run(addr.String(), func(t *testing.T) {
			n, _ := opened(t)
			known(t, n, "a", 16, 0)
			s := startStream(t, addr)
			for nap := range 12 {
				s.nap(t, n, 200+rand.IntN(2000), nap%2 == 0)
			}
			close(s.stop)
			await(t, s.ended, "the stream's end")
			g := plugged(t, n, "a")
			defer g.close()
			if err := n.Admit("a"); err != nil {
				t.Fatal(err)
			}
			sent := int(s.sent.Load())
			for s.count < sent && s.take(g) {
			}
			s.inOrder(t)
			if s.count != sent || len(s.twice) > 0 {
				t.Errorf("got %d of %d packets, and twice: %v", s.count, sent, s.twice)
			}
		})
	}
}

func TestUnplugTakesBackWhatNobodyRead(t *testing.T) {
	n, _ := opened(t)
	v := known(t, n, "a", 16, 0)
	v4, _ := addresses(16)
	conn := port(t, v4)
	g := plugged(t, n, "a")
	defer g.close()
	if err := n.Admit("a"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		tell(t, conn, i)
	}
	for i := range 4 {
		if got := numberOf(g.receive()); got != i {
			t.Fatalf("got %d, want %d", got, i)
		}
	}
	if err := n.Hold("a"); err != nil {
		t.Fatal(err)
	}
	for i := 10; i < 15; i++ {
		tell(t, conn, i)
	}
	n.awaitPassing()
	if err := n.Unplug("a"); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(numbers(v)), "[4 5 6 7 8 9 10 11 12 13 14]"; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if v.size+n.room != maxHeldTotal {
		t.Errorf("got %d bytes held and %d of room, want %d in all", v.size, n.room, maxHeldTotal)
	}
}

func TestAdoptGoesOnWhereAnotherRunWas(t *testing.T) {
	n, _ := opened(t)
	known(t, n, "a", 16, 0)
	v4, _ := addresses(16)
	conn := port(t, v4)
	g := plugged(t, n, "a")
	defer g.close()
	if err := n.Admit("a"); err != nil {
		t.Fatal(err)
	}
	v, err := n.find("a")
	if err != nil {
		t.Fatal(err)
	}
	f, name := v.tap.File, v.tap.Name
	for _, admitted := range []bool{true, false} {
		n.Remove("a")
		g.v = known(t, n, "a", 16, 0)
		if err := n.Adopt("a", f, name, admitted); err != nil {
			t.Fatal(err)
		}
		tell(t, conn, 1)
		n.awaitPassing()
		if held := len(g.v.held); (held == 0) != admitted {
			t.Errorf("admitted %v: got %d packets held", admitted, held)
		}
		if !admitted {
			if err := n.Admit("a"); err != nil {
				t.Fatal(err)
			}
		}
		if got := numberOf(g.receive()); got != 1 {
			t.Errorf("admitted %v: got %d, want 1", admitted, got)
		}
	}
	if err := n.Adopt("a", f, "lo", true); err == nil {
		t.Error("the loopback is adopted as a tap")
	}
}

// TestLimitSlowsWhatAVMReceives only says how long it takes at least: a slow
// machine makes no difference.
func TestLimitSlowsWhatAVMReceives(t *testing.T) {
	n, _ := opened(t)
	const rate, size, burst = 400_000, 1000, 128 << 10
	known(t, n, "a", 16, rate)
	v4, _ := addresses(16)
	conn := port(t, v4)
	g := plugged(t, n, "a")
	defer g.close()
	if err := n.Admit("a"); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	const count = 500
	start := time.Now()
	for i := range count {
		// At most 50 on their way, so that none is dropped.
		if i >= 50 {
			g.receive()
		}
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		if g.receive() == nil {
			t.Fatal("one was lost")
		}
	}
	least := time.Duration(float64(count*size-burst) / rate * float64(time.Second))
	if took := time.Since(start); took < least {
		t.Errorf("%d bytes took %v, want at least %v", count*size, took, least)
	}
}

func TestLimitDropsWhatAVMSendsTooFast(t *testing.T) {
	n, _ := opened(t)
	const rate, size, burst = 100_000, 1000, 128 << 10
	known(t, n, "a", 16, rate)
	v4, _ := addresses(16)
	conn := port(t, v4)
	if err := conn.SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	g := plugged(t, n, "a")
	defer g.close()
	if err := n.Admit("a"); err != nil {
		t.Fatal(err)
	}
	tell(t, conn, 0) // asks, so that what comes is an answer
	g.receive()
	data := make([]byte, size)
	const count = 1000
	start := time.Now()
	for range count {
		g.send(datagram(netip.AddrPortFrom(v4, 7), local(conn), data))
	}
	most := burst + int(rate*time.Since(start).Seconds()) + 2*size
	got := drain(t, conn)
	if got == 0 || got > most {
		t.Errorf("got %d of %d bytes, want some, and at most %d", got, count*size, most)
	}
}

// drain returns how many bytes have come to conn.
func drain(t *testing.T, conn *net.UDPConn) (bytes int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	err = raw.Control(func(fd uintptr) {
		for {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			bytes += n
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}
