//go:build linux && amd64

// Package qemu runs microVMs on QEMU's microvm machine: with KVM where it can
// really run a guest, else by translation (TCG). It follows QEMU 7.2 and the
// figures that were measured with it.
//
// Each QEMU is in a jail (compute/jail): a root with a few files of its own, a
// read-only /usr with QEMU and nothing else, disks and the tap as descriptors.
// Its monitor listens on a socket in the VM's directory, so that another run of
// the agent finds it.
package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/jail"
)

// The accelerators.
const (
	KVM = "kvm"
	TCG = "tcg"
)

// A Config says what the driver needs to know.
type Config struct {
	Kernel string // an uncompressed kernel, to try KVM with
	Cache  string // directory that keeps what was found out
	Usr    string // directory to make the jails' /usr in
	// Accelerator is KVM or TCG; "" tries KVM and remembers.
	Accelerator string
	Log         *slog.Logger
}

// A Driver is a compute.Driver.
type Driver struct {
	binary      string
	usr         string
	accelerator string
	tscKHz      uint64
	log         *slog.Logger
}

// Open finds QEMU and an accelerator that works.
func Open(ctx context.Context, c Config) (*Driver, error) {
	const op = "open QEMU"
	d := &Driver{usr: c.Usr, log: c.Log, accelerator: c.Accelerator, tscKHz: measureTSC()}
	var err error
	switch c.Accelerator {
	case "":
		d.accelerator, err = probe(ctx, c)
	case KVM, TCG:
	default:
		err = cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("accelerator %.20q", c.Accelerator)).WithHint("it is kvm or tcg")
	}
	if err != nil {
		return nil, err
	}
	if d.binary, err = findBinary(); err != nil {
		return nil, err
	}
	if err := makeUsr(c.Usr, d.binary); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return d, nil
}

// Accelerator returns KVM or TCG.
func (d *Driver) Accelerator() string { return d.accelerator }

// Boot makes a VM from its kernel and returns it with its vCPUs stopped.
func (d *Driver) Boot(ctx context.Context, s compute.Spec) (compute.Machine, error) {
	return d.start(ctx, s, true)
}

// Arm makes a process that waits for the device state of a suspended VM.
func (d *Driver) Arm(ctx context.Context, s compute.Spec) (compute.Machine, error) {
	return d.start(ctx, s, false)
}

func (d *Driver) start(ctx context.Context, s compute.Spec, boot bool) (compute.Machine, error) {
	op := "start QEMU for " + s.Name
	if err := makeRoot(s, d.accelerator); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	disks, err := openDisks(s.Disks)
	defer func() { closeAll(slices.Concat(disks...)) }()
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	listeners, err := listenIn(s.Dir, qmpName, consoleSoc)
	defer closeAll(listeners)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	a := &arguments{}
	a.machine(d, s)
	a.sockets(listeners[0], listeners[1])
	a.devices(s, disks)
	if boot {
		a.kernel(d, s)
	} else {
		a.add("-incoming", "defer")
	}
	m, err := d.launch(s, a, boot)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	// From here only QEMU holds them: when it ends, so does who waits on them.
	closeAll(listeners)
	err = m.connect(ctx, true)
	m.follow()
	if err != nil {
		return nil, cloudpal.E(op, "", errors.Join(err, m.giveUp()))
	}
	return m, nil
}

