package person

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
)

func TestUpMakesAPalAndFindsItAgain(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	got := d.up()
	want := []string{"making your pal", "booting its core", "unlocking", "joining this device"}
	if !slices.Equal(got, want) {
		t.Errorf("the steps were %q, want %q", got, want)
	}
	c.do(func() { c.to(api.Napping, api.Napped) })
	// The packet would wake a real one.
	begun := time.Now()
	got = d.up()
	if want := []string{"finding your pal", "joining this device"}; !slices.Equal(got, want) {
		t.Errorf("the second time the steps were %q, want %q", got, want)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the second time took %v", took)
	}
	if c.pals != 1 || c.count("unlock") != 1 {
		t.Errorf("%d pals were made and unlocked %d times", c.pals, c.count("unlock"))
	}
	s, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Pal == nil || !s.Center.Answers || s.Problem != "" || s.Agent == nil || s.Agent.Handshake.IsZero() ||
		len(s.Devices) != 1 || !s.Devices[0].This || s.Woke == nil || s.Woke.What != api.Booted {
		t.Errorf("the status is %+v", s)
	}
}

// Wherever the agent is killed, the next one goes on.
func TestUpGoesOnAfterAKill(t *testing.T) {
	calls := []string{"create", "wake", "lock", "pal", "unlock"}
	for _, call := range calls {
		for _, before := range []bool{true, false} {
			name := "before " + call
			if !before {
				name = "after " + call
			}
			t.Run(name, func(t *testing.T) { killAt(t, call, before) })
		}
	}
}

// killAt kills the agent as the center gets that request, which it answers
// before the agent is dead, or not at all.
func killAt(t *testing.T, call string, before bool) {
	c := newCloud(t)
	d := c.newDevice()
	d.end()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), agentOf+"="+d.home.Dir())
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent answers", func() bool { _, err := d.Agent(t.Context()); return err == nil })
	killed := make(chan struct{})
	kill := func() {
		cmd.Process.Kill()
		cmd.Wait()
		close(killed)
	}
	c.do(func() {
		c.arrived = func(got string) {
			if got != call {
				return
			}
			c.do(func() { c.arrived = nil })
			if before {
				kill()
			} else {
				time.AfterFunc(time.Millisecond, kill)
			}
		}
	})
	if err := d.Up(t.Context(), UpRequest{}, func(Step) {}); err == nil && before {
		t.Fatal("up worked, though the agent was killed")
	}
	select {
	case <-killed:
	case <-time.After(patience):
		t.Fatal("the agent was not killed")
	}
	if d.home.Running() {
		t.Fatal("a dead agent holds the lock")
	}
	d.start()
	d.up()
	if c.pals != 1 {
		t.Errorf("%d pals were made", c.pals)
	}
	if c.locked() {
		t.Error("the pal is locked")
	}
}

