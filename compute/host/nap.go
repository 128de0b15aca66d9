package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/seal"
)

// prepareTimeout bounds what a guest may do before it is suspended: give back
// memory. A hostile one gets no longer.
const prepareTimeout = 2 * time.Second

// helloTimeout bounds a woken guest's first answer. A guest that takes longer
// is broken and boots anew.
const helloTimeout = 20 * time.Second

// suspend puts the running VM to sleep at depth d; "" leaves the depth to the
// policy. A packet that comes before the snapshot is whole interrupts it: the
// guest runs on.
func (v *vm) suspend(ctx context.Context, d api.Depth) error {
	if err := v.begin(ctx); err != nil {
		return err
	}
	defer v.end()
	op := "suspend " + v.name
	switch state, _ := v.now(); state {
	case api.Asleep:
		return v.deepen(ctx, d)
	case api.Running:
	default:
		return cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it is %s", state)).
			WithHint("only a running VM can be put to sleep")
	}
	w := startWatch()
	if err := v.snapshot(ctx, w); err != nil {
		return cloudpal.E(op, "", err)
	}
	v.mu.Lock()
	v.steps, v.pinned = w.steps, d
	v.mu.Unlock()
	v.become(api.Asleep, api.Memory, "")
	v.meter.slept(v)
	defer v.h.nudge()
	return v.deepen(ctx, d)
}

// snapshot ends the running VM's process with its memory and device state
// kept. On error the guest runs on, or its end is dealt with.
func (v *vm) snapshot(ctx context.Context, w *stopwatch) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v.mu.Lock()
	m, ctl, unwatch, ifname := v.machine, v.ctl, v.unwatch, v.mom.Ifname
	v.unwatch = nil
	v.interrupt = cancel
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		v.interrupt = nil
		v.mu.Unlock()
	}()
	unwatch()
	prepare, done := context.WithTimeout(ctx, prepareTimeout)
	if err := ctl.PrepareSuspend(prepare); err != nil {
		v.h.log.Info("prepare to suspend", "vm", v.name, "err", err)
	}
	done()
	ctl.Close()
	w.lap("guest prepares")

	err := v.writeSnapshot(ctx, m, ifname, w)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cloudpal.E("", cloudpal.Busy, cause)
	}
	select {
	case <-m.Done():
		v.lost(m)
		return fmt.Errorf("its process ended: %s", m.Exit())
	default:
	}
	// The guest runs on.
	err = errors.Join(err, v.note(running, m.Process(), ifname, ""), v.h.cfg.Network.Admit(v.name))
	v.watch(m)
	return err
}

func (v *vm) writeSnapshot(ctx context.Context, m compute.Machine, ifname string, w *stopwatch) error {
	if err := v.note(suspending, m.Process(), ifname, ""); err != nil {
		return err
	}
	tmp := v.paths.state() + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := v.h.cfg.Network.Hold(v.name); err != nil {
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
	v.mu.Unlock()
	// From here the VM sleeps, whatever happens to the agent.
	err = errors.Join(os.Rename(tmp, v.paths.state()),
		v.note(asleep, compute.Process{}, "", ""), v.h.cfg.Network.Unplug(v.name))
	w.lap("put away")
	return err
}

// deepen takes a sleeping VM to depth d. The caller holds op.
func (v *vm) deepen(ctx context.Context, d api.Depth) error {
	v.mu.Lock()
	now := v.depth
	v.mu.Unlock()
	if d == now {
		return nil
	}
	switch d {
	case api.Disk:
		return v.seal(ctx)
	case api.Armed:
		return v.arm(ctx)
	case api.Memory:
		if now == api.Armed {
			return v.disarm()
		}
		return nil // a sealed nap stays sealed until it is wanted
	}
	if now == api.Memory {
		return v.trim()
	}
	return nil
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
	return os.WriteFile(v.paths.state(), state, 0o600)
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
	tap, ifname, err := v.h.cfg.Network.Plug(v.name)
	if err != nil {
		return err
	}
	m, err := v.h.cfg.Driver.Arm(ctx, v.spec(tap))
	if err != nil {
		return errors.Join(err, v.h.cfg.Network.Unplug(v.name))
	}
	v.hold(m, ifname)
	return v.note(asleep, m.Process(), ifname, "")
}

// disarm ends the waiting process; the nap stays in memory.
func (v *vm) disarm() error {
	v.mu.Lock()
	m := v.machine
	v.machine, v.ctl = nil, nil
	v.mu.Unlock()
	var errs []error
	if m != nil {
		errs = append(errs, m.Kill(), v.h.cfg.Network.Unplug(v.name))
	}
	errs = append(errs, v.note(asleep, compute.Process{}, "", ""))
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
	slept := time.Since(v.mom.Since)
	v.mu.Unlock()
	w := startWatch()
	err = v.resumeMachine(ctx, slept, w)
	done()
	if err == nil {
		v.runs(w, reason)
		return nil
	}
	v.h.log.Error("the nap could not be used; booting", "vm", v.name, "err", err)
	v.putDown()
	v.become(api.Cold, "", fmt.Sprintf("its nap could not be used (%v)", err))
	return v.boot(ctx, fmt.Sprintf("%s; its nap could not be used: %v", reason, err))
}

func (v *vm) resumeMachine(ctx context.Context, slept time.Duration, w *stopwatch) error {
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
	if err := m.Run(ctx); err != nil {
		return err
	}
	w.lap("run")
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	if err := v.greet(ctx, m, slept); err != nil {
		return err
	}
	w.lap("time and entropy")
	return nil
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
		w.lap("unseal")
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
