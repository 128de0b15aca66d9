// Package api is the HTTP interface of a host's agent (cloudpal host): the
// JSON it speaks and a client for it. The agent serves it on a Unix socket
// that only root may open; who may open the socket may do everything.
//
//	GET    /v1/host                    Host
//	GET    /v1/vms                     []VM
//	POST   /v1/vms                     CreateRequest -> VM, started
//	GET    /v1/vms/{vm}                VM
//	DELETE /v1/vms/{vm}[?force=1]
//	POST   /v1/vms/{vm}/start          -> VM; boots a stopped VM
//	POST   /v1/vms/{vm}/stop           StopRequest -> VM
//	POST   /v1/vms/{vm}/kill           SignalRequest
//	POST   /v1/vms/{vm}/suspend        SuspendRequest -> VM
//	POST   /v1/vms/{vm}/resume         -> VM
//	GET    /v1/vms/{vm}/wait           Exit, when the process has ended; as logs, also of a VM just removed
//	GET    /v1/vms/{vm}/logs[?follow=1] guest.LogEntry, one JSON a line
//	GET    /v1/vms/{vm}/console        the serial console's tail
//	GET    /v1/vms/{vm}/stats          Stats
//	GET    /v1/vms/{vm}/usage          the usage records, one JSON a line
//	GET    /v1/vms/{vm}/events[?after=N][&wait=30s]  []Event, those after number N; waits so long for one
//	POST   /v1/vms/{vm}/exec           upgrade to the guest's exec stream (package guest)
//	GET    /v1/images                  []Image
//	POST   /v1/images/pull             PullRequest -> Progress lines, the last with Image or Error
//	POST   /v1/images/import           ImportRequest -> likewise
//	DELETE /v1/images/{name}           the name percent-encoded
//	GET    /v1/volumes                 []Volume
//	DELETE /v1/volumes/{name}
//
// Errors are problem+json (RFC 9457), type Problem.
package api

import (
	"net/netip"
	"time"
)

// DefaultSocket is where the agent listens and commands look for it, unless
// CLOUDPAL_SOCKET says otherwise.
const DefaultSocket = "/run/cloudpal/host.sock"

// A State is what a VM is doing.
type State string

// The states. A packet, a timer of its own or Resume wakes an Asleep and a Cold
// VM, and nothing but Start boots a Stopped one.
const (
	Starting State = "starting"
	Running  State = "running"
	Asleep   State = "asleep"  // a snapshot is kept, at VM.Depth
	Cold     State = "cold"    // it was awake or asleep, its memory is gone: the next wake boots it; Depth is Sealed where that was meant
	Stopped  State = "stopped" // its process ended, or it was stopped; see VM.Exit
)

// A Depth is how deep a VM sleeps.
type Depth string

// The depths, from the fastest to wake to the cheapest to keep.
const (
	Armed  Depth = "armed"  // a process waits for its state
	Memory Depth = "memory" // files in memory, no process
	Disk   Depth = "disk"   // compressed and encrypted on disk
	Sealed Depth = "sealed" // the snapshot is dropped: the VM is Cold, and boots at the next wake
)

// A VM is what the agent says of one.
type VM struct {
	Name      string       `json:"name"`
	Image     string       `json:"image"`
	ImageID   string       `json:"imageID"`
	State     State        `json:"state"`
	Depth     Depth        `json:"depth,omitempty"`
	Since     time.Time    `json:"since"` // of State
	Reason    string       `json:"reason,omitempty"`
	Created   time.Time    `json:"created"`
	CPUs      int          `json:"cpus"`
	Memory    int64        `json:"memory"` // bytes
	Addresses []netip.Addr `json:"addresses"`
	Ports     []Port       `json:"ports,omitempty"`
	Volumes   []Mount      `json:"volumes,omitempty"`
	PID       int          `json:"pid,omitempty"` // of the VM's process on the host
	Wakes     int64        `json:"wakes"`         // boots among them
	Boots     int64        `json:"boots"`         // from nothing but its disks; counted before each
	Throttled bool         `json:"throttled,omitempty"`
	Exit      *Exit        `json:"exit,omitempty"` // of a Stopped VM, or of a Cold one whose process was lost
	Remove    bool         `json:"remove,omitempty"`
	WireGuard *WireGuard   `json:"wireGuard,omitempty"`
	Nap       Nap          `json:"nap,omitzero"`
	ReadOnly  bool         `json:"readOnly,omitempty"`
	Outbound  bool         `json:"outbound,omitempty"`
	WakeAt    time.Time    `json:"wakeAt,omitzero"` // when a timer of its own wakes it, while Asleep or Cold
	Busy      []string     `json:"busy,omitempty"`  // what it said keeps it awake, when it was last asked, while Running
	// Steps are the last boot's or wake's parts and the last suspend's, for
	// people who ask where the time went.
	Steps []Step `json:"steps,omitempty"`
}

