//go:build linux

package wake

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A place is a computer beside the host, with a cable to it and a network of
// its own.
type place struct {
	t      testing.TB
	pid    int    // a process that is there
	cable  string // the host's end
	v4, v6 netip.Addr
	host4  netip.Addr // the host's addresses, as it sees them
	host6  netip.Addr
}

// apartFrom makes a network of its own, with nothing in it.
func apartFrom(t testing.TB) *place {
	t.Helper()
	cmd := exec.Command("unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 10000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return &place{t: t, pid: cmd.Process.Pid}
}

// beside makes the number-th computer beside the host. Network is the first
// three bytes of both their IPv4 addresses.
func beside(t testing.TB, number int, network string) *place {
	t.Helper()
	p := apartFrom(t)
	p.cable = fmt.Sprintf("to%d", number)
	p.v4, p.host4 = netip.MustParseAddr(network+".2"), netip.MustParseAddr(network+".1")
	p.v6 = netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::2", number))
	p.host6 = netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::1", number))
	run(t, "ip", "link", "add", p.cable, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(p.pid))
	t.Cleanup(func() { exec.Command("ip", "link", "del", p.cable).Run() })
	run(t, "ip", "addr", "add", p.host4.String()+"/24", "dev", p.cable)
	run(t, "ip", "link", "set", p.cable, "up")
	p.run("ip", "addr", "add", p.v4.String()+"/24", "dev", "eth0")
	p.run("ip", "link", "set", "eth0", "up")
	p.run("ip", "route", "add", "default", "via", p.host4.String())
	if hasIPv6() {
		run(t, "ip", "addr", "add", p.host6.String()+"/64", "dev", p.cable, "nodad")
		p.run("ip", "addr", "add", p.v6.String()+"/64", "dev", "eth0", "nodad")
		p.run("ip", "-6", "route", "add", "default", "via", p.host6.String())
	}
	return p
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// command is one that runs in the place.
func (p *place) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net", "-t", fmt.Sprint(p.pid), name}, args...)...)
}

func (p *place) run(name string, args ...string) string {
	p.t.Helper()
	out, err := p.command(name, args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// inside runs f on a thread that is in the place.
func (p *place) inside(f func() error) {
	p.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.pid))
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		p.t.Fatal(err)
	}
}

// socket is a UDP socket of the place.
func (p *place) socket(port uint16) *net.UDPConn {
	p.t.Helper()
	var conn *net.UDPConn
	p.inside(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn *net.UDPConn, to netip.AddrPort, m []byte) {
	t.Helper()
	if _, err := conn.WriteToUDPAddrPort(m, to); err != nil {
		t.Fatal(err)
	}
}

// next returns what comes to conn next, and from where.
func next(t *testing.T, conn *net.UDPConn) ([]byte, netip.AddrPort) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2000)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// silent fails the test if anything has come to conn. The mark is a packet that
// the caller knows to have come after.
func silent(t *testing.T, conn *net.UDPConn, what string) {
	t.Helper()
	if n := drain(t, conn); n > 0 {
		t.Errorf("%s: %d bytes came through", what, n)
	}
}

// forgetConnections has the kernel forget all that conntrack knows.
func forgetConnections(t *testing.T) {
	t.Helper()
	if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		t.Fatal(err)
	}
}

// A waking is a call of Config.Wake.
type waking struct {
	addr netip.Addr
	why  string
}

