package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/meter"
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
	h.sweepDriver()
	return errors.Join(h.finishRemovals(), h.sweepVolumes(), h.sweepRunDir(), h.net.Sweep())
}

// sweepVolumes removes volumes that were being made.
func (h *Host) sweepVolumes() error {
	dir := filepath.Join(h.cfg.StateDir, "volumes")
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newVolume) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// A sweeper is a driver whose processes leave something behind when they end and
// nobody watches. Sweep removes that, of VMs with directories in dir.
type sweeper interface{ Sweep(dir string) error }

func (h *Host) sweepDriver() {
	s, ok := h.cfg.Driver.(sweeper)
	if !ok {
		return
	}
	if err := s.Sweep(filepath.Join(h.cfg.RunDir, "vm")); err != nil {
		h.log.Error("remove what VMs have left", "err", err)
	}
}

// finishRemovals removes the VMs that were to go with their process, and whose
// agent went first.
func (h *Host) finishRemovals() error {
	var errs []error
	for _, v := range h.all() {
		if v.rec.Stopped != nil && v.rec.Request.Remove && v.tryBegin() {
			errs = append(errs, v.removeFiles())
			v.end()
		}
	}
	return errors.Join(errs...)
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
	// A packet may ask for it before it is known what it was doing.
	v.op <- struct{}{}
	defer v.end()
	// The prefixes may have changed with the host's own network.
	v.rec.Addrs = h.addrs(rec.Index)
	if err := v.recoverMeter(); err != nil {
		return err
	}
	v.log.recover()
	h.mu.Lock()
	h.take(v)
	h.mu.Unlock()
	os.Remove(v.paths.sealed() + ".tmp")
	if rec.Stopped != nil {
		v.state, v.reason = api.Stopped, rec.Stopped.Reason
		// The last agent may have noted the end and not yet made it.
		switch err := readJSON(v.paths.moment(), &v.mom); {
		case err == nil:
			v.kill9()
		case !errors.Is(err, os.ErrNotExist):
			killIn(v.paths.run)
		}
		v.reconcile()
		return v.clearRun()
	}
	if err := h.net.Add(name, v.nic()); err != nil {
		return err
	}
	if err := v.publish(); err != nil {
		h.log.Error("publish again", "vm", name, "err", err)
	}
	v.recoverMoment(ctx)
	v.reconcile()
	return nil
}

// recoverMeter opens the VM's usage records. Damaged ones are put aside: a VM is
// not lost for them.
func (v *vm) recoverMeter() error {
	err := v.meter.open()
	if !errors.Is(err, cloudpal.Corrupt) {
		return err
	}
	aside := v.paths.usage() + ".damaged"
	for i := 2; exists(aside); i++ { // what was put aside before stays
		aside = fmt.Sprintf("%s.damaged.%d", v.paths.usage(), i)
	}
	if err := os.Rename(v.paths.usage(), aside); err != nil {
		return err
	}
	v.h.log.Error("a VM's usage records are damaged and put aside; it is counted anew",
		"vm", v.name, "file", aside, "err", err)
	if err := v.meter.open(); err != nil {
		return err
	}
	v.meter.event(v, meter.Off, "counted anew: the records before are damaged")
	return nil
}

// recoverMoment finds out what the VM was doing and goes on from there.
func (v *vm) recoverMoment(ctx context.Context) {
	err := readJSON(v.paths.moment(), &v.mom)
	if errors.Is(err, os.ErrNotExist) {
		// The machine was restarted: nothing in memory is left. A sealed
		// nap's key is gone with it.
		v.goCold("", "the host was restarted")
		return
	}
	if err != nil {
		killIn(v.paths.run)
		v.mom = moment{}
		v.goCold("", "its run state was unreadable")
		return
	}
	switch v.mom.Phase {
	case cold:
		v.recoverCold()
	case asleep:
		v.recoverNap()
	case running, suspending:
		v.recoverProcess(ctx)
	default:
		// It was between a snapshot that is void and a guest that answers.
		v.kill9()
		v.goCold("", fmt.Sprintf("the agent was ended while it was %s", v.mom.Phase))
	}
}

