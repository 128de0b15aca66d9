package host

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

// A vm is one VM of the host. Who changes what it does (boot, suspend, wake,
// stop, remove) holds op from begin to end of the change; mu only guards the
// fields while they are read and set.
type vm struct {
	h    *Host
	name string
	paths
	op chan struct{}

	mu      sync.Mutex
	rec     record
	mom     moment
	state   api.State
	depth   api.Depth // while Asleep
	since   time.Time
	reason  string
	steps   []api.Step
	died    *api.Exit // how its last process was lost, while Cold
	removed bool
	// machine is the VM's process: set while Running, Starting, and Asleep at
	// depth Armed.
	machine compute.Machine
	ctl     *guest.Client
	// pinned is the depth a person asked for; the policy leaves it unless
	// memory runs out.
	pinned api.Depth
	// interrupt ends a suspend that is under way.
	interrupt context.CancelCauseFunc
	// falling is set from the begin of a suspend until the VM is asleep. Who
	// comes when it is too late to interrupt it is why the VM is due.
	falling bool
	due     string
	// waking is set while the wake of a packet or timer is on its way, roused is
	// since when.
	waking bool
	roused time.Time
	// ran is since when it runs, brief whether a packet or timer woke it, and
	// active when it last had traffic: what decides on its next nap.
	ran    time.Time
	brief  bool
	active time.Time
	// wished is what the guest last said of its sleep, since it runs; sessions
	// are the commands that people have running in it.
	wished   guest.Wishes
	sessions int
	// session ends when the running machine is no longer watched.
	session context.Context
	// unwatch stops what watches the running machine and waits for it.
	unwatch func()
	ports   []Published
	// changed is closed and replaced whenever state changes.
	changed chan struct{}
	meter   *metering
	log     *logbook
	history *history
}

func (h *Host) newVM(name string, rec record) *vm {
	v := &vm{
		h: h, name: name, paths: h.paths(name), rec: rec,
		op: make(chan struct{}, 1), changed: make(chan struct{}),
		state: api.Cold, since: time.Now(),
	}
	v.meter = newMetering(v)
	v.log = newLogbook(v.paths.logs())
	v.history = newHistory(v.paths.events())
	return v
}

var errInterrupted = errors.New("a packet arrived")

// begin waits until no other change of the VM is under way.
func (v *vm) begin(ctx context.Context) error {
	select {
	case v.op <- struct{}{}:
	case <-ctx.Done():
		return cloudpal.E("vm "+v.name, cloudpal.Busy, context.Cause(ctx))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.removed {
		<-v.op
		return cloudpal.E("vm "+quote(v.name), cloudpal.NotExist, nil)
	}
	return nil
}

func (v *vm) end() { <-v.op }

// become sets the state and tells who waits for it. A VM that moves from one
// depth to another has been asleep for as long as before.
func (v *vm) become(s api.State, d api.Depth, reason string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s != v.state || s != api.Asleep {
		v.since = time.Now()
	}
	v.state, v.depth, v.reason = s, d, reason
	close(v.changed)
	v.changed = make(chan struct{})
}

// now returns the state and a channel that is closed when it changes.
func (v *vm) now() (api.State, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.state, v.changed
}

// why returns the reason of the state.
func (v *vm) why() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.reason
}

// note writes down, before it happens, what is about to happen.
func (v *vm) note(p phase, proc compute.Process, ifname, reason string) error {
	v.mu.Lock()
	v.mom.Phase, v.mom.Process, v.mom.Ifname, v.mom.Reason = p, proc, ifname, reason
	v.mom.Since = time.Now()
	if p != cold {
		v.mom.Sealed = false
	}
	if p == running { // it has no reason to be woken, and its guest goes on
		v.mom.Napped, v.mom.WakeAt = time.Time{}, time.Time{}
	}
	m := v.mom
	v.mu.Unlock()
	return writeJSON(v.paths.moment(), m)
}

// save makes the record durable.
func (v *vm) save() error {
	v.mu.Lock()
	rec := v.rec
	v.mu.Unlock()
	return writeJSON(v.paths.record(), rec)
}

