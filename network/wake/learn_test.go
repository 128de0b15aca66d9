//go:build linux

package wake

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/bpf"
)

func filterFor(t testing.TB, p netip.Prefix) *bpf.VM {
	t.Helper()
	vm, err := bpf.NewVM(handshakesFrom(p))
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// heardBy reports whether a filter lets a packet through.
func heardBy(t testing.TB, vm *bpf.VM, p []byte) bool {
	t.Helper()
	n, err := vm.Run(p)
	return err == nil && n > 0
}

func TestTheFilterHearsWhatVMsSayInHandshakes(t *testing.T) {
	v4, v6 := filterFor(t, DefaultV4), filterFor(t, DefaultV6)
	six := netip.MustParseAddrPort("[fdc1:d00::10]:51820")
	options := datagram(peerAddr, phone, response(1, 2))
	options = append(append([]byte{0x46, 0, 0, 124}, options[4:20]...), append([]byte{1, 1, 1, 1}, options[20:]...)...)
	fragment := datagram(peerAddr, phone, response(1, 2))
	fragment[6] |= 0x20
	for _, c := range []struct {
		what   string
		filter *bpf.VM
		p      []byte
		want   bool
	}{
		{"an initiation", v4, datagram(peerAddr, phone, initiation(peerKey)), true},
		{"a response", v4, datagram(peerAddr, phone, response(1, 2)), true},
		{"a response behind options", v4, options, true},
		{"a response over IPv6", v6, datagram(six, somebody6, response(1, 2)), true},
		{"an initiation over IPv6", v6, datagram(six, somebody6, initiation(peerKey)), true},
		{"data", v4, datagram(peerAddr, phone, dataMessage(1, 2, 60)), false},
		{"what a VM is sent", v4, datagram(phone, peerAddr, response(1, 2)), false},
		{"what another sends, over IPv6", v6, datagram(somebody6, six, response(1, 2)), false},
		{"an initiation of another size", v4, datagram(peerAddr, phone, initiation(peerKey)[:147]), false},
		{"a response as large as an initiation", v4, datagram(peerAddr, phone, append(response(1, 2), make([]byte, 56)...)), false},
		{"a fragment", v4, fragment, false},
		{"nothing", v4, nil, false},
	} {
		if got := heardBy(t, c.filter, c.p); got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
	}
}

// FuzzFilter compares the filter with what reads the packets behind it.
func FuzzFilter(f *testing.F) {
	f.Add(datagram(peerAddr, phone, initiation(peerKey)))
	f.Add(datagram(peerAddr, phone, response(1, 2)))
	f.Add(datagram(netip.MustParseAddrPort("[fdc1:d00::10]:51820"), somebody6, response(1, 2)))
	v4, v6 := filterFor(f, DefaultV4), filterFor(f, DefaultV6)
	f.Fuzz(func(t *testing.T, p []byte) {
		u, err := parseUDP(p)
		if err != nil {
			return
		}
		k := kind(u.data)
		filter, prefix := v4, DefaultV4
		if u.from.Addr().Is6() {
			filter, prefix = v6, DefaultV6
		}
		want := prefix.Contains(u.from.Addr()) && (k == typeInitiation || k == typeResponse)
		if k != 0 && heardBy(t, filter, p) != want {
			t.Errorf("% x: heard %v, want %v", p, !want, want)
		}
	})
}

// TestSessionsAreLearnedAndOutliveTheAgent has a VM shake hands, fall asleep, and
// another process go on: data of that session wakes, of no other.
func TestSessionsAreLearnedAndOutliveTheAgent(t *testing.T) {
	dir := t.TempDir()
	n, _ := openedWith(t, Config{Dir: dir})
	p := beside(t, 1, "198.51.100")
	hub(t, n, "a", 16, hubPort, true)
	other := hub(t, n, "b", 17, hubPort+1, true)
	v4, _ := addresses(16)
	conn := p.socket(4711)
	g, liar := awake(t, n, "a"), awake(t, n, "b")
	send(t, conn, at(p.host4, hubPort), initiation(peerKey))
	g.receive()
	g.send(datagram(at(v4, 51820), at(p.v4, 4711), response(7, 1)))
	next(t, conn)
	// A neighbour claims a session in the VM's name.
	liar.send(datagram(at(v4, 51820), at(p.v4, 4711), response(8, 1)))
	awaitFile(t, filepath.Join(dir, "sessions", "a.json"))
	if err := n.Unplug("a"); err != nil {
		t.Fatal(err)
	}
	if len(other.judge.sessions) > 0 {
		t.Errorf("the neighbour has %d sessions", len(other.judge.sessions))
	}
	g.close()
	liar.close()
	if err := n.Unplug("b"); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	n, wakes := openedWith(t, Config{Dir: dir})
	hub(t, n, "a", 16, hubPort, true)
	send(t, conn, at(p.host4, hubPort), dataMessage(8, 1, 16))
	send(t, conn, at(p.host4, hubPort), dataMessage(7, 1, 0))
	send(t, conn, at(p.host4, hubPort), dataMessage(7, 2, 16))
	want := waking{v4, "a packet from 198.51.100.2"}
	if got := await(t, wakes, "a wake"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	g = awake(t, n, "a")
	if u, err := parseUDP(g.receive()); err != nil || receiver(u.data) != 7 || counter(u.data) != 2 {
		t.Errorf("got %v, %v; want only the session's data", u, err)
	}
	if err := n.Unplug("a"); err != nil {
		t.Fatal(err)
	}
	n.Remove("a")
	if _, err := os.Stat(filepath.Join(dir, "sessions", "a.json")); err == nil {
		t.Error("a VM that is removed is remembered")
	}
}

func awaitFile(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			return
		}
	}
	t.Fatalf("%s is not written", name)
}

