package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// device is the one network device.
const device = "eth0"

// bringUp configures the loopback and the one network device. Its link is the
// host alone, so nothing on it needs to be asked for: the host's link address
// is given, ours is checked by nobody.
func bringUp(n guest.Net) error {
	quietIPv6()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	eth, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return err
	}
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	addrs := append([]netip.Addr{guest.LinkLocal(mac)}, n.Addresses...)
	for _, a := range addrs {
		if err := addAddr(eth, a); err != nil {
			return fmt.Errorf("address %v: %w", a, err)
		}
	}
	gatewayMAC, err := net.ParseMAC(n.GatewayMAC)
	if err != nil {
		return err
	}
	for _, gw := range []netip.Addr{n.Gateway, guest.HostAddr} {
		if err := addGateway(eth, gw, gatewayMAC); err != nil {
			return fmt.Errorf("gateway %v: %w", gw, err)
		}
	}
	return nil
}

// quietIPv6 stops the kernel from asking for routers and from checking
// addresses for duplicates, which takes a second. The link-local address is
// ours to set.
func quietIPv6() {
	for _, dev := range []string{"default", device} {
		for name, value := range map[string]string{
			"accept_dad": "0", "accept_ra": "0", "router_solicitations": "0", "addr_gen_mode": "1",
		} {
			_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/"+name, []byte(value), 0)
		}
	}
}

func addAddr(link netlink.Link, a netip.Addr) error {
	bits := a.BitLen()
	scope := unix.RT_SCOPE_UNIVERSE
	if a.IsLinkLocalUnicast() {
		bits, scope = 64, unix.RT_SCOPE_LINK
	}
	err := netlink.AddrAdd(link, &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())},
		Flags: unix.IFA_F_NODAD | unix.IFA_F_PERMANENT,
		Scope: scope,
	})
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// addGateway makes gw, which is on the link, the default route.
func addGateway(link netlink.Link, gw netip.Addr, mac net.HardwareAddr) error {
	family, zero := netlink.FAMILY_V4, net.IPv4zero
	if gw.Is6() {
		family, zero = netlink.FAMILY_V6, net.IPv6zero
	}
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: family,
		State: netlink.NUD_PERMANENT, IP: gw.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: zero, Mask: net.CIDRMask(0, gw.BitLen())},
		Gw:        gw.AsSlice(),
		Flags:     int(netlink.FLAG_ONLINK),
	})
}
