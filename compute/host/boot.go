package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/compute/kernel"
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

// boot starts the VM from nothing but its disks. The caller holds op.
func (v *vm) boot(ctx context.Context, reason string) error {
	// A boot is not half done because the one who asked went away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bootTimeout)
	defer cancel()
	done, err := v.h.turn(ctx)
	if err != nil {
		return err
	}
	defer done()

	v.become(api.Starting, "", reason)
	w := startWatch()
	if err := v.bootMachine(ctx, w); err != nil {
		v.putDown()
		why := fmt.Sprintf("boot: %v", err)
		v.become(api.Cold, "", why)
		return cloudpal.E("boot "+v.name, "", err)
	}
	v.runs(w, reason)
	return nil
}

func (v *vm) bootMachine(ctx context.Context, w *stopwatch) error {
	if err := v.clearRun(); err != nil {
		return err
	}
	if err := v.writeInitrd(); err != nil {
		return err
	}
	tap, ifname, err := v.h.cfg.Network.Plug(v.name)
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
	if err := v.greet(ctx, m, 0); err != nil {
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
func (v *vm) greet(ctx context.Context, m compute.Machine, slept time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-m.Done():
			cancel(fmt.Errorf("its process ended: %s%s", m.Exit(), lastLines(m.Console())))
		case <-ctx.Done():
		}
	}()
	if err := v.ctl.Hello(ctx, slept); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("the guest does not answer: %w%s", err, lastLines(m.Console()))
	}
	return nil
}

// runs lets packets flow and starts watching. The caller holds op; the guest
// answers.
func (v *vm) runs(w *stopwatch, reason string) {
	if err := v.h.cfg.Network.Admit(v.name); err != nil {
		v.h.log.Error("let packets flow", "vm", v.name, "err", err)
	}
	w.lap("packets")
	v.mu.Lock()
	m, ifname := v.machine, v.mom.Ifname
	v.rec.Wakes++
	v.steps = w.steps
	v.pinned = ""
	v.mu.Unlock()
	v.become(api.Running, "", reason)
	if err := v.note(running, m.Process(), ifname, reason); err != nil {
		v.h.log.Error("note", "vm", v.name, "err", err)
	}
	v.meter.woken(v, reason)
	v.watch(m)
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
	if err := v.h.cfg.Network.Unplug(v.name); err != nil {
		v.h.log.Error("unplug", "vm", v.name, "err", err)
	}
	if err := v.clearRun(); err != nil {
		v.h.log.Error("clean up", "vm", v.name, "err", err)
	}
}

// clearRun makes every snapshot of the VM unusable and gives it empty run
// directories.
func (v *vm) clearRun() error {
	errs := []error{
		os.Remove(v.paths.state()), os.Remove(v.paths.used()), os.Remove(v.paths.moment()),
	}
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

// disks returns the VM's block devices in order: its volume, the image's
// layers bottom first, its named volumes.
func (v *vm) disks() []disk {
	all := []disk{{path: v.paths.volume()}}
	img, err := v.h.cfg.Images.Get(v.rec.ImageID)
	if err == nil {
		for _, l := range img.Layers {
			all = append(all, disk{path: l.Path, readOnly: true})
		}
	}
	for _, m := range v.rec.Request.Volumes {
		all = append(all, disk{path: v.h.volumePath(m.Volume), readOnly: m.ReadOnly})
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
	v4, _ := v.h.cfg.Network.Prefixes()
	cfg := guest.Config{
		Hostname: v.name,
		Modules:  v.h.cfg.Kernel.Modules,
		Volume:   device(0),
		LayerFS:  image.FS,
		Mounts:   img.Config.Volumes,
		Net: guest.Net{
			MAC: v.rec.mac().String(), Addresses: v.rec.Addrs,
			Gateway: v4.Addr().Next(), GatewayMAC: v.h.cfg.Network.HostMAC().String(),
		},
		Process: process(img.Config, q),
	}
	if q.Host != "" {
		cfg.Hostname = q.Host
	}
	for i := range img.Layers {
		cfg.Layers = append(cfg.Layers, device(1+i))
	}
	for i, m := range q.Volumes {
		cfg.Volumes = append(cfg.Volumes, guest.Volume{
			Device: device(1 + len(img.Layers) + i), Path: m.Path, ReadOnly: m.ReadOnly,
		})
	}
	return cfg, nil
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
