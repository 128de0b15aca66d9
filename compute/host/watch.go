package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/meter"
)

// settle is how long a guest that was woken is left to do what it was woken
// for, before the agent asks it anything: the first connection costs it tens of
// milliseconds where its code is translated anew (measured).
const settle = 300 * time.Millisecond

// watch looks after the running machine m until unwatch: it notices the end of
// its process and, after a while, of the guest's, and keeps the guest's logs.
func (v *vm) watch(m compute.Machine, after time.Duration) {
	ctx, cancel := context.WithCancel(v.h.ctx)
	var tasks sync.WaitGroup
	v.mu.Lock()
	ctl := v.ctl
	v.session = ctx
	v.unwatch = func() {
		cancel()
		tasks.Wait()
	}
	v.mu.Unlock()
	logged := make(chan struct{})
	tasks.Go(func() {
		defer close(logged)
		pause(ctx, after)
		v.keepLogs(ctx, ctl)
	})
	tasks.Go(func() { v.keepMeter(ctx, m) })
	if v.rec.Request.Nap.Idle > 0 {
		tasks.Go(func() {
			pause(ctx, after)
			v.keepIdle(ctx, m, ctl)
		})
	}
	tasks.Go(func() {
		pause(ctx, after)
		v.awaitExit(ctx, m, ctl, logged)
	})
	tasks.Go(func() {
		select {
		case <-m.Done():
			v.h.tasks.Go(func() { v.machineEnded(m) })
		case <-ctx.Done():
		}
	})
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// retryPause is how long to leave a guest alone that did not answer.
const retryPause = 500 * time.Millisecond

// awaitExit waits for the guest's process to end.
func (v *vm) awaitExit(ctx context.Context, m compute.Machine, ctl *guest.Client, logged <-chan struct{}) {
	for ctx.Err() == nil {
		exit, err := ctl.Wait(ctx)
		if err == nil {
			// The log stream ends with the process; give its last words a
			// moment, for a guest may as well never end it.
			select {
			case <-logged:
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
			v.h.tasks.Go(func() { v.processEnded(m, exit) })
			return
		}
		select {
		case <-ctx.Done():
		case <-m.Done():
			return
		case <-time.After(retryPause):
		}
	}
}

// processEnded deals with the end of the guest's process: the VM goes with it.
func (v *vm) processEnded(m compute.Machine, e guest.Exit) {
	if v.begin(v.h.ctx) != nil {
		return
	}
	defer v.end()
	if !v.runsOn(m) {
		return
	}
	exit := describe(e)
	v.mu.Lock()
	ctl := v.ctl
	v.mu.Unlock()
	ctx, cancel := context.WithTimeout(v.h.ctx, 10*time.Second)
	defer cancel()
	v.powerOff(ctx, m, ctl)
	v.stopped(m, exit)
}

// powerOff asks the guest to unmount and end, and waits until it has or ctx
// ends.
func (v *vm) powerOff(ctx context.Context, m compute.Machine, ctl *guest.Client) {
	if err := ctl.PowerOff(ctx); err != nil {
		return
	}
	select {
	case <-m.Done():
	case <-ctx.Done():
	}
}

// runsOn reports whether m is still what the VM runs on.
func (v *vm) runsOn(m compute.Machine) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.machine == m && v.state == api.Running
}

// stopped puts down what is left of the VM and records why it ended. The
// caller holds op.
func (v *vm) stopped(m compute.Machine, exit api.Exit) {
	was := meter.Asleep
	if m != nil {
		was = meter.Awake
	}
	v.meter.ended(v, m)
	v.mu.Lock()
	v.rec.Stopped, v.rec.StopAt = &exit, time.Now()
	remove := v.rec.Request.Remove
	v.mu.Unlock()
	if err := v.save(); err != nil {
		v.h.log.Error("save", "vm", v.name, "err", err)
	}
	v.putDown()
	if err := v.clearRun(); err != nil {
		v.h.log.Error("clean up", "vm", v.name, "err", err)
	}
	v.unpublish()
	v.meter.event(v, was, "stopped: "+exit.Reason)
	v.happened(api.Event{What: api.Ended, Reason: exit.Reason})
	if remove {
		if err := errors.Join(v.h.remember(v), v.removeFiles()); err != nil {
			v.h.log.Error("remove", "vm", v.name, "err", err)
		}
	}
	// Last, so that who waited for it finds nothing of one that was to go.
	v.become(api.Stopped, "", exit.Reason)
}

// machineEnded deals with the end of the VM's process that nobody asked for.
func (v *vm) machineEnded(m compute.Machine) {
	if v.begin(v.h.ctx) != nil {
		return
	}
	defer v.end()
	if v.runsOn(m) {
		v.lost(m)
	}
}

// lost records that the VM's process is gone. If that is the guest's doing or
// its limit's, it stays stopped, and one that goes with its process goes; else
// the next packet boots it. The caller holds op.
func (v *vm) lost(m compute.Machine) {
	e := m.Exit()
	exit := api.Exit{
		Code:    125,
		Reason:  "the VM's process ended: " + e.String(),
		Console: strings.TrimSpace(lastLines(m.Console())),
	}
	v.h.log.Error("vm process ended", "vm", v.name, "reason", e.String())
	v.mu.Lock()
	remove := v.rec.Request.Remove
	v.mu.Unlock()
	if remove || e.Reason == compute.PoweredOff || e.Reason == compute.OutOfLimit {
		v.stopped(m, exit)
		return
	}
	v.meter.ended(v, m)
	v.mu.Lock()
	v.died = &exit
	v.mu.Unlock()
	v.goCold("", exit.Reason+". The next packet boots it")
	v.meter.event(v, meter.Awake, "lost: "+exit.Reason)
	v.happened(api.Event{What: api.Lost, Reason: exit.Reason})
}

// describe puts a guest's exit into a sentence.
func describe(e guest.Exit) api.Exit {
	exit := api.Exit{Code: e.Code, OOM: e.OOM}
	switch {
	case e.Code < 0 || e.Code > 255:
		// A guest says what it likes; who passes it on would cut it to 8 bits.
		exit = api.Exit{Code: 125, Reason: fmt.Sprintf("the guest reports exit status %d, which there is not", e.Code)}
	case e.OOM:
		exit.Reason = "out of memory in the VM; give it more with --memory"
	case e.Error != "":
		exit.Reason = fmt.Sprintf("could not start: %.300s", e.Error)
	case e.Signal != "":
		exit.Reason = fmt.Sprintf("ended by %.20s", e.Signal)
	default:
		exit.Reason = fmt.Sprintf("exit status %d", e.Code)
	}
	return exit
}

// lastLines returns the end of a console, or "", to go behind an error.
func lastLines(console []byte) string {
	const most = 1000
	s := strings.TrimSpace(strings.ToValidUTF8(string(console), "?"))
	if s == "" {
		return ""
	}
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return "\nconsole: " + s
}

// stop ends the VM in good order: the guest's process gets its stop signal and
// the time to obey it.
func (v *vm) stop(ctx context.Context, timeout time.Duration) error {
	if state, _ := v.now(); state == api.Asleep {
		// It has the right to say goodbye: its stop signal may save data.
		if err := v.wake(ctx, "to stop"); err != nil {
			return err
		}
	}
	if err := v.begin(ctx); err != nil {
		return err
	}
	defer v.end()
	switch state, _ := v.now(); state {
	case api.Stopped:
		return nil
	case api.Cold, api.Asleep:
		v.stopped(nil, api.Exit{Code: 0, Reason: "stopped while it was not running"})
		return nil
	}
	v.mu.Lock()
	m, ctl := v.machine, v.ctl
	v.mu.Unlock()
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout+5*time.Second)
	defer cancel()
	e, err := ctl.Stop(wait, timeout)
	if err != nil {
		v.stopped(m, api.Exit{Code: 137, Reason: fmt.Sprintf("killed: it did not answer a stop (%v)", err)})
		return nil
	}
	exit := describe(e)
	exit.Reason = "stopped: " + exit.Reason
	v.powerOff(wait, m, ctl)
	v.stopped(m, exit)
	return nil
}

// kill ends the VM at once, whatever it is doing.
func (v *vm) kill(ctx context.Context, reason string) error {
	v.mu.Lock()
	m, state := v.machine, v.state
	if v.interrupt != nil {
		v.interrupt(errors.New("it is being killed"))
	}
	v.mu.Unlock()
	if m != nil && state != api.Asleep {
		if err := m.Kill(); err != nil {
			return err
		}
	}
	if err := v.begin(ctx); err != nil {
		return err
	}
	defer v.end()
	if state, _ := v.now(); state == api.Stopped {
		return nil
	}
	v.stopped(m, api.Exit{Code: 137, Reason: reason})
	return nil
}
