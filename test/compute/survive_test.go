package compute_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

func TestAgentKilledLosesNoVM(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("web")
	for _, name := range []string{"awake", "napping", "sealed"} {
		w.Start(api.CreateRequest{Name: name, Image: "web"})
		count(t, w, "http://"+world.Addr(w.VM(name), 8080))
	}
	suspend(t, w, "napping", api.Memory)
	suspend(t, w, "sealed", api.Disk)
	before := w.VM("awake")
	w.KillAgent()
	// While there is no agent, the awake VM goes on.
	if got := count(t, w, "http://"+world.Addr(before, 8080)); got != 2 {
		t.Errorf("without an agent the guest counts %d, want 2", got)
	}
	w.StartAgent()
	after := w.VM("awake")
	if after.State != api.Running || after.PID != before.PID {
		t.Errorf("after a restart: %s with process %d, want running with %d", after.State, after.PID, before.PID)
	}
	for i, name := range []string{"awake", "napping", "sealed"} {
		want := 2
		if i == 0 {
			want = 3
		}
		if got := count(t, w, "http://"+world.Addr(w.VM(name), 8080)); got != want {
			t.Errorf("%s counts %d requests, want %d: it is not the same guest", name, got, want)
		}
	}
	// What was taken over can be put to sleep like any other.
	suspend(t, w, "awake", api.Memory)
	if got := count(t, w, "http://"+world.Addr(w.VM("awake"), 8080)); got != 4 {
		t.Errorf("after a nap under the new agent it counts %d, want 4", got)
	}
}

func TestDeadProcessIsNoticedWithinASecond(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	v := w.Start(api.CreateRequest{Name: "web", Image: "web"})
	w.MustGet("http://" + world.Addr(v, 8080) + "/say?text=last+words")
	w.Eventually(10*time.Second, "it is on the console", func() error {
		if text, err := w.API.Console(t.Context(), "web"); err != nil || !strings.Contains(string(text), "last words") {
			return fmt.Errorf("it has %q (%w)", text, err)
		}
		return nil
	})
	if err := syscall.Kill(v.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	got := w.Await("web", api.Cold)
	if d := time.Since(killed); d > time.Second {
		t.Errorf("noticed after %v, want less than 1 s", d)
	}
	if !strings.Contains(got.Reason, "process crashed") || !strings.Contains(got.Reason, "killed") {
		t.Errorf("reason %q does not say that a signal killed it", got.Reason)
	}
	if got.Exit == nil || !strings.Contains(got.Exit.Console, "last words") {
		t.Errorf("exit %+v does not have the end of the console", got.Exit)
	}
	if got := count(t, w, "http://"+world.Addr(w.VM("web"), 8080)); got != 1 {
		t.Errorf("it counts %d, want 1: a new boot", got)
	}
}

// Kill the agent, or the VM's process, or both, in each phase of a VM's life
// and at random instants: afterwards the VM is running, asleep or cold, it
// answers the next request, and its volume is whole.
func TestKilledAtEveryPoint(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	phases := []string{"suspending", "asleep", "waking", "running", "booting"}
	victims := []string{"agent", "process", "both"}
	synced := 0
	for round := range 2 * len(phases) * len(victims) {
		phase := phases[round%len(phases)]
		victim := victims[round/len(phases)%len(victims)]
		delay := time.Duration(rnd.IntN(20)) * time.Millisecond
		url := "http://" + world.Addr(w.VM("web"), 8080)
		// Whatever the guest has synced to its volume must be there after.
		if body, err := w.Get(url + "/append"); err == nil && strings.TrimSpace(body) == "ok" {
			synced++
		} else {
			t.Fatalf("round %d: append: %q %v", round, body, err)
		}
		killAt(t, w, phase, victim, delay)
		w.Eventually(60*time.Second, "the VM is one thing again", func() error {
			switch v := w.VM("web"); v.State {
			case api.Running, api.Asleep, api.Cold:
				return nil
			case api.Stopped:
				// It was told to stop and start, and died on the way.
				if phase != "booting" {
					t.Fatalf("round %d: %s killed in %s leaves it stopped: %s", round, victim, phase, v.Reason)
				}
				_, err := w.API.Start(t.Context(), "web")
				return err
			default:
				return errors.New(string(v.State) + " " + v.Reason)
			}
		})
		if body, err := w.Get(url + "/appended"); err != nil || strings.TrimSpace(body) != itoa(synced) {
			t.Fatalf("round %d (%s killed in %s after %v): the volume has %q records, want %d (%v)\n%s",
				round, victim, phase, delay, body, synced, err, w.VM("web").Reason)
		}
	}
}

// killAt takes the VM through a nap and a wake, or a boot, and kills the victim
// a little after the agent has written down that phase.
func killAt(t *testing.T, w *world.World, phase, victim string, delay time.Duration) {
	t.Helper()
	note := filepath.Join(w.Run, "nap", "web", "run.json")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pid := w.VM("web").PID
	done := make(chan struct{})
	go func() {
		defer close(done)
		if phase == "booting" {
			w.API.Kill(ctx, "web", api.SignalRequest{})
			w.API.Start(ctx, "web")
			return
		}
		w.API.Suspend(ctx, "web", api.SuspendRequest{Depth: api.Memory})
		if phase == "waking" || phase == "running" {
			w.API.Resume(ctx, "web")
		}
	}()
	seen := func() bool {
		data, err := os.ReadFile(note)
		return err == nil && strings.Contains(string(data), `"phase": "`+phase+`"`)
	}
	// "running" is true before it begins: wait for the nap first.
	if phase == "running" {
		for i := 0; i < 100000 && seen(); i++ {
			time.Sleep(50 * time.Microsecond)
		}
	}
	for i := 0; i < 100000 && !seen(); i++ {
		time.Sleep(50 * time.Microsecond)
	}
	<-time.After(delay)
	if victim != "agent" {
		killProcessOf(w, note, pid)
	}
	if victim != "process" {
		w.KillAgent()
	}
	cancel()
	<-done
	if victim != "process" {
		w.StartAgent()
	}
}

// killProcessOf kills the VM's process that the agent's note names.
func killProcessOf(w *world.World, note string, pid int) {
	data, err := os.ReadFile(note)
	if err == nil {
		if p := field(string(data), `"PID": `); p > 0 {
			pid = p
		}
	}
	root, err := os.Readlink("/proc/" + itoa(pid) + "/root")
	if err == nil && strings.HasPrefix(root, w.Run) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestBrokenStateDirectoryKeepsNobodyElseDown(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "good", Image: "web"})
	w.StopAgent()
	vms := filepath.Join(w.Dir, "state", "vms")
	for name, content := range map[string]string{
		"empty": "", "garbage": "\x00\xff{", "other": `{"id":"x","request":{"name":"good"}}`,
	} {
		if err := os.MkdirAll(filepath.Join(vms, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(vms, name, "vm.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(vms, ".new-half"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.StartAgent()
	if v := w.VM("good"); v.State != api.Running {
		t.Errorf("the good VM is %s: %s", v.State, v.Reason)
	}
	if _, err := os.Stat(filepath.Join(vms, ".new-half")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a half-made VM was left behind")
	}
	if log := w.AgentLog(); strings.Count(log, "cannot be recovered") != 3 {
		t.Errorf("the agent does not say which VMs are broken:\n%s", log)
	}
}
