package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/meter"
	"github.com/tradle/cloudpal/compute/seal"
)

// prepareTimeout bounds what a guest may do before it is suspended: give back
// memory. A hostile one gets no longer.
const prepareTimeout = 2 * time.Second

// helloTimeout bounds a woken guest's first answer. A guest that takes longer
// is broken and boots anew.
const helloTimeout = 20 * time.Second

// asked is the reason of what somebody asked the agent for.
const asked = "asked to"

// suspend puts the running VM to sleep at depth d, or a sleeping one to another;
// "" leaves the depth to the policy.
func (v *vm) suspend(ctx context.Context, d api.Depth) error {
	if err := v.begin(ctx); err != nil {
		return err
	}
	defer v.end()
	switch state, _ := v.now(); {
	case state == api.Running:
		return v.fallAsleep(ctx, order{depth: d, reason: asked, may: func(guest.Wishes) error { return nil }})
	case d == api.Sealed:
		return v.sealNow(asked)
	case state == api.Asleep:
		return v.deepen(ctx, d)
	default:
		return cloudpal.E("suspend "+v.name, cloudpal.Invalid, fmt.Errorf("it is %s", state)).
			WithHint("only a running VM can be put to sleep")
	}
}

// An order is for a nap.
type order struct {
	depth  api.Depth // "": as the policy says
	reason string
	// may is asked last, when packets are held already, and told what the guest
	// wishes: an error of it is why the guest runs on.
	may func(guest.Wishes) error
}

// fallAsleep puts the running VM to sleep. A packet that comes before the
// snapshot is whole interrupts it: the guest runs on. The caller holds op.
func (v *vm) fallAsleep(ctx context.Context, o order) error {
	w := startWatch()
	v.mu.Lock()
	v.falling, v.due = true, ""
	v.mu.Unlock()
	if err := v.snapshot(ctx, o, w); err != nil {
		v.fallen()
		return cloudpal.E("suspend "+v.name, "", err)
	}
	v.mu.Lock()
	v.steps, v.pinned = w.steps, o.depth
	v.mu.Unlock()
	v.become(api.Asleep, api.Memory, o.reason)
	due := v.fallen()
	if due != "" {
		defer v.rouse(due)
	}
	v.meter.event(v, meter.Awake, "asleep")
	if !v.alarm().IsZero() {
		v.h.resetAlarms()
	}
	if o.depth == api.Sealed {
		v.drop(o.reason)
		return nil
	}
	var err error
	if due == "" {
		err = v.settleAt(ctx, o.depth)
	}
	v.mu.Lock()
	depth := v.depth
	v.mu.Unlock()
	v.happened(api.Event{What: api.Napped, Reason: o.reason, Depth: depth})
	return err
}

// fallen ends what fallAsleep began, and returns why the VM is to be woken at
// once: for a packet or a timer that came when it was too late to interrupt.
func (v *vm) fallen() (why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	why, v.falling, v.due = v.due, false, ""
	return why
}

// settleAt gives a VM that has just fallen asleep its depth.
func (v *vm) settleAt(ctx context.Context, d api.Depth) error {
	defer v.h.nudge()
	if d != api.Disk { // which keeps no zero pages anyway
		if err := v.trim(); err != nil {
			v.h.log.Error("trim", "vm", v.name, "err", err)
		}
	}
	return v.deepen(ctx, d)
}

// snapshot ends the running VM's process with its memory and device state
// kept. On error the guest runs on, or its end is dealt with.
func (v *vm) snapshot(ctx context.Context, o order, w *stopwatch) error {
	ctx, done := v.interruptible(ctx)
	defer done()
	v.mu.Lock()
	m, ctl, unwatch, ifname := v.machine, v.ctl, v.unwatch, v.mom.Ifname
	v.unwatch = nil
	v.mu.Unlock()
	unwatch()
	wishes := v.prepare(ctx, ctl)
	ctl.Close()
	w.lap("guest prepares")

	err := v.writeSnapshot(ctx, m, o, wishes, w)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cloudpal.E("", cloudpal.Busy, cause)
	}
	select {
	case <-m.Done():
		v.lost(m)
		return fmt.Errorf("its process ended: %s: %w", m.Exit(), err)
	default:
	}
	// The guest runs on.
	v.mu.Lock()
	reason := v.reason
	v.ran, v.brief = time.Now(), true
	v.mu.Unlock()
	err = errors.Join(err, v.note(running, m.Process(), ifname, reason), v.h.net.Admit(v.name))
	v.watch(m, 0)
	return err
}

// interruptible returns a context that a packet for the VM ends. Done must be
// called.
func (v *vm) interruptible(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	v.mu.Lock()
	v.interrupt = cancel
	v.mu.Unlock()
	return ctx, func() {
		v.mu.Lock()
		v.interrupt = nil
		v.mu.Unlock()
		cancel(nil)
	}
}

