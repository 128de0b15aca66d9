//go:build linux

package route

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the one nftables table that is ours.
const tableName = "cloudpal"

// rateChainName is the chain with a rule for each tap that has a bound.
const rateChainName = "rate"

// Asleep is the name of the device that packets for VMs that sleep go to.
const Asleep = "wake0"

// Guard makes the rules, all at once, in place of those that an earlier process
// made. What is in its sets and maps stays: VMs that run go on being reached.
// The prefixes are where VMs have their addresses.
//
// There is one set of rules, whatever VMs there are. What differs between them
// is in maps and sets, which Rules.List fills.
//
//	prerouting  what comes out of a tap must have a source that is routed to it
//	rate        a tap that has a bound must keep to it (Tap.Limit)
//	shape       what comes for a VM's WireGuard must look like it
//	inward      a UDP port of the host leads to a VM's; output: for the host itself, too
//	input       the host hears only answers from taps
//	forward     the world hears answers, and those that may speak to it; VMs hear
//	            answers, and what is for their WireGuard
//	notice      who had traffic that is a reason to stay awake
//	outward     who speaks to the world does so as the host; as-host: how
func Guard(v4, v6 netip.Prefix) (*Rules, error) {
	err := guard(v4, v6, false)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
		// Another version's table has a set or chain of another kind.
		err = guard(v4, v6, true)
	}
	if err != nil {
		return nil, fmt.Errorf("set the nftables rules: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	return &Rules{table: &table{t, nil, v4, v6}}, nil
}

func guard(v4, v6 netip.Prefix, anew bool) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t, err := newTable(c, v4, v6, anew)
	if err != nil {
		return err
	}
	for _, s := range t.sets() {
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	if err := c.AddSet(t.private(), privateElements()); err != nil {
		return err
	}
	t.prerouting()
	t.shape()
	t.inward()
	t.notice()
	t.input()
	t.forward()
	t.outward()
	if err := c.Flush(); err != nil {
		return err
	}
	return t.masquerade()
}

// A table is the rules being made.
type table struct {
	*nftables.Table
	c      *nftables.Conn
	v4, v6 netip.Prefix
}

func newTable(c *nftables.Conn, v4, v6 netip.Prefix, anew bool) (*table, error) {
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	c.AddTable(t)
	if anew {
		c.DelTable(t)
		c.AddTable(t)
		return &table{t, c, v4, v6}, nil
	}
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, err
	}
	for _, ch := range chains {
		if ch.Table.Name == tableName && ch.Name != asHost { // that one is filled after
			c.FlushChain(ch)
		}
	}
	return &table{t, c, v4, v6}, nil
}

// hooked makes a chain that packets come to by themselves.
func (t *table) hooked(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority int) *nftables.Chain {
	p := nftables.ChainPriority(priority)
	return t.c.AddChain(&nftables.Chain{Name: name, Table: t.Table, Type: kind, Hooknum: hook, Priority: &p})
}

// plain makes a chain that packets are sent to.
func (t *table) plain(name string) *nftables.Chain {
	return t.c.AddChain(&nftables.Chain{Name: name, Table: t.Table})
}

// rule adds one, of all that is said.
func (t *table) rule(ch *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	t.c.AddRule(&nftables.Rule{Table: t.Table, Chain: ch, Exprs: all})
}

// The priorities of hooks (linux/netfilter_ipv4.h). Ours come just before those
// that others use for the same, so that a port that is promised is kept.
const (
	atRaw    = -300
	atMangle = -150
	atDstNAT = -100 - 1
	atFilter = 0
	atSrcNAT = 100 - 1
)

