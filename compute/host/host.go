// Package host is one machine's agent: it makes microVMs out of images, lets
// them sleep and wake, limits and meters them, and outlives its own restarts.
// It is what `cloudpal host` runs.
//
// What it knows is in three places, by how long it must last:
//
//   - Config.StateDir, on disk: what a VM is (record), its volume, its usage
//     records, and naps of depth disk, which are sealed under a key that never
//     touches the disk.
//   - Config.RunDir, on a tmpfs that is never swapped out: guest memory, device
//     states, sockets, logs, and which process is which VM (moment). It
//     outlives the agent, not the machine.
//   - The agent's memory: everything else; recover builds it anew.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/compute/kernel"
	"github.com/tradle/cloudpal/compute/seal"
)

// A Config is what a host is made of.
type Config struct {
	StateDir string // on disk
	RunDir   string // on a tmpfs without swap; see MountRunDir
	Version  string

	Kernel      kernel.Prepared
	Driver      compute.Driver
	DriverName  string
	Accelerator string
	Images      *image.Store
	// Network opens what carries the VMs' packets. It calls wake, which
	// returns at once, for packets to those that sleep.
	Network func(wake func(addr netip.Addr, why string)) (Network, error)
	Key     *seal.Key // seals naps of depth disk; outlives the agent, not the machine
	Log     *slog.Logger

	// NapMemory is how many bytes of RAM naps may take before the least
	// recently used spill to disk; 0 means a quarter of the machine's.
	NapMemory int64
	// PlanWindow and PlanGrace are how long a VM may use more than its plan
	// before it is throttled, and how long throttled before it is stopped; 0
	// is package meter's default.
	PlanWindow, PlanGrace time.Duration
	// Armed is how many naps may keep a process waiting for a quicker wake.
	Armed int
}

// A NIC is a VM's network device as the Network sees it.
type NIC struct {
	MAC   net.HardwareAddr
	Addrs []netip.Addr // one IPv4, one IPv6
	Rate  int64        // bytes a second, each way; 0 is no limit
	// WireGuard is set where only a WireGuard peer's packets wake the VM, and
	// it is to be reached from outside.
	WireGuard *api.WireGuard
	Outbound  bool // it may speak to the world of its own accord
}

// NetStats are a NIC's counters since it was plugged in, as the guest sees
// them: In is what it received.
type NetStats struct{ In, Out int64 }

// A Network carries packets between the host and its VMs, and holds those for
// VMs that sleep, calling Host.Wake. A NIC is known to it from Add to Remove;
// in between it has a tap from Plug (or Adopt) to Unplug. All methods may be
// called from many goroutines, for one VM one at a time.
type Network interface {
	// Prefixes are where VMs have their addresses; the first of each is the
	// host's own.
	Prefixes() (v4, v6 netip.Prefix)
	// HostMAC is the host's end of every tap.
	HostMAC() net.HardwareAddr
	Add(vm string, nic NIC) error
	Remove(vm string)
	// Plug makes the VM's tap; only the control address works over it.
	Plug(vm string) (tap *os.File, ifname string, err error)
	// Adopt takes over the tap of a VM that another run of the agent plugged.
	Adopt(vm string, tap *os.File, ifname string, admitted bool) error
	// Admit delivers what was held, in order, and lets packets flow.
	Admit(vm string) error
	// Hold keeps packets from now on.
	Hold(vm string) error
	// Unplug puts what the VM never took back at the head of what is held,
	// and removes the tap.
	Unplug(vm string) error
	Stats(vm string) (NetStats, error)
	// Activity tells when the VM last had traffic that is a reason to stay
	// awake, either way; zero where it had none since it was plugged in.
	// WireGuard's empty keepalives and handshakes are none.
	Activity(vm string) (time.Time, error)
	// Sweep removes taps of VMs that are not plugged in.
	Sweep() error
	// Publish forwards a port of the host to target until it is closed.
	Publish(proto string, listen, target netip.AddrPort) (Published, error)
	// Close lets go of everything and leaves VMs that run on the network.
	Close() error
}

// Published is a forwarded port.
type Published interface {
	Addr() netip.AddrPort
	Close() error
}

