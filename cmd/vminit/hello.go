package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// awaitHellos takes the host's hellos for good. It closes greeted after the
// first. It has a thread of its own that waits in the kernel: this is what the
// host waits for after each resume, and the way through the poller and the
// scheduler, on cold pages, costs milliseconds.
func awaitHellos(addr netip.AddrPort, g *greeter) (greeted <-chan struct{}, err error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	link, err := linkIndex()
	if err != nil {
		return nil, err
	}
	local := &unix.SockaddrInet6{Port: int(addr.Port()), ZoneId: link, Addr: addr.Addr().As16()}
	if err := unix.Bind(fd, local); err != nil {
		return nil, err
	}
	first := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		takeHellos(fd, g, first)
	}()
	return first, nil
}

func takeHellos(fd int, g *greeter, first chan<- struct{}) {
	buf := make([]byte, guest.HelloSize+1)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			continue
		}
		peer, ok := from.(*unix.SockaddrInet6)
		if !ok || netip.AddrFrom16(peer.Addr) != guest.HostAddr {
			continue
		}
		h, err := guest.ParseHello(buf[:n])
		if err != nil {
			continue
		}
		err = g.take(h, func() { _ = unix.Sendto(fd, h.Answer(), 0, peer) })
		if err != nil {
			fmt.Fprintf(os.Stderr, "vminit: take the host's time: %v\n", err)
			continue
		}
		if first != nil {
			close(first)
			first = nil
		}
	}
}

// A greeter takes hellos, whichever way they come.
type greeter struct {
	random int // /dev/random
	diary  *diary

	mu   sync.Mutex
	last [16]byte // the nonce of the last hello
}

func newGreeter(d *diary) (*greeter, error) {
	random, err := unix.Open("/dev/random", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	return &greeter{random: random, diary: d}, err
}

// take takes a hello and calls answer once this guest is ready for packets.
func (g *greeter) take(h guest.Hello, answer func()) error {
	// While one hello waits for programs, its repetitions wait here.
	g.mu.Lock()
	defer g.mu.Unlock()
	isNew := h.Nonce != g.last
	if err := take(h, g.random, isNew); err != nil {
		return err
	}
	g.last = h.Nonce
	if !isNew || h.Slept <= 0 {
		answer()
		return nil
	}
	g.diary.welcome(h, answer)
	return nil
}

// take sets the clock and, for a new hello, stirs in its seed and makes the
// kernel's generator use it at once.
func take(h guest.Hello, random int, isNew bool) error {
	ts := unix.NsecToTimespec(h.Time.UnixNano())
	// The datagram may have waited for this guest to run; a repetition comes
	// with a better time, and never sets the clock back by more.
	if now := time.Now(); isNew || h.Time.After(now) {
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return err
		}
	}
	if !isNew {
		return nil
	}
	// What is written is mixed in; its bits need not be credited to a
	// generator that has begun long ago (random(4)).
	if _, err := unix.Write(random, h.Seed[:]); err != nil {
		return err
	}
	return unix.IoctlSetInt(random, unix.RNDRESEEDCRNG, 0)
}
