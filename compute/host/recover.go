package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
)

// recover builds the table of VMs from StateDir and RunDir. Whatever instant
// the last agent or a VM's process was killed at, each VM comes out as one of:
// running (its process is found and runs on), asleep (its snapshot is whole
// and was never run), cold, or stopped.
func (h *Host) recover(ctx context.Context) error {
	dir := filepath.Join(h.cfg.StateDir, "vms")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return cloudpal.E("recover the host's VMs", "", err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			// A VM that was being made or removed.
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return cloudpal.E("recover the host's VMs", "", err)
			}
			continue
		}
		if err := h.recoverVM(ctx, name); err != nil {
			// One broken VM must not keep the others down; it stays on
			// disk for a person to look at.
			h.log.Error("a VM cannot be recovered; its directory is left as it is",
				"vm", name, "dir", h.paths(name).disk, "err", err)
		}
	}
	return errors.Join(h.sweepRunDir(), h.cfg.Network.Sweep())
}

func (h *Host) recoverVM(ctx context.Context, name string) error {
	var rec record
	if err := checkName("vm", name); err != nil {
		return err
	}
	if err := readJSON(h.paths(name).record(), &rec); err != nil {
		return cloudpal.E("read vm.json", cloudpal.Corrupt, err)
	}
	if rec.Request.Name != name || rec.Index < 0 || rec.Index > 1<<20 || rec.ID == "" {
		return cloudpal.E("read vm.json", cloudpal.Corrupt, errors.New("it belongs to another VM"))
	}
	v := h.newVM(name, rec)
	// The prefixes may have changed with the host's own network.
	v.rec.Addrs = h.addrs(rec.Index)
	if err := v.meter.open(); err != nil {
		return err
	}
	v.log.recover()
	h.mu.Lock()
	h.take(v)
	h.mu.Unlock()
	os.Remove(v.paths.sealed() + ".tmp")
	if rec.Stopped != nil {
		v.state, v.reason = api.Stopped, rec.Stopped.Reason
		v.kill9()
		return v.clearRun()
	}
	if err := h.cfg.Network.Add(name, v.nic()); err != nil {
		return err
	}
	if err := v.publish(); err != nil {
		h.log.Error("publish again", "vm", name, "err", err)
	}
	v.recoverMoment(ctx)
	return nil
}

// recoverMoment finds out what the VM was doing and goes on from there.
func (v *vm) recoverMoment(ctx context.Context) {
	err := readJSON(v.paths.moment(), &v.mom)
	if errors.Is(err, os.ErrNotExist) {
		// The machine was restarted: nothing in memory is left. A sealed
		// nap's key is gone with it.
		v.cold("the host was restarted")
		return
	}
	if err != nil {
		v.kill9()
		v.cold("its run state was unreadable")
		return
	}
	switch v.mom.Phase {
	case asleep:
		v.recoverNap()
	case running, suspending:
		v.recoverProcess(ctx)
	default:
		// It was between a snapshot that is void and a guest that answers.
		v.kill9()
		v.cold(fmt.Sprintf("the agent was ended while it was %s", v.mom.Phase))
	}
}

// cold makes the VM one that the next packet boots.
func (v *vm) cold(reason string) {
	v.putDown()
	v.become(api.Cold, "", reason)
}

// recoverNap takes up a nap where it was left. A process that waited for it is
// not worth the risk of finding out what it has read.
func (v *vm) recoverNap() {
	v.kill9()
	since := v.mom.Since
	depth := api.Memory
	if !exists(v.paths.state()) || !exists(v.paths.memory()) {
		depth = api.Disk
		if !exists(v.paths.sealed()) {
			v.cold("its nap is gone")
			return
		}
	}
	v.mom.Process = compute.Process{}
	v.become(api.Asleep, depth, v.mom.Reason)
	v.since, v.mom.Since = since, since
}

// recoverProcess finds the VM's process and goes on with it. If it was being
// suspended, it runs on.
func (v *vm) recoverProcess(ctx context.Context) {
	tap, err := findTap(v.mom.Process.PID, v.mom.Ifname)
	if err != nil {
		v.kill9()
		v.cold(fmt.Sprintf("its process is gone (%v)", err))
		return
	}
	m, err := v.h.cfg.Driver.Attach(ctx, v.spec(tap), v.mom.Process)
	if err != nil {
		tap.Close()
		v.kill9()
		v.cold(fmt.Sprintf("its process could not be taken over (%v)", err))
		return
	}
	v.hold(m, v.mom.Ifname)
	if err := v.takeOver(ctx, m, tap); err != nil {
		v.cold(fmt.Sprintf("its process could not be taken over (%v)", err))
		return
	}
	// The last agent may have throttled it.
	if err := m.SetCPU(v.cores()); err != nil {
		v.h.log.Error("bound cpu use", "vm", v.name, "err", err)
	}
	v.become(api.Running, "", v.mom.Reason)
	v.since = v.mom.Since
	v.watch(m)
}

func (v *vm) takeOver(ctx context.Context, m compute.Machine, tap *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	interrupted := v.mom.Phase == suspending
	if err := v.h.cfg.Network.Adopt(v.name, tap, v.mom.Ifname, !interrupted); err != nil {
		return err
	}
	if !interrupted {
		return nil
	}
	if err := m.Run(ctx); err != nil {
		return err
	}
	if err := v.greet(ctx, m, 0); err != nil {
		return err
	}
	return errors.Join(
		v.note(running, m.Process(), v.mom.Ifname, v.mom.Reason),
		v.h.cfg.Network.Admit(v.name))
}

// kill9 ends the process that the VM's moment names, if it is still that.
func (v *vm) kill9() {
	p := v.mom.Process
	if p.PID == 0 {
		return
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// Looked at after the pidfd is held, the start time cannot be another's.
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		return
	}
	if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		unix.Poll(poll, int((5 * time.Second).Milliseconds()))
	}
}

// sweepRunDir removes run directories of VMs that are no more.
func (h *Host) sweepRunDir() error {
	var errs []error
	for _, sub := range []string{"vm", "nap"} {
		dir := filepath.Join(h.cfg.RunDir, sub)
		entries, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, e := range entries {
			if _, err := h.find(e.Name()); err != nil {
				errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
