//go:build linux

// Package route is what a host's kernel knows of its VMs: a tap each while they
// have a process, routes to it while they run, and the rules that bound what
// may come out of it.
//
// All of it is in the network namespace that the process was started in, and
// has names of its own: interfaces "cp...", the nftables table "inet cloudpal".
package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Prefix begins the names of all taps.
const Prefix = "cp"

// HostAddr is the host's end of every tap.
var HostAddr = netip.MustParseAddr("fe80::1")

// HostMAC is the host's end of every tap: a locally administered address.
var HostMAC = net.HardwareAddr{0x02, 0xc1, 0x0d, 0xff, 0xff, 0xff}

// A Tap is a VM's network device as the host sees it.
type Tap struct {
	File  *os.File // what the VM's process has, too
	Name  string
	index int
}

// tapFlags are those that package compute asks for.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// NewTap makes a tap that is gone when the last descriptor of it is closed. It
// is up, and nothing but the VM's link-local address, which follows from mac,
// is reached over it.
func NewTap(mac net.HardwareAddr) (*Tap, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	t := &Tap{File: os.NewFile(uintptr(fd), "tap")}
	if err := t.make(mac); err != nil {
		return nil, errors.Join(fmt.Errorf("make a tap: %w", err), t.File.Close())
	}
	return t, nil
}

func (t *Tap) make(mac net.HardwareAddr) error {
	ifr, err := unix.NewIfreq(Prefix + "%d")
	if err != nil {
		return err
	}
	ifr.SetUint16(tapFlags)
	fd := int(t.File.Fd())
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	t.Name = ifr.Name()
	link, err := netlink.LinkByName(t.Name)
	if err != nil {
		return err
	}
	t.index = link.Attrs().Index
	if err := t.tune(); err != nil {
		return err
	}
	if err := netlink.LinkSetHardwareAddr(link, HostMAC); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	err = netlink.AddrAdd(link, &netlink.Addr{
		IPNet: &net.IPNet{IP: HostAddr.AsSlice(), Mask: net.CIDRMask(64, 128)},
		Flags: unix.IFA_F_NODAD, Scope: unix.RT_SCOPE_LINK,
	})
	if err != nil {
		return err
	}
	return t.neighbour(linkLocal(mac), mac)
}

// tune sets what this interface, and no other, does: it asks the guest nothing
// and tells it nothing. That the kernel queues packets while nobody has said
// where a neighbour is, and does not go and ask, is what Admit's order rests
// on.
func (t *Tap) tune() error {
	for _, s := range [][2]string{
		// The control address is IPv6's, also where the host has none.
		{"ipv6/conf/%s/disable_ipv6", "0"},
		{"ipv6/conf/%s/addr_gen_mode", "1"},
		{"ipv6/conf/%s/accept_ra", "0"},
		{"ipv6/conf/%s/router_solicitations", "0"},
		{"ipv4/conf/%s/arp_ignore", "8"},
		{"ipv4/conf/%s/rp_filter", "0"}, // the rules do it, for both families
		{"ipv4/neigh/%s/app_solicit", "1"},
		{"ipv4/neigh/%s/mcast_solicit", "0"},
		{"ipv6/neigh/%s/app_solicit", "1"},
		{"ipv6/neigh/%s/mcast_solicit", "0"},
		{"ipv4/neigh/%s/unres_qlen_bytes", "4194304"},
		{"ipv6/neigh/%s/unres_qlen_bytes", "4194304"},
	} {
		if err := os.WriteFile("/proc/sys/net/"+fmt.Sprintf(s[0], t.Name), []byte(s[1]), 0); err != nil {
			return err
		}
	}
	return nil
}

// FindTap takes over a tap that another process made.
func FindTap(f *os.File, name string) (*Tap, error) {
	if !strings.HasPrefix(name, Prefix) {
		return nil, fmt.Errorf("%.20q is no tap of this program", name)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find tap %s: %w", name, err)
	}
	return &Tap{File: f, Name: name, index: link.Attrs().Index}, nil
}

// Index returns the interface's number.
func (t *Tap) Index() int { return t.index }

// neighbour says where addr is, for good, and sends what waited for that.
func (t *Tap) neighbour(addr netip.Addr, mac net.HardwareAddr) error {
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: t.index, Family: family(addr), State: netlink.NUD_PERMANENT,
		IP: addr.AsSlice(), HardwareAddr: mac,
	})
}

// Attract routes addr to the tap, from the host's own address src. Packets wait
// in the kernel until Settle, for a second at most.
func (t *Tap) Attract(addr, src netip.Addr) error {
	return netlink.RouteReplace(&netlink.Route{
		LinkIndex: t.index, Dst: host(addr), Src: src.AsSlice(), Scope: netlink.SCOPE_LINK,
	})
}

// Settle lets what Attract attracts flow to the VM.
func (t *Tap) Settle(addr netip.Addr, mac net.HardwareAddr) error { return t.neighbour(addr, mac) }

// Repel undoes Attract and Settle.
func (t *Tap) Repel(addr netip.Addr) error {
	err := netlink.RouteDel(&netlink.Route{LinkIndex: t.index, Dst: host(addr), Scope: netlink.SCOPE_LINK})
	if errors.Is(err, unix.ESRCH) {
		err = nil
	}
	forget := netlink.NeighDel(&netlink.Neigh{LinkIndex: t.index, Family: family(addr), IP: addr.AsSlice()})
	if errors.Is(forget, unix.ENOENT) {
		forget = nil
	}
	return errors.Join(err, forget)
}

// Counts returns how many bytes the VM has received over the tap, and sent.
func (t *Tap) Counts() (in, out int64, err error) {
	link, err := netlink.LinkByIndex(t.index)
	if err != nil {
		return 0, 0, fmt.Errorf("count the bytes of %s: %w", t.Name, err)
	}
	s := link.Attrs().Statistics
	if s == nil {
		return 0, 0, fmt.Errorf("count the bytes of %s: the kernel tells none", t.Name)
	}
	return int64(s.TxBytes), int64(s.RxBytes), nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// linkLocal returns the modified EUI-64 of a MAC address (RFC 4291, appendix
// A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	a := [16]byte{0: 0xfe, 1: 0x80, 11: 0xff, 12: 0xfe}
	copy(a[8:11], mac[:3])
	copy(a[13:], mac[3:])
	a[8] ^= 2
	return netip.AddrFrom16(a)
}
