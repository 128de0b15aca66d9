package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

const (
	// linger is how long a VM that was woken is left awake at least. One that
	// has had no traffic then naps again, whatever its Nap.Idle: the handshake
	// that WireGuard's keepalives bring every two minutes must not hold it awake
	// for longer.
	linger = 2 * time.Second
	// minNap is the least time asleep that is worth a nap before a timer.
	minNap = 5 * time.Second
	// busyPoll is how often a guest is asked that has something against a nap.
	busyPoll = 5 * time.Second
	// wishTimeout bounds how long a guest may take to say what it wishes, and
	// maxSilent how often in a row it may not: one that is overloaded works.
	wishTimeout = 2 * time.Second
	maxSilent   = 12
	// lookOften is the longest that a VM's traffic is not looked at: a network
	// need not remember it for longer than an hour.
	lookOften = 20 * time.Minute
	// jitter is by how much the network's word on when there was traffic may be
	// off: it counts in the kernel's ticks.
	jitter = 100 * time.Millisecond
)

// A watchman is what decides when a running VM naps.
type watchman struct {
	idle   time.Duration // Nap.Idle
	ran    time.Time     // since when it runs
	brief  bool          // a packet or a timer woke it
	active time.Time     // when it last had traffic
}

// due returns when the VM is to nap if there is no traffic until then.
func (w watchman) due() time.Time {
	rest := w.ran.Add(linger)
	switch due := w.active.Add(w.idle); {
	case w.active.After(w.ran.Add(-jitter)):
		return later(due, rest)
	case w.brief:
		return rest
	}
	return later(w.ran.Add(w.idle), rest)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// objection says what of a guest's wishes speaks against a nap now, or "".
func objection(w guest.Wishes, now time.Time) string {
	switch {
	case len(w.Busy) > 0:
		return "it is busy: " + strings.Join(w.Busy, ", ")
	case !w.WakeAt.IsZero() && w.WakeAt.Before(now.Add(minNap)):
		return "a timer is about to wake it"
	}
	return ""
}

// errAwake is why a nap that was begun is not taken.
var errAwake = errors.New("it has something to do")

// watchman asks what is known of the running VM.
func (v *vm) watchman() (watchman, error) {
	active, err := v.h.net.Activity(v.name)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.active = later(v.active, active)
	return watchman{v.rec.Request.Nap.Idle, v.ran, v.brief, v.active}, err
}

// A bedtime has a running VM nap when it is idle.
type bedtime struct {
	look func() (watchman, error)
	// object asks what speaks against a nap now; "" is nothing. An error is that
	// the guest did not say.
	object func(context.Context) (string, error)
	// nap tries, and returns when it did not come to be or ctx has ended.
	nap func(context.Context, watchman)
}

// keep goes on until ctx ends, as it does when the VM naps.
func (b bedtime) keep(ctx context.Context) {
	for silent := 0; ctx.Err() == nil; {
		w, err := b.look()
		if err != nil {
			pause(ctx, busyPoll)
			continue
		}
		if wait := time.Until(w.due()); wait > 0 {
			pause(ctx, min(wait, lookOften))
			continue
		}
		why, err := b.object(ctx)
		if silent++; err == nil {
			silent = 0
		}
		if why != "" || err != nil && silent < maxSilent {
			pause(ctx, busyPoll)
			continue
		}
		b.nap(ctx, w)
		pause(ctx, linger)
	}
}

// keepIdle has the running machine m nap when it is idle, until ctx ends.
func (v *vm) keepIdle(ctx context.Context, m compute.Machine, ctl *guest.Client) {
	bedtime{
		look: func() (watchman, error) {
			w, err := v.watchman()
			if err != nil {
				v.h.log.Error("ask for a VM's traffic", "vm", v.name, "err", err)
			}
			return w, err
		},
		object: func(ctx context.Context) (string, error) {
			wishes, err := v.askWishes(ctx, ctl)
			return v.objection(wishes), err
		},
		nap: func(ctx context.Context, w watchman) { v.tryNap(ctx, m, w) },
	}.keep(ctx)
}

// objection says what speaks against a nap now, or "".
func (v *vm) objection(w guest.Wishes) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sessions > 0 {
		return "somebody runs a command in it"
	}
	return objection(w, time.Now())
}

// askWishes asks the guest, and keeps what it says for who looks at the VM.
func (v *vm) askWishes(ctx context.Context, ctl *guest.Client) (guest.Wishes, error) {
	ctx, cancel := context.WithTimeout(ctx, wishTimeout)
	defer cancel()
	w, err := ctl.Wishes(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.wished = w
	}
	return w, err
}

// tryNap puts the VM to sleep in the background, for that ends ctx and waits
// for its caller. It returns when the VM stays awake, or ctx has ended.
func (v *vm) tryNap(ctx context.Context, m compute.Machine, w watchman) {
	stays := make(chan struct{})
	v.h.tasks.Go(func() {
		defer close(stays)
		err := v.nap(m, w)
		if err != nil && !errors.Is(err, errAwake) && !errors.Is(err, errInterrupted) {
			v.h.log.Error("nap", "vm", v.name, "err", err)
		}
	})
	select {
	case <-stays:
	case <-ctx.Done():
	}
}

// nap puts the idle VM to sleep, unless it has something to do after all.
func (v *vm) nap(m compute.Machine, w watchman) error {
	if !v.tryBegin() {
		return errAwake
	}
	defer v.end()
	// An agent that ends leaves its VMs as they are.
	if v.h.ctx.Err() != nil || !v.runsOn(m) {
		return errAwake
	}
	decided := time.Now()
	reason := fmt.Sprintf("no traffic for %v", w.idle)
	if w.brief && !w.active.After(w.ran.Add(-jitter)) {
		reason = fmt.Sprintf("no traffic in %v after it was woken", linger)
	}
	return v.fallAsleep(v.h.ctx, order{reason: reason, may: func(wishes guest.Wishes) error {
		active, err := v.h.net.Activity(v.name)
		if err != nil {
			return err
		}
		if v.objection(wishes) != "" || active.After(decided.Add(-jitter)) {
			return errAwake
		}
		return nil
	}})
}

// sealOld drops the snapshots of those that have slept for as long as they were
// to.
func (h *Host) sealOld(ctx context.Context, now time.Time) {
	for _, v := range h.all() {
		if ctx.Err() != nil {
			return
		}
		if !v.isToSeal(now) || !v.tryBegin() {
			continue
		}
		if v.isToSeal(now) {
			v.drop(fmt.Sprintf("asleep for %v", v.rec.Request.Nap.Seal))
		}
		v.end()
	}
}

func (v *vm) isToSeal(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	after := v.rec.Request.Nap.Seal
	return after > 0 && v.state == api.Asleep && now.Sub(v.mom.Napped) >= after
}

// drop seals a sleeping VM: nothing is left of it but its disks, and its next
// wake is a boot. The caller holds op.
func (v *vm) drop(reason string) {
	v.meter.sealed(v)
	v.goCold(api.Sealed, "sealed: "+reason)
	v.happened(api.Event{What: api.Dropped, Reason: reason})
}

// sealNow is drop of what sleeps; what is cold already stays so.
func (v *vm) sealNow(reason string) error {
	switch state, _ := v.now(); state {
	case api.Asleep:
		v.drop(reason)
	case api.Cold: // it is no more than that
	default:
		return cloudpal.E("seal "+v.name, cloudpal.Invalid, fmt.Errorf("it is %s", state)).
			WithHint("only one that runs or sleeps can be sealed")
	}
	return nil
}
