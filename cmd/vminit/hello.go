package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// awaitHellos takes the host's hellos for good. It closes greeted after the
// first. It has a thread of its own that waits in the kernel: this is what the
// host waits for after each resume, and the way through the poller and the
// scheduler, on cold pages, costs milliseconds.
func awaitHellos(addr netip.AddrPort) (greeted <-chan struct{}, err error) {
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
	random, err := unix.Open("/dev/random", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	first := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		takeHellos(fd, random, first)
	}()
	return first, nil
}

func takeHellos(fd, random int, first chan<- struct{}) {
	var last [16]byte
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
		if err := take(h, random, h.Nonce != last); err != nil {
			fmt.Fprintf(os.Stderr, "vminit: take the host's time: %v\n", err)
			continue
		}
		last = h.Nonce
		_ = unix.Sendto(fd, h.Answer(), 0, peer)
		if first != nil {
			close(first)
			first = nil
		}
	}
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
	// struct rand_pool_info (random(4)).
	pool := struct {
		bits, size int32
		seed       [32]byte
	}{8 * 32, 32, h.Seed}
	if err := ioctl(random, unix.RNDADDENTROPY, unsafe.Pointer(&pool)); err != nil {
		return err
	}
	return ioctl(random, unix.RNDRESEEDCRNG, nil)
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
