//go:build linux

package jail

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// A group is the process's cgroup.
type group interface {
	// enter has a process that attr starts be in the group from its first
	// instruction, where the kernel can do that.
	enter(attr *syscall.SysProcAttr) (done func(), err error)
	add(pid int) error
	cpu() (time.Duration, error)
	setCPU(cores float64) error
	outOfRoom() bool
	remove() error
}

// parent is the cgroup that holds all of them.
const parent = "/cloudpal"

// period is the time that a CPU bound is counted over, in microseconds.
const period = 100_000

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
	quota, p := int64(-1), uint64(period)
	if cores > 0 {
		quota = max(int64(cores*period), 1000) // the kernel's least
	}
	return &specs.LinuxCPU{Quota: &quota, Period: &p}
}

func newGroup(name string, l Limits) (group, error) {
	path := filepath.Join(parent, name)
	if cgroups.Mode() == cgroups.Unified {
		m, err := cgroup2.NewManager(v2Root, path, cgroup2.ToResources(resources(l)))
		if err != nil {
			return nil, fmt.Errorf("make the cgroup %s: %w", path, err)
		}
		return v2{m, filepath.Join(v2Root, path)}, nil
	}
	c, err := cgroup1.New(cgroup1.StaticPath(path), resources(l), cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		return nil, fmt.Errorf("make the cgroup %s: %w", path, err)
	}
	return v1{c}, nil
}

func loadGroup(name string) (group, error) {
	path := filepath.Join(parent, name)
	if cgroups.Mode() == cgroups.Unified {
		m, err := cgroup2.Load(path)
		if err != nil {
			return nil, fmt.Errorf("find the cgroup %s: %w", path, err)
		}
		return v2{m, filepath.Join(v2Root, path)}, nil
	}
	c, err := cgroup1.Load(cgroup1.StaticPath(path), cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		return nil, fmt.Errorf("find the cgroup %s: %w", path, err)
	}
	return v1{c}, nil
}

// v1 is a cgroup in several hierarchies.
type v1 struct{ c cgroup1.Cgroup }

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

func (g v1) enter(*syscall.SysProcAttr) (func(), error) { return func() {}, nil }

func (g v1) add(pid int) error {
	if err := g.c.AddProc(uint64(pid)); err != nil {
		return fmt.Errorf("put process %d into its cgroup: %w", pid, err)
	}
	return nil
}

func (g v1) cpu() (time.Duration, error) {
	m, err := g.c.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		return 0, fmt.Errorf("read cpu use: %w", err)
	}
	return time.Duration(m.GetCPU().GetUsage().GetTotal()), nil
}

func (g v1) setCPU(cores float64) error {
	if err := g.c.Update(&specs.LinuxResources{CPU: cpuBound(cores)}); err != nil {
		return fmt.Errorf("bound cpu use: %w", err)
	}
	return nil
}

func (g v1) outOfRoom() bool {
	m, err := g.c.Stat(cgroup1.IgnoreNotExist)
	return err == nil && m.GetMemoryOomControl().GetOomKill() > 0
}

func (g v1) remove() error { return g.c.Delete() }

// v2Root is where the one hierarchy of cgroup v2 is mounted.
const v2Root = "/sys/fs/cgroup"

// v2 is a cgroup of the one hierarchy.
type v2 struct {
	m   *cgroup2.Manager
	dir string
}

func (g v2) enter(attr *syscall.SysProcAttr) (func(), error) {
	dir, err := os.Open(g.dir)
	if err != nil {
		return nil, fmt.Errorf("enter a cgroup: %w", err)
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	return func() { dir.Close() }, nil
}

func (g v2) add(int) error { return nil }

func (g v2) cpu() (time.Duration, error) {
	m, err := g.m.Stat()
	if err != nil {
		return 0, fmt.Errorf("read cpu use: %w", err)
	}
	return time.Duration(m.GetCPU().GetUsageUsec()) * time.Microsecond, nil
}

func (g v2) setCPU(cores float64) error {
	err := g.m.Update(cgroup2.ToResources(&specs.LinuxResources{CPU: cpuBound(cores)}))
	if err != nil {
		return fmt.Errorf("bound cpu use: %w", err)
	}
	return nil
}

func (g v2) outOfRoom() bool {
	m, err := g.m.Stat()
	return err == nil && m.GetMemoryEvents().GetOomKill() > 0
}

func (g v2) remove() error { return g.m.Delete() }
