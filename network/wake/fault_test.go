//go:build linux

package wake

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/route"
)

// logged has what is logged in a buffer.
func logged() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

// foreign is all that a host has of rules, routes, links, addresses and
// settings, but what is this program's. Counters and times are left out.
func foreign(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{
		{"nft", "-s", "list", "ruleset"}, {"ip", "route", "show", "table", "all"}, {"ip", "-6", "route", "show", "table", "all"},
		{"ip", "rule"}, {"ip", "-o", "addr"}, {"ip", "-o", "link"}, {"ip", "neigh", "show", "nud", "permanent"},
		{"sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.all.route_localnet"},
		{"sh", "-c", "for f in /proc/sys/net/ipv6/conf/*/accept_ra; do case $f in */cp*|*/wake0/*) ;; *) echo $f $(cat $f) ;; esac; done"},
	} {
		fmt.Fprintln(&b, strings.Join(args, " "))
		// What ip says besides is of others' namespaces, which come and go under /run/netns.
		stdout, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		out := string(stdout)
		if args[0] == "nft" {
			out = ourTable.ReplaceAllString(out, "")
		}
		for line := range strings.SplitSeq(out, "\n") {
			// The kernel sees to link-local addresses in its own time.
			if !strings.Contains(line, "wake0") && !ourTap.MatchString(line) && !linkLocals.MatchString(line) {
				fmt.Fprintln(&b, volatile.ReplaceAllString(line, ""))
			}
		}
	}
	return b.String()
}

var (
	ourTable   = regexp.MustCompile(`(?ms)^table inet cloudpal \{.*?^\}\n`)
	ourTap     = regexp.MustCompile(`\bcp[0-9]+\b`)
	linkLocals = regexp.MustCompile(`\bfe80:|\bff00:`)
	volatile   = regexp.MustCompile(`<[^>]*>|state [A-Z]+|linkdown|dead|expires \d+sec|valid_lft.*|^\d+: |link-netns(?:id)? \S+|(?:forever\\.*)`)
)

// settled is foreign, when the kernel has done what it does in its own time.
func settled(t *testing.T) string {
	t.Helper()
	last := foreign(t)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		time.Sleep(300 * time.Millisecond)
		now := foreign(t)
		if now == last {
			return now
		}
		last = now
	}
	return last
}

// differs tells which lines only one of two texts has.
func differs(after, before string) string {
	var b strings.Builder
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			fmt.Fprintln(&b, "gone:", line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			fmt.Fprintln(&b, "new: ", line)
		}
	}
	return b.String()
}

// others makes rules, routes, a link and an address that are somebody else's.
func others(t *testing.T) {
	t.Helper()
	run(t, "ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1")
	t.Cleanup(func() { run(t, "ip", "link", "del", "other0") })
	run(t, "ip", "addr", "add", "192.168.50.1/24", "dev", "other0")
	run(t, "ip", "link", "set", "other1", "up")
	run(t, "ip", "link", "set", "other0", "up")
	run(t, "ip", "route", "add", "203.0.113.0/24", "via", "192.168.50.9")
	run(t, "ip", "route", "add", "10.0.0.0/8", "dev", "other0", "table", "77")
	run(t, "ip", "route", "add", "unreachable", "10.0.0.0/8")
	t.Cleanup(func() { run(t, "ip", "route", "del", "unreachable", "10.0.0.0/8") })
	run(t, "nft", "add table inet other { chain c { type filter hook forward priority 0 ; policy accept ; tcp dport 1 drop ; } ; }")
	t.Cleanup(func() { run(t, "nft", "delete", "table", "inet", "other") })
}