// recoverCold leaves a cold VM as it was.
func (v *vm) recoverCold() {
	m := v.mom
	depth := api.Depth("")
	if m.Sealed {
		depth = api.Sealed
	}
	v.goCold(depth, m.Reason)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.since, v.mom.Since = m.Since, m.Since
}

// recoverNap takes up a nap where it was left. A process that waited for it is
// not worth the risk of finding out what it has read.
func (v *vm) recoverNap() {
	v.kill9()
	depth := api.Memory
	if !exists(v.paths.state()) || !exists(v.paths.memory()) {
		depth = api.Disk
		if !exists(v.paths.sealed()) {
			v.goCold("", "its nap is gone")
			return
		}
	}
	v.mom.Process = compute.Process{}
	if v.mom.Napped.IsZero() { // an agent of an earlier version
		v.mom.Napped = v.mom.Since
	}
	v.become(api.Asleep, depth, v.mom.Reason)
	v.since = v.mom.Napped
}

// recoverProcess finds the VM's process and goes on with it. If it was being
// suspended, it runs on.
func (v *vm) recoverProcess(ctx context.Context) {
	tap, err := findTap(v.mom.Process.PID, v.mom.Ifname)
	if err != nil {
		v.kill9()
		v.goCold("", fmt.Sprintf("its process is gone (%v)", err))
		return
	}
	m, err := v.h.cfg.Driver.Attach(ctx, v.spec(tap), v.mom.Process)
	if err != nil {
		tap.Close()
		v.kill9()
		v.goCold("", fmt.Sprintf("its process could not be taken over (%v)", err))
		return
	}
	v.hold(m, v.mom.Ifname)
	if err := v.takeOver(ctx, m, tap); err != nil {
		v.goCold("", fmt.Sprintf("its process could not be taken over (%v)", err))
		return
	}
	// The last agent may have throttled it, or had it give way.
	v.bound(m, false)
	v.become(api.Running, "", v.mom.Reason)
	v.since, v.ran = v.mom.Since, time.Now()
	v.watch(m, 0)
}

func (v *vm) takeOver(ctx context.Context, m compute.Machine, tap *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	interrupted := v.mom.Phase == suspending
	if err := v.h.net.Adopt(v.name, tap, v.mom.Ifname, !interrupted); err != nil {
		return err
	}
	if !interrupted {
		return nil
	}
	if err := m.Run(ctx); err != nil {
		return err
	}
	if err := v.greet(ctx, m, guest.NewHello(0, "")); err != nil {
		return err
	}
	return errors.Join(
		v.note(running, m.Process(), v.mom.Ifname, v.mom.Reason),
		v.h.net.Admit(v.name))
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
	endBehind(fd)
}

// endBehind ends the process behind a pidfd and waits until it is gone.
func endBehind(fd int) {
	if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		unix.Poll(poll, int((5 * time.Second).Milliseconds()))
	}
}

// killIn ends the processes that see dir as /: those of a VM of which nothing
// else is known. Two of one VM would spoil its volume.
func killIn(dir string) {
	roots, _ := filepath.Glob("/proc/[0-9]*/root")
	for _, root := range roots {
		if at, err := os.Readlink(root); err != nil || at != dir {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(root)))
		if err != nil {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Again, for it cannot be another's now.
		if at, err := os.Readlink(root); err == nil && at == dir {
			endBehind(fd)
		}
		unix.Close(fd)
	}
}

// sweepRunDir removes run directories, and what runs in them, of VMs that are no
// more or that cannot be recovered.
func (h *Host) sweepRunDir() error {
	errs := []error{os.RemoveAll(h.goneDir())}
	for _, sub := range []string{"vm", "nap"} {
		dir := filepath.Join(h.cfg.RunDir, sub)
		entries, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, e := range entries {
			if _, err := h.find(e.Name()); err != nil {
				killIn(h.paths(e.Name()).run)
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
