package world

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An Internet is what the computers of a test are on: a network namespace that
// routes between theirs. All addresses are of the ranges that are kept for
// documentation (RFC 5737, RFC 3849), so none of a real network is touched.
type Internet struct {
	tb    testing.TB
	netns string
	next  int
}

// NewInternet makes one, which is gone when the test ends.
func NewInternet(tb testing.TB) *Internet {
	tb.Helper()
	Require(tb)
	i := &Internet{tb: tb, netns: "cp-net-" + token(), next: 10}
	i.ip("netns", "add", i.netns)
	tb.Cleanup(func() { exec.Command("ip", "netns", "del", i.netns).Run() })
	i.in(i.netns, "link", "set", "lo", "up")
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		i.run(exec.Command("nsenter", "--net=/run/netns/"+i.netns, "sysctl", "-qw", s))
	}
	return i
}

// A Place is a computer's network namespace on an Internet.
type Place struct {
	tb     testing.TB
	on     *Internet
	netns  string
	number int
	V4, V6 netip.Addr
}

// Join makes a computer. It is gone when the test ends.
func (i *Internet) Join() *Place {
	i.tb.Helper()
	netns := "cp-" + token()
	i.ip("netns", "add", netns)
	i.tb.Cleanup(func() { exec.Command("ip", "netns", "del", netns).Run() })
	i.in(netns, "link", "set", "lo", "up")
	return i.attach(netns)
}

// Attach puts a world's host on the Internet.
func (w *World) Attach(i *Internet) *Place { return i.attach(w.netns) }

func (i *Internet) attach(netns string) *Place {
	p := &Place{tb: i.tb, on: i, netns: netns}
	p.plug()
	return p
}

// plug gives the place a cable and the next address.
func (p *Place) plug() {
	i := p.on
	p.number, i.next = i.next, i.next+1
	p.V4 = netip.AddrFrom4([4]byte{198, 51, 100, byte(p.number)})
	p.V6 = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", p.number))
	far := p.farEnd()
	i.ip("link", "add", far, "netns", i.netns, "type", "veth", "peer", "name", "eth0", "netns", p.netns)
	for _, end := range [][2]string{{i.netns, far}, {p.netns, "eth0"}} {
		// Without the search for duplicates the addresses are there at once.
		i.run(exec.Command("nsenter", "--net=/run/netns/"+end[0], "sysctl", "-qw",
			"net.ipv6.conf."+end[1]+".accept_dad=0", "net.ipv4.conf."+end[1]+".rp_filter=0"))
		i.in(end[0], "link", "set", end[1], "up")
	}
	i.in(i.netns, "addr", "add", "198.51.100.1/32", "dev", far)
	i.in(i.netns, "addr", "add", "fe80::1/64", "dev", far, "nodad")
	i.in(i.netns, "route", "add", p.V4.String(), "dev", far)
	i.in(i.netns, "route", "add", p.V6.String(), "dev", far)
	i.in(p.netns, "addr", "add", p.V4.String()+"/32", "dev", "eth0")
	i.in(p.netns, "addr", "add", p.V6.String()+"/128", "dev", "eth0", "nodad")
	i.in(p.netns, "route", "add", "default", "via", "198.51.100.1", "dev", "eth0", "onlink")
	i.in(p.netns, "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
}

func (p *Place) farEnd() string { return fmt.Sprintf("to%d", p.number) }

// Move gives the place another address, as a phone that leaves the house gets
// one. Connections over the old one are cut.
func (p *Place) Move() {
	p.tb.Helper()
	p.on.in(p.netns, "link", "del", "eth0")
	p.plug()
}

// Cut takes the place off the Internet; Mend puts it back.
func (p *Place) Cut() { p.on.in(p.on.netns, "link", "set", p.farEnd(), "down") }

// Mend undoes Cut.
func (p *Place) Mend() {
	i := p.on
	i.in(i.netns, "link", "set", p.farEnd(), "up")
	// The kernel forgot what led over it.
	i.in(i.netns, "addr", "replace", "fe80::1/64", "dev", p.farEnd(), "nodad")
	i.in(i.netns, "route", "replace", p.V4.String(), "dev", p.farEnd())
	i.in(i.netns, "route", "replace", p.V6.String(), "dev", p.farEnd())
}

// Lead routes a prefix to the place, as a provider does for a data center.
func (p *Place) Lead(prefix netip.Prefix) {
	p.tb.Helper()
	if prefix.Addr().Is4() {
		p.on.in(p.on.netns, "route", "add", prefix.String(), "via", p.V4.String(), "dev", p.farEnd(), "onlink")
		return
	}
	link := "fe80::" // of eth0, from its MAC
	out, err := p.Command("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link").Output()
	if err != nil {
		p.tb.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, link) {
			via, _, _ := strings.Cut(word, "/")
			p.on.in(p.on.netns, "-6", "route", "add", prefix.String(), "via", via, "dev", p.farEnd())
			return
		}
	}
	p.tb.Fatalf("eth0 has no link-local address:\n%s", out)
}

// Sweep removes what a center of the place that had this run directory has left
// there, and returns how many VMs' processes that were.
func (p *Place) Sweep(run string) int {
	n := killBelow(run)
	unix.Unmount(run, unix.MNT_DETACH)
	os.RemoveAll(run)
	return n
}

// Netns is the name of the place's network namespace.
func (p *Place) Netns() string { return p.netns }

// Command runs a program in the place.
func (p *Place) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + p.netns, name}, args...)...)
}

// Run runs a program in the place, which must work, and returns what it said.
func (p *Place) Run(name string, args ...string) string {
	p.tb.Helper()
	out, err := p.Command(name, args...).CombinedOutput()
	if err != nil {
		p.tb.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// Inside runs f on a thread that is in the place's network.
func (p *Place) Inside(f func() error) error { return inNetns(p.netns, f) }

// Dial connects from the place.
func (p *Place) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	err := p.Inside(func() error {
		var d net.Dialer
		var err error
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// HTTP returns a client of the place that keeps no connections.
func (p *Place) HTTP(timeout time.Duration) *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: p.Dial, DisableKeepAlives: true},
		Timeout:   timeout,
	}
}

func (i *Internet) ip(args ...string) { i.tb.Helper(); i.run(exec.Command("ip", args...)) }

func (i *Internet) in(netns string, args ...string) {
	i.tb.Helper()
	i.ip(append([]string{"-n", netns}, args...)...)
}

func (i *Internet) run(cmd *exec.Cmd) {
	i.tb.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		i.tb.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}