// TestWhatIsOthersStaysAsItIs looks at the host before, while VMs run, after a
// crash, after the process that came then, and at the end, where all is as if
// this program had never been.
func TestWhatIsOthersStaysAsItIs(t *testing.T) {
	n, _ := opened(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	beside(t, 1, "198.51.100")
	others(t)
	set(t, "net/ipv4/ip_forward", "0")
	before := settled(t)
	dir := t.TempDir()
	same := func(when string) {
		t.Helper()
		// The kernel's own: a host with VMs that the world reaches forwards.
		after := strings.Replace(foreign(t), "ip_forward = 1", "ip_forward = 0", 1)
		if after != before {
			t.Errorf("%s:\n%s", when, differs(after, before))
		}
	}
	n, _ = openedWith(t, Config{Dir: dir})
	same("with no VM")
	if got := forwards(t); got != "0" {
		t.Errorf("with no VM the kernel forwards: %s", got)
	}
	hub(t, n, "a", 16, hubPort, true)
	g := plugged(t, n, "a")
	if err := n.Admit("a"); err != nil {
		t.Fatal(err)
	}
	same("with a VM that runs")
	if got := forwards(t); got != "1" {
		t.Errorf("with a VM the kernel forwards: %s", got)
	}
	// A crash: all that the process had open is closed, and nothing is said.
	n.closed.Store(true)
	if err := n.closeFiles(); err != nil {
		t.Fatal(err)
	}
	same("after a crash")

	n, _ = openedWith(t, Config{Dir: dir})
	if err := n.Sweep(); err != nil {
		t.Fatal(err)
	}
	g.close()
	same("with the process that came after")
	if got := run(t, "nft", "list", "map", "inet", "cloudpal", "inward"); strings.Contains(got, fmt.Sprint(hubPort)) {
		t.Errorf("a VM that is no more is reached still:\n%s", got)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if after := foreign(t); after != before {
		t.Errorf("at the end:\n%s", differs(after, before))
	}
	if out := run(t, "nft", "list", "tables"); strings.Contains(out, "cloudpal") {
		t.Errorf("the rules are there still: %s", out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 1 {
		t.Errorf("got %v, %v in the directory, want at most that for sessions", left, err)
	}
}

func set(t *testing.T, path, value string) {
	t.Helper()
	was, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile("/proc/sys/"+path, was, 0) })
}

func forwards(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// TestAHostThatWasNoRouterIsNone has a stranger send through the host to
// another: the host forwards for VMs alone, unless it did so before.
func TestAHostThatWasNoRouterIsNone(t *testing.T) {
	for _, router := range []string{"0", "1"} {
		t.Run("ip_forward="+router, func(t *testing.T) {
			n, _ := opened(t)
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			a, b := beside(t, 1, "198.51.100"), beside(t, 2, "203.0.113")
			set(t, "net/ipv4/ip_forward", router)
			n, _ = openedWith(t, Config{})
			hub(t, n, "a", 16, hubPort, true)
			from, there := a.socket(7), b.socket(7)
			direct, err := net.ListenUDP("udp4", &net.UDPAddr{})
			if err != nil {
				t.Fatal(err)
			}
			defer direct.Close()
			send(t, from, at(b.v4, 7), number(1))
			send(t, direct, at(b.v4, 7), number(2))
			m, _ := next(t, there)
			if got, want := numberOf(m), map[string]int{"0": 2, "1": 1}[router]; got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
}

func TestAHostWithoutIPv6HasVMsOverIPv4(t *testing.T) {
	n, _ := opened(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	set(t, "net/ipv6/conf/all/disable_ipv6", "1")
	log, text := logged()
	wakes := make(chan waking, 16)
	n, err := Open(Config{Log: log, Wake: func(a netip.Addr, why string) { wakes <- waking{a, why} }})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if !strings.Contains(text.String(), "no IPv6") {
		t.Errorf("the log does not say so: %q", text)
	}
	p := beside(t, 1, "198.51.100")
	hub(t, n, "a", 16, hubPort, true)
	conn := p.socket(4711)
	send(t, conn, at(p.host4, hubPort), initiation(peerKey))
	await(t, wakes, "a wake")
	g := awake(t, n, "a")
	g.receive()
	// The agent speaks with its VMs over IPv6, whatever the host has.
	if out := run(t, "ip", "-6", "-o", "addr", "show", "dev", g.v.tap.Name); !strings.Contains(out, "fe80::1") {
		t.Errorf("the tap has no control address: %q", out)
	}
	if err := n.Unplug("a"); err != nil {
		t.Error(err)
	}
	n.Remove("a")
}

func TestAPrefixThatIsSomebodyElsesIsRefused(t *testing.T) {
	n, _ := opened(t)
	c := n.cfg
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for _, route := range [][]string{
		{"10.201.5.0/24"}, {"10.0.0.0/8"}, {"10.201.0.0/16"}, {"-6", "fdc1:d00::/48"},
	} {
		run(t, "ip", "link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
		run(t, "ip", "link", "set", "vpn1", "up")
		run(t, "ip", "link", "set", "vpn0", "up")
		args := append(route[:len(route)-1:len(route)-1], "route", "add", route[len(route)-1], "dev", "vpn0")
		run(t, "ip", args...)
		before := settled(t)
		n, err := Open(c)
		if err == nil {
			n.Close()
			t.Fatalf("%v: it is taken", route)
		}
		flag := "--prefix4"
		if len(route) > 1 {
			flag = "--prefix6"
		}
		if cloudpal.KindOf(err) != cloudpal.Exist || !strings.Contains(cloudpal.HintOf(err), flag) || !strings.Contains(err.Error(), "vpn0") {
			t.Errorf("%v: got %v (%s), want one that names vpn0 and %s", route, err, cloudpal.HintOf(err), flag)
		}
		if after := foreign(t); after != before {
			t.Errorf("%v:\n%s", route, differs(after, before))
		}
		c4 := c
		c4.V4, c4.V6 = netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("fdc1:d01::/64")
		n, err = Open(c4)
		if err != nil {
			t.Errorf("%v: with other prefixes: %v", route, err)
		} else if err := n.Close(); err != nil {
			t.Error(err)
		}
		run(t, "ip", "link", "del", "vpn0")
	}
}

// TestAnotherPrefixLeavesNothingOfTheFirst is an agent that was killed, and the
// next one is told of other addresses.
func TestAnotherPrefixLeavesNothingOfTheFirst(t *testing.T) {
	n, _ := openedWith(t, Config{})
	n.closed.Store(true)
	if err := n.closeFiles(); err != nil {
		t.Fatal(err)
	}
	openedWith(t, Config{V4: netip.MustParsePrefix("172.30.0.0/16"), V6: netip.MustParsePrefix("fdc1:d01::/64")})
	for _, args := range [][]string{{"-o", "addr"}, {"route"}, {"-6", "route"}} {
		if out := run(t, "ip", args...); strings.Contains(out, "10.201.") || strings.Contains(out, "fdc1:d00:") {
			t.Errorf("ip %v: got\n%s", args, out)
		}
	}
}

func TestAPortIsOneVMs(t *testing.T) {
	n := unopened(ignore)
	nic := func(number byte, port, hostPort uint16) NIC {
		v4, v6 := addresses(number)
		return NIC{Addrs: []netip.Addr{v4, v6}, WireGuard: &WireGuard{PublicKey: peerKey, Port: port, HostPort: hostPort}}
	}
	if _, err := n.add("a", nic(16, 51820, hubPort)); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		nic  NIC
		kind cloudpal.Kind
	}{
		"another's port":              {nic(17, 51820, hubPort), cloudpal.Exist},
		"no port":                     {nic(17, 51820, 0), cloudpal.Invalid},
		"no port inside":              {nic(17, 0, hubPort+1), cloudpal.Invalid},
		"a port that guests ask from": {nic(17, 51820, route.FirstPort), cloudpal.Invalid},
	} {
		if err := n.Add("b", c.nic); cloudpal.KindOf(err) != c.kind || cloudpal.HintOf(err) == "" {
			t.Errorf("%s: got %v (%s)", what, err, cloudpal.HintOf(err))
		}
		if _, err := n.find("b"); err == nil {
			t.Errorf("%s: it is known all the same", what)
		}
	}
	n.forget("a")
	if _, err := n.add("b", nic(17, 51820, hubPort)); err != nil {
		t.Errorf("a port that is free again: %v", err)
	}
}

// TestAFullQueueHoldsWhatItCanAndGoesOn has more come for a VM that sleeps than
// is held, and another VM wake meanwhile.
func TestAFullQueueHoldsWhatItCanAndGoesOn(t *testing.T) {
	n, wakes := openedWith(t, Config{})
	v := hub(t, n, "a", 16, hubPort, true)
	other := hub(t, n, "b", 17, hubPort+1, true)
	v4, _ := addresses(16)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 4711})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, x := range []*nic{v, other} {
		x.mu.Lock()
		x.judge.learn(udp{from: at(v4, 51820), to: at(n.own(v4), 4711), data: response(7, 1)}, time.Now())
		x.mu.Unlock()
	}
	const count = 2 * maxHeldPackets
	for i := range count {
		send(t, conn, at(v4, 51820), dataMessage(7, uint64(i), 16))
		if i%256 == 255 {
			n.awaitPassing() // so that it is this queue that is full, and not the kernel's
		}
	}
	to, _ := addresses(17)
	send(t, conn, at(to, 51820), dataMessage(7, 0, 16))
	for got := (waking{}); got.addr != to; {
		got = await(t, wakes, "the other's wake")
	}
	g := awake(t, n, "a")
	for i := range maxHeldPackets {
		u, err := parseUDP(g.receive())
		if err != nil || counter(u.data) != uint64(i) {
			t.Fatalf("got %v, %v in place %d", u, err, i)
		}
	}
	send(t, conn, at(v4, 51820), dataMessage(7, count, 16))
	if u, err := parseUDP(g.receive()); err != nil || counter(u.data) != count {
		t.Errorf("behind them: got %v, %v", u, err)
	}
}

// TestDamagedSettingsAreNotBelieved has a file of settings that is none.
func TestDamagedSettingsAreNotBelieved(t *testing.T) {
	n, _ := opened(t)
	c := n.cfg
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	before := settled(t)
	for what, b := range map[string]string{
		"no JSON": "x", "a setting that is not ours": `{"kernel/core_pattern":"|/bin/sh"}`,
		"a way out": `{"ipv6/conf/../../x/accept_ra":"1"}`, "a value that is none": `{"ipv4/ip_forward":"7"}`,
	} {
		c.Dir = t.TempDir()
		if err := os.WriteFile(filepath.Join(c.Dir, "forwarding"), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		var text *bytes.Buffer
		c.Log, text = logged()
		n, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), "forwarding") {
			t.Errorf("%s: the log does not say so: %q", what, text)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if after := foreign(t); after != before {
			t.Errorf("%s:\n%s", what, differs(after, before))
		}
	}
}
