//go:build linux

package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A group is the process's cgroup.
type group interface {
	// enter has a process that attr starts be in the group from its first
	// instruction. It is for onThread: until done, this thread may be in the
	// group, too.
	enter(attr *syscall.SysProcAttr) (done func(), err error)
	cpu() (time.Duration, error)
	setCPU(cores float64, giveWay bool) error
	outOfRoom() bool
	// clear ends all processes that are still in the group.
	clear() error
	remove() error
}

// parent is the cgroup that holds all of them.
const parent = "/cloudpal"

// period is the time that a CPU bound is counted over, in microseconds.
const period = 100_000

// wholeCore is the weight of a process that is bound to a core or more, or not
// at all. One with a smaller bound weighs less: it gives way to others also
// while it may run.
const wholeCore = 1024

func resources(l Limits) *specs.LinuxResources {
	r := &specs.LinuxResources{CPU: cpuBound(l.CPU)}
	if l.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.Memory}
	}
	if l.Tasks > 0 {
		r.Pids = &specs.LinuxPids{Limit: &l.Tasks}
	}
	return r
}

func cpuBound(cores float64) *specs.LinuxCPU {
	quota, p, shares := int64(-1), uint64(period), uint64(wholeCore)
	if cores > 0 {
		quota = max(int64(cores*period), 1000) // the kernel's least
		shares = uint64(min(max(cores*wholeCore, 2), wholeCore))
	}
	return &specs.LinuxCPU{Quota: &quota, Period: &p, Shares: &shares}
}

func newGroup(name string, l Limits) (group, error) {
	path := filepath.Join(parent, name)
	if cgroups.Mode() == cgroups.Unified {
		m, err := cgroup2.NewManager(v2Root, path, v2Resources(resources(l)))
		if err != nil {
			return nil, fmt.Errorf("make the cgroup %s: %w", path, err)
		}
		return v2{m, filepath.Join(v2Root, path)}, nil
	}
	c, err := cgroup1.New(cgroup1.StaticPath(path), resources(l), cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		return nil, fmt.Errorf("make the cgroup %s: %w", path, err)
	}
	return v1{c, name}, nil
}

func loadGroup(name string) (group, error) {
	path := filepath.Join(parent, name)
	if cgroups.Mode() == cgroups.Unified {
		dir := filepath.Join(v2Root, path)
		m, err := cgroup2.Load(path)
		if err == nil {
			_, err = os.Stat(dir) // Load does not look
		}
		if err != nil {
			return nil, fmt.Errorf("find the cgroup %s: %w", path, err)
		}
		return v2{m, dir}, nil
	}
	c, err := cgroup1.Load(cgroup1.StaticPath(path), cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		return nil, fmt.Errorf("find the cgroup %s: %w", path, err)
	}
	return v1{c, name}, nil
}

// v1 is a cgroup in several hierarchies.
type v1 struct {
	c    cgroup1.Cgroup
	name string
}

// hierarchy returns the controllers that are needed, of those that the host
// has.
func hierarchy() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, err
	}
	var need []cgroup1.Subsystem
	for _, s := range all {
		switch s.Name() {
		case cgroup1.Cpu, cgroup1.Cpuacct, cgroup1.Memory, cgroup1.Pids:
			need = append(need, s)
		}
	}
	return need, nil
}

// parents returns where all groups are: with v1 a directory for each hierarchy.
func parents() ([]string, error) {
	if cgroups.Mode() == cgroups.Unified {
		return []string{filepath.Join(v2Root, parent)}, nil
	}
	all, err := hierarchy()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, s := range all {
		if at, ok := s.(interface{ Path(string) string }); ok {
			dirs = append(dirs, at.Path(parent))
		}
	}
	return dirs, nil
}

// enter takes this thread into the group: what it starts is born there. v1 has
// threads of one process in different groups.
func (g v1) enter(*syscall.SysProcAttr) (func(), error) {
	dirs, err := parents()
	if err != nil {
		return nil, err
	}
	leave := func() { _ = moveThread(dirs, "") } // if it cannot, it ends soon
	if err := moveThread(dirs, g.name); err != nil {
		leave()
		return nil, fmt.Errorf("enter a cgroup: %w", err)
	}
	return leave, nil
}

// moveThread takes this thread into a group. A 0 is whoever writes it; with a
// number the kernel would wait for all threads of the machine.
func moveThread(dirs []string, name string) error {
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name, "tasks"), []byte("0"), 0))
	}
	return errors.Join(errs...)
}

