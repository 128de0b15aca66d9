// Package overlay is the private network of a pal and its devices: which
// addresses it has, and how a device is told of it that has nothing of ours
// but the WireGuard app.
//
// A pal's overlay is an IPv4 /24 and an IPv6 /64. The core is number 1 in both,
// a device has the number that the device list gives it: with index 3 it is
// 10.7.8.3 and fd12:3456:789a::3.
package overlay

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/tradle/cloudpal"
)

// Where the IPv4 range is taken from. 192.168.0.0/16 is left to the networks in
// people's homes.
var pools = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("100.64.0.0/10"),
}

// crowded are ranges that much software and many networks take without asking:
// a device may be in one of them tomorrow.
var crowded = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/15"),      // offices, clouds
	netip.MustParsePrefix("10.8.0.0/16"),      // OpenVPN
	netip.MustParsePrefix("10.10.0.0/16"),     // offices
	netip.MustParsePrefix("10.42.0.0/15"),     // k3s
	netip.MustParsePrefix("10.88.0.0/15"),     // Podman
	netip.MustParsePrefix("10.96.0.0/12"),     // Kubernetes' services
	netip.MustParsePrefix("10.201.0.0/16"),    // a center's own VMs
	netip.MustParsePrefix("10.244.0.0/16"),    // Kubernetes' pods
	netip.MustParsePrefix("172.16.0.0/15"),    // offices, docker0
	netip.MustParsePrefix("172.18.0.0/15"),    // Docker's networks: the first ones
	netip.MustParsePrefix("172.20.0.0/14"),    // likewise
	netip.MustParsePrefix("100.100.100.0/24"), // Tailscale's DNS, Alibaba's services
}

// Choose returns ranges for an overlay, always the same for the same seed and
// the same avoid: an IPv4 /24 out of the private ranges and an IPv6 /64 by RFC
// 4193. They overlap with none of avoid, which are the ranges in use where the
// devices are; a default route in it is no range in use. The error is
// cloudpal.NoSpace when avoid leaves nothing.
func Choose(seed [32]byte, avoid []netip.Prefix) (v4, v6 netip.Prefix, err error) {
	avoid = slices.DeleteFunc(slices.Clone(avoid), func(p netip.Prefix) bool { return p.Bits() <= 0 })
	v4 = chooseV4(seed, append(slices.Clone(crowded), avoid...))
	if !v4.IsValid() {
		v4 = chooseV4(seed, avoid) // rather crowded than none
	}
	v6 = chooseV6(seed, avoid)
	if !v4.IsValid() || !v6.IsValid() {
		return netip.Prefix{}, netip.Prefix{}, cloudpal.E("choose the overlay's addresses", cloudpal.NoSpace,
			errors.New("every private range is in use here")).
			WithHint("look at ip route: does a VPN claim all of 10.0.0.0/8, 172.16.0.0/12 and 100.64.0.0/10?")
	}
	return v4, v6, nil
}

// chooseV4 goes through all /24s of the pools, from one that the seed names, and
// with a step that leads to each of them once.
func chooseV4(seed [32]byte, avoid []netip.Prefix) netip.Prefix {
	total := 0
	for _, pool := range pools {
		total += count24(pool)
	}
	d := digest(seed, "v4", 0)
	at := int(binary.BigEndian.Uint32(d[:]) % uint32(total))
	const step = 7919 // a prime that does not divide total
	for range total {
		if p := nth24(at); free(p, avoid) {
			return p
		}
		at = (at + step) % total
	}
	return netip.Prefix{}
}

// count24 returns how many /24s are in p.
func count24(p netip.Prefix) int { return 1 << (24 - p.Bits()) }

// nth24 returns the pools' /24 number n.
func nth24(n int) netip.Prefix {
	for _, pool := range pools {
		if n >= count24(pool) {
			n -= count24(pool)
			continue
		}
		a := pool.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(n)<<8)
		return netip.PrefixFrom(netip.AddrFrom4(a), 24)
	}
	return netip.Prefix{}
}

// chooseV6 makes the 40 random bits of a unique local prefix (RFC 4193, section
// 3.2) from the seed; the subnet is 0.
func chooseV6(seed [32]byte, avoid []netip.Prefix) netip.Prefix {
	for try := range byte(255) {
		d := digest(seed, "v6", try)
		a := [16]byte{0: 0xfd}
		copy(a[1:6], d[:5])
		if p := netip.PrefixFrom(netip.AddrFrom16(a), 64); free(p, avoid) {
			return p
		}
	}
	return netip.Prefix{}
}

func digest(seed [32]byte, what string, try byte) [32]byte {
	return sha256.Sum256(append(append([]byte("CloudPal overlay v1 "+what), try), seed[:]...))
}

func free(p netip.Prefix, avoid []netip.Prefix) bool {
	return !slices.ContainsFunc(avoid, p.Overlaps)
}

// Addr returns the address of the device with that index, or of the core, in
// an overlay's range; ranges are a /24 of IPv4 or a /64 of IPv6.
func Addr(p netip.Prefix, index uint8) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	b[len(b)-1] = index
	a, _ := netip.AddrFromSlice(b)
	return a
}
