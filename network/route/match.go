//go:build linux

package route

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// This file has the words that rules are made of. Registers 1 to 4 have 16
// bytes; those of 4 bytes that begin the first are 1, word1 and word2.
const (
	word1 = 9
	word2 = 10
)

func exprs(es ...expr.Any) []expr.Any { return es }

func join(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Verdicts.
var (
	accepted = exprs(&expr.Verdict{Kind: expr.VerdictAccept})
	dropped  = exprs(&expr.Verdict{Kind: expr.VerdictDrop})
)

func gone(chain string) []expr.Any {
	return exprs(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

func called(chain string) []expr.Any {
	return exprs(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain})
}

// Interfaces. Without its final zero a name is a prefix.
var (
	fromTap    = meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, []byte(Prefix))
	notFromTap = meta(expr.MetaKeyIIFNAME, expr.CmpOpNeq, []byte(Prefix))
	toTap      = meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, []byte(Prefix))
)

func toDevice(name string) []expr.Any {
	return meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, ifname(name))
}

func meta(key expr.MetaKey, op expr.CmpOp, value []byte) []expr.Any {
	return exprs(&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: value})
}

// Protocols.
var (
	ipv4 = meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV4})
	ipv6 = meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV6})
	udp4 = join(ipv4, protocol(unix.IPPROTO_UDP))
	udp6 = join(ipv6, protocol(unix.IPPROTO_UDP))
)

func protocol(p byte) []expr.Any { return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{p}) }

// A place is where something stands in a packet.
type place struct {
	base        expr.PayloadBase
	offset, len uint32
}

var (
	from4    = place{expr.PayloadBaseNetworkHeader, 12, 4}
	to4      = place{expr.PayloadBaseNetworkHeader, 16, 4}
	from6    = place{expr.PayloadBaseNetworkHeader, 8, 16}
	to6      = place{expr.PayloadBaseNetworkHeader, 24, 16}
	portFrom = place{expr.PayloadBaseTransportHeader, 0, 2}
	portTo   = place{expr.PayloadBaseTransportHeader, 2, 2}
	length   = place{expr.PayloadBaseTransportHeader, 4, 2} // of a UDP packet, its header and data
	message  = place{expr.PayloadBaseTransportHeader, 8, 4} // the type of a WireGuard message, in a UDP packet
)

func load(p place, register uint32) []expr.Any {
	return exprs(&expr.Payload{DestRegister: register, Base: p.base, Offset: p.offset, Len: p.len})
}

func big16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

func messageIs(kind byte) []expr.Any {
	return join(load(message, 1), exprs(&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind, 0, 0, 0}}))
}

func lengthIs(n uint16) []expr.Any {
	return join(load(length, 1), exprs(&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: big16(n)}))
}

func lengthAtLeast(n uint16) []expr.Any {
	return join(load(length, 1), exprs(&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: big16(n)}))
}

// within is a packet with an address in a prefix.
func within(at place, p netip.Prefix) []expr.Any {
	family := ipv4
	if p.Addr().Is6() {
		family = ipv6
	}
	return join(family, load(at, 1), exprs(
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: at.len, Mask: mask(p), Xor: make([]byte, at.len)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()}))
}

// not turns around a match that ends in a comparison.
func not(match []expr.Any) []expr.Any {
	last := *match[len(match)-1].(*expr.Cmp)
	last.Op = expr.CmpOpNeq
	return append(match[:len(match)-1:len(match)-1], &last)
}

func mask(p netip.Prefix) []byte {
	b := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

// globalUnicast is what goes to an IPv6 address of the world (RFC 4291, section
// 2.4, as far as it is assigned).
var globalUnicast = within(to6, netip.MustParsePrefix("2000::/3"))

// Addresses as the routing tables see them.
var (
	toOwn = exprs(&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}, isLocal)
	ofOwn = exprs(&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true}, isLocal)
	// routedElsewhere has a source that is not routed to where it came from.
	routedElsewhere = exprs(
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(0)})

	isLocal = &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(unix.RTN_LOCAL)}
)

func native(n uint32) []byte { return binaryutil.NativeEndian.PutUint32(n) }

// Connections.
var (
	isAnswer = state(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	isNew    = state(expr.CtStateBitNEW)
	notLed   = bits(expr.CtKeySTATUS, dstNAT, expr.CmpOpEq)
)

// dstNAT is set where a packet's destination was changed
// (linux/netfilter/nf_conntrack_common.h).
const dstNAT = 1 << 5

func state(any uint32) []expr.Any { return bits(expr.CtKeySTATE, any, expr.CmpOpNeq) }

// bits compares some bits of what conntrack knows with zero.
func bits(key expr.CtKey, some uint32, op expr.CmpOp) []expr.Any {
	return exprs(&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(some), Xor: native(0)},
		&expr.Cmp{Op: op, Register: 1, Data: native(0)})
}

// Sets and maps.

func inSet(set string, register uint32) []expr.Any {
	return exprs(&expr.Lookup{SourceRegister: register, SetName: set})
}

func notIn(set string, register uint32) []expr.Any {
	return exprs(&expr.Lookup{SourceRegister: register, SetName: set, Invert: true})
}

// mapped is a key that is in a map; what it is mapped to comes into a register.
func mapped(name string, register, into uint32) []expr.Any {
	return exprs(&expr.Lookup{SourceRegister: register, SetName: name, DestRegister: into, IsDestRegSet: true})
}

// update notes that now is when a key was seen last.
func update(set string, register uint32) []expr.Any {
	return exprs(&expr.Dynset{SrcRegKey: register, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE})
}

// flood is more than a source may send to VMs that never answered it: what comes
// beyond that would leave no room to others in the queue of wake0, or of a tap.
func flood(set string) []expr.Any {
	return exprs(&expr.Dynset{
		SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: 10 * time.Second,
		Exprs: exprs(&expr.Limit{Type: expr.LimitTypePkts, Rate: 1000, Unit: expr.LimitTimeSecond, Burst: 1000, Over: true}),
	})
}

// first64 leaves of an IPv6 address what one party has.
var first64 = exprs(&expr.Bitwise{
	SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask(netip.MustParsePrefix("::/64")), Xor: make([]byte, 16),
})

// maxGuestConns is how many connections one guest may have to the world.
const maxGuestConns = 4096

func tooMany(set string) []expr.Any {
	return exprs(&expr.Dynset{
		SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_ADD,
		Exprs: exprs(&expr.Connlimit{Count: maxGuestConns, Flags: 1}), // more than
	})
}