// A Step is one timed part of a boot, wake or suspend.
type Step struct {
	Name     string        `json:"name"`
	Duration time.Duration `json:"duration"` // ns
}

// An Exit tells how a VM's process ended.
type Exit struct {
	Code    int    `json:"code"`              // the process's, or 128+n, or 125 where the VM itself failed
	Reason  string `json:"reason"`            // a sentence
	OOM     bool   `json:"oom,omitempty"`     // out of memory in the guest
	Console string `json:"console,omitempty"` // the serial console's last lines, where the VM itself failed
}

// A Port publishes a guest's port on the host.
type Port struct {
	Host  netip.AddrPort `json:"host"` // port 0 in a request: any free one
	Guest uint16         `json:"guest"`
	Proto string         `json:"proto"` // "tcp" or "udp"
}

// A Mount puts a named volume at a path of the guest.
type Mount struct {
	Volume   string `json:"volume"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Raw gives the guest the block device itself, at Path, root's alone, with
	// nothing on it: what is written there is the guest's affair, and so is
	// its encryption. A volume is raw or not for good; a raw one has the size
	// of the request's Disk when it is made.
	Raw bool `json:"raw,omitempty"`
}

// A CreateRequest asks for a VM.
type CreateRequest struct {
	Name    string   `json:"name,omitempty"` // "" lets the agent choose
	Image   string   `json:"image"`
	Args    []string `json:"args,omitempty"`      // instead of the image's Cmd
	Entry   []string `json:"entrypoint,omitzero"` // instead of the image's Entrypoint; nil keeps it
	Env     []string `json:"env,omitempty"`       // NAME=value, over the image's
	User    string   `json:"user,omitempty"`
	Dir     string   `json:"dir,omitempty"`
	Host    string   `json:"hostname,omitempty"`
	CPUs    int      `json:"cpus,omitempty"`   // 0: 1
	Memory  int64    `json:"memory,omitempty"` // bytes; 0: 128 MiB
	Disk    int64    `json:"disk,omitempty"`   // bytes of the writable volume, sparse; 0: 8 GiB
	Ports   []Port   `json:"ports,omitempty"`
	Volumes []Mount  `json:"volumes,omitempty"`
	TTY     bool     `json:"tty,omitempty"`
	Remove  bool     `json:"remove,omitempty"` // when its process has ended
	Limits  Limits   `json:"limits"`
	// ReadOnly has memory over the image's root instead of a disk: what the
	// VM writes outside its volumes is gone with its process, and never on the
	// host's disk.
	ReadOnly bool `json:"readOnly,omitempty"`
	// WireGuard says that the VM is a WireGuard peer that is to be reached
	// from outside, and that nothing else may wake it.
	WireGuard *WireGuard `json:"wireGuard,omitempty"`
	// Outbound lets the VM speak to the world of its own accord. It never
	// reaches the host or other VMs.
	Outbound bool `json:"outbound,omitempty"`
	Nap      Nap  `json:"nap,omitzero"`
}

// A WireGuard is all that a host knows of a VM's WireGuard interface: enough to
// tell who speaks to it from who does not, and to read nothing of what is said.
type WireGuard struct {
	PublicKey []byte `json:"publicKey"`          // 32 bytes
	Port      uint16 `json:"port"`               // UDP, in the VM
	HostPort  uint16 `json:"hostPort,omitempty"` // UDP, on every address of the host; 0 in a request: any free one
}

// Nap says when a VM sleeps of its own accord. The zero value: never. Each is 0
// or at least a second.
type Nap struct {
	Idle time.Duration `json:"idle,omitempty"` // without traffic, and with no word of the guest against it
	Seal time.Duration `json:"seal,omitempty"` // asleep, before the snapshot is dropped; 0: never
}

// Limits are what a VM may use. Zero means no limit of that kind.
type Limits struct {
	CPU       float64       `json:"cpu,omitempty"`       // cores, at any instant
	DiskBytes int64         `json:"diskBytes,omitempty"` // bytes a second
	DiskOps   int64         `json:"diskOps,omitempty"`   // operations a second
	NetBytes  int64         `json:"netBytes,omitempty"`  // bytes a second, each way
	BudgetCPU time.Duration `json:"budgetCPU,omitempty"` // CPU time in all; stopped when used up
	BudgetNet int64         `json:"budgetNet,omitempty"` // bytes in all, both ways
	PlanCPU   float64       `json:"planCPU,omitempty"`   // cores sustained; above it throttled, then stopped
}

// A StopRequest asks for an orderly stop.
type StopRequest struct {
	Timeout time.Duration `json:"timeout,omitempty"` // before SIGKILL; 0: the image's or 10 s
}

// A SignalRequest sends a signal to the guest's process; "" kills the VM.
type SignalRequest struct {
	Signal string `json:"signal,omitempty"` // "HUP" or "SIGHUP"
}

// A SuspendRequest puts a VM to sleep.
type SuspendRequest struct {
	Depth Depth `json:"depth,omitempty"` // "": as the policy says
}

// Stats are a VM's counters since it was made.
type Stats struct {
	Name        string        `json:"name"`
	State       State         `json:"state"`
	CPU         time.Duration `json:"cpu"`
	CPUPercent  float64       `json:"cpuPercent"` // of one core, over the last second
	Memory      int64         `json:"memory"`     // bytes the host gives it now, in RAM
	MemoryLimit int64         `json:"memoryLimit"`
	Storage     int64         `json:"storage"` // bytes on disk, without shared layers
	DiskRead    int64         `json:"diskRead"`
	DiskWrite   int64         `json:"diskWrite"`
	NetIn       int64         `json:"netIn"`
	NetOut      int64         `json:"netOut"`
	Wakes       int64         `json:"wakes"`
	Awake       time.Duration `json:"awake"`
	Asleep      time.Duration `json:"asleep"`
}

// A Host describes the machine and its agent.
type Host struct {
	Version     string `json:"version"`
	PID         int    `json:"pid"`
	Driver      string `json:"driver"`      // "qemu"
	Accelerator string `json:"accelerator"` // "kvm" or "tcg"
	Kernel      string `json:"kernel"`      // the guests' kernel release
	CPUs        int    `json:"cpus"`
	Memory      int64  `json:"memory"`    // bytes of RAM
	NapMemory   int64  `json:"napMemory"` // bytes of RAM that naps take
	NapLimit    int64  `json:"napLimit"`  // above it, naps spill to disk
	Running     int    `json:"running"`   // VMs
	Asleep      int    `json:"asleep"`    // VMs
	StateDir    string `json:"stateDir"`  // on disk
	RunDir      string `json:"runDir"`    // in memory
	AgentRSS    int64  `json:"agentRSS"`  // bytes
}

// An Image is one image in the host's store.
type Image struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"` // sha256:...
	Created time.Time `json:"created"`
	Arch    string    `json:"arch"`
	Size    int64     `json:"size"` // bytes of its layers' devices
	Layers  int       `json:"layers"`
	UsedBy  []string  `json:"usedBy,omitempty"` // VMs
}

