//go:build linux && amd64

package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// A kernel that is tried under KVM may be silent for silence, and take probeTime
// in all. It takes half a second where KVM works, and much more on a host that
// is busy or a guest itself, where it was seen to pause for more than 6 s: as
// long as it goes on it does not hang. Where KVM hangs, the agent's first start
// takes so much longer, once.
const (
	silence   = 20 * time.Second
	probeTime = time.Minute
)

// kvmCPU is the CPU model under KVM: the host's own, without what a snapshot
// could not carry.
const kvmCPU = "host,migratable=on"

// probe finds out by trying whether KVM can run a guest: that /dev/kvm is there
// and opens says nothing (some hosts have one that cannot run an ordinary
// kernel). The answer is kept for as long as QEMU and the host's kernel are the
// same.
func probe(ctx context.Context, c Config) (string, error) {
	binary, err := findBinary()
	if err != nil {
		return "", err
	}
	file := filepath.Join(c.Cache, "accelerator-"+probeKey(binary, c.Kernel))
	if known, err := os.ReadFile(file); err == nil && (string(known) == KVM || string(known) == TCG) {
		return string(known), nil
	}
	found := TCG
	if tryKVM(ctx, binary, c.Kernel) {
		found = KVM
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	c.Log.Info("probed the hypervisor", "accelerator", found)
	if err := errors.Join(os.MkdirAll(c.Cache, 0o755), keep(file, found)); err != nil {
		return "", cloudpal.E("remember the accelerator", "", err)
	}
	return found, nil
}

// keep writes a small file that is whole or not there.
func keep(file, text string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// probeKey changes with whatever the answer depends on.
func probeKey(binary, kernel string) string {
	h := sha256.New()
	var host unix.Utsname
	if unix.Uname(&host) == nil {
		h.Write(host.Release[:])
	}
	for _, path := range []string{binary, kernel, "/dev/kvm"} {
		if info, err := os.Stat(path); err == nil {
			h.Write([]byte(path + info.ModTime().String()))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// tryKVM boots the guests' kernel without a root. Where it runs it finds none,
// panics and resets, which ends QEMU in good order; where it does not, QEMU
// aborts or hangs.
func tryKVM(ctx context.Context, binary, kernel string) bool {
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return false
	} else {
		f.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", KVM, "-cpu", kvmCPU, "-m", "128M", "-M", "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on",
		"-serial", "stdio", "-kernel", kernel, "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1 reboot=t")
	hung := time.AfterFunc(silence, cancel)
	defer hung.Stop()
	cmd.Stdout = pulse{hung}
	return cmd.Run() == nil && ctx.Err() == nil
}

// A pulse puts off what is done when nothing is written to it for a while.
type pulse struct{ end *time.Timer }

func (p pulse) Write(b []byte) (int, error) {
	p.end.Reset(silence)
	return len(b), nil
}
