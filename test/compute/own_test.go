package compute_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// self has the web guest ask its own vminit, and returns status and answer.
func self(w *world.World, at, method, path string) string {
	w.TB.Helper()
	return strings.TrimSpace(w.MustGet(at + "/self?method=" + method + "&path=" + url.QueryEscape(path)))
}

// wantWhats holds what happened to a VM to a list. An event follows the state
// that it tells of.
func wantWhats(t *testing.T, w *world.World, name string, want ...api.What) {
	t.Helper()
	w.Eventually(10*time.Second, fmt.Sprintf("%s has seen %q", name, want), func() error {
		events, err := w.API.Events(t.Context(), name, 0, 0)
		if err != nil {
			return err
		}
		var got []api.What
		for i, e := range events {
			if e.N != int64(i+1) || e.Time.IsZero() || strings.Contains(e.Reason, " from ") {
				t.Errorf("event %d is %+v", i+1, e)
			}
			got = append(got, e.What)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("it has seen %q", got)
		}
		return nil
	})
}

// web asks for the web guest. It publishes its port so that a boot waits for it
// also on a machine that has much to do.
func web(n api.Nap) api.CreateRequest {
	return api.CreateRequest{Name: "web", Image: "web", Nap: n, Ports: []api.Port{{Guest: 8080}}}
}

// putToSleep is suspend, again where the last packet of a request came between:
// on a busy machine that is late.
func putToSleep(t *testing.T, w *world.World, name string, depth api.Depth) (v api.VM) {
	t.Helper()
	w.Eventually(30*time.Second, name+" sleeps", func() (err error) {
		v, err = w.API.Suspend(t.Context(), name, api.SuspendRequest{Depth: depth})
		if err != nil && !errors.Is(err, cloudpal.Busy) {
			t.Fatal(err)
		}
		return err
	})
	return v
}

// A timer wakes a sleeping VM, also one whose agent was killed meanwhile, and
// boots a sealed one.
func TestAVMsOwnTimerWakesIt(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("web")
	at := "http://" + world.Addr(w.Start(web(api.Nap{})), 8080)
	for _, depth := range []api.Depth{api.Disk, api.Sealed} {
		boots := w.VM("web").Boots
		timer := time.Now().Add(8 * time.Second).Truncate(time.Microsecond)
		if got := self(w, at, "PUT", "/wake/cron?at="+url.QueryEscape(timer.UTC().Format(time.RFC3339Nano))); got != "200" {
			t.Fatalf("set a timer: %s", got)
		}
		v := putToSleep(t, w, "web", depth)
		if !v.WakeAt.Equal(timer) {
			t.Errorf("it is woken at %v, want %v", v.WakeAt, timer)
		}
		w.KillAgent()
		w.StartAgent()
		if v := w.VM("web"); !v.WakeAt.Equal(timer) || v.Depth != depth {
			t.Errorf("after the agent was killed it is %s (%s), woken at %v, want %v", v.State, v.Depth, v.WakeAt, timer)
		}
		v = w.Await("web", api.Running)
		if early := time.Until(timer); early > 0 {
			t.Errorf("it was woken %v before its time", early)
		}
		if v.Reason != "a timer of its own" {
			t.Errorf("it woke for %q", v.Reason)
		}
		want := boots
		if depth == api.Sealed {
			want++
		}
		if v.Boots != want {
			t.Errorf("%s: it was booted %d times, want %d", depth, v.Boots, want)
		}
	}
	wantWhats(t, w, "web", api.Booted, api.Napped, api.Woke, api.Dropped, api.Booted)
}

