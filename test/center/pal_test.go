package center_test

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	centerapi "github.com/tradle/cloudpal/center/api"
	host "github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// seal does what a device does to unlock a core.
func seal(t *testing.T, l centerapi.Lock, secret string) []byte {
	t.Helper()
	key, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(l.Key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), nil, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func unlock(t *testing.T, c *centerapi.Client, id centerapi.ID, secret string) error {
	t.Helper()
	l, err := c.Lock(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if !l.Locked {
		t.Fatal("it is not locked")
	}
	return c.Unlock(t.Context(), id, seal(t, l, secret))
}

// A pal's whole life, over the center's interface alone.
func TestLifeOfAPal(t *testing.T) {
	t.Parallel()
	i := world.NewInternet(t)
	s := newSite(t, i, "--idle", "1h")
	laptop := i.Join()
	account, key := newAccount(), newKey()
	ann := s.ask(account, laptop.Dial)
	about, err := ann.Center(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := ann.Create(t.Context(), centerapi.CreateRequest{WireGuard: key})
	if err != nil {
		t.Fatal(err)
	}
	if p.State != centerapi.Awake || p.Image != about.Image || p.Boots != 1 {
		t.Errorf("a new pal is %+v", p)
	}
	if len(p.Endpoints) != 1 || p.Endpoints[0].Addr().String() != "198.51.100.10" || p.Endpoints[0].Port() < 51820 {
		t.Errorf("its endpoints are %v, want the host's address and its port", p.Endpoints)
	}
	v := s.VM("pal-" + string(p.ID))
	if v.WireGuard == nil || v.WireGuard.HostPort != p.Endpoints[0].Port() || string(v.WireGuard.PublicKey) != string(key) ||
		!v.ReadOnly || !v.Outbound || len(v.Ports) != 0 || v.Nap.Idle != time.Hour {
		t.Errorf("its VM is %+v", v)
	}

	if err := unlock(t, ann, p.ID, "the disk's key"); err != nil {
		t.Fatal(err)
	}
	l, err := ann.Lock(t.Context(), p.ID)
	if err != nil || l.Locked || len(l.Key) != 0 {
		t.Errorf("after the unlock: %+v %v", l, err)
	}
	if err := ann.Unlock(t.Context(), p.ID, []byte("again")); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("a second unlock: %v, want %v", err, cloudpal.Exist)
	}
	boot := s.boot(p.ID)

	for _, depth := range []centerapi.Depth{centerapi.DepthMemory, centerapi.DepthDisk} {
		if p, err = ann.Sleep(t.Context(), p.ID, depth); err != nil || p.State != centerapi.Napping || p.Depth != depth {
			t.Fatalf("sleep: %+v %v", p, err)
		}
	}
	// The lock's question wakes it, and it is still unlocked.
	if l, err = ann.Lock(t.Context(), p.ID); err != nil || l.Locked || s.boot(p.ID) != boot {
		t.Errorf("after a nap: %+v %v", l, err)
	}

	if p, err = ann.Stop(t.Context(), p.ID); err != nil || p.State != centerapi.Stopped {
		t.Fatalf("stop: %+v %v", p, err)
	}
	if p, err = ann.Wake(t.Context(), p.ID); err != nil || p.State != centerapi.Awake || p.Boots != 2 {
		t.Fatalf("wake: %+v %v", p, err)
	}
	if err := unlock(t, ann, p.ID, "another key"); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("unlocked by another key: %v, want %v", err, cloudpal.Denied)
	}
	if err := unlock(t, ann, p.ID, "the disk's key"); err != nil {
		t.Errorf("its volume was lost: %v", err)
	}

	events, err := ann.Events(t.Context(), p.ID, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var story []string
	for _, e := range events {
		story = append(story, string(e.What))
	}
	if got, want := strings.Join(story, " "), "booted napped woke stopped booted"; got != want {
		t.Errorf("what happened: %q, want %q", got, want)
	}

	if err := ann.Destroy(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	s.nothingLeft()
	if err := ann.Destroy(t.Context(), p.ID); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("destroyed twice: %v, want %v", err, cloudpal.NotExist)
	}
	if log := s.AgentLog(); strings.Contains(log, laptop.V4.String()) {
		t.Errorf("the log has the customer's address:\n%s", log)
	}
}

// nothingLeft fails the test if anything of any pal is on the host.
func (s *site) nothingLeft() {
	s.t.Helper()
	if vms, err := s.API.VMs(s.t.Context()); err != nil || len(vms) != 0 {
		s.t.Errorf("VMs %v are left (%v)", vms, err)
	}
	if volumes, err := s.API.Volumes(s.t.Context()); err != nil || len(volumes) != 0 {
		s.t.Errorf("volumes %v are left (%v)", volumes, err)
	}
	for _, dir := range []string{filepath.Join(s.Dir, "state"), s.Run} {
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if strings.Contains(d.Name(), "pal-") || filepath.Base(filepath.Dir(path)) == "pals" {
				s.t.Errorf("%s is left", path)
			}
			return nil
		})
	}
}