// launch starts the process in its jail.
func (d *Driver) launch(s compute.Spec, a *arguments, boot bool) (*machine, error) {
	messages, err := os.OpenFile(filepath.Join(s.Dir, errorsName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer messages.Close()
	c := d.jail(s)
	if boot {
		c.Binds = append(c.Binds, jail.Bind{From: s.Kernel, To: kernelName})
	}
	c.Args, c.Files, c.Errors = a.list, a.files, messages
	p, err := jail.Start(c)
	if err != nil {
		return nil, err
	}
	return newMachine(d, s, p), nil
}

// What a QEMU process may have beside what compute.Limits says.
const (
	maxTasks = 64
	maxFiles = 256
)

func (d *Driver) jail(s compute.Spec) jail.Config {
	c := jail.Config{
		Name:   groupName(s.Name, s.Dir),
		Root:   s.Dir,
		UID:    s.UID,
		Binds:  []jail.Bind{{From: d.usr, To: "usr"}},
		Path:   d.binary,
		Limits: jail.Limits{CPU: s.Limits.CPU, Tasks: maxTasks, Files: maxFiles},
	}
	if s.Limits.Memory > 0 {
		c.Limits.Memory = s.Memory + s.Limits.Memory
	}
	return c
}

// groupName names a VM's cgroup. Another agent on this machine may have a VM of
// the same name, in another directory.
func groupName(vm, dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return vm + "-" + hex.EncodeToString(sum[:4])
}

// Sweep removes the cgroups of VMs' processes that ended when nobody watched, of
// those VMs whose directories are in dir, or were.
func (d *Driver) Sweep(dir string) error {
	err := jail.Sweep(func(name string) bool {
		i := max(0, strings.LastIndexByte(name, '-'))
		return name == groupName(name[:i], filepath.Join(dir, name[:i]))
	})
	if err != nil {
		return cloudpal.E("sweep cgroups", "", err)
	}
	return nil
}

// Attach finds a VM that another run of this program made.
func (d *Driver) Attach(ctx context.Context, s compute.Spec, p compute.Process) (compute.Machine, error) {
	op := "take over QEMU for " + s.Name
	proc, err := jail.Attach(d.jail(s), p.PID, p.Start)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.NotExist, err)
	}
	m := newMachine(d, s, proc)
	if err := m.connect(ctx, false); err != nil {
		m.disconnect()
		return nil, cloudpal.E(op, "", err)
	}
	m.attached = true
	m.follow()
	return m, nil
}

// makeRoot makes what the jail sees as /. All of it is root's but the memory
// file.
func makeRoot(s compute.Spec, accelerator string) error {
	for _, dir := range []string{"usr", "dev"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"lib": "usr/lib", "lib64": "usr/lib64"} {
		if err := os.Symlink(target, filepath.Join(s.Dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	nodes := map[string]uint64{"null": unix.Mkdev(1, 3), "urandom": unix.Mkdev(1, 9)}
	if accelerator == KVM {
		nodes["kvm"] = unix.Mkdev(10, 232)
	}
	for name, dev := range nodes {
		if err := makeNode(filepath.Join(s.Dir, "dev", name), dev); err != nil {
			return err
		}
	}
	if err := os.Chmod(s.Dir, 0o711); err != nil {
		return err
	}
	if err := touch(filepath.Join(s.Dir, kernelName)); err != nil {
		return err
	}
	return makeMemory(s)
}

func makeNode(path string, dev uint64) error {
	err := unix.Mknod(path, unix.S_IFCHR|0o666, int(dev))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return os.Chmod(path, 0o666) // whatever the umask
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// makeMemory makes the memory file where there is none. It is the process's
// own, as QEMU opens it by name.
func makeMemory(s compute.Spec) error {
	f, err := os.OpenFile(s.MemoryFile, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(s.Memory), f.Chown(s.UID, s.UID), f.Close())
}

// openDisks opens each disk for each way that QEMU may want it: it looks at a
// writable one read-only first.
func openDisks(disks []compute.Disk) ([][]*os.File, error) {
	all := make([][]*os.File, len(disks))
	for i, d := range disks {
		modes := []int{os.O_RDONLY}
		if !d.ReadOnly {
			modes = append(modes, os.O_RDWR)
		}
		for _, mode := range modes {
			f, err := os.OpenFile(d.Path, mode, 0)
			if err != nil {
				return all, err
			}
			all[i] = append(all[i], f)
		}
	}
	return all, nil
}

// listenIn opens sockets in dir that QEMU answers once it is up. What connects
// before waits.
func listenIn(dir string, names ...string) ([]*os.File, error) {
	var files []*os.File
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return files, err
		}
		f, err := listen(path)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

func listen(path string) (*os.File, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

// shorten names a file by its directory's descriptor: a socket's path has room
// for 107 bytes only (unix(7)).
func shorten(path string) (short string, done func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}

func dial(path string) (*net.UnixConn, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: short, Net: "unix"})
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// connectWait bounds how long QEMU may take to come up.
const connectWait = 20 * time.Second