func (t *table) prerouting() {
	ch := t.hooked("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, atRaw)
	t.rule(ch, fromTap, routedElsewhere, dropped)
	t.hooked(rateChainName, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, atRaw)
}

// shape drops, before anything is remembered of it, what begins to speak to a
// VM's WireGuard port and is nothing that WireGuard says: most of what scans
// and floods send. It comes behind conntrack: answers to one of the host's own
// sockets, whose port may be any, are no beginning.
func (t *table) shape() {
	looks := t.plain("looks")
	for kind, length := range []uint16{1: 156, 2: 100, 3: 72} {
		if kind > 0 {
			t.rule(looks, messageIs(byte(kind)), lengthIs(length), accepted)
		}
	}
	t.rule(looks, messageIs(4), lengthAtLeast(40), accepted)
	t.rule(looks, dropped)

	ch := t.hooked("shape", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, atMangle)
	t.rule(ch, fromTap, accepted)
	t.rule(ch, isNew, udp4, toOwn, load(portTo, 1), inSet("ports", 1), gone("looks"))
	t.rule(ch, isNew, udp4, load(to4, 1), load(portTo, word1), inSet("peers4", 1), gone("looks"))
	t.rule(ch, isNew, udp6, load(to6, 1), load(portTo, 2), inSet("peers6", 1), gone("looks"))
}

// inward leads a port of each of the host's addresses to a VM. Guests are not
// led: to them the host is a stranger, and so are all others on it. Neither is
// what is sent to 127.0.0.1: it would need the kernel to let such packets out
// and in.
func (t *table) inward() {
	lead := join(load(portTo, 1), mapped("inward", 1, 1), exprs(&expr.NAT{
		Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: word1, Specified: true,
	}))
	ch := t.hooked("inward", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, atDstNAT)
	t.rule(ch, fromTap, accepted)
	t.rule(ch, udp4, toOwn, lead)
	out := t.hooked("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, atDstNAT)
	t.rule(out, udp4, toOwn, not(within(to4, netip.MustParsePrefix("127.0.0.0/8"))), lead)
}

// input has the host hear answers, and what is as good as one: a VM's WireGuard
// that speaks to a socket that has spoken to it, when conntrack has forgotten.
func (t *table) input() {
	ch := t.hooked("input", nftables.ChainTypeFilter, nftables.ChainHookInput, atFilter)
	t.rule(ch, notFromTap, accepted)
	t.rule(ch, isAnswer, gone("sent"))
	t.rule(ch, t.isHeard(), gone("sent"))
	t.rule(ch, dropped)

	as := t.hooked("input-as-host", nftables.ChainTypeNAT, nftables.ChainHookInput, atSrcNAT)
	t.rule(as, fromTap, udp4, load(from4, 1), load(portFrom, word1), mapped("outward", 1, 2), load(to4, 1), exprs(&expr.NAT{
		Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true,
	}))
}

// isHeard is what a VM's WireGuard sends to whom it was heard from within a day.
func (t *table) isHeard() []expr.Any {
	return join(udp4, load(from4, 1), load(portFrom, word1), inSet("peers4", 1),
		load(from4, 1), load(to4, word1), load(portTo, word2), inSet("heard4", 1))
}

func (t *table) forward() {
	in := t.plain("to-vm")
	t.rule(in, isAnswer, accepted)
	t.rule(in, ipv4, load(from4, 1), flood("flood4"), dropped)
	t.rule(in, ipv6, load(from6, 1), first64, flood("flood6"), dropped)
	t.rule(in, udp4, load(to4, 1), load(portTo, word1), inSet("peers4", 1), accepted)
	t.rule(in, udp6, load(to6, 1), load(portTo, 2), inSet("peers6", 1), accepted)
	t.rule(in, dropped)

	// One guest must not fill the host's table of connections.
	world := t.plain("world")
	t.rule(world, ipv4, load(from4, 1), tooMany("conns4"), dropped)
	t.rule(world, ipv6, load(from6, 1), tooMany("conns6"), dropped)
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		t.rule(world, protocol(proto), accepted)
	}
	t.rule(world, dropped)

	out := t.plain("from-vm")
	t.rule(out, isAnswer, accepted)
	t.rule(out, toTap, dropped)
	t.rule(out, toDevice(Asleep), dropped)
	t.rule(out, t.isHeard(), accepted)
	t.rule(out, ipv4, load(from4, 1), inSet("outbound4", 1), load(to4, 1), notIn("private", 1), gone("world"))
	t.rule(out, ipv6, load(from6, 1), inSet("outbound6", 1), globalUnicast, gone("world"))
	t.rule(out, dropped)

	ch := t.hooked("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, atFilter)
	t.rule(ch, fromTap, gone("from-vm"))
	t.rule(ch, toTap, gone("to-vm"))
	t.rule(ch, toDevice(Asleep), gone("to-vm"))
	// See Forward: where the host forwarded nothing before, it forwards
	// nothing else now.
	t.rule(ch, isNew, notLed, exprs(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}), inSet("uplinks", 1), dropped)
}

// notice remembers when a VM had traffic that is a reason to stay awake. Where
// there is WireGuard, only its data is: handshakes and keepalives have their own
// clock, and would never let it sleep.
func (t *table) notice() {
	const keepalive = 8 + 32
	isData := join(messageIs(4), lengthAtLeast(keepalive+1))
	t.remember()
	received, sent := t.plain("received"), t.plain("sent")
	for _, d := range []struct {
		ch       *nftables.Chain
		at4, at6 place
		port     place
	}{{received, to4, to6, portTo}, {sent, from4, from6, portFrom}} {
		t.rule(d.ch, udp4, load(d.at4, 1), load(d.port, word1), inSet("peers4", 1), isData, load(d.at4, 1), update("active4", 1))
		t.rule(d.ch, udp6, load(d.at6, 1), load(d.port, 2), inSet("peers6", 1), isData, load(d.at6, 1), update("active6", 1))
		t.rule(d.ch, ipv4, load(d.at4, 1), notIn("wireguard4", 1), update("active4", 1))
		t.rule(d.ch, ipv6, load(d.at6, 1), notIn("wireguard6", 1), update("active6", 1))
	}
	// Behind what a guest may send, and before its address is the host's.
	ch := t.hooked("notice", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, atMangle)
	t.rule(ch, toTap, called("remember"))
	t.rule(ch, toDevice(Asleep), called("remember"))
	t.rule(ch, toTap, gone("received"))
	t.rule(ch, within(from4, t.v4), gone("sent"))
	t.rule(ch, within(from6, t.v6), gone("sent"))
}

// remember fills heard4: a peer that is near, and that is not to be spoken to
// otherwise.
func (t *table) remember() {
	ch := t.plain("remember")
	to := join(udp4, load(to4, 1), load(portTo, word1), inSet("peers4", 1))
	heard := join(load(to4, 1), load(from4, word1), load(portFrom, word2), update("heard4", 1))
	t.rule(ch, to, load(from4, 1), inSet("private", 1), heard)
	t.rule(ch, to, ofOwn, heard)
}

// outward sends what leaves for the world to the chain that masquerade fills.
func (t *table) outward() {
	t.plain(asHost)
	ch := t.hooked("outward", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, atSrcNAT)
	t.rule(ch, toTap, accepted)
	t.rule(ch, toDevice(Asleep), accepted)
	t.rule(ch, gone(asHost))
}

// FirstPort and LastPort bound the host's ports that guests speak to the world
// from. No VM's WireGuard is reached at one of them.
const (
	FirstPort = 16384
	LastPort  = 32767
)
