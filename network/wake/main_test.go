//go:build linux

package wake

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/network/route"
	"github.com/tradle/cloudpal/test/apart"
)

// TestMain: devices, routes and rules are made.
func TestMain(m *testing.M) { apart.Main(m, unix.CLONE_NEWNET, nil) }

// opened is the network of a host that has nothing yet. Wakes go to the
// channel; those that find it full are lost, as one is enough.
func opened(t *testing.T) (n *Network, woken <-chan netip.Addr) {
	t.Helper()
	apart.Root(t, "it makes taps, routes and rules")
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		apart.Skip(t, "needs /dev/net/tun")
	}
	c := make(chan netip.Addr, 16)
	n, err := Open(Config{Log: slog.New(slog.DiscardHandler), Wake: func(a netip.Addr, _ string) {
		select {
		case c <- a:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	awaitOwn(t, n.cfg.V6.Addr().Next())
	t.Cleanup(func() {
		for name := range n.byName {
			if err := n.Unplug(name); err != nil {
				t.Error(err)
			}
			n.Remove(name)
		}
		if err := n.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return n, c
}

// awaitOwn waits until an address is the host's own. The kernel makes the route
// that says so for IPv6 in its own time.
func awaitOwn(t *testing.T, addr netip.Addr) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteGet(addr.AsSlice())
		if err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
	}
	t.Fatalf("%v does not become the host's own", addr)
}

// quiet logs nothing.
var quiet = slog.New(slog.DiscardHandler)

// patience is how long anything may take that should take no time.
const patience = 20 * time.Second

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: not after %v", what, patience)
		panic("unreachable")
	}
}

// A guest is the other end of a tap: where a VM's process would be.
type guest struct {
	t    *testing.T
	fd   int
	v    *nic
	stop [2]int // a pipe: closing its second end wakes who reads
}

// plugged makes the tap of a VM, which is known already.
func plugged(t *testing.T, n *Network, name string) *guest {
	t.Helper()
	f, _, err := n.Plug(name)
	if err != nil {
		t.Fatal(err)
	}
	v, err := n.find(name)
	if err != nil {
		t.Fatal(err)
	}
	// As a VM's process has it: a descriptor of its own.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, fd: fd, v: v}
	if err := errors.Join(unix.Pipe2(g.stop[:], unix.O_CLOEXEC), unix.SetNonblock(fd, true)); err != nil {
		t.Fatal(err)
	}
	return g
}

// gone ends the guest: it reads no more.
func (g *guest) gone() { unix.Close(g.stop[1]) }

// close lets go of the tap.
func (g *guest) close() { unix.Close(g.fd); unix.Close(g.stop[0]) }

// receive returns the next IP packet that the tap has, or nil when the guest is
// gone.
func (g *guest) receive() []byte {
	buf := make([]byte, vnetSize+etherSize+maxPacket)
	for {
		poll := []unix.PollFd{{Fd: int32(g.stop[0]), Events: unix.POLLIN}, {Fd: int32(g.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			g.t.Errorf("nothing comes out of the tap: %v", err)
			return nil
		}
		if poll[0].Revents != 0 {
			return nil
		}
		n, err = unix.Read(g.fd, buf)
		if err != nil {
			g.t.Errorf("read the tap: %v", err)
			return nil
		}
		if h, err := fromTap(buf[:n], vnetSize); err == nil && g.v.owns(h) {
			return h.ip
		}
	}
}

// send puts an IP packet into the tap.
func (g *guest) send(ip []byte) {
	g.t.Helper()
	h := held{ip: ip}
	if _, err := unix.Write(g.fd, h.frame(route.HostMAC, g.v.MAC)); err != nil {
		g.t.Fatal(err)
	}
}

// port returns the host's socket towards a VM's port 7.
func port(t *testing.T, to netip.Addr) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 7)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func local(conn *net.UDPConn) netip.AddrPort {
	a := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// number writes and reads the only thing that the tests' datagrams carry.
func number(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }

func numberOf(ip []byte) int { return int(binary.BigEndian.Uint32(ip[len(ip)-4:])) }

// heard returns the number in the next datagram that comes to conn.
func heard(t *testing.T, conn *net.UDPConn) int {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2000)
	n, err := conn.Read(buf)
	if err != nil || n < 4 {
		t.Fatalf("got %d bytes, %v; want a number", n, err)
	}
	return numberOf(buf[:n])
}

func tell(t *testing.T, conn *net.UDPConn, i int) {
	t.Helper()
	if _, err := conn.Write(number(i)); err != nil {
		t.Fatal(err)
	}
}