func TestAgentUnlocksByItself(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	for range 3 {
		c.do(func() { c.boot("the host has crashed") })
		eventually(t, "the core is unlocked", func() bool { return !c.locked() })
		if _, err := d.Add(t.Context(), AddRequest{Name: "phone", Unconfirmed: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Revoke(t.Context(), "phone"); !errors.Is(err, cloudpal.Denied) {
			t.Fatal(err)
		}
		d.confirm()
		if r, err := d.Revoke(t.Context(), "phone"); err != nil || !r.Delivered {
			t.Fatalf("the overlay does not work: %v, %+v", err, r)
		}
		d.unconfirm()
	}

	// While the agent was away, too.
	d.end()
	c.do(func() { c.boot("the host has crashed") })
	d.start()
	eventually(t, "the core is unlocked", func() bool { return !c.locked() })

	// And one that naps, locked.
	d.end()
	c.do(func() {
		c.boot("a packet")
		c.to(api.Napping, api.Napped)
	})
	d.start()
	eventually(t, "the core is unlocked", func() bool { return !c.locked() })
}

// unconfirm makes it as new.
func (d *device) unconfirm() {
	d.t.Helper()
	err := d.home.Change(d.t.Context(), func(s *State) error {
		s.Confirm = newConfirm(d.words)
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// A pal that sleeps is left alone, by an agent that has just begun, too.
func TestAgentLetsThePalSleep(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	c.do(func() { c.to(api.Napping, api.Napped) })
	d.end()
	looked := func() func() bool {
		before := c.count("pal")
		return func() bool { return c.count("pal") > before }
	}
	did := looked()
	d.start()
	eventually(t, "the agent has looked", did)
	var packets int64
	c.do(func() { packets = c.core.Stats().Received })
	lock, overlay := c.count("lock"), c.count("overlay")
	for range 20 {
		if _, err := d.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		did = looked()
		c.do(func() { c.happen(api.Napped, "only to have the agent look") })
		eventually(t, "the agent has looked", did)
	}
	c.do(func() {
		if c.calls["lock"] != lock || c.calls["overlay"] != overlay {
			t.Errorf("the core was asked %d times for its lock and %d times over the overlay",
				c.calls["lock"]-lock, c.calls["overlay"]-overlay)
		}
		if got := c.core.Stats().Received; got != packets {
			t.Errorf("%d bytes were sent to the core", got-packets)
		}
		if c.pal.State != api.Napping {
			t.Errorf("the pal is %s", c.pal.State)
		}
	})
}

// One that is sealed or stopped is not booted by an agent on its own account.
func TestAgentBootsNothing(t *testing.T) {
	for _, state := range []api.State{api.Sealed, api.Stopped} {
		c := newCloud(t)
		d := c.newDevice()
		d.up()
		before := c.count("pal")
		c.do(func() {
			c.powerOff()
			c.to(state, api.Dropped)
		})
		eventually(t, "the agent has looked", func() bool { return c.count("pal") > before })
		if s, err := d.Status(t.Context()); err != nil || s.Pal.State != state {
			t.Errorf("got %v, %v, want %s", s.Pal, err, state)
		}
		want := []string{"finding your pal", "booting its core", "unlocking", "joining this device"}
		if got := d.up(); !slices.Equal(got, want) {
			t.Errorf("%s: the steps were %q, want %q", state, got, want)
		}
		d.end()
	}
}

// A center that gives the core another image gets no secrets.
func TestChangedCoreGetsNoSecrets(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	unlocks := c.count("unlock")
	c.do(func() {
		c.pal.Image.ID = "sha256:other"
		c.boot("its image has changed")
	})
	eventually(t, "the status says so", func() bool {
		s, err := d.Status(t.Context())
		return err == nil && strings.Contains(s.Hint, "cloudpal up --accept-core sha256:other")
	})
	err := d.Up(t.Context(), UpRequest{}, func(Step) {})
	if !errors.Is(err, cloudpal.Denied) || !strings.Contains(cloudpal.HintOf(err), "--accept-core sha256:other") {
		t.Errorf("got %v, hint %q", err, cloudpal.HintOf(err))
	}
	err = d.Up(t.Context(), UpRequest{AcceptCore: "sha256:wrong"}, func(Step) {})
	if !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("another than it has was accepted: %v", err)
	}
	if c.count("unlock") != unlocks || !c.locked() {
		t.Fatal("the core was unlocked")
	}
	if err := d.Up(t.Context(), UpRequest{AcceptCore: "sha256:other"}, func(Step) {}); err != nil {
		t.Fatal(err)
	}
	if c.locked() {
		t.Error("the core is still locked")
	}
}

func TestOtherCenterAtTheAddressIsRefused(t *testing.T) {
	c, other := newCloud(t), newCloud(t)
	d := c.newDevice()
	d.up()
	d.end()
	err := d.home.Change(t.Context(), func(s *State) error {
		s.Center.Address.Port = other.Address.Port
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.start()
	if err := d.Up(t.Context(), UpRequest{}, func(Step) {}); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("got %v, want %v", err, cloudpal.Denied)
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	if len(other.calls) != 0 {
		t.Errorf("it was asked: %v", other.calls)
	}
}

func TestTwoAgentsOfOneHome(t *testing.T) {
	d := newCloud(t).newDevice()
	err := NewAgent(d.home, "test", nil).Run(t.Context())
	if !errors.Is(err, cloudpal.Exist) {
		t.Errorf("got %v, want %v", err, cloudpal.Exist)
	}
	if err := d.home.Remove(t.Context()); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("remove the home: got %v, want %v", err, cloudpal.Busy)
	}
}

func TestAgentEndsWhenItIsAsked(t *testing.T) {
	d := newCloud(t).newDevice()
	d.up()
	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { return !d.home.Running() })
	if _, err := d.Status(t.Context()); !errors.Is(err, ErrNoAgent) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v and a hint", err, ErrNoAgent)
	}
	// The status is there all the same.
	s, err := d.home.Status(t.Context())
	if err != nil || s.Pal == nil || s.Agent != nil {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestCenterThatDoesNotAnswer(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	c.do(func() { c.refuse = cloudpal.Busy })
	s, err := d.Status(t.Context())
	if err != nil || s.Center.Answers || s.Pal != nil || s.Problem == "" || len(s.Devices) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	c.do(func() {
		c.boot("meanwhile")
		c.refuse = nil
	})
	eventually(t, "the core is unlocked when the center is back", func() bool { return !c.locked() })
}

func TestClientGivesUpWithItsContext(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	hold := make(chan struct{})
	defer close(hold)
	c.do(func() {
		c.arrived = func(call string) {
			if call == "create" {
				<-hold
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Up(ctx, UpRequest{}, func(Step) {}); err == nil {
		t.Error("up worked without a center")
	}
}

// A center that answers at once that nothing happened is not asked all the
// time.
func TestHastyCenterIsNotAskedAllTheTime(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	c.do(func() { c.hasty = true })
	c.do(func() { c.happen(api.Napped, "") })
	time.Sleep(300 * time.Millisecond)
	before := c.count("events")
	time.Sleep(2 * time.Second)
	if n := c.count("events") - before; n > 4 {
		t.Errorf("it was asked %d times in two seconds", n)
	}
}
