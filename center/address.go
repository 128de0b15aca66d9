package center

import (
	"net/netip"
	"slices"
)

// Addresses picks from all of a host's addresses those at which others may
// reach it: the world's before private ones, IPv4 before IPv6, and else as
// they come. Those inside, where its VMs are, are only for who is on the host:
// they are the last resort where there is no other IPv4 address.
func Addresses(all []netip.Addr, inside ...netip.Prefix) []netip.Addr {
	var list, last []netip.Addr
	for _, a := range all {
		a = a.Unmap().WithZone("")
		switch {
		case !a.IsGlobalUnicast() || slices.Contains(list, a):
		case slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(a) }):
			last = append(last, a)
		default:
			list = append(list, a)
		}
	}
	if !slices.ContainsFunc(list, netip.Addr.Is4) {
		list = append(list, last...)
	}
	slices.SortStableFunc(list, func(a, b netip.Addr) int { return rank(a) - rank(b) })
	return list
}

func rank(a netip.Addr) int {
	n := 0
	if !isGlobal(a) {
		n += 2
	}
	if !a.Is4() {
		n++
	}
	return n
}

// carrierGrade is shared between customers of a provider (RFC 6598): not the
// world's.
var carrierGrade = netip.MustParsePrefix("100.64.0.0/10")

// isGlobal reports whether the world may route an address.
func isGlobal(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !carrierGrade.Contains(a)
}
