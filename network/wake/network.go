//go:build linux

// Package wake holds packets for who sleeps. A VM is asleep when there is no
// route to its address but the one that covers all of them: it leads to the
// device wake0, where this package reads the packet, asks for the VM to be
// woken, and gives it the packet when it runs. A sleeping VM costs the kernel
// nothing.
package wake

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/route"
)

// device is where packets for sleepers go.
const device = route.Asleep

// The prefixes that VMs have their addresses in, where Config names none.
var (
	DefaultV4 = netip.MustParsePrefix("10.201.0.0/16")
	DefaultV6 = netip.MustParsePrefix("fdc1:d00::/64")
)

// A Config says where VMs have their addresses, and who wakes them.
type Config struct {
	V4, V6 netip.Prefix                      // zero: the defaults
	Wake   func(addr netip.Addr, why string) // asks for a VM to be woken; returns at once
	Dir    string                            // on a tmpfs: what must outlive this process, but not the machine; "": nothing does
	Log    *slog.Logger
}

// A Network carries packets between this host and its VMs. Its methods may be
// called from many goroutines, for one VM one at a time.
type Network struct {
	cfg   Config
	tun   *os.File
	raw   int  // a packet socket, to put frames into taps with
	six   bool // the host has IPv6
	rules *route.Rules
	tasks sync.WaitGroup
	ears  []*os.File // packet sockets, to hear handshakes with

	forwarding forwarding
	activity   activity
	memory     memory
	closed     atomic.Bool

	mu     sync.Mutex
	byName map[string]*nic
	byAddr map[netip.Addr]*nic
	byPort map[uint16]*nic // WireGuard's, by the host's port
	marks  map[uint64]chan<- struct{}
	mark   uint64
	room   int // bytes that all may hold together, still free
}

// Bounds of what is held, in packets and bytes.
const (
	maxHeldPackets = 512
	maxHeldBytes   = 1 << 20
	maxHeldTotal   = 64 << 20
)

// Open makes wake0, its routes and the rules, in place of what an earlier
// process left. Only root may, with /dev/net/tun there.
func Open(c Config) (*Network, error) {
	const op = "open the VMs' network"
	if !c.V4.IsValid() {
		c.V4 = DefaultV4
	}
	if !c.V6.IsValid() {
		c.V6 = DefaultV6
	}
	c.V4, c.V6 = c.V4.Masked(), c.V6.Masked()
	n := newNetwork(c)
	if err := n.collides(); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	// It comes first: there is one wake0, and the rules of who has it are not
	// to be touched.
	if err := n.openDevice(); err != nil {
		return nil, cloudpal.E(op, "", err).WithHint("run as root, where /dev/net/tun is, and once in each network namespace")
	}
	if err := n.open(); err != nil {
		return nil, cloudpal.E(op, "", errors.Join(err, n.closeFiles()))
	}
	n.tasks.Go(n.read)
	n.tasks.Go(n.memory.run)
	return n, nil
}

// closeFiles ends who reads them, too.
func (n *Network) closeFiles() error {
	errs := []error{n.tun.Close()}
	if n.rules != nil {
		errs = append(errs, n.rules.Close())
	}
	for _, f := range n.ears {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func newNetwork(c Config) *Network {
	return &Network{
		cfg: c, byName: map[string]*nic{}, byAddr: map[netip.Addr]*nic{}, byPort: map[uint16]*nic{},
		marks: map[uint64]chan<- struct{}{}, room: maxHeldTotal,
	}
}

func (n *Network) open() error {
	var err error
	if n.rules, err = route.Guard(n.cfg.V4, n.cfg.V6); err != nil {
		return cloudpal.E("", "", err).WithHint("the host's kernel needs nftables with NAT, fib, sets and conntrack")
	}
	if err := n.routeAll(); err != nil {
		return fmt.Errorf("set up %s: %w", device, err)
	}
	if err := n.forwarding.load(n.cfg.Dir, n.rules, n.cfg.Log); err != nil {
		return err
	}
	if err := n.memory.open(n.cfg.Dir, n.cfg.Log); err != nil {
		return err
	}
	if err := n.openRaw(); err != nil {
		return err
	}
	return n.listen()
}

// collides returns an error where the VMs' addresses are somebody else's.
func (n *Network) collides() error {
	for flag, p := range map[string]netip.Prefix{"--prefix4": n.cfg.V4, "--prefix6": n.cfg.V6} {
		if flag == "--prefix6" && !hasIPv6() {
			continue
		}
		if err := route.Collides(p); err != nil {
			return cloudpal.E("", cloudpal.Exist, err).WithHint("give the VMs other addresses with " + flag)
		}
	}
	return nil
}

// hasIPv6 reports whether the host has IPv6, and wants it.
func hasIPv6() bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(off)) == "0"
}

