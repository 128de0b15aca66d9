//go:build linux

package route

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Collides returns an error that tells which of the host's own routes leads to
// addresses of a prefix. Those that lead to VMs, and those that lead nowhere,
// are none.
func Collides(p netip.Prefix) error {
	f := netlink.FAMILY_V4
	if p.Addr().Is6() {
		f = netlink.FAMILY_V6
	}
	routes, err := netlink.RouteListFiltered(f, &netlink.Route{}, 0)
	if err != nil {
		return fmt.Errorf("list the host's routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Type != unix.RTN_UNICAST && r.Type != unix.RTN_LOCAL {
			continue
		}
		ip, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		dst := netip.PrefixFrom(ip.Unmap(), bits)
		if !ok || bits == 0 || !dst.Overlaps(p) {
			continue
		}
		name := linkName(r.LinkIndex)
		if name == Asleep || strings.HasPrefix(name, Prefix) {
			continue
		}
		return fmt.Errorf("VMs are to have %v, but %v is behind %s already", p, dst, name)
	}
	return nil
}

func linkName(index int) string {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("link %d", index)
	}
	return l.Attrs().Name
}
