package host

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

func TestWhenAVMNaps(t *testing.T) {
	t.Parallel()
	ran := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	at := func(after time.Duration) time.Time { return ran.Add(after) }
	for _, c := range []struct {
		what   string
		idle   time.Duration
		brief  bool
		active time.Time
		want   time.Duration // after it began to run
	}{
		{"it booted, and nobody came", 30 * time.Second, false, time.Time{}, 30 * time.Second},
		{"it booted, and there was traffic", 30 * time.Second, false, at(10 * time.Second), 40 * time.Second},
		{"a packet woke it and nothing came of it", 30 * time.Second, true, time.Time{}, linger},
		{"a packet woke it, and its last traffic was before", 30 * time.Second, true, at(-time.Minute), linger},
		{"the packet that woke it was traffic", 30 * time.Second, true, at(time.Millisecond), 30*time.Second + time.Millisecond},
		{"likewise, and the kernel's clock is coarse", 30 * time.Second, true, at(-50 * time.Millisecond), 30*time.Second - 50*time.Millisecond},
		{"traffic after a wake", 30 * time.Second, true, at(time.Minute), 90 * time.Second},
		{"never before it has lingered", time.Second, true, at(time.Millisecond), linger},
		{"nor after a boot", time.Second, false, time.Time{}, linger},
		{"after that, its own time counts", time.Second, true, at(10 * time.Second), 11 * time.Second},
	} {
		w := watchman{c.idle, ran, c.brief, c.active}
		if got := w.due().Sub(ran); got != c.want {
			t.Errorf("%s: it naps after %v, want %v", c.what, got, c.want)
		}
	}
}

// WireGuard's persistent keepalive wakes a pal every two minutes for a handshake
// that nothing follows: it must be awake less than 3 % of the time.
func TestAKeepaliveHardlyHoldsAVMAwake(t *testing.T) {
	t.Parallel()
	const rekey = 2 * time.Minute
	awake := watchman{30 * time.Second, time.Unix(0, 0), true, time.Time{}}.due().Sub(time.Unix(0, 0))
	if share := awake.Seconds() / rekey.Seconds(); share > 0.03 {
		t.Errorf("it is awake %.1f %% of the time", 100*share)
	}
}

func TestWhatAGuestHasAgainstANap(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		what   string
		wishes guest.Wishes
		want   string
	}{
		{"nothing", guest.Wishes{}, ""},
		{"a job", guest.Wishes{Busy: []string{"sync", "build"}}, "it is busy: sync, build"},
		{"a timer soon", guest.Wishes{WakeAt: now.Add(minNap - 1)}, "a timer is about to wake it"},
		{"a timer that has just gone off", guest.Wishes{WakeAt: now.Add(-time.Second)}, "a timer is about to wake it"},
		{"a timer later", guest.Wishes{WakeAt: now.Add(minNap)}, ""},
	} {
		if got := objection(c.wishes, now); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// A guest of stories: what it has against a nap at each time after it began to
// run, and when it had traffic.
type sleepyGuest struct {
	busy    time.Duration   // until then
	mute    bool            // it never answers
	traffic []time.Duration // at these times
	brief   bool
}

// napsAfter runs the guest on a clock of its own, and returns when it naps.
func napsAfter(t *testing.T, idle time.Duration, g sleepyGuest) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		ran := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Hour)
		defer cancel()
		bedtime{
			look: func() (watchman, error) {
				w := watchman{idle: idle, ran: ran, brief: g.brief}
				for _, at := range g.traffic {
					if !ran.Add(at).After(time.Now()) {
						w.active = ran.Add(at)
					}
				}
				return w, nil
			},
			object: func(context.Context) (string, error) {
				if g.mute {
					return "", context.DeadlineExceeded
				}
				if time.Since(ran) < g.busy {
					return "it is busy: backup", nil
				}
				return "", nil
			},
			nap: func(context.Context, watchman) {
				took = time.Since(ran)
				cancel()
			},
		}.keep(ctx)
	})
	return took
}

func TestBedtime(t *testing.T) {
	const idle = 30 * time.Second
	for what, c := range map[string]struct {
		g        sleepyGuest
		from, to time.Duration
	}{
		"nothing to do":           {sleepyGuest{}, idle, idle},
		"traffic now and then":    {sleepyGuest{traffic: []time.Duration{20 * time.Second, 45 * time.Second, 70 * time.Second}}, 100 * time.Second, 100 * time.Second},
		"a job for an hour":       {sleepyGuest{busy: time.Hour}, time.Hour, time.Hour + busyPoll},
		"a wake for nothing":      {sleepyGuest{brief: true}, linger, linger},
		"a wake, and a job":       {sleepyGuest{brief: true, busy: 10 * time.Second}, 10 * time.Second, 10*time.Second + busyPoll},
		"a guest that is mute":    {sleepyGuest{mute: true}, idle + (maxSilent-1)*busyPoll, idle + (maxSilent-1)*busyPoll},
		"a job that lasts a week": {sleepyGuest{busy: 7 * 24 * time.Hour}, 0, 0},
	} {
		if got := napsAfter(t, idle, c.g); got < c.from || got > c.to {
			t.Errorf("%s: it naps after %v, want %v to %v", what, got, c.from, c.to)
		}
	}
}

