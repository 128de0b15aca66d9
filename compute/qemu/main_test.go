package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// apart says that this process has mounts and a network of its own.
const apart = "CLOUDPAL_TEST_APART=1"

// TestMain moves the whole test into mounts and a network of its own, so that
// its taps and its tmpfs are seen by nobody and gone with it.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv("CLOUDPAL_TEST_APART") != "" {
		os.Exit(m.Run())
	}
	if err := moveApart(); err != nil {
		fmt.Fprintln(os.Stderr, "the tests cannot have a network of their own:", err)
		os.Exit(1)
	}
}

func moveApart() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), apart))
}

func require(t testing.TB) {
	t.Helper()
	reason := ""
	if _, err := os.Stat(binaryAny); err != nil {
		reason = "needs " + binaryAny + ": run make setup"
	}
	if os.Getuid() != 0 {
		reason = "needs root: it makes jails and taps"
	}
	if reason == "" {
		return
	}
	if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
		t.Fatal("must not be skipped here, but it " + reason)
	}
	t.Skip(reason)
}