// openRaw opens the one packet socket. It is kept: to close one takes the kernel
// some 16 ms (measured), which a packet that wakes a VM would wait for.
func (n *Network) openRaw() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, maxHeldTotal))
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("set up a packet socket: %w", err)
	}
	n.raw = fd
	return nil
}

func (n *Network) openDevice() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return fmt.Errorf("make %s: %w", device, err)
	}
	// A crash of this process must not take the host's addresses from VMs
	// that run: the next one takes wake0 over.
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		unix.Close(fd)
		return fmt.Errorf("keep %s: %w", device, err)
	}
	// Only now, with something behind it, can it be polled.
	n.tun = os.NewFile(uintptr(fd), device)
	return nil
}

// routeAll gives the host its addresses and leads all VMs' to wake0.
func (n *Network) routeAll() error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if n.six = hasIPv6(); n.six {
		err = n.quieten()
	} else {
		n.cfg.Log.Info("this host has no IPv6; VMs are reached over IPv4 alone")
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkSetTxQLen(link, 4096); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	if err := n.forgetOthers(link); err != nil {
		return err
	}
	for _, p := range n.prefixes() {
		if err := attract(link, p); err != nil {
			return err
		}
	}
	return nil
}

// quieten keeps the kernel from giving wake0 addresses by itself.
func (n *Network) quieten() error {
	for _, s := range [][2]string{{"addr_gen_mode", "1"}, {"accept_ra", "0"}} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/"+s[0], []byte(s[1]), 0); err != nil {
			return err
		}
	}
	return nil
}

// prefixes are those that the host can have.
func (n *Network) prefixes() []netip.Prefix {
	if n.six {
		return []netip.Prefix{n.cfg.V4, n.cfg.V6}
	}
	return []netip.Prefix{n.cfg.V4}
}

// attract gives the host the first address of a prefix and leads all others to
// wake0.
func attract(link netlink.Link, p netip.Prefix) error {
	own := p.Addr().Next()
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(own.BitLen(), own.BitLen())},
		Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE,
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index, Src: own.AsSlice(), Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), own.BitLen())},
	})
}

// forgetOthers takes from wake0 what it has for other prefixes: those of an
// earlier process that was told so. Their routes go with the addresses.
func (n *Network) forgetOthers(link netlink.Link) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ip == n.own(ip) || ip.IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return err
		}
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.String() == n.cfg.V4.String() || r.Dst.String() == n.cfg.V6.String() || r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast() {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// Close lets go of wake0. Taps stay with who has them, and their routes with
// them; as long as there is one, wake0 stays too, for it has the host's own
// addresses, and so do the rules. With the last, all that this package made is
// gone.
func (n *Network) Close() error {
	if n.closed.Swap(true) {
		return os.ErrClosed
	}
	var err error
	if len(n.taps()) == 0 {
		err = errors.Join(n.forgetDevice(), n.rules.Forget(), n.forwarding.undo())
	}
	err = errors.Join(err, n.closeFiles())
	close(n.memory.stop)
	n.tasks.Wait()
	return errors.Join(err, unix.Close(n.raw))
}

// forgetDevice lets wake0 end with the last descriptor of it.
func (n *Network) forgetDevice() error {
	c, err := n.tun.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 0) })
	return errors.Join(err, failed)
}

// Prefixes returns where VMs have their addresses; the first of each is the
// host's own.
func (n *Network) Prefixes() (v4, v6 netip.Prefix) { return n.cfg.V4, n.cfg.V6 }

// own returns the host's address of addr's family.
func (n *Network) own(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return n.cfg.V4.Addr().Next()
	}
	return n.cfg.V6.Addr().Next()
}

// HostMAC is the host's end of every tap.
func (n *Network) HostMAC() net.HardwareAddr { return route.HostMAC }

// read takes what comes to wake0 until it is closed.
func (n *Network) read() {
	buf := make([]byte, maxPacket)
	for {
		size, err := n.tun.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				n.cfg.Log.Error("read packets for sleeping VMs; none wakes on a packet any more", "err", err)
			}
			return
		}
		n.take(buf[:size])
	}
}

// take deals with one packet that came to wake0.
func (n *Network) take(p []byte) {
	to, err := destination(p)
	if err != nil {
		return
	}
	if to == n.markAddr() {
		n.passed(p)
		return
	}
	n.mu.Lock()
	v := n.byAddr[to]
	n.mu.Unlock()
	if v == nil {
		return
	}
	if why := v.take(held{ip: p}, time.Now()); why != "" {
		n.cfg.Wake(to, why)
	}
}