// onThread does f on a thread that it has for itself, and that ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// A process's first thread cannot end, and stands for all of it:
			// it is held while another is found.
			err := onThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f() // locked to its end, the thread ends with the goroutine
	}()
	return <-done
}

func (g v1) cpu() (time.Duration, error) {
	m, err := g.c.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		return 0, fmt.Errorf("read cpu use: %w", err)
	}
	return time.Duration(m.GetCPU().GetUsage().GetTotal()), nil
}

func (g v1) setCPU(cores float64, giveWay bool) error {
	var dir string
	for _, s := range g.c.Subsystems() {
		if at, ok := s.(interface{ Path(string) string }); ok && s.Name() == cgroup1.Cpu {
			dir = at.Path(filepath.Join(parent, g.name))
		}
	}
	return weigh(dir, giveWay, func() error {
		return g.c.Update(&specs.LinuxResources{CPU: cpuBound(cores)})
	})
}

// weigh has set bound the CPU use of the group in dir, and has it then run while
// no other wants to, or like the others. The kernel takes no weight of a group that
// gives way, and forgets the one that it had.
func weigh(dir string, giveWay bool, set func() error) error {
	idle, err := os.OpenFile(filepath.Join(dir, "cpu.idle"), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return bounded(set()) // before Linux 5.15
	}
	if err != nil {
		return bounded(err)
	}
	defer idle.Close()
	if _, err = idle.WriteString("0"); err == nil {
		err = set()
	}
	if err == nil && giveWay {
		_, err = idle.WriteString("1")
	}
	return bounded(err)
}

func bounded(err error) error {
	if err != nil {
		return fmt.Errorf("bound cpu use: %w", err)
	}
	return nil
}

func (g v1) outOfRoom() bool {
	m, err := g.c.Stat(cgroup1.IgnoreNotExist)
	return err == nil && m.GetMemoryOomControl().GetOomKill() > 0
}

// clear asks again until there are none: v1 has no way to end all at once, and
// they may start others meanwhile, as many as the bound on tasks allows.
func (g v1) clear() error {
	for range 100 {
		all, err := g.c.Processes(cgroup1.Pids, true)
		if err != nil || len(all) == 0 {
			return err
		}
		for _, p := range all {
			if p.Pid != os.Getpid() { // a thread of which is about to end
				_ = unix.Kill(p.Pid, unix.SIGKILL) // gone is as good
			}
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("a cgroup's processes do not die")
}

func (g v1) remove() error { return g.c.Delete() }

// v2Root is where the one hierarchy of cgroup v2 is mounted.
const v2Root = "/sys/fs/cgroup"

// v2 is a cgroup of the one hierarchy.
type v2 struct {
	m   *cgroup2.Manager
	dir string
}

// v2Resources says in v2's words what resources says: there no bound is "max",
// not -1.
func v2Resources(r *specs.LinuxResources) *cgroup2.Resources {
	if *r.CPU.Quota < 0 {
		r.CPU.Quota = nil
	}
	return cgroup2.ToResources(r)
}

func (g v2) enter(attr *syscall.SysProcAttr) (func(), error) {
	dir, err := os.Open(g.dir)
	if err != nil {
		return nil, fmt.Errorf("enter a cgroup: %w", err)
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	return func() { dir.Close() }, nil
}

func (g v2) cpu() (time.Duration, error) {
	m, err := g.m.Stat()
	if err != nil {
		return 0, fmt.Errorf("read cpu use: %w", err)
	}
	return time.Duration(m.GetCPU().GetUsageUsec()) * time.Microsecond, nil
}

func (g v2) setCPU(cores float64, giveWay bool) error {
	return weigh(g.dir, giveWay, func() error {
		return g.m.Update(v2Resources(&specs.LinuxResources{CPU: cpuBound(cores)}))
	})
}

func (g v2) outOfRoom() bool {
	m, err := g.m.Stat()
	return err == nil && m.GetMemoryEvents().GetOomKill() > 0
}

// clear waits, too: who is killed is in the group until it is gone.
func (g v2) clear() error {
	if err := g.m.Kill(); err != nil {
		return fmt.Errorf("end a cgroup's processes: %w", err)
	}
	for end := time.Now().Add(killWait); time.Now().Before(end); time.Sleep(time.Millisecond) {
		all, err := g.m.Procs(true)
		if err != nil || len(all) == 0 {
			return err
		}
	}
	return errors.New("a cgroup's processes do not die")
}

func (g v2) remove() error { return g.m.Delete() }
