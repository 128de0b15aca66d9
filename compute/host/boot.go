package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/compute/kernel"
	"github.com/tradle/cloudpal/compute/meter"
)

// A stopwatch names the parts of a boot, wake or suspend.
type stopwatch struct {
	last  time.Time
	steps []api.Step
}

func startWatch() *stopwatch { return &stopwatch{last: time.Now()} }

func (w *stopwatch) lap(name string) {
	now := time.Now()
	w.steps = append(w.steps, api.Step{Name: name, Duration: now.Sub(w.last)})
	w.last = now
}

// boot starts the VM from nothing but its disks. When ctx ends meanwhile, it
// is cold again. The caller holds op.
func (v *vm) boot(ctx context.Context, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	done, err := v.h.turn(ctx)
	if err != nil {
		return err
	}
	defer done()

	was := meter.Asleep
	if state, _ := v.now(); state == api.Stopped {
		was = meter.Off
	}
	v.meter.event(v, was, "boot: "+nameless(reason))
	v.become(api.Starting, "", reason)
	w := startWatch()
	if err := v.bootWithTimer(ctx, w); err != nil {
		why := fmt.Sprintf("boot: %v", err)
		v.goCold("", why)
		v.happened(api.Event{What: api.Lost, Reason: why})
		return cloudpal.E("boot "+v.name, "", err)
	}
	v.runs(w, reason, meter.Awake)
	v.happened(api.Event{What: api.Booted, Reason: reason})
	return nil
}

// timerTries is how often a guest is booted whose kernel does not get its timer
// to work, as happens to one in hundreds on a busy host without KVM.
const timerTries = 4

func (v *vm) bootWithTimer(ctx context.Context, w *stopwatch) (err error) {
	for range timerTries {
		if err = v.bootMachine(ctx, w); err == nil || !strings.Contains(err.Error(), guest.NoTimer) {
			return err
		}
		v.h.log.Warn("the guest's kernel found no timer; booting it again", "vm", v.name)
		v.putDown()
	}
	return err
}

func (v *vm) bootMachine(ctx context.Context, w *stopwatch) error {
	if err := v.clearSnapshots(); err != nil {
		return err
	}
	v.mu.Lock()
	v.rec.Boots++
	v.mu.Unlock()
	if err := v.save(); err != nil {
		return err
	}
	if err := v.writeInitrd(); err != nil {
		return err
	}
	tap, ifname, err := v.h.net.Plug(v.name)
	if err != nil {
		return err
	}
	w.lap("prepare")
	m, err := v.h.cfg.Driver.Boot(ctx, v.spec(tap))
	if err != nil {
		return err
	}
	v.hold(m, ifname)
	v.log.restart()
	w.lap("process")
	if err := v.note(booting, m.Process(), ifname, ""); err != nil {
		return err
	}
	if err := m.Run(ctx); err != nil {
		return err
	}
	if err := v.greet(ctx, m, guest.NewHello(0, "")); err != nil {
		return err
	}
	// QEMU has read it, and it holds the process's environment.
	if err := os.Remove(v.paths.initrd()); err != nil {
		return err
	}
	w.lap("kernel")
	v.awaitListening(ctx)
	w.lap("process listens")
	return nil
}

// hold makes m the VM's process, which answers on ifname.
func (v *vm) hold(m compute.Machine, ifname string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.machine = m
	v.ctl = guest.Dial(ifname, v.rec.mac())
	v.mom.Ifname = ifname
	v.mom.Epoch = fmt.Sprintf("%d-%d", m.Process().PID, m.Process().Start)
}

// greet hands the guest the time and fresh entropy, and returns when it has
// taken them. It fails at once when the process ends.
func (v *vm) greet(ctx context.Context, m compute.Machine, h *guest.Hello) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-m.Done():
			cancel(fmt.Errorf("its process ended: %s%s", m.Exit(), lastLines(m.Console())))
		case <-ctx.Done():
		}
	}()
	if err := v.ctl.Hello(ctx, h); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("the guest does not answer: %w%s", err, lastLines(m.Console()))
	}
	return nil
}

// runs lets packets flow and starts watching. The caller holds op; the guest
// answers. Until now it was asleep, or awake if it booted.
func (v *vm) runs(w *stopwatch, reason string, was meter.State) {
	v.mu.Lock()
	v.ran, v.brief, v.wished = time.Now(), was == meter.Asleep && v.waking, guest.Wishes{}
	v.mu.Unlock()
	if err := v.h.net.Admit(v.name); err != nil {
		v.h.log.Error("let packets flow", "vm", v.name, "err", err)
	}
	w.lap("packets")
	v.mu.Lock()
	m, ifname := v.machine, v.mom.Ifname
	v.rec.Wakes++
	v.steps = w.steps
	v.died = nil
	v.pinned = ""
	v.mu.Unlock()
	v.become(api.Running, "", reason)
	if err := v.note(running, m.Process(), ifname, reason); err != nil {
		v.h.log.Error("note", "vm", v.name, "err", err)
	}
	v.meter.woken(v, was, reason)
	after := time.Duration(0)
	if was == meter.Asleep {
		after = settle
	}
	v.watch(m, after)
	// Off the wake path, and lost at worst by one wake.
	if err := v.save(); err != nil {
		v.h.log.Error("save", "vm", v.name, "err", err)
	}
}

