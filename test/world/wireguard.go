package world

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A WireGuard is an interface of a place: Debian's wireguard-go, set up by
// Debian's wg with a configuration as phones take it.
type WireGuard struct {
	p    *Place
	Name string
	cmd  *exec.Cmd
	peer string // as wg addconf takes it
}

// WireGuard brings up an interface as wg-quick would. It is gone when the test
// ends.
func (p *Place) WireGuard(config string) *WireGuard {
	p.tb.Helper()
	w := &WireGuard{p: p, Name: "wg-" + token()}
	w.cmd = p.Command("wireguard-go", "-f", w.Name)
	// It thinks that Linux has its own, and says so at length.
	w.cmd.Env = append(os.Environ(), "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1", "LOG_LEVEL=error")
	must(p.tb, w.cmd.Start())
	p.tb.Cleanup(w.Down)
	socket := "/var/run/wireguard/" + w.Name + ".sock"
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		} else if time.Now().After(end) {
			p.tb.Fatalf("wireguard-go does not come up: %v", err)
		}
	}
	q := parseQuick(p.tb, config)
	w.peer = q.rest[max(0, strings.Index(q.rest, "[Peer]")):]
	set := p.Command("wg", "setconf", w.Name, "/dev/stdin")
	set.Stdin = strings.NewReader(q.rest)
	if out, err := set.CombinedOutput(); err != nil {
		p.tb.Fatalf("wg setconf: %v\n%s", err, out)
	}
	for _, a := range q.addresses {
		p.Run("ip", "addr", "add", a, "dev", w.Name)
	}
	p.Run("ip", "link", "set", w.Name, "mtu", "1420", "up")
	for _, a := range q.allowed {
		if prefix, err := netip.ParsePrefix(a); err == nil && prefix.Bits() == 0 {
			continue // a way to everywhere needs more than a route
		}
		p.Run("ip", "route", "replace", a, "dev", w.Name)
	}
	return w
}

// Down ends the interface and forgets its sessions.
func (w *WireGuard) Down() {
	w.cmd.Process.Signal(syscall.SIGTERM)
	w.cmd.Wait()
}

// Set changes it: wg set INTERFACE ARGS.
func (w *WireGuard) Set(args ...string) {
	w.p.tb.Helper()
	w.p.Run("wg", append([]string{"set", w.Name}, args...)...)
}

// Forget makes it forget its session: what it sends next begins with a handshake.
func (w *WireGuard) Forget() {
	w.p.tb.Helper()
	w.Set("peer", w.Peer(), "remove")
	add := w.p.Command("wg", "addconf", w.Name, "/dev/stdin")
	add.Stdin = strings.NewReader(w.peer)
	if out, err := add.CombinedOutput(); err != nil {
		w.p.tb.Fatalf("wg addconf: %v\n%s", err, out)
	}
}

// Peer is the public key of its one peer.
func (w *WireGuard) Peer() string {
	w.p.tb.Helper()
	return strings.TrimSpace(w.p.Run("wg", "show", w.Name, "peers"))
}

// Handshake is when the last one was, or zero.
func (w *WireGuard) Handshake() time.Time {
	w.p.tb.Helper()
	var key string
	var seconds int64
	fmt.Sscan(w.p.Run("wg", "show", w.Name, "latest-handshakes"), &key, &seconds)
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// A quick is what wg-quick reads of a configuration before wg gets the rest.
type quick struct {
	addresses, allowed []string
	rest               string
}

func parseQuick(tb fataler, config string) quick {
	var q quick
	var rest strings.Builder
	for lines := bufio.NewScanner(strings.NewReader(config)); lines.Scan(); {
		line := lines.Text()
		key, value, _ := strings.Cut(line, "=")
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "address":
			q.addresses = append(q.addresses, list(value)...)
			continue
		case "dns", "mtu":
			continue
		case "allowedips":
			q.allowed = append(q.allowed, list(value)...)
		}
		rest.WriteString(line + "\n")
	}
	q.rest = rest.String()
	if len(q.addresses) == 0 || len(q.allowed) == 0 {
		tb.Fatalf("no WireGuard configuration:\n%s", config)
	}
	return q
}

func list(value string) []string {
	var all []string
	for part := range strings.SplitSeq(value, ",") {
		all = append(all, strings.TrimSpace(part))
	}
	return all
}

type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func must(tb fataler, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