// prepare has the guest make itself small and say what it wishes. One that does
// not is suspended as it is, and what it last wished counts.
func (v *vm) prepare(ctx context.Context, ctl *guest.Client) guest.Wishes {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	wishes, told, err := ctl.PrepareSuspend(ctx)
	if err != nil {
		v.h.log.Info("prepare to suspend", "vm", v.name, "err", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if told {
		v.wished = wishes
	}
	return v.wished
}

func (v *vm) writeSnapshot(ctx context.Context, m compute.Machine, o order, wishes guest.Wishes, w *stopwatch) error {
	v.mu.Lock()
	ifname := v.mom.Ifname
	v.mu.Unlock()
	if err := v.note(suspending, m.Process(), ifname, ""); err != nil {
		return err
	}
	tmp := v.paths.state() + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := v.h.net.Hold(v.name); err != nil {
		return err
	}
	if err := o.may(wishes); err != nil {
		return err
	}
	w.lap("hold packets")
	if err := m.Suspend(ctx, f); err != nil {
		return err
	}
	w.lap("snapshot")
	v.meter.ended(v, m)
	v.mu.Lock()
	v.machine, v.ctl = nil, nil
	v.mom.Napped, v.mom.WakeAt = time.Now(), wishes.WakeAt
	v.mu.Unlock()
	// From here the VM sleeps, whatever happens to the agent.
	err = errors.Join(os.Rename(tmp, v.paths.state()),
		v.note(asleep, compute.Process{}, "", o.reason), v.h.net.Unplug(v.name))
	w.lap("put away")
	return err
}

// deepen takes a sleeping VM to depth d; a packet for it interrupts that. The
// caller holds op.
func (v *vm) deepen(ctx context.Context, d api.Depth) error {
	ctx, done := v.interruptible(ctx)
	defer done()
	err := v.moveTo(ctx, d)
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) {
		return cloudpal.E("", cloudpal.Busy, errInterrupted)
	}
	return err
}

func (v *vm) moveTo(ctx context.Context, d api.Depth) error {
	v.mu.Lock()
	now := v.depth
	v.mu.Unlock()
	switch {
	case d == now:
		return nil
	case d == api.Disk:
		return v.seal(ctx)
	case d == api.Armed:
		return v.arm(ctx)
	case d == api.Memory && now == api.Armed:
		return v.disarm()
	}
	return nil // a sealed nap stays sealed until it is wanted
}

// trim gives the zero pages of a sleeping VM's memory back to the host.
func (v *vm) trim() error {
	f, err := os.OpenFile(v.paths.memory(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = seal.Trim(f)
	return err
}

// label binds a sealed nap to this VM and to nothing else.
func (v *vm) label() string { return "cloudpal nap " + v.rec.ID }

// seal moves a nap from memory to disk. A crash in between leaves both, which
// are the same snapshot; recover and resume take the one in memory.
func (v *vm) seal(ctx context.Context) error {
	if v.depth == api.Armed {
		if err := v.disarm(); err != nil {
			return err
		}
	}
	if err := v.writeSealed(ctx); err != nil {
		return cloudpal.E("seal the nap of "+v.name, "", err)
	}
	err := errors.Join(os.Remove(v.paths.state()), os.Remove(v.paths.memory()))
	v.become(api.Asleep, api.Disk, v.reason)
	return err
}

func (v *vm) writeSealed(ctx context.Context) error {
	mem, err := os.Open(v.paths.memory())
	if err != nil {
		return err
	}
	defer mem.Close()
	state, err := os.ReadFile(v.paths.state())
	if err != nil {
		return err
	}
	tmp := v.paths.sealed() + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	_, err = seal.Seal(ctx, f, v.h.cfg.Key, v.label(), mem, state)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, v.paths.sealed()); err != nil {
		return err
	}
	return syncDir(v.paths.disk)
}

// unseal brings a nap back from disk into memory.
func (v *vm) unseal(ctx context.Context) error {
	src, err := os.Open(v.paths.sealed())
	if err != nil {
		return err
	}
	defer src.Close()
	mem, err := os.OpenFile(v.paths.memory(), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer mem.Close()
	if err := mem.Chown(v.rec.uid(), v.rec.uid()); err != nil {
		return err
	}
	state, err := seal.Open(ctx, src, v.h.cfg.Key, v.label(), mem)
	if err != nil {
		return err
	}
	// It comes last and whole: where there is a state, its memory is complete.
	return writeFile(v.paths.state(), state)
}

// arm starts a process that waits for the VM's state.
func (v *vm) arm(ctx context.Context) error {
	if v.depth == api.Disk {
		if err := v.makeMemory(); err != nil {
			return err
		}
		if err := v.unseal(ctx); err != nil {
			return err
		}
		v.become(api.Asleep, api.Memory, v.reason)
	}
	if err := v.armProcess(ctx); err != nil {
		return cloudpal.E("arm "+v.name, "", err)
	}
	v.become(api.Asleep, api.Armed, v.reason)
	return nil
}

func (v *vm) armProcess(ctx context.Context) error {
	tap, ifname, err := v.h.net.Plug(v.name)
	if err != nil {
		return err
	}
	m, err := v.h.cfg.Driver.Arm(ctx, v.spec(tap))
	if err != nil {
		return errors.Join(err, v.h.net.Unplug(v.name))
	}
	v.hold(m, ifname)
	return v.note(asleep, m.Process(), ifname, v.why())
}

// disarm ends the waiting process; the nap stays in memory.
func (v *vm) disarm() error {
	v.mu.Lock()
	m := v.machine
	v.machine, v.ctl = nil, nil
	v.mu.Unlock()
	var errs []error
	if m != nil {
		errs = append(errs, m.Kill(), v.h.net.Unplug(v.name))
	}
	errs = append(errs, v.note(asleep, compute.Process{}, "", v.why()))
	v.become(api.Asleep, api.Memory, v.reason)
	return errors.Join(errs...)
}

// resume runs a sleeping VM. A nap that cannot be used is dropped, and the VM
// boots. The caller holds op.
func (v *vm) resume(ctx context.Context, reason string) error {
	ctx = context.WithoutCancel(ctx)
	done, err := v.h.turn(ctx)
	if err != nil {
		return err
	}
	v.mu.Lock()
	slept := time.Since(v.mom.Napped)
	w := startWatch()
	if v.waking {
		w.last = v.roused
		w.lap("turn")
	}
	v.mu.Unlock()
	err = v.resumeMachine(ctx, slept, reason, w)
	done()
	if err == nil {
		v.runs(w, reason, meter.Asleep)
		v.happened(api.Event{What: api.Woke, Reason: reason, Slept: slept})
		return nil
	}
	v.h.log.Error("the nap could not be used; booting", "vm", v.name, "err", err)
	lost := fmt.Sprintf("its nap could not be used (%v)", err)
	v.goCold("", lost)
	v.happened(api.Event{What: api.Lost, Reason: lost})
	return v.boot(ctx, fmt.Sprintf("%s; its nap could not be used: %v", reason, err))
}

func (v *vm) resumeMachine(ctx context.Context, slept time.Duration, reason string, w *stopwatch) error {
	if err := v.makeProcess(ctx, w); err != nil {
		return err
	}
	m := v.machine
	if err := v.loadState(ctx, m); err != nil {
		return err
	}
	w.lap("load state")
	if err := v.spend(m); err != nil {
		return err
	}
	w.lap("void the snapshot")
	mem, err := os.OpenFile(v.paths.memory(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	h := guest.NewHello(slept, reason)
	if err := h.Leave(mem); err != nil {
		return err
	}
	if err := m.Run(ctx); err != nil {
		return err
	}
	w.lap("run")
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	if !isTaken(ctx, h, mem) {
		if err := v.greet(ctx, m, h); err != nil {
			return err
		}
	}
	w.lap("time and entropy")
	return nil
}

// How long a guest may take to find what was left in its mailbox, before it is
// told again by a datagram, and how often to look.
const (
	mailWait = 100 * time.Millisecond
	mailPoll = 100 * time.Microsecond
)

// isTaken waits until the guest has taken h from its mailbox. One that has found
// it there after a long nap may let its programs get ready first.
func isTaken(ctx context.Context, h *guest.Hello, mem io.ReaderAt) bool {
	end := time.Now().Add(mailWait)
	for last := end.Add(guest.AckWait); ctx.Err() == nil; pause(ctx, mailPoll) {
		now := time.Now()
		switch {
		case h.IsTaken(mem):
			return true
		case now.After(last), now.After(end) && !(h.Slept > guest.LongNap && guest.IsFound(mem)):
			return false
		}
	}
	return false
}

// makeProcess sees to it that a process waits for the VM's state and that its
// memory is in memory.
func (v *vm) makeProcess(ctx context.Context, w *stopwatch) error {
	if v.depth == api.Armed {
		return nil
	}
	unsealed := make(chan error, 1)
	if v.depth == api.Disk {
		if err := v.makeMemory(); err != nil {
			return err
		}
		go func() { unsealed <- v.unseal(ctx) }()
	} else {
		unsealed <- nil
	}
	err := v.armProcess(ctx)
	w.lap("process")
	if err = errors.Join(err, <-unsealed); err != nil {
		return err
	}
	if v.depth == api.Disk {
		w.lap("rest of unseal")
	}
	return nil
}

// makeMemory makes the empty memory file that a process can be armed on while
// it is still being filled.
func (v *vm) makeMemory() error {
	f, err := os.OpenFile(v.paths.memory(), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(v.rec.Request.Memory), f.Chown(v.rec.uid(), v.rec.uid()), f.Close())
}

func (v *vm) loadState(ctx context.Context, m compute.Machine) error {
	f, err := os.Open(v.paths.state())
	if err != nil {
		return err
	}
	defer f.Close()
	return m.Load(ctx, f)
}

// spend makes the VM's snapshot unusable, durably, before its guest runs: run
// twice, a snapshot repeats WireGuard nonces and random numbers, and its
// volume no longer fits its memory.
func (v *vm) spend(m compute.Machine) error {
	v.mu.Lock()
	ifname := v.mom.Ifname
	v.mu.Unlock()
	return errors.Join(
		os.Rename(v.paths.state(), v.paths.used()),
		v.note(waking, m.Process(), ifname, ""),
		removeDurably(v.paths.sealed()))
}
