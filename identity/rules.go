package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tradle/cloudpal"
)

const (
	v4Bits = 24
	v6Bits = 64
)

var (
	privateV4 = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),     // RFC 1918
		netip.MustParsePrefix("172.16.0.0/12"),  // RFC 1918
		netip.MustParsePrefix("192.168.0.0/16"), // RFC 1918
		netip.MustParsePrefix("100.64.0.0/10"),  // RFC 6598
	}
	privateV6 = netip.MustParsePrefix("fd00::/8") // RFC 4193
)

// checkNetwork keeps a list from naming addresses that are somebody else's.
func checkNetwork(v4, v6 netip.Prefix) error {
	if !v4.Addr().Is4() || v4.Bits() != v4Bits || v4 != v4.Masked() ||
		!slices.ContainsFunc(privateV4, func(p netip.Prefix) bool { return p.Contains(v4.Addr()) }) {
		return fmt.Errorf("%v is no private IPv4 /%d", v4, v4Bits)
	}
	if v6.Bits() != v6Bits || v6 != v6.Masked() || !privateV6.Contains(v6.Addr()) {
		return fmt.Errorf("%v is no /%d of fd00::/8", v6, v6Bits)
	}
	return nil
}

// checkName checks a name that is to be a device's.
func (l *List) checkName(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, taken := l.Device(name); taken {
		return cloudpal.E("", cloudpal.Exist, errors.New("a device of this name is in the list"))
	}
	return nil
}

// indexes returns, for each index that was ever given, the entry that revoked
// its last owner: 0 while the owner is in the list.
func (l *List) indexes() map[uint8]int {
	used := map[uint8]int{}
	for _, m := range l.members {
		used[m.Index] = m.revoked
	}
	return used
}

// nextIndex returns the lowest index that no device ever had. When all were
// used, it is the one that is free for the longest time; 0 when none is.
//
// An index is an address, and what was allowed to an address, or kept about it
// in some cache, must not become another device's.
func (l *List) nextIndex() uint8 {
	used := l.indexes()
	var oldest uint8
	for i := uint8(FirstIndex); i <= LastIndex; i++ {
		revoked, ever := used[i]
		if !ever {
			return i
		}
		if revoked != 0 && (oldest == 0 || revoked < used[oldest]) {
			oldest = i
		}
	}
	return oldest
}

// checkIndex holds everybody to the rule of nextIndex: an index that was used
// comes back only when all were.
func (l *List) checkIndex(index uint8) error {
	if index < FirstIndex || index > LastIndex {
		return cloudpal.E("", cloudpal.Invalid, fmt.Errorf("its index is not of %d to %d", FirstIndex, LastIndex))
	}
	used := l.indexes()
	revoked, ever := used[index]
	if ever && (revoked == 0 || len(used) <= LastIndex-FirstIndex) {
		return cloudpal.E("", cloudpal.Exist, errors.New("a device with this index is, or was, in the list"))
	}
	return nil
}