// Strangers, and other customers, cannot tell a pal from none.
func TestStrangersSeeNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	ann, bob, stranger := s.customer(), s.customer(), s.ask(nil, s.World.Dial)
	p, err := ann.Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()})
	if err != nil {
		t.Fatal(err)
	}
	if p.Endpoints[0].Addr().String() != "10.201.0.1" {
		t.Errorf("without any network it is at %v, want the host's inner address", p.Endpoints)
	}
	ctx := t.Context()
	for what, f := range map[string]func(c *centerapi.Client, id centerapi.ID) error{
		"look":    func(c *centerapi.Client, id centerapi.ID) error { _, err := c.Pal(ctx, id); return err },
		"wake":    func(c *centerapi.Client, id centerapi.ID) error { _, err := c.Wake(ctx, id); return err },
		"sleep":   func(c *centerapi.Client, id centerapi.ID) error { _, err := c.Sleep(ctx, id, ""); return err },
		"stop":    func(c *centerapi.Client, id centerapi.ID) error { _, err := c.Stop(ctx, id); return err },
		"lock":    func(c *centerapi.Client, id centerapi.ID) error { _, err := c.Lock(ctx, id); return err },
		"unlock":  func(c *centerapi.Client, id centerapi.ID) error { return c.Unlock(ctx, id, []byte("x")) },
		"events":  func(c *centerapi.Client, id centerapi.ID) error { _, err := c.Events(ctx, id, 0, 0); return err },
		"destroy": func(c *centerapi.Client, id centerapi.ID) error { return c.Destroy(ctx, id) },
	} {
		foreign, absent := f(bob, p.ID), f(bob, centerapi.NewID())
		if !errors.Is(foreign, cloudpal.NotExist) || foreign.Error() != absent.Error() || cloudpal.HintOf(foreign) != cloudpal.HintOf(absent) {
			t.Errorf("%s of another's pal: %v, of none: %v", what, foreign, absent)
		}
		if err := f(stranger, p.ID); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s by a stranger: %v, want %v", what, err, cloudpal.Denied)
		}
	}
	if list, err := bob.Pals(ctx); err != nil || len(list) != 0 {
		t.Errorf("bob has %v (%v)", list, err)
	}
	if list, err := ann.Pals(ctx); err != nil || len(list) != 1 || list[0].ID != p.ID {
		t.Errorf("ann has %v (%v)", list, err)
	}
	out, err := s.command("center", "status")
	if err != nil || !strings.Contains(out, "1: 1 awake, 0 napping") || strings.Contains(out, string(p.ID)) {
		t.Errorf("the operator sees: %s (%v)", out, err)
	}
}

// A center that is killed between any two steps finds its pals again.
func TestKilledBetweenSteps(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, "--idle", "1h") // the test's own questions keep nobody awake
	account, key := newAccount(), newKey()
	ann := func() *centerapi.Client { return s.ask(account, s.World.Dial) }
	address := s.ready()
	p, err := ann().Create(t.Context(), centerapi.CreateRequest{WireGuard: key})
	if err != nil {
		t.Fatal(err)
	}
	s.restart()
	if got := s.ready(); got != address {
		t.Errorf("after a restart the center is %v, was %v", got, address)
	}
	same, err := ann().Create(t.Context(), centerapi.CreateRequest{WireGuard: key})
	if err != nil || same.ID != p.ID || same.Endpoints[0] != p.Endpoints[0] || same.State != centerapi.Awake {
		t.Fatalf("asked for again: %+v (%v), want %+v", same, err, p)
	}
	if err := unlock(t, ann(), p.ID, "a secret"); err != nil {
		t.Fatal(err)
	}
	boot := s.boot(p.ID)
	s.restart()
	if l, err := ann().Lock(t.Context(), p.ID); err != nil || l.Locked || s.boot(p.ID) != boot {
		t.Errorf("a pal that ran on: %+v (%v)", l, err)
	}
	if _, err := ann().Sleep(t.Context(), p.ID, centerapi.DepthMemory); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if l, err := ann().Lock(t.Context(), p.ID); err != nil || l.Locked || s.boot(p.ID) != boot {
		t.Errorf("a pal that napped: %+v (%v)", l, err)
	}
	if _, err := ann().Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if p, err := ann().Pal(t.Context(), p.ID); err != nil || p.State != centerapi.Stopped {
		t.Errorf("a pal that was stopped: %+v (%v)", p, err)
	}
	if err := unlock(t, ann(), p.ID, "a secret"); err != nil {
		t.Errorf("booted again: %v", err)
	}
	s.restart()
	if err := ann().Destroy(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	s.restart()
	s.nothingLeft()
}