// A RemovedImage tells what the removal of an image's name freed.
type RemovedImage struct {
	Name  string `json:"name"`
	Freed int64  `json:"freed"` // bytes of layers that nothing needed any more
}

// A PullRequest asks for an image from a registry.
type PullRequest struct {
	Ref string `json:"ref"`
}

// An ImportRequest asks for an image from the host's file system.
type ImportRequest struct {
	Path string `json:"path"` // absolute: an OCI layout, docker-archive or oci-archive
	Name string `json:"name,omitempty"`
}

// Progress is one line of a pull or import. The last line has Image or Error.
type Progress struct {
	Layer string   `json:"layer,omitempty"` // short digest
	Phase string   `json:"phase,omitempty"` // "pull", "unpack"
	Done  int64    `json:"done,omitempty"`  // bytes
	Total int64    `json:"total,omitempty"` // 0: not known
	Image *Image   `json:"image,omitempty"`
	Error *Problem `json:"error,omitempty"`
}

// A Volume is a named block device that outlives the VMs it is put in.
type Volume struct {
	Name    string    `json:"name"`
	Size    int64     `json:"size"`          // bytes at most
	Used    int64     `json:"used"`          // bytes on the host
	Raw     bool      `json:"raw,omitempty"` // see Mount
	Created time.Time `json:"created"`
	UsedBy  string    `json:"usedBy,omitempty"` // VM
}

// A Problem is an error as it crosses HTTP (RFC 9457).
type Problem struct {
	Title  string `json:"title"`  // a cloudpal.Kind
	Status int    `json:"status"` // HTTP status
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"` // what a person can do next
}
