package firewall

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hearTimeout is how long a word may take that is heard.
const hearTimeout = 700 * time.Millisecond

// hears sends a word from an address of one namespace to one of another and
// tells whether it was heard there.
func hears(t *testing.T, listener, sender, network string, from netip.Addr, to netip.AddrPort) bool {
	t.Helper()
	heard := make(chan bool, 1)
	closeListener := listen(t, listener, network, to, heard)
	defer closeListener()
	err := inside(sender, func() error {
		d := net.Dialer{Timeout: hearTimeout}
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		c, err := d.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("word"))
		return err
	})
	if err != nil {
		var late net.Error
		if errors.As(err, &late) && late.Timeout() || errors.Is(err, syscall.ECONNREFUSED) ||
			errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EACCES) {
			return false
		}
		t.Fatal(err)
	}
	select {
	case <-heard:
		return true
	case <-time.After(hearTimeout):
		return false
	}
}

func listen(t *testing.T, ns, network string, at netip.AddrPort, heard chan<- bool) (end func()) {
	t.Helper()
	err := inside(ns, func() error {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return err
		}}
		if network == "udp" {
			p, err := lc.ListenPacket(context.Background(), network, at.String())
			if err != nil {
				return err
			}
			end = func() { p.Close() }
			go func() {
				if _, _, err := p.ReadFrom(make([]byte, 10)); err == nil {
					heard <- true
				}
			}()
			return nil
		}
		l, err := lc.Listen(context.Background(), network, at.String())
		if err != nil {
			return err
		}
		end = func() { l.Close() }
		go func() {
			if c, err := l.Accept(); err == nil {
				heard <- true
				c.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// inside runs f on a thread that is in a network namespace, and ends with it.
func inside(ns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		file, err := os.Open("/run/netns/" + ns)
		if err == nil {
			defer file.Close()
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