// A center that is killed while it makes a pal, or takes one away, leaves
// nothing half done.
func TestKilledWhileMaking(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	account, key := newAccount(), newKey()
	for n, delay := range []time.Duration{0, 20 * time.Millisecond, 200 * time.Millisecond, time.Second, 30 * time.Second} {
		ann := s.ask(account, s.World.Dial)
		created := make(chan error, 1)
		go func() {
			_, err := ann.Create(t.Context(), centerapi.CreateRequest{WireGuard: key})
			created <- err
		}()
		records := filepath.Join(s.Dir, "state", "center", "pals")
		s.Eventually(20*time.Second, "its record is written", func() error {
			if len(s.records()) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		select {
		case <-created: // it was quicker
		case <-time.After(delay):
		}
		s.restart()
		list, err := s.ask(account, s.World.Dial).Pals(t.Context())
		if err != nil || len(list) > 1 {
			t.Fatalf("round %d: %v (%v)", n, list, err)
		}
		for _, p := range list {
			if _, err := s.ask(account, s.World.Dial).Lock(t.Context(), p.ID); err != nil {
				t.Errorf("round %d: a pal that was made does not answer: %v", n, err)
			}
			gone := s.ask(account, s.World.Dial)
			done := make(chan struct{})
			go func() { defer close(done); gone.Destroy(t.Context(), p.ID) }()
			s.Eventually(20*time.Second, "it is going", func() error {
				data, err := os.ReadFile(filepath.Join(records, string(p.ID)+".json"))
				if err == nil && strings.Contains(string(data), `"made"`) {
					return errors.New("not yet")
				}
				return nil
			})
			s.restart()
			<-done
		}
		s.nothingLeft()
	}
}

// A center that is told to end leaves its pals awake, and says where it is when
// it begins.
func TestEndsInGoodOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, "--json", "--idle", "1h")
	account := newAccount()
	p, err := s.ask(account, s.World.Dial).Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask(account, s.World.Dial).Lock(t.Context(), p.ID); err != nil { // it listens, then
		t.Fatal(err)
	}
	who := "http://" + world.Addr(s.VM("pal-"+string(p.ID)), 7460) + "/v1/who"
	before := s.boot(p.ID)
	s.StopAgent()
	if after := s.MustGet(who); after != before {
		t.Errorf("without a center the core is %q, was %q", after, before)
	}
	s.StartAgent()
	address := s.ready()
	if l, err := s.ask(account, s.World.Dial).Lock(t.Context(), p.ID); err != nil || !l.Locked || s.boot(p.ID) != before {
		t.Errorf("the next center finds %+v (%v)", l, err)
	}
	ready := 0
	for line := range strings.Lines(s.AgentLog()) {
		var n struct{ Address centerapi.Address }
		if json.Unmarshal([]byte(line), &n) == nil && n.Address == address {
			ready++
		}
	}
	if ready != 2 {
		t.Errorf("%d lines of JSON say where it is, want one at each start:\n%s", ready, s.AgentLog())
	}
}

// A core that has to boot is made anew where there is a new image; its volume,
// port and id stay.
func TestNewImageAtTheNextBoot(t *testing.T) {
	t.Parallel()
	first, err := core()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "core")
	if err := os.Symlink(first, path); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, nil, "--core", path)
	account := newAccount()
	ann := s.ask(account, s.World.Dial)
	p, err := ann.Create(t.Context(), centerapi.CreateRequest{WireGuard: newKey()})
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(t, ann, p.ID, "a secret"); err != nil {
		t.Fatal(err)
	}
	second, err := writeImage(filepath.Join(t.TempDir(), "layout"), filepath.Join(coreDir, "core"), "second")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.Symlink(second, path)); err != nil {
		t.Fatal(err)
	}
	s.restart()
	ann = s.ask(account, s.World.Dial)
	if l, err := ann.Lock(t.Context(), p.ID); err != nil || l.Locked {
		t.Fatalf("one that is awake: %+v (%v), want it as it was", l, err)
	}
	if _, err := ann.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if err := unlock(t, ann, p.ID, "a secret"); err != nil {
		t.Errorf("the new core has lost its volume: %v", err)
	}
	about, _ := ann.Center(t.Context())
	now, err := ann.Pal(t.Context(), p.ID)
	if err != nil || now.Image != about.Image || now.Image == p.Image || now.Endpoints[0] != p.Endpoints[0] {
		t.Errorf("the new core: %+v (%v), was %+v", now, err, p)
	}
	if v := s.VM("pal-" + string(p.ID)); v.State != host.Running {
		t.Errorf("its VM is %s", v.State)
	}
}
