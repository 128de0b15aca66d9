package host

import (
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
)

// A record is what the host keeps of a VM on disk, in vm.json. It changes only
// when a person changes the VM or its process ends.
type record struct {
	ID      string            `json:"id"` // random; never used twice
	Request api.CreateRequest `json:"request"`
	ImageID string            `json:"imageID"`
	Created time.Time         `json:"created"`
	Index   int               `json:"index"` // gives the VM its uid, MAC and addresses; unique on this host
	Addrs   []netip.Addr      `json:"addrs"`
	Stopped *api.Exit         `json:"stopped,omitempty"` // set when its process ended; nil wants it up
	StopAt  time.Time         `json:"stopAt,omitzero"`
	Wakes   int64             `json:"wakes"`
	Boots   int64             `json:"boots"`
}

// A moment is what the host keeps of a VM in memory, in run.json on tmpfs: it
// outlives the agent, but not the machine, just as the processes and memory
// files that it speaks of.
type moment struct {
	Phase   phase           `json:"phase"`
	Process compute.Process `json:"process,omitzero"` // in all phases but asleep
	Ifname  string          `json:"ifname,omitempty"`
	Epoch   string          `json:"epoch,omitempty"` // names the process incarnation to the meter
	Since   time.Time       `json:"since"`
	Reason  string          `json:"reason,omitempty"`
	Napped  time.Time       `json:"napped,omitzero"`  // when its guest last stopped, in all phases but running
	WakeAt  time.Time       `json:"wakeAt,omitzero"`  // when a timer of its own wakes it, likewise
	Sealed  bool            `json:"sealed,omitempty"` // of cold: its snapshot was dropped, as was meant
}

// A phase is where in its life a VM was last known to be. Each is written
// before the step that it announces:
//
//	        boot                 Run
//	cold ─────────► booting ───────────► running ◄──────────┐
//	 ▲                 │                    │ suspend       │ Run: the snapshot
//	 │ process gone,   │                    ▼               │ is void before
//	 │ no snapshot     │                suspending ──┐      │
//	 ├─────────────────┘                    │        │ cancelled: running
//	 │                                      ▼
//	 └──────────────── waking ◄────────── asleep (armed, memory, disk)
//
// From asleep it may also get cold: when it is sealed, or its nap cannot be used.
type phase string

const (
	cold       phase = "cold"
	booting    phase = "booting"
	running    phase = "running"
	suspending phase = "suspending"
	asleep     phase = "asleep"
	waking     phase = "waking"
)

// firstUID is the uid of the VM process with index 0. The range above it must
// not be used by anything else on the host.
const firstUID = 1_900_000_000

func (r *record) uid() int { return firstUID + r.Index }

// mac returns a locally administered address, different for each VM.
func (r *record) mac() net.HardwareAddr {
	return net.HardwareAddr{0x02, 0xc1, 0x0d, byte(r.Index >> 16), byte(r.Index >> 8), byte(r.Index)}
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,47}$`)

func checkName(kind, name string) error {
	if validName.MatchString(name) {
		return nil
	}
	return cloudpal.E(kind+" name "+quote(name), cloudpal.Invalid, nil).
		WithHint("use 1 to 48 lower-case letters, digits and dashes, not a dash first")
}

// paths of one VM. The disk part is in Config.StateDir, the rest on tmpfs.
type paths struct {
	disk string // vms/NAME
	run  string // vm/NAME: compute.Spec.Dir, what the VM's process sees as /
	nap  string // nap/NAME: what only the agent may touch
}

func (h *Host) paths(name string) paths {
	return paths{
		disk: filepath.Join(h.cfg.StateDir, "vms", name),
		run:  filepath.Join(h.cfg.RunDir, "vm", name),
		nap:  filepath.Join(h.cfg.RunDir, "nap", name),
	}
}

func (p paths) record() string { return filepath.Join(p.disk, "vm.json") }
func (p paths) volume() string { return filepath.Join(p.disk, "volume.img") }
func (p paths) usage() string  { return filepath.Join(p.disk, "usage.jsonl") }
func (p paths) events() string { return filepath.Join(p.disk, "events.jsonl") }
func (p paths) sealed() string { return filepath.Join(p.disk, "nap.sealed") }
func (p paths) moment() string { return filepath.Join(p.nap, "run.json") }
func (p paths) state() string  { return filepath.Join(p.nap, "state") }
func (p paths) used() string   { return filepath.Join(p.nap, "state.used") }
func (p paths) logs() string   { return filepath.Join(p.nap, "log") }
func (p paths) memory() string { return filepath.Join(p.run, "memory") }
func (p paths) initrd() string { return filepath.Join(p.run, "initrd") }