// A Host is the agent. Make it with New.
type Host struct {
	cfg   Config
	log   *slog.Logger
	net   Network
	ctx   context.Context // ends with Close; the parent of all that works in the background
	stop  context.CancelFunc
	tasks sync.WaitGroup
	lock  *os.File

	// turns limits wakes and boots under way to the number of cores: all
	// together take as long, and the first answer is not delayed by the last.
	turns chan struct{}
	// spill wakes the policy, alarms what looks after VMs' timers.
	spill, alarms chan struct{}

	// collecting keeps images from being collected while a VM is made of one.
	collecting sync.RWMutex

	mu      sync.Mutex
	vms     map[string]*vm
	byAddr  map[netip.Addr]*vm
	volumes map[string]string // volume to the VM that has it
	gone    []*vm             // removed of late, the last last
}

// New recovers what StateDir and RunDir hold and starts looking after it.
func New(ctx context.Context, cfg Config) (*Host, error) {
	h := &Host{
		cfg:     cfg,
		log:     cfg.Log,
		turns:   make(chan struct{}, runtime.NumCPU()),
		spill:   make(chan struct{}, 1),
		alarms:  make(chan struct{}, 1),
		vms:     map[string]*vm{},
		byAddr:  map[netip.Addr]*vm{},
		volumes: map[string]string{},
	}
	h.ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	if h.cfg.NapMemory == 0 {
		h.cfg.NapMemory = totalMemory() / 4
	}
	for _, dir := range []string{
		filepath.Join(cfg.StateDir, "vms"), filepath.Join(cfg.StateDir, "volumes"),
		filepath.Join(cfg.RunDir, "vm"), filepath.Join(cfg.RunDir, "nap"),
	} {
		// The VMs' own processes pass through RunDir/vm and nothing else.
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, cloudpal.E("open the host's state", "", err)
		}
	}
	var err error
	if h.lock, err = lockState(cfg.StateDir); err != nil {
		return nil, err
	}
	if h.net, err = cfg.Network(h.wake); err != nil {
		return nil, errors.Join(err, h.lock.Close())
	}
	if err := h.recover(ctx); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	h.dropImage()
	h.tasks.Go(h.keepPolicy)
	h.tasks.Go(h.keepAlarms)
	return h, nil
}

// Close lets go of everything and leaves VMs as they are: running ones run on,
// and the next agent finds them.
func (h *Host) Close() error {
	h.stop()
	h.tasks.Wait()
	var errs []error
	for _, v := range h.all() {
		errs = append(errs, v.release())
	}
	return errors.Join(append(errs, h.net.Close(), h.lock.Close())...)
}

// all returns the VMs, by name.
func (h *Host) all() []*vm {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*vm, 0, len(h.vms))
	for _, v := range h.vms {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b *vm) int { return strings.Compare(a.name, b.name) })
	return all
}

func (h *Host) find(name string) (*vm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v := h.vms[name]; v != nil {
		return v, nil
	}
	return nil, cloudpal.E("vm "+quote(name), cloudpal.NotExist, nil).
		WithHint("cloudpal vm ps lists the VMs of this host")
}

// wake makes the VM that has addr run, for a packet. It returns at once.
func (h *Host) wake(addr netip.Addr, why string) {
	h.mu.Lock()
	v := h.byAddr[addr]
	h.mu.Unlock()
	if v != nil {
		v.rouse(why)
	}
}

// turn waits for leave to use a core for a boot or wake.
func (h *Host) turn(ctx context.Context) (done func(), err error) {
	select {
	case h.turns <- struct{}{}:
		return func() { <-h.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// nudge makes the policy look again soon.
func (h *Host) nudge() {
	select {
	case h.spill <- struct{}{}:
	default:
	}
}

func quote(s string) string { return fmt.Sprintf("%.60q", s) }

// totalMemory returns the machine's RAM in bytes.
func totalMemory() int64 {
	kb, err := meminfo("MemTotal")
	if err != nil {
		return 1 << 30
	}
	return kb << 10
}

// bootTimeout bounds a guest's cold boot, which under software emulation on a
// busy host can take a while.
const bootTimeout = 90 * time.Second