func TestSealingDropsTheSnapshotAndThePacketAfterItBoots(t *testing.T) {
	w := world.New(t, "--armed", "1")
	w.Image("web")
	at := "http://" + world.Addr(w.Start(web(api.Nap{Seal: time.Second})), 8080)
	count(t, w, at)
	putToSleep(t, w, "web", "")
	v := w.Await("web", api.Cold)
	if v.Depth != api.Sealed || !strings.Contains(v.Reason, "sealed: asleep for 1s") || v.PID != 0 {
		t.Errorf("it is %s (%s, %s), process %d", v.State, v.Depth, v.Reason, v.PID)
	}
	for _, left := range []string{
		filepath.Join(w.Run, "vm", "web", "memory"), filepath.Join(w.Run, "nap", "web", "state"),
		filepath.Join(w.Dir, "state", "vms", "web", "nap.sealed"),
	} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is left", left)
		}
	}
	// Somebody waits to hear of the boot.
	heard := make(chan api.Event)
	go func() {
		events, err := w.API.Events(t.Context(), "web", 3, 30*time.Second)
		if err != nil || len(events) == 0 {
			events = []api.Event{{Reason: fmt.Sprint(events, err)}}
		}
		heard <- events[0]
	}()
	if got := count(t, w, at); got != 1 {
		t.Errorf("the guest counts %d requests, want 1: it was to boot anew", got)
	}
	if e := <-heard; e.N != 4 || e.What != api.Booted {
		t.Errorf("heard of %+v", e)
	}
	if lines := strings.Split(strings.TrimSpace(must(t, w, "vm", "events", "web")), "\n"); len(lines) < 4 || !strings.Contains(lines[2], "sealed") || !strings.Contains(lines[2], "asleep for 1s") {
		t.Errorf("vm events: %q", lines)
	}
	if v := w.VM("web"); v.Boots != 2 || v.State != api.Running {
		t.Errorf("it is %s after %d boots", v.State, v.Boots)
	}
	wantWhats(t, w, "web", api.Booted, api.Napped, api.Dropped, api.Booted)
	// From awake to sealed at once; and what is sealed can be asked to be.
	for range 2 {
		if v := putToSleep(t, w, "web", api.Sealed); v.State != api.Cold || v.Depth != api.Sealed {
			t.Errorf("asked to, it is %s (%s)", v.State, v.Depth)
		}
	}
	if _, err := w.API.Stop(t.Context(), "web", api.StopRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.API.Suspend(t.Context(), "web", api.SuspendRequest{Depth: api.Sealed}); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("one that is stopped: %v", err)
	}
}

// After a long nap the request that wakes a VM finds that the guest's program
// has acknowledged the resume, and knows how long it was and why.
func TestProgramsHearOfALongNapBeforePacketsCome(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("web")
	at := "http://" + world.Addr(w.Start(web(api.Nap{})), 8080)
	w.MustGet(at + "/follow?ms=250")
	// On a machine that has much to do it may not make it within the time that
	// packets wait; never would it, if they did not.
	got, n := "", 0
	for n = 1; n <= 3 && !strings.HasPrefix(got, fmt.Sprintf("%d 60 a packet", n-1)); n++ {
		putToSleep(t, w, "web", api.Memory)
		w.KillAgent()
		asleepSince(t, w, "web", time.Now().Add(-time.Hour))
		w.StartAgent()
		got = strings.TrimSpace(w.MustGet(at + "/resumed"))
		t.Logf("%s; %v", got, w.VM("web").Steps)
	}
	n--
	if !strings.HasPrefix(got, fmt.Sprintf("%d 60 a packet", n)) {
		t.Fatalf("the first request finds the resume %q; want one of 60 minutes, for a packet, acknowledged", got)
	}
	// A short nap waits for nobody.
	putToSleep(t, w, "web", api.Memory)
	if got := strings.TrimSpace(w.MustGet(at + "/resumed")); !strings.HasPrefix(got, fmt.Sprintf("%d 60", n)) {
		t.Errorf("after a short nap the first request waited: %q", got)
	}
	w.Eventually(30*time.Second, "its program hears of it", func() error {
		if got := strings.TrimSpace(w.MustGet(at + "/resumed")); !strings.HasPrefix(got, fmt.Sprintf("%d 0 a packet", n+1)) {
			return errors.New(got)
		}
		return nil
	})
}

// asleepSince makes a sleeping VM one that has slept since a time. No agent
// runs.
func asleepSince(t *testing.T, w *world.World, name string, since time.Time) {
	t.Helper()
	path := filepath.Join(w.Run, "nap", name, "run.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	if m["phase"] != "asleep" || m["napped"] == nil {
		t.Fatalf("run.json: %s", data)
	}
	m["napped"] = since
	if data, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