func TestDamagedSessionsAreNoHindrance(t *testing.T) {
	for what, b := range map[string]string{
		"nothing": "", "no JSON": "\x00\x01", "another form": `{"sessions":7}`, "null": `{"sessions":[null]}`,
		"an address that is none": `{"sessions":[{"index":1,"peer":"nobody"}]}`,
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "sessions"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "sessions", "a.json"), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		n := unopened(ignore)
		if err := n.memory.open(dir, n.cfg.Log); err != nil {
			t.Fatal(err)
		}
		v := &nic{NIC: NIC{MAC: net.HardwareAddr{2}}, n: n, name: "a", judge: judging()}
		n.memory.load(v, noon)
		if len(v.judge.sessions) > 0 {
			t.Errorf("%s: got %d sessions", what, len(v.judge.sessions))
		}
		if v.judge.judge(fromPhone(initiation(peerKey)), noon, false) != greeting {
			t.Errorf("%s: a handshake does not wake", what)
		}
	}
}

func TestWhatIsKeptComesBack(t *testing.T) {
	j, k := judging(), judging()
	guestSends(j, response(7, 1), 0)
	guestSends(j, initiation(peerKey), time.Second)
	guestSends(j, response(9, 1), -time.Hour)
	b, err := j.marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.unmarshal(b, noon.Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if len(k.sessions) != 2 || k.session(7, noon) == nil || !k.friend(phone.Addr()) {
		t.Errorf("got %v and %v", k.sessions, k.peers)
	}
}

// TestDataOfAMissedSessionWakesForAWhile is what came while no process listened.
func TestDataOfAMissedSessionWakesForAWhile(t *testing.T) {
	j := judging()
	guestSends(j, response(7, 1), 0)
	j.missed(noon)
	ask(t, j, []question{
		{"from a stranger", 0, datagram(somebody, peerAddr, dataMessage(8, 1, 16)), drop},
		{"from a peer", time.Second, fromPhone(dataMessage(8, 1, 16)), news},
		{"from a peer, later", 4 * time.Minute, fromPhone(dataMessage(8, 1, 16)), drop},
	})
}

// FuzzSeen reads what a file may have.
func FuzzSeen(f *testing.F) {
	j := judging()
	guestSends(j, response(7, 1), 0)
	b, _ := j.marshal()
	f.Add(b)
	f.Add([]byte(`{"sessions":[null],"peers":{"1.2.3.4":"2026-11-25T12:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var k seen
		if err := k.unmarshal(b, noon); err != nil {
			return
		}
		again, err := k.marshal()
		if err != nil {
			t.Fatal(err)
		}
		var l seen
		if err := l.unmarshal(again, noon); err != nil || len(l.sessions) != len(k.sessions) {
			t.Errorf("got %d sessions, %v; want %d", len(l.sessions), err, len(k.sessions))
		}
	})
}
