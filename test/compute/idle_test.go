package compute_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

func TestAnIdleVMNapsAndABusyOneDoesNot(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("web")
	at := "http://" + world.Addr(w.Start(web(api.Nap{Idle: time.Second})), 8080)
	v := w.Await("web", api.Asleep)
	if v.Reason != "no traffic for 1s" {
		t.Errorf("it naps for %q", v.Reason)
	}
	// A job holds it awake, and the agent can say which.
	if got := self(w, at, "PUT", "/busy/backup?for=10m"); got != "200" {
		t.Fatalf("busy: %s", got)
	}
	woken := w.VM("web").Since
	w.Eventually(30*time.Second, "the agent has asked", func() error {
		if v := w.VM("web"); !slices.Equal(v.Busy, []string{"backup"}) {
			return fmt.Errorf("busy: %q", v.Busy)
		}
		return nil
	})
	<-time.After(8 * time.Second) // time enough to nap three times
	if v := w.VM("web"); v.State != api.Running || !v.Since.Equal(woken) {
		t.Errorf("it is %s since %v, with a job; it was woken at %v", v.State, v.Since, woken)
	}
	if got := self(w, at, "DELETE", "/busy/backup"); got != "200" {
		t.Fatalf("idle: %s", got)
	}
	w.Await("web", api.Asleep)
}

func TestACommandInAVMHoldsItAwake(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("busybox")
	q := shell("box", "sleep 100000")
	q.Nap.Idle = time.Second
	w.Start(q)
	w.Await("box", api.Asleep)
	asleep := w.VM("box").Wakes
	sh := command(t, w, "vm", "exec", "box", "sleep", "100000")
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	w.Await("box", api.Running)
	<-time.After(8 * time.Second) // time enough to nap
	if v := w.VM("box"); v.State != api.Running || v.Wakes != asleep+1 {
		t.Errorf("it is %s after %d wakes, with a command in it", v.State, v.Wakes-asleep)
	}
	sh.Process.Kill()
	sh.Wait()
	w.Await("box", api.Asleep)
}
