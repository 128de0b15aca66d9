package center_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	centerapi "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/test/world"
)

// A host without IPv6 has pals like any other.
func TestHostWithoutIPv6(t *testing.T) {
	t.Parallel()
	s := newSite(t, world.NewInternet(t))
	s.StopAgent() // and wake0 is gone with it
	if _, err := os.Stat(filepath.Join(s.Run, "center.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a center that ended is still announced (%v)", err)
	}
	off := s.Command("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	if out, err := off.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", off, err, out)
	}
	s.StartAgent()
	ann := s.customer()
	p, err := ann.Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := ann.Lock(t.Context(), p.ID); err != nil || !l.Locked {
		t.Errorf("its core says %+v (%v)", l, err)
	}
	if len(p.Endpoints) != 1 || !p.Endpoints[0].Addr().Is4() {
		t.Errorf("endpoints %v, want one of IPv4", p.Endpoints)
	}
}

// With a prefix of the world's, a pal has an address of its own.
func TestPrefixOfTheWorlds(t *testing.T) {
	t.Parallel()
	s := newSite(t, world.NewInternet(t), "--prefix6", "2001:db8:f00::/64")
	p, err := s.customer().Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()})
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix("2001:db8:f00::/64")
	if len(p.Endpoints) != 2 || !prefix.Contains(p.Endpoints[1].Addr()) || p.Endpoints[1].Port() != 51820 {
		t.Errorf("endpoints %v, want one in %v", p.Endpoints, prefix)
	}
}

// UDP ports that others have are left to them, and the TCP port, too, says who
// has it.
func TestPortsInUse(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, "--udp-ports", "7000-7001", "--max-pals", "2")
	taken := s.Command("sh", "-c", "exec python3 -c 'import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind((\"0.0.0.0\",7000)); print(1,flush=True); time.sleep(600)'")
	out, err := taken.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := taken.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { taken.Process.Kill(); taken.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p, err := s.customer().Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Endpoints[0].Port(); got != 7001 {
		t.Errorf("its port is %d, which another program has", got)
	}
	if _, err := s.customer().Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()}); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("without a free port: %v, want %v", err, cloudpal.Busy)
	}
	bin, err := world.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	image, _ := core()
	second := s.Command(bin+"/cloudpal", "center", "--core", image, "--state", t.TempDir(), "--run", t.TempDir(), "--socket", t.TempDir()+"/s")
	text, err := second.CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || !bytes.Contains(text, []byte("answer on :7443: busy")) || !bytes.Contains(text, []byte("hint: another program has that port")) {
		t.Errorf("a second center: %v\n%s", err, text)
	}
}

// A pal reaches neither the center that runs it nor its other pals' cores.
func TestPalsAreWalledOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, world.NewInternet(t), "--idle", "1h") // the test's own questions keep nobody awake
	ann := s.customer()
	var ids []centerapi.ID
	for range 2 {
		p, err := ann.Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ann.Lock(t.Context(), p.ID); err != nil { // it listens, then
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	other := world.Addr(s.VM("pal-"+string(ids[1])), 7460)
	for _, addr := range []string{"10.201.0.1:7443", "198.51.100.10:7443", other} {
		got := s.reach(ids[0], addr)
		if got != "no" {
			t.Errorf("a pal reaches %s: %q", addr, got)
		}
	}
}

// reach asks a core whether it can connect to an address.
func (s *site) reach(id centerapi.ID, addr string) string {
	s.t.Helper()
	return s.askCore(id, "/v1/reach?addr="+addr)
}

// A pal naps by itself, stays so while nobody speaks to it, and is sealed in
// time; what it is asked over the center's interface wakes it.
func TestNapsAndIsSealed(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, "--idle", "3s", "--seal", "4s")
	ann := s.customer()
	p, err := ann.Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()})
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(t, ann, p.ID, "a secret"); err != nil {
		t.Fatal(err)
	}
	var story []string
	last := int64(0)
	for len(story) == 0 || story[len(story)-1] != string(centerapi.Dropped) {
		events, err := ann.Events(t.Context(), p.ID, last, 30*time.Second)
		if err != nil || len(events) == 0 {
			t.Fatalf("after %v: %v (%v)", story, events, err)
		}
		for _, e := range events {
			story, last = append(story, string(e.What)), e.N
		}
	}
	// On a busy machine it may have napped before it was unlocked, too.
	told := strings.Join(story, " ")
	if got, want := strings.ReplaceAll(told, "napped woke ", ""), "booted napped sealed"; got != want {
		t.Errorf("what happened: %q, want %q", told, want)
	}
	if p, err = ann.Pal(t.Context(), p.ID); err != nil || p.State != centerapi.Sealed {
		t.Errorf("it is %s (%v)", p.State, err)
	}
	out, err := s.command("center", "status")
	if err != nil || !strings.Contains(out, "1: 0 awake, 0 napping, 1 sealed") {
		t.Errorf("the operator sees: %s (%v)", out, err)
	}
	if err := unlock(t, ann, p.ID, "a secret"); err != nil {
		t.Errorf("unlocked after it was sealed: %v", err)
	}
	if p, err = ann.Pal(t.Context(), p.ID); err != nil || p.Boots != 2 {
		t.Errorf("it booted %d times (%v), want 2", p.Boots, err)
	}
}