// putDown ends the VM's process, if any, and removes what is in memory of it.
func (v *vm) putDown() {
	v.mu.Lock()
	m, unwatch := v.machine, v.unwatch
	v.machine, v.unwatch = nil, nil
	if v.ctl != nil {
		v.ctl.Close()
		v.ctl = nil
	}
	v.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	if m != nil {
		if err := m.Kill(); err != nil {
			v.h.log.Error("kill", "vm", v.name, "err", err)
		}
	}
	if err := v.h.net.Unplug(v.name); err != nil {
		v.h.log.Error("unplug", "vm", v.name, "err", err)
	}
	if err := v.clearSnapshots(); err != nil {
		v.h.log.Error("clean up", "vm", v.name, "err", err)
	}
}

// goCold puts down what is left of the VM and makes it one that the next packet
// boots, or its timer. Depth is api.Sealed where that was meant, else "".
func (v *vm) goCold(d api.Depth, reason string) {
	v.putDown()
	v.mu.Lock()
	v.mom.Sealed, v.pinned = d == api.Sealed, ""
	v.mu.Unlock()
	if err := v.note(cold, compute.Process{}, "", reason); err != nil {
		v.h.log.Error("note", "vm", v.name, "err", err)
	}
	v.become(api.Cold, d, reason)
}

// clearRun is clearSnapshots, and forgets what the VM was doing.
func (v *vm) clearRun() error {
	v.mu.Lock()
	v.mom = moment{}
	v.mu.Unlock()
	return errors.Join(v.clearSnapshots(), removeDurably(v.paths.moment()))
}

// clearSnapshots makes every snapshot of the VM unusable and gives it empty run
// directories.
func (v *vm) clearSnapshots() error {
	errs := []error{os.Remove(v.paths.state()), os.Remove(v.paths.used())}
	for i, err := range errs {
		if errors.Is(err, os.ErrNotExist) {
			errs[i] = nil
		}
	}
	errs = append(errs, removeDurably(v.paths.sealed()),
		os.RemoveAll(v.paths.run), os.MkdirAll(v.paths.nap, 0o700))
	errs = append(errs, os.Mkdir(v.paths.run, 0o711))
	return errors.Join(errs...)
}

// A disk is one block device of the VM.
type disk struct {
	path     string
	readOnly bool
}

// disks returns the VM's block devices in order: its own disk if it has one,
// the image's layers bottom first, its named volumes.
func (v *vm) disks() []disk {
	var all []disk
	if !v.rec.Request.ReadOnly {
		all = append(all, disk{path: v.paths.volume()})
	}
	img, err := v.h.cfg.Images.Get(v.rec.ImageID)
	if err == nil {
		for _, l := range img.Layers {
			all = append(all, disk{path: l.Path, readOnly: true})
		}
	}
	for _, m := range v.rec.Request.Volumes {
		all = append(all, disk{path: v.h.volumePath(m), readOnly: m.ReadOnly})
	}
	return all
}

func device(i int) string { return "vd" + string(rune('a'+i)) }

// writeInitrd makes the initrd: the shared base, and the VM's config.json.
func (v *vm) writeInitrd() error {
	cfg, err := v.guestConfig()
	if err != nil {
		return err
	}
	data, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(v.paths.initrd(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	files := []kernel.File{{Name: "config.json", Mode: 0o600, Data: data}}
	return errors.Join(v.h.cfg.Kernel.Initrd(f, files), f.Chown(v.rec.uid(), v.rec.uid()), f.Close())
}

func (v *vm) guestConfig() (guest.Config, error) {
	img, err := v.h.cfg.Images.Get(v.rec.ImageID)
	if err != nil {
		return guest.Config{}, err
	}
	q := v.rec.Request
	v4, _ := v.h.net.Prefixes()
	cfg := guest.Config{
		Hostname: v.name,
		Modules:  v.h.cfg.Kernel.Modules,
		LayerFS:  image.FS,
		Mounts:   img.Config.Volumes,
		Net: guest.Net{
			MAC: v.rec.mac().String(), Addresses: v.rec.Addrs,
			Gateway: v4.Addr().Next(), GatewayMAC: v.h.net.HostMAC().String(),
		},
		Process: process(img.Config, q),
	}
	if q.Host != "" {
		cfg.Hostname = q.Host
	}
	v.nameDisks(&cfg, len(img.Layers))
	return cfg, nil
}

// nameDisks tells the guest which device is what, in the order of disks.
func (v *vm) nameDisks(cfg *guest.Config, layers int) {
	q := v.rec.Request
	i := 0
	next := func() string {
		i++
		return device(i - 1)
	}
	if !q.ReadOnly {
		cfg.Volume = next()
	}
	for range layers {
		cfg.Layers = append(cfg.Layers, next())
	}
	for _, m := range q.Volumes {
		cfg.Volumes = append(cfg.Volumes, guest.Volume{Device: next(), Path: m.Path, ReadOnly: m.ReadOnly, Raw: m.Raw})
	}
}

// process applies a request to an image's configuration, as the OCI image
// spec and every container tool do: new entrypoint drops the image's command.
func process(c image.Config, q api.CreateRequest) guest.Process {
	entry, cmd := c.Entrypoint, c.Cmd
	if q.Entry != nil {
		entry, cmd = q.Entry, nil
	}
	if len(q.Args) > 0 {
		cmd = q.Args
	}
	p := guest.Process{
		Args:       append(append([]string{}, entry...), cmd...),
		Env:        mergeEnv(c.Env, q.Env),
		Dir:        c.WorkingDir,
		User:       c.User,
		StopSignal: c.StopSignal,
		TTY:        q.TTY,
	}
	if q.Dir != "" {
		p.Dir = q.Dir
	}
	if q.User != "" {
		p.User = q.User
	}
	return p
}
