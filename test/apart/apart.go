//go:build linux

// Package apart gives a test process namespaces of its own: what the tests do to
// networks, mounts and files of /etc is seen by nobody, and gone with them.
package apart

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// variable holds the process that is apart: one that it starts may ask for
// namespaces of its own.
const variable = "CLOUDPAL_TEST_APART"

// Main is a package's TestMain. Run by root, it moves into new namespaces (of
// unix.CLONE_NEWNET and CLONE_NEWNS), has prepare fit them out, and runs the tests
// there. A new network has a loopback that is up; new mounts do not spread.
func Main(m *testing.M, namespaces int, prepare func() error) {
	// A fuzzer's workers are where the one is that started them.
	if os.Getenv(variable) != "" && slices.Contains(os.Args, "-test.fuzzworker") {
		os.Setenv(variable, strconv.Itoa(os.Getpid()))
	}
	if os.Getuid() != 0 || Is() {
		os.Exit(m.Run())
	}
	if err := move(namespaces, prepare); err != nil {
		fmt.Fprintln(os.Stderr, "the tests cannot have namespaces of their own:", err)
		os.Exit(1)
	}
}

// Is reports whether this process has namespaces of its own.
func Is() bool { return os.Getenv(variable) == strconv.Itoa(os.Getpid()) }

// move does not return if all goes well: the threads that a Go program has are
// not all in one namespace, so that it is begun anew.
func move(namespaces int, prepare func() error) error {
	runtime.LockOSThread()
	if err := unix.Unshare(namespaces); err != nil {
		return err
	}
	if namespaces&unix.CLONE_NEWNS != 0 {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
	}
	if namespaces&unix.CLONE_NEWNET != 0 {
		if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
			return err
		}
	}
	if prepare != nil {
		if err := prepare(); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Set, not added: of two with one name the first counts.
	if err := os.Setenv(variable, strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}

// Skip leaves a test out for a reason ("needs root: it makes taps"), where that
// may be: not on our machines and in CI.
func Skip(tb testing.TB, reason string) {
	tb.Helper()
	if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
		tb.Fatal("must not be skipped here, but it " + reason)
	}
	tb.Skip(reason)
}

// Root skips a test that is not run by root.
func Root(tb testing.TB, why string) {
	tb.Helper()
	if os.Getuid() != 0 {
		Skip(tb, "needs root: "+why)
	}
}
