// Package compute runs microVMs. It says what one is (Spec), what can be done
// with a running one (Machine), and what a hypervisor must offer (Driver);
// compute/qemu is the first driver. Everything here is what QEMU's microvm
// machine and Firecracker can both do: direct kernel boot, virtio-mmio block
// and net devices, one TAP, a serial console, guest memory in a file.
//
// The package knows nothing of images, people or money: who prepares the disks
// and decides when to sleep is compute/host.
package compute

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

// A Spec says what one microVM is made of. All paths are the host's.
type Spec struct {
	Name    string // [a-z0-9-]{1,48}; names the process and its cgroup
	Dir     string // the VM's run directory, on tmpfs: its sockets; the VM's process sees this directory as /
	Kernel  string // an uncompressed x86 kernel (vmlinux, with PVH entry)
	Initrd  string // only read by Boot
	Cmdline string // the caller's part of the kernel command line
	CPUs    int    // 1 to 32
	Memory  int64  // bytes, a multiple of 1 MiB, at least 96 MiB
	// MemoryFile is the file, in Dir, that is the guest's RAM. Boot makes it;
	// Arm expects it as Suspend left it.
	MemoryFile string
	Disks      []Disk // in the order the guest sees them: vda, vdb, ...
	NIC        NIC
	Limits     Limits
	UID        int // the VM process's user and group; its alone on this host, never 0
}

// A Disk is one virtio block device.
type Disk struct {
	Path     string // a raw file
	ReadOnly bool
}

// A NIC is the VM's one network device.
type NIC struct {
	MAC net.HardwareAddr
	TAP *os.File // opened with IFF_TAP|IFF_NO_PI|IFF_VNET_HDR; stays the caller's
}

// Limits bounds what the VM's process may take from the host. Zero means no
// bound.
type Limits struct {
	CPU       float64 // cores; 0.5 is half of one
	Memory    int64   // bytes for the process beyond guest RAM
	DiskBytes int64   // bytes a second, reads and writes together, for each writable disk
	DiskOps   int64   // operations a second, likewise
}

// A Process names a process so that a later one with the same pid is not taken
// for it.
type Process struct {
	PID   int
	Start uint64 // field 22 of /proc/PID/stat, clock ticks since boot
}

// A Driver makes microVMs.
type Driver interface {
	// Boot makes a VM from its kernel and returns it with its vCPUs stopped.
	Boot(ctx context.Context, s Spec) (Machine, error)
	// Arm makes a process that waits for the device state of a suspended VM.
	Arm(ctx context.Context, s Spec) (Machine, error)
	// Attach finds a VM that another run of this program made.
	Attach(ctx context.Context, s Spec, p Process) (Machine, error)
}

// A Machine is one VM process. Its methods may be called from many goroutines;
// those that change its state (Load, Run, Suspend) one at a time.
type Machine interface {
	Process() Process
	// Load reads the device state that Suspend wrote; the vCPUs stay stopped.
	// Only an armed machine can.
	Load(ctx context.Context, state *os.File) error
	// Run lets the vCPUs go. A snapshot must have been made unusable before.
	Run(ctx context.Context) error
	// Suspend stops the vCPUs, writes the device state to state and ends the
	// process; the memory file then holds the guest's RAM. If ctx ends before
	// the state is complete, the guest runs on and Suspend returns ctx's
	// error.
	Suspend(ctx context.Context, state *os.File) error
	// Kill ends the process at once and returns when it is gone.
	Kill() error
	// Done is closed when the process is gone; Exit then says why.
	Done() <-chan struct{}
	Exit() Exit
	// Stats reads the machine's counters.
	Stats(ctx context.Context) (Stats, error)
	// SetCPU changes Limits.CPU of the running process. One that gives way runs,
	// within that bound, only while no other VM of the host wants to.
	SetCPU(cores float64, giveWay bool) error
	// Console returns the last bytes of the serial console, at most 64 KiB.
	Console() []byte
}

// Stats are counters since the process started. Disk counts what the guest
// asked for; Memory is what the process and its memory file take now.
type Stats struct {
	CPU       time.Duration
	Memory    int64
	DiskRead  int64
	DiskWrite int64
}

// A Reason says why a VM process is gone.
type Reason string

// The reasons.
const (
	PoweredOff Reason = "powered off"     // the guest shut itself down
	Suspended  Reason = "suspended"       // by Suspend
	Killed     Reason = "killed"          // by Kill
	OutOfLimit Reason = "over its limit"  // by the kernel, for its memory limit on the host
	Crashed    Reason = "process crashed" // by a signal or an error of its own
	Lost       Reason = "lost"            // gone while nobody watched
)

// An Exit tells how a VM process ended.
type Exit struct {
	Reason Reason
	Detail string // what the process or the kernel said, one line
}

func (e Exit) String() string {
	if e.Detail == "" {
		return string(e.Reason)
	}
	return fmt.Sprintf("%s: %s", e.Reason, e.Detail)
}