// A NIC is a VM's network device.
type NIC struct {
	MAC       net.HardwareAddr
	Addrs     []netip.Addr // one IPv4, one IPv6
	Rate      int64        // bytes a second, each way; 0 is no limit
	WireGuard *WireGuard   // nil: every packet wakes the VM, and it is not reached from outside
	Outbound  bool         // it may speak to the world of its own accord
}

// A WireGuard is what is known of a VM's WireGuard interface.
type WireGuard struct {
	PublicKey [32]byte
	Port      uint16 // UDP, in the VM
	HostPort  uint16 // UDP, on every address of the host; not from route.FirstPort to route.LastPort
}

// listing is what the rules have to know.
func (c *NIC) listing() route.Listing {
	l := route.Listing{Addrs: c.Addrs, Outbound: c.Outbound}
	if c.WireGuard != nil {
		l.Port, l.HostPort = c.WireGuard.Port, c.WireGuard.HostPort
	}
	return l
}

// outside reports whether anything goes between the VM and the world.
func (c *NIC) outside() bool { return c.WireGuard != nil || c.Outbound }

// Add makes a VM known. It holds packets for it from now on, and has the world
// reach its WireGuard.
func (n *Network) Add(name string, c NIC) error {
	op := "add vm " + name
	v, err := n.add(name, c)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	if v == nil || !c.outside() {
		return nil
	}
	if err := errors.Join(n.rules.List(c.listing()), n.forward()); err != nil {
		n.forget(name)
		return cloudpal.E(op, "", err)
	}
	return nil
}

// add returns nil where the VM is known already.
func (n *Network) add(name string, c NIC) (*nic, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byName[name] != nil {
		return nil, nil
	}
	if err := n.freeLocked(c); err != nil {
		return nil, err
	}
	v := &nic{NIC: c, n: n, name: name}
	n.byName[name] = v
	for _, a := range c.Addrs {
		n.byAddr[a] = v
	}
	if c.WireGuard != nil {
		v.judge = newJudge(*c.WireGuard)
		n.memory.load(v, time.Now())
		n.byPort[c.WireGuard.HostPort] = v
	}
	return v, nil
}

// freeLocked returns an error where a NIC has what another has.
func (n *Network) freeLocked(c NIC) error {
	for _, a := range c.Addrs {
		if other := n.byAddr[a]; other != nil {
			return cloudpal.E("", cloudpal.Exist, fmt.Errorf("vm %s has the address %v", other.name, a))
		}
	}
	if c.WireGuard == nil {
		return nil
	}
	port := c.WireGuard.HostPort
	if other := n.byPort[port]; other != nil {
		return cloudpal.E("", cloudpal.Exist, fmt.Errorf("vm %s has UDP port %d of the host", other.name, port)).
			WithHint("choose another port, or none: a free one is found")
	}
	if port == 0 || c.WireGuard.Port == 0 || port >= route.FirstPort && port <= route.LastPort {
		return cloudpal.E("", cloudpal.Invalid, fmt.Errorf("UDP port %d of the host", port)).
			WithHint(fmt.Sprintf("ports from %d to %d are kept for what VMs ask of the world", route.FirstPort, route.LastPort))
	}
	return nil
}

// Remove forgets a VM, and what is held for it.
func (n *Network) Remove(name string) {
	v := n.forget(name)
	if v == nil {
		return
	}
	v.drop()
	n.memory.forget(v)
	if !v.outside() {
		return
	}
	if err := n.rules.Unlist(v.listing()); err != nil {
		n.cfg.Log.Warn("forget a vm", "vm", name, "err", err)
	}
}

func (n *Network) forget(name string) *nic {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := n.byName[name]
	if v == nil {
		return nil
	}
	delete(n.byName, name)
	for _, a := range v.Addrs {
		delete(n.byAddr, a)
	}
	if v.WireGuard != nil {
		delete(n.byPort, v.WireGuard.HostPort)
	}
	return v
}

func (n *Network) find(name string) (*nic, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if v := n.byName[name]; v != nil {
		return v, nil
	}
	return nil, cloudpal.E("network of vm "+name, cloudpal.NotExist, nil)
}

// reserve asks for room for a packet, among all that are held.
func (n *Network) reserve(bytes int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.room < bytes {
		return false
	}
	n.room -= bytes
	return true
}

func (n *Network) giveBack(bytes int) {
	n.mu.Lock()
	n.room += bytes
	n.mu.Unlock()
}
