package network_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// wakesInAll is how many first packets must not be lost, over all payloads.
const wakesInAll = 1000

// patience is how long a first packet's answer may take before it counts as
// lost: nobody sends it again.
const patience = 20 * time.Second

// TestNoFirstPacketIsLost wakes a pal a thousand times, each time by one packet
// of a device in a live session: a datagram, a ping, a SYN. None is sent twice.
func TestNoFirstPacketIsLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if _, err := h.udp(h.phone, patience); err != nil {
		t.Fatal(err)
	}
	nft := h.phone.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(once)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	payloads := []struct {
		name string
		send func() error
	}{
		{"UDP", func() error { _, err := h.udp(h.phone, patience); return err }},
		{"ICMP", h.ping},
		{"TCP", h.syn},
	}
	lost := map[string]int{}
	wakes := h.wakes()
	for i := range wakesInAll {
		p := payloads[i%len(payloads)]
		h.sleep(api.Memory)
		if err := p.send(); err != nil {
			lost[p.name]++
			t.Errorf("wake %d: %s: %v", i, p.name, err)
		}
		if len(lost) > 0 && i > 100 && i%100 == 0 {
			t.Fatalf("after %d wakes: lost %v", i, lost)
		}
	}
	if n := h.wakes() - wakes; n < wakesInAll {
		t.Errorf("%d wakes, want %d", n, wakesInAll)
	}
}

// ping sends one echo request.
func (h *house) ping() error {
	out, err := h.phone.Command("ping", "-c1", "-W", fmt.Sprint(int(patience.Seconds())), h.core.String()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// once lets the phone's kernel send each SYN to the core once: it would send it
// again after a second, whether it was lost or the machine is slow.
const once = `table inet once {
	set sent { type inet_service; flags dynamic,timeout; timeout 1m; }
	chain output {
		type filter hook output priority 0
		tcp dport 80 tcp flags & (syn|ack) == syn tcp sport @sent drop
		tcp dport 80 tcp flags & (syn|ack) == syn add @sent { tcp sport }
	}
}`

// syn opens a TCP connection, whose SYN is not sent twice.
func (h *house) syn() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := h.phone.Dial(ctx, "tcp", net.JoinHostPort(h.core.String(), "80"))
	if err != nil {
		return err
	}
	return conn.Close()
}

// TestUpOnOneMachine is what a person does first: one command, then a phone.
func TestUpOnOneMachine(t *testing.T) {
	t.Parallel()
	i := world.NewInternet(t)
	home := i.Join()
	core := world.Core(t)
	l := home.Laptop()
	run := t.TempDir()
	flags := []string{
		"--state", run + "/state", "--run", "/run/" + home.Netns(), "--socket", run + "/host.sock", "--",
		"--core", core, "--pal-disk", "256M",
	}
	flags = append([]string{"--name", "laptop"}, flags...)
	t.Cleanup(func() {
		if log, err := os.ReadFile(run + "/state/center.log"); err == nil && t.Failed() {
			t.Logf("the center said:\n%s", log)
		}
	})
	s := l.Up(flags...)
	t.Cleanup(func() { home.Sweep("/run/" + home.Netns()) })
	if len(l.Phrase) != 24 || l.Phone == "" {
		t.Fatalf("it showed %d words of a phrase, and a phone's configuration of %d bytes", len(l.Phrase), len(l.Phone))
	}
	if s.Pal == nil || !s.Center.Local || s.Agent == nil {
		t.Fatalf("up leaves %+v", s)
	}
	phone := i.Join()
	phone.WireGuard(l.Phone)
	h := &house{t: t, phone: phone}
	for _, p := range s.Network {
		if p.Addr().Is4() {
			h.core = p.Addr().Next()
		}
	}
	if _, err := h.udp(phone, patience); err != nil {
		t.Errorf("the phone: %v", err)
	}
	first := *l
	again := l.Up(flags...)
	if again.Pal == nil || again.Pal.ID != s.Pal.ID || again.Pal.Boots != s.Pal.Boots {
		t.Errorf("the second up makes of %+v %+v", s.Pal, again.Pal)
	}
	if l.Phone != first.Phone {
		t.Error("the second up adds a phone")
	}
	l.Cloudpal("down")
	if status := l.Status(); status.Agent != nil || status.Center.Answers {
		t.Errorf("after down there are an agent %+v and a center (%v)", status.Agent, status.Center.Answers)
	}
	if _, err := l.Try("destroy", "--yes"); err == nil || !strings.Contains(err.Error(), "cloudpal up, then destroy it") {
		t.Errorf("after down, destroy says: %v", err)
	}
	back := l.Up(flags...)
	if back.Pal == nil || back.Pal.ID != s.Pal.ID {
		t.Errorf("up after down has the pal %+v", back.Pal)
	}
	if _, err := h.udp(phone, patience); err != nil {
		t.Errorf("the phone after down and up: %v", err)
	}
	l.Cloudpal("destroy", "--yes")
	if _, err := l.Try("status"); err == nil {
		t.Error("after destroy there is still something to tell")
	}
	if left := home.Sweep("/run/" + home.Netns()); left > 0 {
		t.Errorf("destroy leaves %d VMs' processes", left)
	}
}
