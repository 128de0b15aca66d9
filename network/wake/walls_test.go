//go:build linux

package wake

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/route"
)

// running plugs a VM in and lets packets flow.
func running(t *testing.T, n *Network, name string, number byte) *guest {
	t.Helper()
	known(t, n, name, number, 0)
	g := plugged(t, n, name)
	t.Cleanup(g.close)
	if err := n.Admit(name); err != nil {
		t.Fatal(err)
	}
	return g
}

// listener is a service of the host at one of its own addresses.
func listener(t *testing.T, at netip.Addr) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestAGuestIsOnlyAnswered has a guest ask for the host's services, in its own
// name and others'. Whether it was heard is known when an answer that is allowed
// has come, which went the same way after.
func TestAGuestIsOnlyAnswered(t *testing.T) {
	n, _ := opened(t)
	g := running(t, n, "a", 16)
	running(t, n, "b", 17)
	for _, family := range []struct{ own, guest, neighbour netip.Addr }{
		{n.own(first(addresses(16))), first(addresses(16)), first(addresses(17))},
		{n.own(second(addresses(16))), second(addresses(16)), second(addresses(17))},
	} {
		service := listener(t, family.own)
		conn, elsewhere := port(t, family.guest), port(t, family.neighbour)
		tell(t, elsewhere, 0) // the neighbour is asked something, too
		tell(t, conn, 0)
		g.receive()
		for _, from := range []netip.Addr{family.guest, family.neighbour, family.own, linkLocal(g, family.own)} {
			g.send(datagram(netip.AddrPortFrom(from, 7), local(service), number(1)))
		}
		g.send(datagram(netip.AddrPortFrom(family.neighbour, 7), local(elsewhere), number(2)))
		g.send(datagram(netip.AddrPortFrom(family.guest, 8), local(conn), number(3)))
		g.send(datagram(netip.AddrPortFrom(family.guest, 7), local(conn), number(4)))
		if got := heard(t, conn); got != 4 {
			t.Errorf("%v: got %d, want only the answer, 4", family.guest, got)
		}
		if got := drain(t, service); got > 0 {
			t.Errorf("%v: a service of the host heard %d bytes", family.guest, got)
		}
		if got := drain(t, elsewhere); got > 0 {
			t.Errorf("%v: who asked the neighbour heard %d bytes", family.guest, got)
		}
	}
}

func first(v4, _ netip.Addr) netip.Addr { return v4 }

func second(_, v6 netip.Addr) netip.Addr { return v6 }

// linkLocal is the address of a guest that is in no prefix, or for IPv4, which
// has none, nobody's.
func linkLocal(g *guest, like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	a := [16]byte{0: 0xfe, 1: 0x80, 11: 0xff, 12: 0xfe}
	copy(a[8:11], g.v.MAC[:3])
	copy(a[13:], g.v.MAC[3:])
	a[8] ^= 2
	return netip.AddrFrom16(a)
}

// TestGuestsCannotReachEachOther has the host forward packets, as one does that
// is a router for other reasons.
func TestGuestsCannotReachEachOther(t *testing.T) {
	n, woken := opened(t)
	for _, path := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.WriteFile(path, []byte("0"), 0) })
	}
	a, b := running(t, n, "a", 16), running(t, n, "b", 17)
	known(t, n, "sleeper", 18, 0)
	for _, pick := range []func(v4, v6 netip.Addr) netip.Addr{first, second} {
		from := netip.AddrPortFrom(pick(addresses(16)), 7)
		for _, to := range []byte{17, 18} {
			a.send(datagram(from, netip.AddrPortFrom(pick(addresses(to)), 7), number(1)))
		}
		tell(t, port(t, pick(addresses(17))), 2)
		if got := numberOf(b.receive()); got != 2 {
			t.Errorf("%v: the neighbour got %d, want only the host's 2", from, got)
		}
	}
	n.awaitPassing()
	if len(woken) > 0 {
		t.Errorf("a guest has woken %v", <-woken)
	}
}

func TestOpenLeavesOthersRulesAloneAndMakesItsOwnOnce(t *testing.T) {
	n, _ := opened(t)
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	foreign := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "foreign"})
	c.AddChain(&nftables.Chain{Name: "kept", Table: foreign})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.DelTable(foreign)
		c.Flush()
	})
	before := rules(t, c)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if after := rules(t, c); !slices.Equal(after, before) {
		t.Errorf("got %v, want %v", after, before)
	}
}

// rules names all chains, and each once more for each rule in it.
func rules(t *testing.T, c *nftables.Conn) []string {
	t.Helper()
	chains, err := c.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, ch := range chains {
		in, err := c.GetRules(ch.Table, ch)
		if err != nil {
			t.Fatal(err)
		}
		for range len(in) + 1 {
			names = append(names, ch.Table.Name+" "+ch.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestOpenTwiceSaysWhatToDo(t *testing.T) {
	n, _ := opened(t)
	second, err := Open(n.cfg)
	if err == nil {
		second.Close()
		t.Fatal("two agents have wake0")
	}
	if cloudpal.HintOf(err) == "" {
		t.Errorf("got %v without a hint", err)
	}
}

func TestSweepRemovesOnlyTapsThatWereLeftBehind(t *testing.T) {
	n, _ := opened(t)
	g := running(t, n, "a", 16)
	left, err := route.NewTap(net.HardwareAddr{2, 0, 0, 0, 0, 9})
	if err != nil {
		t.Fatal(err)
	}
	defer left.File.Close()
	foreign := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: "cpforeign"}, Mode: unix.IFF_TAP, Flags: netlink.TUNTAP_NO_PI,
	}
	if err := netlink.LinkAdd(foreign); err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(foreign)
	if err := n.Sweep(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{g.v.tap.Name: true, left.Name: false, "cpforeign": true, device: true} {
		if _, err := netlink.LinkByName(name); (err == nil) != want {
			t.Errorf("%s: got %v, want it there: %v", name, err, want)
		}
	}
}

// TestCloseAndUnplugLeaveNothing counts what the network namespace has.
func TestCloseAndUnplugLeaveNothing(t *testing.T) {
	n, _ := opened(t)
	known(t, n, "a", 16, 0)
	g := plugged(t, n, "a")
	if err := n.Admit("a"); err != nil {
		t.Fatal(err)
	}
	name := g.v.tap.Name
	g.close()
	if err := n.Unplug("a"); err != nil {
		t.Fatal(err)
	}
	n.Remove("a")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{name, device} {
		if _, err := netlink.LinkByName(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if r.Dst != nil && (DefaultV4.Contains(netip.MustParseAddr(r.Dst.IP.String())) || DefaultV6.Contains(netip.MustParseAddr(r.Dst.IP.String()))) {
				t.Errorf("the route %v is still there", r)
			}
		}
	}
}
