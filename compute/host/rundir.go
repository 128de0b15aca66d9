package host

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// MountRunDir makes dir a tmpfs whose pages are never swapped out, unless it
// already is one. Guest memory lives there, so that nothing of it reaches a
// disk.
func MountRunDir(dir string) error {
	op := "mount " + dir
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return cloudpal.E(op, "", err)
	}
	mounted, err := isTmpfsMount(dir)
	if err != nil || mounted {
		return err
	}
	// Half of RAM is the kernel's default size; naps and running guests may
	// take nearly all of it.
	const options = "mode=0711,size=95%,nr_inodes=1m"
	// Device nodes are needed: /dev/kvm in a VM process's root.
	err = unix.Mount("cloudpal", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, options+",noswap")
	if errors.Is(err, unix.EINVAL) && !swapIsOn() {
		// Before Linux 6.4 there is no noswap. Without swap it is not
		// needed.
		err = unix.Mount("cloudpal", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, options)
	}
	if err != nil {
		hint := "run as root"
		if swapIsOn() {
			hint = "this kernel cannot keep guest memory out of swap (it needs Linux 6.4): turn swap off (swapoff -a)"
		}
		return cloudpal.E(op, "", err).WithHint(hint)
	}
	return nil
}

// isTmpfsMount reports whether dir is the root of a tmpfs that cannot be
// swapped out.
func isTmpfsMount(dir string) (bool, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false, cloudpal.E("read mounts", "", err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[1] != dir || f[2] != "tmpfs" {
			continue
		}
		if !strings.Contains(f[3], "noswap") && swapIsOn() {
			return false, cloudpal.E("use "+dir, cloudpal.Denied, errors.New("its pages can be swapped to disk")).
				WithHint("turn swap off (swapoff -a), or unmount it when no VM runs and start again")
		}
		return true, nil
	}
	return false, nil
}

func swapIsOn() bool {
	data, err := os.ReadFile("/proc/swaps")
	return err == nil && strings.Count(string(data), "\n") > 1
}

// privateMark says in the environment that this process has its own mounts.
const privateMark = "CLOUDPAL_PRIVATE_MOUNTS=1"

// UnshareMounts gives this process its own view of mounts, so that those it
// makes for each VM are seen by nobody else and go when it and the VMs go. It
// runs the program again in its place, with the same pid, and so must come
// first in main, after MountRunDir, whose mount all may see.
func UnshareMounts() error {
	if slices.Contains(os.Environ(), privateMark) {
		return nil
	}
	// Asked for first: seen from other mounts, its path may be another.
	self, err := os.Executable()
	if err != nil {
		return cloudpal.E("make private mounts", "", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return cloudpal.E("make private mounts", "", err).WithHint("run as root")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return cloudpal.E("make private mounts", "", err)
	}
	return fmt.Errorf("exec %s: %w", self, syscall.Exec(self, os.Args, append(os.Environ(), privateMark)))
}
