package firewall

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/test/apart"
)

// A ward is a network namespace for the core, with one each behind its uplink
// and behind its overlay: plain links, since who speaks WireGuard is no affair
// of the firewall's.
type ward struct {
	t                 *testing.T
	core, host, phone string
}

const (
	uplink = "eth0"
	inner  = "wg0"
)

var overlay = Overlay{
	Device: inner, WireGuard: 51820,
	V4: netip.MustParsePrefix("10.7.8.0/24"), V6: netip.MustParsePrefix("fd00:7:8::/64"),
}

func newWard(t *testing.T) *ward {
	t.Helper()
	apart.Root(t, "it makes network namespaces")
	w := &ward{t: t}
	for _, name := range []*string{&w.core, &w.host, &w.phone} {
		*name = fmt.Sprintf("cp-fw-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9)
		w.run("", "ip", "netns", "add", *name)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", *name).Run() })
		w.run(*name, "ip", "link", "set", "lo", "up")
		w.run(*name, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
			"net.ipv6.conf.default.accept_dad=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv4.conf.all.rp_filter=0")
	}
	w.link(uplink, w.host, "198.51.100.", "2001:db8::")
	w.link(inner, w.phone, "10.7.8.", "fd00:7:8::")
	for _, route := range [][]string{{"10.7.8.0/24", "via", "198.51.100.1"}, {"fd00:7:8::/64", "via", "2001:db8::1"}} {
		w.run(w.host, "ip", append([]string{"route", "add"}, route...)...)
	}
	for _, route := range [][]string{{"default", "via", "10.7.8.1"}, {"default", "via", "fd00:7:8::1"}} {
		w.run(w.phone, "ip", append([]string{"route", "add"}, route...)...)
	}
	return w
}

// link joins the core, as number 1, with another, as 2 and 3. Nobody asks for
// link addresses: WireGuard has none.
func (w *ward) link(device, other, v4, v6 string) {
	const coreMAC, otherMAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
	w.run("", "ip", "link", "add", device, "netns", w.core, "address", coreMAC,
		"type", "veth", "peer", "name", "eth0", "netns", other, "address", otherMAC)
	w.end(w.core, device, v4, v6, []string{"1"}, otherMAC, []string{"2", "3"})
	w.end(other, "eth0", v4, v6, []string{"2", "3"}, coreMAC, []string{"1"})
}

func (w *ward) end(ns, device, v4, v6 string, own []string, farMAC string, far []string) {
	w.run(ns, "ip", "link", "set", device, "up")
	for _, n := range own {
		w.run(ns, "ip", "addr", "add", v4+n+"/24", "dev", device)
		w.run(ns, "ip", "addr", "add", v6+n+"/64", "dev", device, "nodad")
	}
	for _, n := range far {
		for _, to := range []string{v4 + n, v6 + n} {
			w.run(ns, "ip", "neigh", "replace", to, "lladdr", farMAC, "dev", device, "nud", "permanent")
		}
	}
}

func (w *ward) run(ns, name string, args ...string) string {
	w.t.Helper()
	if ns != "" {
		name, args = "nsenter", append([]string{"--net=/run/netns/" + ns, name}, args...)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// apply makes the rules the core's.
func (w *ward) apply(r Rules) {
	w.t.Helper()
	if err := inside(w.core, func() error { return Apply(r) }); err != nil {
		w.t.Fatalf("%v\n%s", err, w.run(w.core, "nft", "list", "ruleset"))
	}
}

// ping tells whether an echo comes back.
func (w *ward) ping(ns, from, to string) bool {
	return exec.Command("nsenter", "--net=/run/netns/"+ns, "ping", "-c1", "-W1", "-I", from, to).Run() == nil
}

// hears tells whether a word sent by UDP or TCP to a port of one namespace is
// heard there.
func (w *ward) hears(listener, sender, network, from, to string, port int) bool {
	w.t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(to), uint16(port))
	return hears(w.t, listener, sender, network, netip.MustParseAddr(from), at)
}

func rules(o *Overlay) Rules {
	return Rules{Uplink: uplink, Host: netip.MustParseAddr("198.51.100.2"), LockPort: 7460, Overlay: o}
}

func TestALockedCoreHearsTheHostOnly(t *testing.T) {
	w := newWard(t)
	w.apply(rules(nil))
	for _, c := range []struct {
		sender, network, from, to string
		port                      int
		want                      bool
	}{
		{w.host, "tcp", "198.51.100.2", "198.51.100.1", 7460, true},
		{w.host, "tcp", "198.51.100.3", "198.51.100.1", 7460, false}, // another of the host's addresses
		{w.host, "tcp", "2001:db8::2", "2001:db8::1", 7460, false},
		{w.host, "tcp", "198.51.100.2", "198.51.100.1", 80, false},
		{w.host, "tcp", "198.51.100.2", "198.51.100.1", 1, false}, // vminit's is at its link-local address
		{w.host, "udp", "198.51.100.2", "198.51.100.1", 51820, false},
		{w.phone, "tcp", "10.7.8.2", "10.7.8.1", 7460, false},
		{w.phone, "tcp", "10.7.8.2", "10.7.8.1", 80, false},
	} {
		if got := w.hears(w.core, c.sender, c.network, c.from, c.to, c.port); got != c.want {
			t.Errorf("%s %s from %s to port %d: heard %v, want %v", c.network, c.to, c.from, c.port, got, c.want)
		}
	}
	if !w.ping(w.host, "198.51.100.2", "198.51.100.1") {
		t.Error("the host cannot ping it")
	}
	if w.ping(w.phone, "10.7.8.2", "198.51.100.2") {
		t.Error("it forwards while it is locked")
	}
}

func TestWhatDevicesAndTheWorldMay(t *testing.T) {
	w := newWard(t)
	o := overlay
	w.apply(rules(&o))
	for _, c := range []struct {
		listener, sender, network, from, to string
		port                                int
		want                                bool
	}{
		{w.core, w.host, "udp", "198.51.100.3", "198.51.100.1", 51820, true}, // WireGuard, from anybody
		{w.core, w.host, "udp", "2001:db8::3", "2001:db8::1", 51820, true},
		{w.core, w.host, "udp", "198.51.100.3", "198.51.100.1", 53, false},
		{w.core, w.host, "tcp", "198.51.100.2", "198.51.100.1", 7460, true},
		// The host in the overlay's name, or to it.
		{w.core, w.host, "tcp", "198.51.100.2", "10.7.8.1", 80, false},
		{w.core, w.host, "tcp", "198.51.100.2", "10.7.8.1", 7460, false},
		{w.core, w.host, "udp", "198.51.100.2", "10.7.8.1", 51820, false},
		{w.core, w.host, "tcp", "2001:db8::2", "fd00:7:8::1", 80, false},
		{w.phone, w.host, "udp", "198.51.100.2", "10.7.8.2", 9000, false},
		{w.phone, w.host, "tcp", "2001:db8::2", "fd00:7:8::2", 9000, false},
		// Devices, to the core.
		{w.core, w.phone, "tcp", "10.7.8.2", "10.7.8.1", 80, true},
		{w.core, w.phone, "tcp", "fd00:7:8::2", "fd00:7:8::1", 80, true},
		{w.core, w.phone, "udp", "10.7.8.2", "10.7.8.1", 53, true},
		{w.core, w.phone, "tcp", "10.7.8.2", "10.7.8.1", 53, true},
		{w.core, w.phone, "tcp", "10.7.8.2", "10.7.8.1", 7460, false},
		{w.core, w.phone, "tcp", "10.7.8.2", "198.51.100.1", 7460, false},
		{w.core, w.phone, "tcp", "10.7.8.2", "198.51.100.1", 80, false},
		{w.core, w.phone, "udp", "10.7.8.2", "10.7.8.1", 9, false},
		// And to the world, which none has been let out to.
		{w.host, w.phone, "tcp", "10.7.8.2", "198.51.100.2", 9000, false},
		{w.host, w.phone, "tcp", "fd00:7:8::2", "2001:db8::2", 9000, false},
	} {
		if got := w.hears(c.listener, c.sender, c.network, c.from, c.to, c.port); got != c.want {
			t.Errorf("%s to %s from %s, port %d: heard %v, want %v", c.network, c.to, c.from, c.port, got, c.want)
		}
	}
	if !w.ping(w.phone, "10.7.8.2", "10.7.8.1") || !w.ping(w.phone, "fd00:7:8::2", "fd00:7:8::1") {
		t.Error("a device cannot ping the core")
	}
	if w.ping(w.host, "198.51.100.2", "10.7.8.1") {
		t.Error("the host can ping the core's address on the overlay")
	}
}

func TestTheExitIsEachDevicesOwn(t *testing.T) {
	w := newWard(t)
	o := overlay
	o.Exits = []netip.Addr{netip.MustParseAddr("10.7.8.2"), netip.MustParseAddr("fd00:7:8::2")}
	w.apply(rules(&o))
	reach := func(from, to string) bool { return w.hears(w.host, w.phone, "tcp", from, to, 9000) }
	if !reach("10.7.8.2", "198.51.100.2") {
		t.Errorf("the device that is let out does not get out:\n%s", w.run(w.core, "nft", "list", "ruleset"))
	}
	if reach("10.7.8.3", "198.51.100.2") {
		t.Error("another device gets out")
	}
	if reach("fd00:7:8::2", "2001:db8::2") {
		t.Error("it gets out by IPv6, which the core does not have")
	}
	o.Exit6 = true
	w.apply(rules(&o))
	if !reach("fd00:7:8::2", "2001:db8::2") || reach("fd00:7:8::3", "2001:db8::2") {
		t.Error("by IPv6 the device that is let out does not get out, or another does")
	}
	o.Exits = nil
	w.apply(rules(&o))
	if reach("10.7.8.2", "198.51.100.2") || reach("fd00:7:8::2", "2001:db8::2") {
		t.Error("the exit is taken away and it gets out")
	}
}

// Applied again, the rules are the same, and there is one table of them.
func TestRulesReplaceEachOther(t *testing.T) {
	w := newWard(t)
	w.run(w.core, "nft", "add", "table", "inet", "mine")
	o := overlay
	o.Exits = []netip.Addr{netip.MustParseAddr("10.7.8.2")}
	w.apply(rules(&o))
	once := w.run(w.core, "nft", "list", "ruleset")
	for range 3 {
		w.apply(rules(nil))
		w.apply(rules(&o))
	}
	if again := w.run(w.core, "nft", "list", "ruleset"); again != once {
		t.Errorf("first:\n%s\nthen:\n%s", once, again)
	}
	if !strings.Contains(once, "table inet mine") {
		t.Error("a table of somebody else's is gone")
	}
}
