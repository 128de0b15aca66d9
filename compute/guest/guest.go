// Package guest is what the host and a microVM's PID 1 (cmd/vminit) say to
// each other: the configuration the guest starts with, and the control
// protocol it serves on its link-local address.
//
// Neither end trusts the other. The guest answers only fe80::1; the host reads
// every answer with a size limit and a deadline, and believes of it no more
// than concerns that guest.
package guest

import (
	"net"
	"net/netip"
	"time"
)

// A Config is what a guest starts with: /config.json in its initrd.
type Config struct {
	Hostname string   `json:"hostname"`
	Modules  []string `json:"modules,omitempty"` // files in /modules of the initrd, in the order to load them
	// Layers are the image's block devices, bottom first: "vdb", "vdc".
	// Volume is the writable one, ext4; "" has memory in its place.
	Layers []string `json:"layers"`
	Volume string   `json:"volume,omitempty"`
	// LayerFS is the layers' file system: "erofs" or "ext4".
	LayerFS string `json:"layerFS"`
	// Mounts are directories of the volume laid over the root: the image's
	// volumes, which outlive a change of the image.
	Mounts []string `json:"mounts,omitempty"`
	// Volumes are named volumes: block devices of their own that outlive the
	// VM.
	Volumes []Volume `json:"volumes,omitempty"`
	Net     Net      `json:"net"`
	Process Process  `json:"process"`
}

// A Volume is a block device: an ext4 mounted at a path, or Raw, the device
// itself at that path.
type Volume struct {
	Device   string `json:"device"` // "vdd"
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Raw      bool   `json:"raw,omitempty"`
}

// Net is the guest's side of its one NIC.
type Net struct {
	MAC       string       `json:"mac"`
	Addresses []netip.Addr `json:"addresses"` // one IPv4, one IPv6; /32 and /128
	// Gateway is the IPv4 address of the host's end of the tap; the IPv6
	// gateway and the only control peer is always fe80::1.
	Gateway    netip.Addr   `json:"gateway"`
	GatewayMAC string       `json:"gatewayMAC"`
	DNS        []netip.Addr `json:"dns,omitempty"`
}

// A Process is what the guest runs: the image's configuration with the
// caller's changes applied.
type Process struct {
	Args        []string      `json:"args"`
	Env         []string      `json:"env"`
	Dir         string        `json:"dir,omitempty"`  // "" is /
	User        string        `json:"user,omitempty"` // user, uid, user:group, uid:gid; looked up in the image's /etc/passwd and /etc/group
	StopSignal  string        `json:"stopSignal,omitempty"`
	StopTimeout time.Duration `json:"stopTimeout,omitempty"` // before SIGKILL
	TTY         bool          `json:"tty,omitempty"`
}

// Port is the TCP port (HTTP) and the UDP port (the hello after a resume) that
// vminit serves on its link-local address.
const Port = 1

// NoTimer is what vminit says on the console, before it ends the VM, where the
// kernel did not get its timer to work. Another boot most likely does.
const NoTimer = "the kernel found no timer"

// HostAddr is the host's end of every tap.
var HostAddr = netip.MustParseAddr("fe80::1")

// LinkLocal returns the guest's link-local address: the modified EUI-64 of its
// MAC address (RFC 4291, appendix A).
func LinkLocal(mac net.HardwareAddr) netip.Addr {
	a := [16]byte{0: 0xfe, 1: 0x80, 11: 0xff, 12: 0xfe}
	copy(a[8:11], mac[:3])
	copy(a[13:], mac[3:])
	a[8] ^= 2
	return netip.AddrFrom16(a)
}

// A Status is the guest's word on its process.
type Status struct {
	Running bool      `json:"running"`
	Started time.Time `json:"started"`
	Exit    *Exit     `json:"exit,omitempty"` // set when it ended
}

// An Exit tells how the guest's process ended.
type Exit struct {
	Code   int    `json:"code"`             // 128+n where signal n ended it; 125 could not be started by our fault, 126 not executable, 127 not found
	Signal string `json:"signal,omitempty"` // "SIGSEGV"
	OOM    bool   `json:"oom,omitempty"`    // the guest's kernel killed it for memory
	Error  string `json:"error,omitempty"`  // why it could not start
}

// Usage is the guest's own count, to hold against the host's.
type Usage struct {
	CPU       time.Duration `json:"cpu"` // all vCPUs, not idle
	DiskRead  int64         `json:"diskRead"`
	DiskWrite int64         `json:"diskWrite"`
	NetIn     int64         `json:"netIn"`
	NetOut    int64         `json:"netOut"`
	MemTotal  int64         `json:"memTotal"`
	MemFree   int64         `json:"memFree"`
}