// A nap that comes to nothing is tried again, and not at once.
func TestANapThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 61*time.Second)
		defer cancel()
		tried := 0
		ran := time.Now()
		bedtime{
			look:   func() (watchman, error) { return watchman{idle: time.Second, ran: ran}, nil },
			object: func(context.Context) (string, error) { return "", nil },
			nap:    func(context.Context, watchman) { tried++ },
		}.keep(ctx)
		if tried != 30 {
			t.Errorf("it was tried %d times in a minute, want 30", tried)
		}
	})
}

func TestSealingComesWithTime(t *testing.T) {
	t.Parallel()
	h, err := hostOf(t, recordOf(t, func(r *record) { r.Request.Nap.Seal = time.Hour }), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.find("a")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	v.become(api.Asleep, api.Disk, "no traffic for 30s")
	v.mu.Lock()
	v.mom.Napped = now
	v.mu.Unlock()
	if err := writeFile(v.paths.sealed(), []byte("the nap")); err != nil {
		t.Fatal(err)
	}
	h.sealOld(t.Context(), now.Add(time.Hour-1))
	if state, _ := v.now(); state != api.Asleep {
		t.Fatalf("before its time it is %s", state)
	}
	h.sealOld(t.Context(), now.Add(time.Hour))
	got := v.view()
	if got.State != api.Cold || got.Depth != api.Sealed || got.Reason != "sealed: asleep for 1h0m0s" {
		t.Errorf("got %s %s (%s)", got.State, got.Depth, got.Reason)
	}
	if exists(v.paths.sealed()) {
		t.Error("its snapshot is still there")
	}
	// And so says the next agent.
	var m moment
	if err := readJSON(v.paths.moment(), &m); err != nil || m.Phase != cold || !m.Sealed {
		t.Errorf("noted: %+v, %v", m, err)
	}
}

// momentOf makes run.json.
func momentOf(t *testing.T, m moment) []byte {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestASealedVMIsOneAlsoToTheNextAgent(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	later := time.Now().Add(time.Hour).Round(0).UTC()
	m := moment{Phase: cold, Sealed: true, Since: since, Reason: "sealed: asked to", WakeAt: later}
	h, err := hostOf(t, recordOf(t, nil), momentOf(t, m))
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.find("a")
	if err != nil {
		t.Fatal(err)
	}
	got := v.view()
	if got.State != api.Cold || got.Depth != api.Sealed || got.Reason != m.Reason || !got.Since.Equal(since) || !got.WakeAt.Equal(later) {
		t.Errorf("got %s %s since %v (%s), woken at %v", got.State, got.Depth, got.Since, got.Reason, got.WakeAt)
	}
	if next := h.ring(later.Add(-time.Second)); next != time.Second {
		t.Errorf("a second before its timer the agent waits %v", next)
	}
}

// A timer whose time came when no agent ran goes off when one does; one that
// wakes nobody, as here where there is no kernel, does so once.
func TestATimerGoesOffOnce(t *testing.T) {
	t.Parallel()
	// Whatever the last agent was killed at, between the nap and the next one.
	for _, p := range []phase{cold, asleep, waking, booting} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			goesOffOnce(t, moment{Phase: p, Since: time.Now(), Napped: time.Now(), WakeAt: time.Now().Add(-time.Hour)})
		})
	}
}

func goesOffOnce(t *testing.T, m moment) {
	h, err := hostOf(t, recordOf(t, nil), momentOf(t, m))
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.find("a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var events []api.Event
	for n := int64(0); ; {
		more, changed, err := v.history.after(n)
		if err != nil {
			t.Fatal(err)
		}
		if events = append(events, more...); len(events) > 0 {
			n = events[len(events)-1].N
		}
		if last := len(events) - 1; last >= 0 && strings.HasPrefix(events[last].Reason, "boot: ") {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("it is not booted: %+v", events)
		}
	}
	for !v.alarm().IsZero() {
		if ctx.Err() != nil {
			t.Fatal("the timer is set still")
		}
		pause(ctx, time.Millisecond)
	}
	h.ring(time.Now().Add(time.Hour))
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waking {
		t.Error("it is tried again")
	}
}
