package hub

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// An Uplink is the core's way to the world.
type Uplink struct {
	Name    string     // of the device
	Addr    netip.Addr // the core's own, IPv4
	Gateway netip.Addr // the host's, IPv4
	Global6 bool       // the core has an IPv6 address of the world's
}

// FindUplink looks where the IPv4 default route leads.
func FindUplink() (u Uplink, err error) {
	const op = "find the way to the host"
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return u, cloudpal.E(op, "", err)
	}
	for _, r := range routes {
		gw, ok := netip.AddrFromSlice(r.Gw)
		if !ok || r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return u, cloudpal.E(op, "", err)
		}
		u.Name, u.Gateway = link.Attrs().Name, gw.Unmap()
		return u, u.addresses(link)
	}
	return u, cloudpal.E(op, cloudpal.Missing, errors.New("there is no default route"))
}

func (u *Uplink) addresses(link netlink.Link) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return cloudpal.E("find the core's addresses", "", err)
	}
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		if ip.Is4() && !u.Addr.IsValid() {
			u.Addr = ip
		}
		if ip.Is6() && ip.IsGlobalUnicast() && !ip.IsPrivate() {
			u.Global6 = true
		}
	}
	if !u.Addr.IsValid() {
		return cloudpal.E("find the core's addresses", cloudpal.Missing, nil)
	}
	return nil
}
