// Package firewall is the core's own: what may come to it, and what may go
// through it. It does not rely on the host's, which belongs to somebody else.
//
//	          uplink (the host, the world)            overlay (the devices)
//	             │                                        │
//	   WireGuard │ UDP 51820                     names    │ port 53
//	   the lock  │ TCP 7460, from the host only  console  │ TCP 80
//	   vminit    │ from fe80::1 only             ping     │
//	   ping      │                                        │
//	             ▼                                        ▼
//	           core ◄──────────────────────────────────── core
//
//	device ──► device      always
//	device ──► the world   those that have the exit, as the core
//	the world ──► device   answers to that
//	the host or the world in a device's or the core's name: nothing
package firewall

import (
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// tableName is the one nftables table that is ours.
const tableName = "pal"

// Rules say who may speak to the core and through it.
type Rules struct {
	Uplink   string     // the device that leads to the host
	Host     netip.Addr // who may ask for the lock
	LockPort uint16     // TCP
	Overlay  *Overlay   // nil while the core is locked
}

// An Overlay is the pal's own network.
type Overlay struct {
	Device    string
	WireGuard uint16 // UDP, on the uplink
	V4, V6    netip.Prefix
	Exits     []netip.Addr // devices' addresses that may speak to the world
	Exit6     bool         // by IPv6, too
}

// Ports of what the core does for devices.
const (
	dnsPort  = 53
	httpPort = 80
)

// vminitPort is where the guest's PID 1 answers the host, on its link-local
// address, by TCP and UDP; hostLink is the host's.
const vminitPort = 1

var hostLink = netip.MustParseAddr("fe80::1")

// Apply makes these the rules, all at once, instead of those before. What is
// not allowed any more ends at once, also for connections that are there.
func Apply(r Rules) error {
	const op = "set the core's firewall"
	c, err := nftables.New()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	b := builder{c: c, table: t, Rules: r}
	if err := b.build(); err != nil {
		return cloudpal.E(op, "", err)
	}
	if err := c.Flush(); err != nil {
		return cloudpal.E(op, "", err)
	}
	return nil
}

type builder struct {
	Rules
	c     *nftables.Conn
	table *nftables.Table
}

func (b *builder) build() error {
	b.early()
	b.input()
	if b.Overlay == nil {
		b.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, nftables.ChainPolicyDrop)
		return nil
	}
	b.late()
	b.nat()
	return b.forward()
}

// early drops what claims to be of the overlay and is not, before anything
// else is thought of it, and spares WireGuard's own packets the tracking of
// connections.
func (b *builder) early() {
	in := b.chain("early", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, nftables.ChainPolicyAccept)
	if b.Overlay == nil {
		return
	}
	for _, p := range b.prefixes() {
		b.rule(in, from(b.Uplink), source(p), drop)
		b.rule(in, from(b.Uplink), destination(p), drop)
	}
	out := b.chain("early-out", nftables.ChainTypeFilter, nftables.ChainHookOutput, -300, nftables.ChainPolicyAccept)
	b.rule(in, from(b.Uplink), proto(unix.IPPROTO_UDP), toPort(b.Overlay.WireGuard), notrack)
	b.rule(out, to(b.Uplink), proto(unix.IPPROTO_UDP), fromPort(b.Overlay.WireGuard), notrack)
}

func (b *builder) input() {
	ch := b.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, 0, nftables.ChainPolicyDrop)
	if b.Overlay != nil {
		b.rule(ch, from(b.Uplink), proto(unix.IPPROTO_UDP), toPort(b.Overlay.WireGuard), accept)
		b.fromDevices(ch)
	}
	for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		b.rule(ch, from(b.Uplink), source(single(hostLink)), proto(p), toPort(vminitPort), accept)
	}
	b.rule(ch, from("lo"), accept)
	b.rule(ch, answers, accept)
	if b.Host.IsValid() {
		b.rule(ch, from(b.Uplink), source(single(b.Host)), proto(unix.IPPROTO_TCP), toPort(b.LockPort), accept)
	}
	b.rule(ch, from(b.Uplink), v4, proto(unix.IPPROTO_ICMP), icmpType(8), accept)     // echo request
	b.rule(ch, from(b.Uplink), v6, proto(unix.IPPROTO_ICMPV6), icmpType(128), accept) // likewise
	b.rule(ch, from(b.Uplink), v6, proto(unix.IPPROTO_ICMPV6), icmpType(135), accept) // neighbour solicitation
	b.rule(ch, from(b.Uplink), v6, proto(unix.IPPROTO_ICMPV6), icmpType(136), accept) // and advertisement
}

// fromDevices lets them use what the core does for them. The rest is refused
// with an answer, so that nobody waits.
func (b *builder) fromDevices(ch *nftables.Chain) {
	dev := b.Overlay.Device
	for _, p := range b.prefixes() {
		b.rule(ch, from(dev), destination(p), proto(unix.IPPROTO_UDP), toPort(dnsPort), accept)
		b.rule(ch, from(dev), destination(p), proto(unix.IPPROTO_TCP), toPort(dnsPort), accept)
		b.rule(ch, from(dev), destination(p), proto(unix.IPPROTO_TCP), toPort(httpPort), accept)
	}
	b.rule(ch, from(dev), v4, proto(unix.IPPROTO_ICMP), icmpType(8), accept)
	b.rule(ch, from(dev), v6, proto(unix.IPPROTO_ICMPV6), icmpType(128), accept)
	b.rule(ch, from(dev), answers, accept)
	b.rule(ch, from(dev), reject)
}