// A pal's endpoints lead to its WireGuard from the world, and a WireGuard's
// handshake wakes it: the center knows the public key, and nothing more.
func TestEndpointsLeadToThePal(t *testing.T) {
	t.Parallel()
	i := world.NewInternet(t)
	s := newSite(t, i)
	phone := i.Join()
	// The core's private key is in nobody's hands here: a handshake is begun
	// with its public key alone.
	core, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	device, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ann := s.ask(newAccount(), phone.Dial)
	p, err := ann.Create(t.Context(), centerapi.CreateRequest{WireGuard: core.PublicKey().Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	at := p.Endpoints[0].String()
	if _, err := ann.Lock(t.Context(), p.ID); err != nil { // it listens, then
		t.Fatal(err)
	}
	data := "\x04\x00\x00\x00" + strings.Repeat("d", 60) // the shape of WireGuard's data
	if got := exchange(t, phone, at, data); got != data {
		t.Errorf("an awake pal's endpoint says %q, want what its VM says", got)
	}
	if got := exchange(t, phone, at, "hello"); got != "" {
		t.Errorf("what is no WireGuard's was let in: %q", got)
	}
	// Nor does anything else wake it.
	if p, err = ann.Sleep(t.Context(), p.ID, centerapi.DepthMemory); err != nil {
		t.Fatal(err)
	}
	exchange(t, phone, at, "garbage")
	exchange(t, phone, at, data)
	exchange(t, phone, netip.AddrPortFrom(p.Endpoints[0].Addr(), 51819).String(), "another port")
	if p, err = ann.Pal(t.Context(), p.ID); err != nil || p.State != centerapi.Napping {
		t.Fatalf("garbage has woken it: %+v (%v)", p, err)
	}
	text := base64.StdEncoding.EncodeToString
	phone.WireGuard("[Interface]\nPrivateKey = " + text(device.Bytes()) + "\nAddress = 10.9.9.2/32\n" +
		"[Peer]\nPublicKey = " + text(core.PublicKey().Bytes()) + "\nEndpoint = " + at + "\nAllowedIPs = 10.9.9.1/32\n")
	phone.Command("ping", "-c1", "-W1", "10.9.9.1").Run() // which nobody answers
	events, err := ann.Events(t.Context(), p.ID, 2, 20*time.Second)
	if err != nil || len(events) != 1 || events[0].What != centerapi.Woke {
		t.Fatalf("after a handshake: %+v (%v)", events, err)
	}
	if p, err = ann.Pal(t.Context(), p.ID); err != nil || !strings.Contains(p.Reason, phone.V4.String()) {
		t.Errorf("it woke for %q (%v), want for the phone's handshake", p.Reason, err)
	}
	if log := s.AgentLog(); strings.Contains(log, phone.V4.String()) {
		t.Errorf("the center's log has the phone's address:\n%s", log)
	}
}

// exchange sends a datagram and returns the answer to it, or "".
func exchange(t *testing.T, from *world.Place, to, text string) string {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, _ := conn.Read(buf)
	return string(buf[:n])
}
