//go:build linux

// Package jail runs one process behind walls: a root directory of its own, a
// user of its own, no capabilities, namespaces without anything in them, and a
// cgroup, v1 or v2, that bounds what it takes. The process outlives the one
// that started it; Attach finds it again. What it starts itself ends with it.
//
// What the walls are worth rests on all of them: a process that breaks out of
// its program finds itself as a user that owns one directory, in a mount
// namespace that it cannot change, with no network and no way to become
// another user.
package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Config says what runs, and where.
type Config struct {
	Name   string     // of the cgroup: [a-z0-9-]+
	Root   string     // the process sees this directory as /; it has the programs Path and Prlimit
	UID    int        // user and group; not 0
	Binds  []Bind     // what is seen in Root beside its own files
	Path   string     // of the program, inside Root
	Args   []string   // without the program's name
	Files  []*os.File // become its descriptors 3, 4, ...; stay the caller's
	Errors *os.File   // its standard output and error
	Limits Limits
}

// A Bind is a directory or file of the host that is seen, read-only, in Root.
type Bind struct {
	From string
	To   string // relative to Root; it is there
}

// Limits bounds a process. Zero means no bound.
type Limits struct {
	CPU    float64 // cores
	Memory int64   // bytes, with what it writes to a tmpfs
	Tasks  int64   // threads and processes; at least 2
	Files  uint64  // open files
}

// Start starts the process.
func Start(c Config) (*Process, error) {
	if c.UID == 0 {
		return nil, errors.New("a jail's user cannot be root")
	}
	making.RLock()
	defer making.RUnlock()
	// One that was left behind has another process's counts.
	if old, err := loadGroup(c.Name); err == nil {
		_ = old.remove()
	}
	g, err := newGroup(c.Name, c.Limits)
	if err != nil {
		return nil, err
	}
	p, err := start(c, g)
	if err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return p, nil
}

// making is held while there is a group whose process is not in it yet.
var making sync.RWMutex

// Sweep removes the cgroups that processes have left which ended when nobody
// watched, of those that are ours by their name. Those of processes that run
// stay.
func Sweep(ours func(name string) bool) error {
	making.Lock()
	defer making.Unlock()
	dirs, err := parents()
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if e.IsDir() && ours(e.Name()) {
				errs = append(errs, removeEmpty(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// removeEmpty removes a cgroup, unless there are processes in it.
func removeEmpty(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("remove the cgroup %s: %w", dir, err)
}

func start(c Config, g group) (*Process, error) {
	// What this program was itself started with, by a shell perhaps, must not
	// be seen in the jail.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("keep open files: %w", err)
	}
	unbind, err := bindAll(c.Root, c.Binds)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: Prlimit, Args: limited(c), Dir: "/",
		Env: []string{"PATH=/usr/bin", "HOME=/", "LC_ALL=C"}, Stdout: c.Errors, Stderr: c.Errors,
		ExtraFiles: c.Files,
		SysProcAttr: &syscall.SysProcAttr{
			Chroot:     c.Root,
			Setsid:     true,
			Credential: &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.UID)},
			// No PID namespace: its first process would not hear most signals.
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		},
	}
	err = onThread(func() error {
		done, err := g.enter(cmd.SysProcAttr)
		if err != nil {
			return err
		}
		defer done()
		if c.Limits.CPU > 0 && c.Limits.CPU < 1 {
			if err := keepToOneProcessor(c.UID); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
	if err := errors.Join(err, unbind()); err != nil {
		if cmd.Process != nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	return adopt(cmd, c, g)
}

// adopt makes a Process of a command that runs.
func adopt(cmd *exec.Cmd, c Config, g group) (*Process, error) {
	p := &Process{pid: cmd.Process.Pid, group: g, done: make(chan struct{})}
	var err error
	if p.start, err = startTime(p.pid); err == nil {
		p.fd, err = unix.PidfdOpen(p.pid, 0)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // the status says it
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		p.ended(&status)
	}()
	return p, nil
}

// Prlimit is the program of util-linux that sets a process's limits before it
// runs another. A process without CAP_SYS_RESOURCE, which a container's root
// often lacks, cannot set those of another user's. It must be in Root.
const Prlimit = "/usr/bin/prlimit"

// limited returns the command that sets limits and then becomes the program.
func limited(c Config) []string {
	set := func(what string, n uint64) string { return fmt.Sprintf("--%s=%d:%d", what, n, n) }
	cmd := []string{Prlimit, set("core", 0)}
	if c.Limits.Files > 0 {
		cmd = append(cmd, set("nofile", c.Limits.Files))
	}
	if c.Limits.Tasks > 0 {
		// Counted for the whole user: the cgroup has the exact bound.
		cmd = append(cmd, set("nproc", 4*uint64(c.Limits.Tasks)))
	}
	return append(append(cmd, "--", c.Path), c.Args...)
}

// bindAll mounts binds in root. They are seen by a process that is started now;
// the returned function takes them away for all others.
func bindAll(root string, binds []Bind) (unbind func() error, err error) {
	var done []string
	unbind = func() error {
		var errs []error
		for i := len(done) - 1; i >= 0; i-- {
			errs = append(errs, unix.Unmount(done[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
		return errors.Join(errs...)
	}
	for _, b := range binds {
		to := filepath.Join(root, b.To)
		if err := unix.Mount(b.From, to, "", unix.MS_BIND, ""); err != nil {
			return nil, errors.Join(fmt.Errorf("show %s at %s: %w", b.From, to, err), unbind())
		}
		done = append(done, to)
		const flags = unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
		if err := unix.Mount("", to, "", flags, ""); err != nil {
			return nil, errors.Join(fmt.Errorf("make %s read-only: %w", to, err), unbind())
		}
	}
	return unbind, nil
}

// keepToOneProcessor has this thread, and what it starts, run on one of the
// processors that it may, another for each of n. Who is bound to less than a core
// gains nothing from two: it would use both for a moment and then wait, and
// meanwhile keep others from both.
func keepToOneProcessor(n int) error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return fmt.Errorf("ask for the processors: %w", err)
	}
	n %= may.Count()
	for cpu := 0; ; cpu++ {
		if !may.IsSet(cpu) {
			continue
		}
		if n == 0 {
			one.Set(cpu)
			break
		}
		n--
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("keep to one processor: %w", err)
	}
	return nil
}

// startTime returns field 22 of /proc/PID/stat (proc(5)), in clock ticks since
// boot.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command's name may hold anything, parentheses too.
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	var ticks uint64
	_, err = fmt.Sscan(fields[19], &ticks)
	return ticks, err
}

// killWait is how long a killed process may take to be gone.
const killWait = 10 * time.Second