// late keeps what is the overlay's from leaving in the clear.
func (b *builder) late() {
	ch := b.chain("late", nftables.ChainTypeFilter, nftables.ChainHookOutput, 0, nftables.ChainPolicyAccept)
	for _, p := range b.prefixes() {
		b.rule(ch, to(b.Uplink), destination(p), drop)
		b.rule(ch, to(b.Uplink), source(p), drop)
	}
}

func (b *builder) forward() error {
	ch := b.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, nftables.ChainPolicyDrop)
	dev := b.Overlay.Device
	for _, p := range b.prefixes() {
		b.rule(ch, from(dev), to(dev), source(p), destination(p), accept)
	}
	exits4, exits6 := b.exits(netip.Addr.Is4), b.exits(netip.Addr.Is6)
	if err := b.exit(ch, "exits4", nftables.TypeIPAddr, exits4, v4, 12, 4); err != nil {
		return err
	}
	if b.Overlay.Exit6 {
		if err := b.exit(ch, "exits6", nftables.TypeIP6Addr, exits6, v6, 8, 16); err != nil {
			return err
		}
	}
	b.rule(ch, from(b.Uplink), to(dev), answers, accept)
	b.rule(ch, from(dev), reject)
	return nil
}

func (b *builder) exits(is func(netip.Addr) bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(b.Overlay.Exits), func(a netip.Addr) bool { return !is(a) })
}

// exit lets those devices out. It comes before the answers: a device that has
// lost its exit has no connections any more.
func (b *builder) exit(ch *nftables.Chain, name string, kind nftables.SetDatatype, devices []netip.Addr, family match, offset, size uint32) error {
	set := &nftables.Set{Table: b.table, Name: name, KeyType: kind}
	var elements []nftables.SetElement
	for _, a := range devices {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
	}
	if err := b.c.AddSet(set, elements); err != nil {
		return err
	}
	in := match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
	b.rule(ch, from(b.Overlay.Device), to(b.Uplink), family, in, accept)
	return nil
}

// nat lets devices speak to the world as the core.
func (b *builder) nat() {
	ch := b.chain("nat", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100, nftables.ChainPolicyAccept)
	for _, p := range b.prefixes() {
		b.rule(ch, to(b.Uplink), source(p), masquerade)
	}
}

func (b *builder) prefixes() []netip.Prefix {
	return []netip.Prefix{b.Overlay.V4.Masked(), b.Overlay.V6.Masked()}
}

func (b *builder) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority int32, policy nftables.ChainPolicy) *nftables.Chain {
	p := nftables.ChainPriority(priority)
	return b.c.AddChain(&nftables.Chain{Name: name, Table: b.table, Type: kind, Hooknum: hook, Priority: &p, Policy: &policy})
}

// rule adds one: where all of it matches, the last says what happens.
func (b *builder) rule(ch *nftables.Chain, parts ...match) {
	b.c.AddRule(&nftables.Rule{Table: b.table, Chain: ch, Exprs: slices.Concat(parts...)})
}

// A match is a part of a rule.
type match []expr.Any

var (
	accept     = match{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop       = match{&expr.Verdict{Kind: expr.VerdictDrop}}
	reject     = match{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
	notrack    = match{&expr.Notrack{}}
	masquerade = match{&expr.Masq{}}

	v4 = equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, []byte{unix.NFPROTO_IPV4})
	v6 = equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, []byte{unix.NFPROTO_IPV6})

	// answers are packets of a connection that was allowed, and ICMP errors
	// about one.
	answers = match{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
)

func from(device string) match {
	return equal(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, deviceName(device))
}

func to(device string) match {
	return equal(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, deviceName(device))
}

func proto(p byte) match {
	return equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{p})
}

func fromPort(p uint16) match { return equal(transport(0, 2), binaryutil.BigEndian.PutUint16(p)) }
func toPort(p uint16) match   { return equal(transport(2, 2), binaryutil.BigEndian.PutUint16(p)) }
func icmpType(t byte) match   { return equal(transport(0, 1), []byte{t}) }

func transport(offset, size uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: size}
}

// source and destination match addresses: at offset 12 and 16 of an IPv4
// header, 8 and 24 of an IPv6 one.
func source(p netip.Prefix) match { return address(p, 12, 8) }

func destination(p netip.Prefix) match { return address(p, 16, 24) }

func address(p netip.Prefix, at4, at6 uint32) match {
	family, offset, size := v4, at4, uint32(4)
	if p.Addr().Is6() {
		family, offset, size = v6, at6, 16
	}
	m := slices.Clone(family)
	m = append(m, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size})
	if p.Bits() < p.Addr().BitLen() {
		m = append(m, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size,
			Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()), Xor: make([]byte, size)})
	}
	return append(m, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

func equal(what expr.Any, value []byte) match {
	return match{what, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

func deviceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
