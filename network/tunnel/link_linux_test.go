package tunnel

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/test/apart"
)

// This machine is at 198.51.100.2, the core at 198.51.100.1, which also leads to
// a server of the world's at 203.0.113.9.
var (
	ownAddr   = addr("198.51.100.2")
	coreAddr  = addr("198.51.100.1")
	worldAddr = addr("203.0.113.9")
	distant   = addr("203.0.113.10") // the core's, behind the default route
)

const (
	farName = "far"
	farLink = "wg-far"
)

// A far is the other side of the world: Debian's WireGuard as the core, in a
// network of its own.
type far struct {
	t    *testing.T
	core key
}

func newFar(t *testing.T, device key) far {
	t.Helper()
	need(t)
	f := far{t, newKey(t)}
	sh(t, "ip netns add "+farName)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", farName).Run() })
	sh(t, "ip link add eth0 type veth peer name eth0 netns "+farName)
	t.Cleanup(func() { exec.Command("ip", "link", "del", "eth0").Run() })
	sh(t, "sysctl -qw net.ipv4.conf.eth0.rp_filter=1", "ip addr add "+ownAddr.String()+"/30 dev eth0",
		"ip link set eth0 up", "ip route add default via "+coreAddr.String())
	f.sh("ip link set lo up", "ip addr add "+coreAddr.String()+"/30 dev eth0", "ip link set eth0 up",
		"ip addr add "+worldAddr.String()+"/32 dev lo", "ip addr add "+distant.String()+"/32 dev lo", "sysctl -qw net.ipv4.ip_forward=1")
	f.wireGuard(device)
	return f
}

// wireGuard brings up the core's interface.
func (f far) wireGuard(device key) {
	f.t.Helper()
	name := farLink
	cmd := f.command("wireguard-go", "-f", name)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.Env = append(os.Environ(), "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1", "LOG_LEVEL=error")
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
		if f.t.Failed() {
			f.t.Logf("Debian's WireGuard said %q and ended: %v", &said, cmd.ProcessState)
		}
	})
	eventually(f.t, "Debian's WireGuard comes up", func() bool { return f.command("wg", "show", name).Run() == nil })
	set := f.command("wg", "setconf", name, "/dev/stdin")
	set.Stdin = strings.NewReader(fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = 51820\n[Peer]\nPublicKey = %s\nAllowedIPs = %v/32, %v/128\n",
		base64.StdEncoding.EncodeToString(f.core.private), base64.StdEncoding.EncodeToString(device.public[:]), device4, device6))
	if out, err := set.CombinedOutput(); err != nil {
		f.t.Fatalf("wg: %v: %s", err, out)
	}
	f.sh("ip addr add "+core4.String()+"/24 dev "+name, "ip addr add "+core6.String()+"/64 dev "+name+" nodad",
		"ip link set "+name+" mtu 1420 up")
}

func need(t *testing.T) {
	t.Helper()
	reason := ""
	for _, tool := range []string{"wireguard-go", "wg", "ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			reason = "needs " + tool + ": run make setup-test"
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		reason = "needs /dev/net/tun"
	}
	if os.Getuid() != 0 {
		reason = "needs root: it changes addresses and routes"
	}
	if reason != "" {
		apart.Skip(t, reason)
	}
}

func sh(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

func (f far) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + farName, name}, args...)...)
}

