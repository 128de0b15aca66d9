// Package hub is the core's end of the overlay: the kernel's WireGuard, with
// the pal's devices as its peers.
//
// A core sleeps, and the kernel's WireGuard does not know: its clock stands
// still meanwhile. What it takes for a session of seconds ago may be one that
// the device has long given up, and then it would speak into the void for a
// quarter of a minute. So who resumes a core calls Renew, with the right time,
// before packets come.
package hub

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/tradle/cloudpal"
)

// Name is the interface's.
const Name = "wg0"

// Lifetime is how long a session may be used after its handshake: REJECT_AFTER_TIME
// (WireGuard's whitepaper, section 6.2).
const Lifetime = 180 * time.Second

// A Key is a public key.
type Key [32]byte

// A Config says what the interface is.
type Config struct {
	Private []byte // 32 bytes; not kept
	Port    uint16
	Addrs   []netip.Prefix // the core's addresses, with the overlay's prefix lengths
	MTU     int
}

// A Peer is a device.
type Peer struct {
	Key      Key
	Addrs    []netip.Addr
	Endpoint netip.AddrPort // where it was last; may be invalid
}

// A Status is what the kernel knows of a peer.
type Status struct {
	Key            Key
	Endpoint       netip.AddrPort
	Handshake      time.Time // the last; zero: none
	Received, Sent int64     // bytes, since the peer was added
}

// A Hub is the interface. Its methods are for one goroutine at a time.
type Hub struct {
	link netlink.Link
	wg   *wgctrl.Client
}

// Open makes the interface, without peers.
func Open(c Config) (*Hub, error) {
	h := &Hub{link: &netlink.GenericLink{LinkAttrs: attributes(c.MTU), LinkType: "wireguard"}}
	if err := h.open(c); err != nil {
		return nil, errors.Join(cloudpal.E("make the overlay's interface", "", err), h.Close())
	}
	return h, nil
}

func attributes(mtu int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = Name, mtu
	return a
}

func (h *Hub) open(c Config) (err error) {
	if h.wg, err = wgctrl.New(); err != nil {
		return err
	}
	if err := netlink.LinkAdd(h.link); err != nil {
		return err
	}
	key, err := wgtypes.NewKey(c.Private)
	if err != nil {
		return errors.New("the private key has not 32 bytes")
	}
	defer clear(key[:])
	port := int(c.Port)
	if err := h.wg.ConfigureDevice(Name, wgtypes.Config{PrivateKey: &key, ListenPort: &port}); err != nil {
		return err
	}
	for _, a := range c.Addrs {
		addr := &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(h.link, addr); err != nil {
			return fmt.Errorf("give it an address: %w", err)
		}
	}
	return netlink.LinkSetUp(h.link)
}

// Close removes the interface. The kernel forgets its keys.
func (h *Hub) Close() error {
	var errs []error
	if h.wg != nil {
		errs = append(errs, h.wg.Close())
	}
	if l, err := netlink.LinkByName(Name); err == nil {
		errs = append(errs, netlink.LinkDel(l))
	}
	return errors.Join(errs...)
}

// Set makes peers the interface's, and no others. Those that are there
// already keep their sessions; those that are not any more are cut off at once.
func (h *Hub) Set(peers []Peer) error {
	there, err := h.Peers()
	if err != nil {
		return err
	}
	var change []wgtypes.PeerConfig
	for _, s := range there {
		if !slices.ContainsFunc(peers, func(p Peer) bool { return p.Key == s.Key }) {
			change = append(change, wgtypes.PeerConfig{PublicKey: wgtypes.Key(s.Key), Remove: true})
		}
	}
	for _, p := range peers {
		if !slices.ContainsFunc(there, func(s Status) bool { return s.Key == p.Key }) {
			change = append(change, p.config())
		}
	}
	return h.configure("set the overlay's devices", change)
}

// Renew gives up the sessions of peers: each begins anew when there is
// something to say. The kernel also forgets the time of a peer's last
// handshake initiation, by which it knows a repeated one. Who repeats one can
// mislead the core about where the device is, until the device speaks; it gets
// no session by it.
func (h *Hub) Renew(peers []Peer) error {
	var change []wgtypes.PeerConfig
	for _, p := range peers {
		change = append(change, wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.Key), Remove: true}, p.config())
	}
	return h.configure("renew the overlay's sessions", change)
}

func (h *Hub) configure(op string, change []wgtypes.PeerConfig) error {
	if len(change) == 0 {
		return nil
	}
	if err := h.wg.ConfigureDevice(Name, wgtypes.Config{Peers: change}); err != nil {
		return cloudpal.E(op, "", err)
	}
	return nil
}

func (p Peer) config() wgtypes.PeerConfig {
	c := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.Key), ReplaceAllowedIPs: true}
	for _, a := range p.Addrs {
		c.AllowedIPs = append(c.AllowedIPs, *ipNet(netip.PrefixFrom(a, a.BitLen())))
	}
	if p.Endpoint.IsValid() {
		c.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
	}
	return c
}

// Peers returns what the kernel knows of each peer.
func (h *Hub) Peers() ([]Status, error) {
	d, err := h.wg.Device(Name)
	if err != nil {
		return nil, cloudpal.E("look at the overlay's interface", "", err)
	}
	defer clear(d.PrivateKey[:])
	var list []Status
	for _, p := range d.Peers {
		s := Status{Key: Key(p.PublicKey), Handshake: p.LastHandshakeTime, Received: p.ReceiveBytes, Sent: p.TransmitBytes}
		if p.Endpoint != nil {
			at := p.Endpoint.AddrPort()
			s.Endpoint = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		}
		list = append(list, s)
	}
	return list, nil
}

// Greet sends a peer that has this address something that needs no answer, and
// so makes WireGuard start a handshake where there is no session.
func Greet(a netip.Addr) error {
	// Port 9 is the discard service's (RFC 863). An empty datagram is still a
	// packet that WireGuard must carry.
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write(nil)
	if errors.Is(err, syscall.EDESTADDRREQ) || errors.Is(err, syscall.ENOKEY) {
		return nil // it has no endpoint: there is nobody to speak to
	}
	return err
}

// Forward lets the kernel carry packets from one device to another.
func Forward() error {
	for _, file := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile(file, []byte("1"), 0); err != nil {
			return cloudpal.E("forward packets", "", err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