// spec describes the VM's machine. The tap and the open files stay the
// caller's.
func (v *vm) spec(tap *os.File) compute.Spec {
	r := &v.rec
	s := compute.Spec{
		Name:       v.name,
		Dir:        v.paths.run,
		Kernel:     v.h.cfg.Kernel.VMLinux,
		Initrd:     v.paths.initrd(),
		Cmdline:    v.h.cfg.Kernel.Cmdline + " " + guest.MailboxCmdline,
		CPUs:       r.Request.CPUs,
		Memory:     r.Request.Memory,
		MemoryFile: v.paths.memory(),
		NIC:        compute.NIC{MAC: r.mac(), TAP: tap},
		UID:        r.uid(),
		Limits: compute.Limits{
			CPU:       v.cores(),
			Memory:    processMemory,
			DiskBytes: r.Request.Limits.DiskBytes,
			DiskOps:   r.Request.Limits.DiskOps,
		},
	}
	for _, d := range v.disks() {
		s.Disks = append(s.Disks, compute.Disk{Path: d.path, ReadOnly: d.readOnly})
	}
	return s
}

// processMemory is what a VM's process may take beyond the guest's RAM, in
// bytes: QEMU's own data, and translated code where there is no KVM.
const processMemory = 192 << 20

// rouse starts a wake in the background, for a packet or a timer, or interrupts
// a suspend.
func (v *vm) rouse(why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.interrupt != nil {
		v.interrupt(errInterrupted)
	}
	if v.falling {
		v.due = why
		return
	}
	if v.waking || v.removed || v.state == api.Running || v.state == api.Stopped {
		return
	}
	v.waking, v.roused = true, time.Now()
	v.h.tasks.Go(func() {
		err := v.wake(v.h.ctx, why)
		v.mu.Lock()
		v.waking = false
		v.mu.Unlock()
		if err != nil && v.h.ctx.Err() == nil {
			v.h.log.Error("wake", "vm", v.name, "err", err)
			v.silence(time.Now())
		}
	})
}

// wake makes the VM run, from whatever sleep it is in. Many callers at once
// wake it once.
func (v *vm) wake(ctx context.Context, reason string) error {
	if err := v.begin(ctx); err != nil {
		return err
	}
	defer v.end()
	switch state, _ := v.now(); state {
	case api.Running:
		return nil
	case api.Asleep:
		return v.resume(ctx, reason)
	case api.Cold:
		// It is not half done because the one who asked went away.
		return v.boot(context.WithoutCancel(ctx), reason)
	default:
		return cloudpal.E("wake "+v.name, cloudpal.Invalid, errors.New("it is stopped")).
			WithHint("cloudpal vm start " + v.name + " boots it")
	}
}

// release lets go of the VM's process without ending it.
func (v *vm) release() error {
	v.mu.Lock()
	unwatch, ctl, ports := v.unwatch, v.ctl, v.ports
	v.unwatch, v.ports = nil, nil
	v.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	if ctl != nil {
		ctl.Close()
	}
	var errs []error
	for _, p := range ports {
		errs = append(errs, p.Close())
	}
	return errors.Join(append(errs, v.meter.close(), v.log.close())...)
}

// view returns what the agent says of the VM.
func (v *vm) view() api.VM {
	v.mu.Lock()
	defer v.mu.Unlock()
	q := &v.rec.Request
	out := api.VM{
		Name: v.name, Image: q.Image, ImageID: v.rec.ImageID,
		State: v.state, Depth: v.depth, Since: v.since, Reason: v.reason,
		Created: v.rec.Created, CPUs: q.CPUs, Memory: q.Memory,
		Addresses: v.rec.Addrs, Ports: q.Ports, Volumes: q.Volumes,
		Wakes: v.rec.Wakes, Boots: v.rec.Boots, Throttled: v.meter.isThrottled(),
		Remove: q.Remove, Steps: v.steps, WireGuard: q.WireGuard,
		Nap: q.Nap, ReadOnly: q.ReadOnly, Outbound: q.Outbound,
	}
	switch v.state {
	case api.Stopped:
		out.Exit = v.rec.Stopped
	case api.Asleep:
		out.WakeAt = v.mom.WakeAt
	case api.Cold:
		out.Exit, out.WakeAt = v.died, v.mom.WakeAt
	case api.Running:
		out.Busy = v.wished.Busy
	}
	if v.machine != nil {
		out.PID = v.machine.Process().PID
	}
	return out
}
