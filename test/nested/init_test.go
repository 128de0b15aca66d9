package nested_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The marks around what a program says. The program's name, or how it ended,
// follows.
const (
	beginMark = "=== begin "
	endMark   = "=== end "
)

// initMain is process 1 of the machine. It runs the programs and turns the
// machine off.
func initMain() {
	if err := prepare(); err != nil {
		fmt.Println("init:", err)
	}
	for _, program := range programs {
		fmt.Println(beginMark + program)
		fmt.Println(endMark + runProgram(program))
	}
	unix.Sync()
	fmt.Println("init:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

// prepare makes a system of a kernel and its initrd.
func prepare() error {
	for _, m := range [][2]string{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	port, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Dup2(int(port.Fd()), 1), unix.Dup2(int(port.Fd()), 2), os.Setenv("PATH", "/usr/sbin:/usr/bin")); err != nil {
		return err
	}
	if err := heartbeat(); err != nil {
		return err
	}
	for _, line := range [][]string{
		{"modprobe", "kvm-amd"}, {"modprobe", "tun"}, {"modprobe", "nf_tables"}, {"ip", "link", "set", "lo", "up"},
	} {
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			fmt.Printf("init: %v: %v: %s\n", line, err, out)
		}
	}
	return nil
}

// runProgram runs a test and returns how it ended. Meanwhile it is the parent
// of all that have lost theirs.
func runProgram(name string) string {
	cmd := exec.Command(filepath.Join("/test", name), "-test.v", "-test.timeout=4m")
	cmd.Env = append(os.Environ(), role+"=inside", "CLOUDPAL_MUST_RUN=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err.Error()
		}
		if pid == cmd.Process.Pid {
			return describe(status)
		}
	}
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return "signal " + s.Signal().String()
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}