func (f far) sh(lines ...string) {
	f.t.Helper()
	for _, line := range lines {
		if out, err := f.command("sh", "-c", line).CombinedOutput(); err != nil {
			f.t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

// listen opens a port of the far side.
func (f far) listen(at string) (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with the goroutine
		ns, e := os.Open("/run/netns/" + farName)
		if err = e; err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		l, err = net.Listen("tcp", at)
	}()
	<-done
	return l, err
}

// whoAsks answers with the address that a connection comes from.
func whoAsks(c net.Conn) {
	from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	io.WriteString(c, from)
}

func (f far) answer(at netip.Addr) {
	l, err := f.listen(netip.AddrPortFrom(at, 80).String())
	serve(f.t, l, err, whoAsks)
}

// seenAs asks a server of the far side who we are.
func seenAs(t *testing.T, at netip.Addr) string {
	t.Helper()
	return seenBy(t, new(net.Dialer), at)
}

func seenBy(t *testing.T, d *net.Dialer, at netip.Addr) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(at, 80).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// machine is what may be changed of a machine's network.
func machine(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, line := range []string{
		"ip link | grep -o '^[0-9]*: [^:@]*'", "ip rule", "ip -6 rule", "ip route show table all | sort", "ip -6 route show table all | sort",
		"nft list ruleset", "cat /etc/resolv.conf", "cat /etc/hosts", "ls /etc",
	} {
		out, err := exec.Command("sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		fmt.Fprintf(&all, "# %s\n%s", line, out)
	}
	return all.String()
}

func (f far) config(device key, routes ...string) Config {
	c := Config{
		PrivateKey: device.private, Addrs: []netip.Addr{device4, device6}, Peer: f.core.public,
		Endpoints: []netip.AddrPort{netip.AddrPortFrom(coreAddr, 51820)}, DNS: []netip.Addr{core4},
	}
	for _, r := range append(routes, "10.77.1.0/24", "fd77::/64") {
		c.Routes = append(c.Routes, netip.MustParsePrefix(r))
	}
	return c
}

func TestWholeMachineReachesTheOverlay(t *testing.T) {
	device := newKey(t)
	f := newFar(t, device)
	for _, a := range []netip.Addr{core4, core6, worldAddr} {
		f.answer(a)
	}
	before := machine(t)
	c := f.config(device)
	c.Hosts = []Host{{"pal", []netip.Addr{core4, core6}}}
	tun, err := OpenTUN(c)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	resolv, err := os.ReadFile("/etc/resolv.conf")
	want(t, "its DNS", fmt.Sprint(string(resolv), err), fmt.Sprint(ownResolv, nil))
	wantName(t, "pal", core4, core6)
	if err := tun.SetHosts([]Host{{"pal", []netip.Addr{core4}}, {"laptop.pal", []netip.Addr{device4}}}); err != nil {
		t.Fatal(err)
	}
	wantName(t, "pal", core4)
	wantName(t, "laptop.pal", device4)
	want(t, "over IPv4", seenAs(t, core4), device4.String())
	want(t, "over IPv6", seenAs(t, core6), device6.String())
	want(t, "what is not of the overlay", seenAs(t, worldAddr), ownAddr.String())
	if s := tun.Stats(); s.Handshake.IsZero() || s.Endpoint.Addr() != coreAddr {
		t.Errorf("stats are %+v", s)
	}
	if _, err := OpenTUN(f.config(device)); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("a second one: got %v, want %v", err, cloudpal.Exist)
	}
	if err := tun.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, "the machine afterwards", machine(t), before)
}

func TestEverythingGoesThroughTheTunnel(t *testing.T) {
	device := newKey(t)
	f := newFar(t, device)
	for _, a := range []netip.Addr{core4, worldAddr, coreAddr} {
		f.answer(a)
	}
	before := machine(t)
	// The way back from there is checked strictly: see newFar.
	c := f.config(device, "0.0.0.0/0", "::/0")
	c.Endpoints = []netip.AddrPort{netip.AddrPortFrom(distant, 51820)}
	tun, err := OpenTUN(c)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	want(t, "the core", seenAs(t, core4), device4.String())
	want(t, "the world", seenAs(t, worldAddr), device4.String())
	want(t, "a neighbour", seenAs(t, coreAddr), ownAddr.String())
	want(t, "the world, around it", seenBy(t, tun.Around(), worldAddr), ownAddr.String())
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil || !strings.Contains(string(resolv), "nameserver "+core4.String()) {
		t.Errorf("names are asked for at %q, %v", resolv, err)
	}
	if err := tun.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, "the world, afterwards", seenAs(t, worldAddr), ownAddr.String())
	want(t, "the machine afterwards", machine(t), before)
}

// A process that is killed takes only its interface with it.
func TestCrashIsCleanedUp(t *testing.T) {
	device := newKey(t)
	f := newFar(t, device)
	f.answer(worldAddr)
	before := machine(t)
	for round := range 2 {
		tun, err := OpenTUN(f.config(device, "0.0.0.0/0", "::/0"))
		if err != nil {
			t.Fatal(err)
		}
		tun.stop()
		tun.tasks.Wait()
		tun.link = nil // as if it were killed: nothing of it is undone
		tun.Close()
		eventually(t, "the interface is gone", func() bool {
			_, err := net.InterfaceByName(LinkName)
			return err != nil
		})
		if machine(t) == before {
			t.Fatal("nothing was left, so nothing is tested")
		}
		if round == 0 {
			continue // the next one cleans up, too
		}
		if err := Restore(); err != nil {
			t.Fatal(err)
		}
	}
	want(t, "the machine afterwards", machine(t), before)
	want(t, "the world", seenAs(t, worldAddr), ownAddr.String())
}

// A laptop that leaves the house gets another address: the core hears of it at
// once, though nobody sends anything.
func TestChangeOfAddressIsTold(t *testing.T) {
	f, _ := inSession(t)
	sh(t, "ip addr del "+ownAddr.String()+"/30 dev eth0", "ip addr add 198.51.100.6/29 dev eth0",
		"ip route add default via "+coreAddr.String())
	f.sh("ip route add 198.51.100.6/32 dev eth0")
	eventually(t, "the core knows the new address", func() bool {
		out, err := f.command("wg", "show", farLink, "endpoints").Output()
		return err == nil && strings.Contains(string(out), "\t198.51.100.6:")
	})
}

// Other routes, such as those of VMs that wake on this machine, are no news.
func TestOtherRoutesAreNotTold(t *testing.T) {
	_, tun := inSession(t)
	sent := tun.Stats().Sent
	for range 3 {
		sh(t, "ip route add 10.98.0.0/16 via "+coreAddr.String(), "ip route del 10.98.0.0/16")
		time.Sleep(100 * time.Millisecond) // it is looked at after 50 ms
	}
	if s := tun.Stats(); s.Sent != sent {
		t.Errorf("%d bytes were sent", s.Sent-sent)
	}
}