// openedWith is the network of a host that has nothing yet. Wakes go to the
// channel, the newest of them lost where it is full.
func openedWith(t *testing.T, c Config) (*Network, <-chan waking) {
	t.Helper()
	n, _ := opened(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	wakes := make(chan waking, 1024)
	c.Log = n.cfg.Log
	c.Wake = func(a netip.Addr, why string) {
		select {
		case wakes <- waking{a, why}:
		default:
		}
	}
	n, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if n.six {
		awaitOwn(t, n.cfg.V6.Addr().Next())
	}
	t.Cleanup(func() {
		if n.closed.Load() {
			return
		}
		for name := range n.byName {
			if err := n.Unplug(name); err != nil {
				t.Error(err)
			}
			n.Remove(name)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, wakes
}

// hubPort is the port of the host that leads to the tests' WireGuard.
const hubPort = 51825

// hub adds a VM that has WireGuard at port 51820.
func hub(t *testing.T, n *Network, name string, number byte, hostPort uint16, outbound bool) *nic {
	t.Helper()
	v4, v6 := addresses(number)
	if !n.cfg.V6.Contains(v6) {
		v6 = inPrefix(n.cfg.V6, number)
	}
	err := n.Add(name, NIC{
		MAC: net.HardwareAddr{2, 0xc1, 0x0d, 0, 0, number}, Addrs: []netip.Addr{v4, v6}, Outbound: outbound,
		WireGuard: &WireGuard{PublicKey: peerKey, Port: 51820, HostPort: hostPort},
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := n.find(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func inPrefix(p netip.Prefix, number byte) netip.Addr {
	a := p.Addr().As16()
	a[15] = number
	return netip.AddrFrom16(a)
}

// awake plugs a known VM in and lets packets flow.
func awake(t *testing.T, n *Network, name string) *guest {
	t.Helper()
	g := plugged(t, n, name)
	t.Cleanup(g.close)
	if err := n.Admit(name); err != nil {
		t.Fatal(err)
	}
	return g
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// TestTheWorldReachesAWireGuardAtThePortOfTheHost follows a handshake from
// outside to a VM that sleeps, and the answer back.
func TestTheWorldReachesAWireGuardAtThePortOfTheHost(t *testing.T) {
	n, wakes := openedWith(t, Config{})
	p := beside(t, 1, "198.51.100")
	hub(t, n, "a", 16, hubPort, true)
	conn := p.socket(4711)
	m := initiation(peerKey)
	send(t, conn, at(p.host4, hubPort), m)
	v4, _ := addresses(16)
	want := waking{v4, "a WireGuard handshake from 198.51.100.2:4711"}
	if got := await(t, wakes, "a wake"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	g := awake(t, n, "a")
	u, err := parseUDP(g.receive())
	if err != nil || u.from != at(p.v4, 4711) || u.to != at(v4, 51820) || string(u.data) != string(m) {
		t.Errorf("got %v, %v; want the initiation from %v", u, err, p.v4)
	}
	g.send(datagram(u.to, u.from, response(7, 1)))
	if _, from := next(t, conn); from != at(p.host4, hubPort) {
		t.Errorf("the answer comes from %v, want the host's port %d", from, hubPort)
	}
	// Another time, when nobody remembers: the guest speaks first.
	forgetConnections(t)
	g.send(datagram(u.to, u.from, initiation([32]byte{9})))
	if _, from := next(t, conn); from != at(p.host4, hubPort) {
		t.Errorf("the guest speaks from %v, want the host's port %d", from, hubPort)
	}
	send(t, conn, at(p.host4, hubPort), response(1, 7))
	if u, err := parseUDP(g.receive()); err != nil || u.from != at(p.v4, 4711) {
		t.Errorf("what answers the guest: got %v, %v", u, err)
	}
}

// TestAPeerNearbyIsSpokenToOnceItWasHeard has one at an address that guests may
// not speak to: one at home, where the host is.
func TestAPeerNearbyIsSpokenToOnceItWasHeard(t *testing.T) {
	n, _ := openedWith(t, Config{})
	p, far := beside(t, 1, "192.168.7"), beside(t, 2, "198.51.100")
	hub(t, n, "a", 16, hubPort, true)
	conn, mark := p.socket(4711), far.socket(4711)
	g := awake(t, n, "a")
	v4, _ := addresses(16)
	speak := func() {
		g.send(datagram(at(v4, 51820), at(p.v4, 4711), initiation([32]byte{9})))
		g.send(datagram(at(v4, 51820), at(far.v4, 4711), initiation([32]byte{9})))
		next(t, mark)
	}
	speak()
	silent(t, conn, "a guest that speaks to a neighbour of the host")
	send(t, conn, at(p.host4, hubPort), initiation(peerKey))
	g.receive()
	forgetConnections(t)
	speak()
	if _, from := next(t, conn); from != at(p.host4, hubPort) {
		t.Errorf("the guest speaks from %v, want the host's port %d", from, hubPort)
	}
	g.send(datagram(at(v4, 51821), at(p.v4, 4711), initiation([32]byte{9})))
	speak()
	next(t, conn)
	silent(t, conn, "a guest that speaks from another port")
}

// TestTheHostItselfReachesAWireGuard has a socket of the host, at each of its
// addresses, asleep and awake, and the guest speak first.
func TestTheHostItselfReachesAWireGuard(t *testing.T) {
	n, wakes := openedWith(t, Config{})
	p := beside(t, 1, "198.51.100")
	hub(t, n, "a", 16, hubPort, true)
	v4, _ := addresses(16)
	for _, own := range []netip.Addr{p.host4, n.own(v4)} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		send(t, conn, at(own, hubPort), initiation(peerKey))
		if got := await(t, wakes, "a wake"); !strings.HasPrefix(got.why, "a WireGuard handshake from "+own.String()) {
			t.Errorf("got %v", got)
		}
		g := plugged(t, n, "a")
		if err := n.Admit("a"); err != nil {
			t.Fatal(err)
		}
		u, err := parseUDP(g.receive())
		if err != nil {
			t.Fatal(err)
		}
		g.send(datagram(u.to, u.from, response(7, 1)))
		if _, from := next(t, conn); from != at(own, hubPort) {
			t.Errorf("the answer comes from %v, want %v", from, at(own, hubPort))
		}
		send(t, conn, at(own, hubPort), dataMessage(7, 1, 16))
		g.receive()
		forgetConnections(t)
		g.send(datagram(u.to, u.from, initiation([32]byte{9})))
		if _, from := next(t, conn); from != at(own, hubPort) {
			t.Errorf("the guest speaks from %v, want %v", from, at(own, hubPort))
		}
		send(t, conn, at(own, hubPort), dataMessage(7, 2, 16))
		g.receive()
		g.close()
		if err := n.Unplug("a"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhatAGuestMayAskTheWorld has guests send to whomever they like.
func TestWhatAGuestMayAskTheWorld(t *testing.T) {
	n, _ := openedWith(t, Config{})
	world, home := beside(t, 1, "198.51.100"), beside(t, 2, "192.168.7")
	hub(t, n, "may", 16, hubPort, true)
	hub(t, n, "may-not", 17, hubPort+1, false)
	may, mayNot := awake(t, n, "may"), awake(t, n, "may-not")
	there, near := world.socket(7), home.socket(7)
	service := listener(t, world.host4)
	v4, _ := addresses(16)
	other, _ := addresses(17)
	mayNot.send(datagram(at(other, 7), at(world.v4, 7), number(1)))
	mayNot.send(datagram(at(other, 51820), at(world.v4, 7), number(1)))
	mayNot.send(datagram(at(v4, 7), at(world.v4, 7), number(1)))
	may.send(datagram(at(other, 7), at(world.v4, 7), number(1)))
	may.send(datagram(at(netip.MustParseAddr("203.0.113.9"), 7), at(world.v4, 7), number(1)))
	may.send(datagram(at(v4, 7), at(home.v4, 7), number(1)))
	may.send(datagram(at(v4, 7), at(other, 51820), initiation(peerKey)))
	may.send(datagram(at(v4, 7), at(world.host4, hubPort+1), initiation(peerKey)))
	may.send(datagram(at(v4, 7), local(service), number(1)))
	may.send(datagram(at(v4, hubPort+1), at(world.v4, 7), number(2)))
	m, from := next(t, there)
	if numberOf(m) != 2 || from.Addr() != world.host4 || from.Port() < 16384 || from.Port() > 32767 {
		t.Errorf("got %d from %v, want 2 from a port of the host that is nobody's", numberOf(m), from)
	}
	silent(t, there, "a guest that may not speak, or as another")
	silent(t, near, "a guest that speaks to a private address")
	silent(t, service, "a guest that speaks to the host")
	send(t, there, from, number(3))
	if got := numberOf(may.receive()); got != 3 {
		t.Errorf("the world's answer: got %d, want 3", got)
	}
	// The neighbour got nothing: the first that comes to it is the host's.
	tell(t, port(t, other), 4)
	if got := numberOf(mayNot.receive()); got != 4 {
		t.Errorf("the neighbour: got %d, want only the host's 4", got)
	}
}

// TestTheWorldReachesNothingElse has a stranger, whose packets are routed by the
// host, try a VM's other ports, and the host's own.
func TestTheWorldReachesNothingElse(t *testing.T) {
	n, wakes := openedWith(t, Config{V6: netip.MustParsePrefix("2001:db8:9::/64")})
	p := beside(t, 1, "198.51.100")
	v := hub(t, n, "a", 16, hubPort, true)
	conn := p.socket(4799) // no other test's: what is let in from a port of a peer's is let in for a while
	junk := func() {
		for _, to := range v.Addrs {
			send(t, conn, at(to, 7), []byte("x"))
			send(t, conn, at(to, 51821), initiation(peerKey))
			send(t, conn, at(to, 51820), []byte("x"))
		}
		send(t, conn, at(p.host4, hubPort), []byte("x"))
		send(t, conn, at(p.host4, 51820), initiation(peerKey))
	}
	junk()
	send(t, conn, at(v.Addrs[1], 51820), initiation(peerKey))
	want := waking{v.Addrs[1], "a WireGuard handshake from [" + p.v6.String() + "]:4799"}
	if got := await(t, wakes, "a wake"); got != want {
		t.Errorf("got %v, want only %v", got, want)
	}
	g := awake(t, n, "a")
	g.receive()
	junk()
	m := initiation(peerKey)
	send(t, conn, at(p.host4, hubPort), m)
	if u, err := parseUDP(g.receive()); err != nil || string(u.data) != string(m) {
		t.Errorf("got %v, %v; want only the initiation", u, err)
	}
}

// TestActivityIsWhatKeepsAVMAwake asks after each thing that passes.
func TestActivityIsWhatKeepsAVMAwake(t *testing.T) {
	n, _ := openedWith(t, Config{})
	p := beside(t, 1, "198.51.100")
	hub(t, n, "hub", 16, hubPort, true)
	g := awake(t, n, "hub")
	conn := p.socket(4711)
	v4, _ := addresses(16)
	active := func(name string) time.Time {
		t.Helper()
		n.activity.asked = time.Time{} // not what was said a moment ago
		at, err := n.Activity(name)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	say := func(m []byte) { send(t, conn, at(p.host4, hubPort), m); g.receive() }
	answer := func(m []byte) { g.send(datagram(at(v4, 51820), at(p.v4, 4711), m)); next(t, conn) }
	say(initiation(peerKey))
	answer(response(7, 1))
	say(dataMessage(7, 0, 0))
	answer(dataMessage(1, 0, 0))
	g.send(datagram(at(v4, 9), at(p.v4, 4711), []byte("of its own accord")))
	next(t, conn)
	if at := active("hub"); !at.IsZero() {
		t.Errorf("handshakes, keepalives and what it asks the world: got %v, want nothing", at)
	}
	for what, do := range map[string]func(){
		"data to it":   func() { say(dataMessage(7, 1, 16)) },
		"data from it": func() { answer(dataMessage(1, 1, 16)) },
	} {
		before := time.Now()
		do()
		if at := active("hub"); at.Before(before.Add(-50*time.Millisecond)) || at.After(time.Now()) {
			t.Errorf("%s at %v: got %v", what, before, at)
		}
		time.Sleep(100 * time.Millisecond) // so that the next is not taken for this
	}
	plain := running(t, n, "plain", 17)
	if at := active("plain"); !at.IsZero() {
		t.Errorf("a VM that had nothing: got %v", at)
	}
	to, _ := addresses(17)
	tell(t, port(t, to), 1)
	plain.receive()
	if at := active("plain"); time.Since(at) > time.Second {
		t.Errorf("a VM that was told something: got %v", at)
	}
}

// TestWhatWasHeldIsActivity has a packet wake a VM, which takes another way than
// those that the rules see.
func TestWhatWasHeldIsActivity(t *testing.T) {
	n, wakes := openedWith(t, Config{})
	v := hub(t, n, "a", 16, hubPort, true)
	v4, _ := addresses(16)
	v.mu.Lock()
	v.judge.learn(udp{from: at(v4, 51820), to: at(n.own(v4), 4711), data: response(7, 1)}, time.Now())
	v.mu.Unlock()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 4711})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i, m := range [][]byte{initiation(peerKey), dataMessage(7, 1, 16)} {
		send(t, conn, at(v4, 51820), m)
		await(t, wakes, "a wake")
		g := awake(t, n, "a")
		g.receive()
		if at, err := n.Activity("a"); err != nil || at.IsZero() != (i == 0) {
			t.Errorf("packet %d: got %v, %v", i, at, err)
		}
		if err := n.Unplug("a"); err != nil {
			t.Fatal(err)
		}
	}
}