// inSession opens a tunnel that has spoken with the core and has nothing more
// to say.
func inSession(t *testing.T) (far, *Tunnel) {
	t.Helper()
	device := newKey(t)
	f := newFar(t, device)
	f.answer(core4)
	tun, err := Open(f.config(device))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tun.Close() })
	c := dial(t, tun, "tcp", netip.AddrPortFrom(core4, 80).String())
	io.ReadAll(c)
	c.Close()
	quietly(t, tun)
	return f, tun
}

// quietly waits until nothing is left to be said.
func quietly(t *testing.T, tun *Tunnel) {
	t.Helper()
	eventually(t, "nothing is left to be said", func() bool {
		was := tun.Stats()
		time.Sleep(100 * time.Millisecond)
		return was == tun.Stats()
	})
}

func TestResolvFile(t *testing.T) {
	dir := t.TempDir()
	r := resolvFile(filepath.Join(dir, "resolv.conf"))
	real := filepath.Join(dir, "stub.conf")
	read := func() string { b, _ := os.ReadFile(string(r)); return string(b) }
	servers := Config{DNS: []netip.Addr{core4, core6}}
	os.WriteFile(real, []byte(ownResolv), 0o644)
	os.Symlink("stub.conf", string(r))

	for range 2 { // the second is after a crash
		if err := r.replace(servers); err != nil {
			t.Fatal(err)
		}
		if got := read(); !strings.HasSuffix(got, "\nnameserver 10.77.1.1\nnameserver fd77::1\n") {
			t.Errorf("got %q", got)
		}
	}
	if err := r.restore(); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(string(r)); err != nil || to != "stub.conf" || read() != ownResolv {
		t.Errorf("the link is not back: %q, %v, %q", to, err, read())
	}
	if err := r.restore(); err != nil || read() != ownResolv {
		t.Errorf("a second time: %v, %q", err, read())
	}

	// Somebody else's change is kept.
	if err := r.replace(servers); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(string(r), []byte("nameserver 192.0.2.1\n"), 0o644)
	if err := r.restore(); err != nil || read() != "nameserver 192.0.2.1\n" {
		t.Errorf("another's change: %v, %q", err, read())
	}
	if _, err := os.Lstat(r.before()); err == nil {
		t.Error("the file that was put aside is still there")
	}
}

func TestNetworksInUse(t *testing.T) {
	newFar(t, newKey(t))
	sh(t, "ip route add 10.99.0.0/16 via "+coreAddr.String())
	used := InUse()
	for _, p := range []string{"198.51.100.0/30", "10.99.0.0/16"} {
		if !slices.Contains(used, netip.MustParsePrefix(p)) {
			t.Errorf("%s is not in %v", p, used)
		}
	}
	for _, p := range used {
		if p.Bits() == 0 {
			t.Errorf("the default route is in %v", used)
		}
	}
}

func wantName(t *testing.T, name string, want ...netip.Addr) {
	t.Helper()
	out, err := exec.Command("getent", "ahosts", name).Output()
	var got []netip.Addr
	for line := range strings.Lines(string(out)) {
		if a, err := netip.ParseAddr(strings.Fields(line)[0]); err == nil && !slices.Contains(got, a) {
			got = append(got, a)
		}
	}
	slices.SortFunc(got, netip.Addr.Compare)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: got %v, %v, want %v", name, got, err, want)
	}
}

func TestHostsFile(t *testing.T) {
	names := []Host{{"pal", []netip.Addr{core4, core6}}, {"laptop.pal", []netip.Addr{device4}}}
	for text, before := range map[string]string{
		"nothing":   "",
		"lines":     "127.0.0.1 localhost\n# more\n",
		"no end":    "127.0.0.1 localhost",
		"a crash's": "127.0.0.1 localhost\n" + hostsBegin + "192.0.2.1\told\n" + hostsEnd + "::1 localhost\n",
	} {
		h := hostsFile(filepath.Join(t.TempDir(), "hosts"))
		if err := os.WriteFile(string(h), []byte(before), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := h.set(names); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(string(h))
		block := hostsBegin + "10.77.1.1\tpal\nfd77::1\tpal\n10.77.1.2\tlaptop.pal\n" + hostsEnd
		if err != nil || strings.Count(string(got), block) != 1 || strings.Contains(string(got), "old") {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
		if err := h.set(nil); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(string(h))
		rest := string(withoutBlock([]byte(before)))
		if err != nil || strings.TrimSuffix(string(after), "\n") != strings.TrimSuffix(rest, "\n") {
			t.Errorf("%s: left is %q, %v, want %q", text, after, err, rest)
		}
	}
	if err := hostsFile(filepath.Join(t.TempDir(), "hosts")).set(nil); err != nil {
		t.Errorf("where there is none: %v", err)
	}
}
