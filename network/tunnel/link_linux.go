package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/tradle/cloudpal"
)

// What a way to everywhere needs: WireGuard's own packets bear a mark, and all
// that does not is looked up in a table of ours, after what the main table says
// of nearer networks. The numbers are ours to choose and also tell, after a
// crash, what was ours.
const (
	fwmark       = 0x7460
	tableNumber  = 7460
	rulePriority = 7460 // and the next
	tableName    = "cloudpal-connect"
)

// A link is what was changed in this machine's network.
type link struct {
	resolv     resolvFile
	hosts      hostsFile
	named      bool // names are in hosts
	dev        netlink.Link
	v6         bool // the machine has IPv6
	everything bool // all traffic goes into the tunnel
}

// OpenTUN opens a tunnel for the whole machine, by the interface LinkName. It
// needs root. The addresses of c.Routes lead into it; where they are all there
// are, all that is not for a network at hand does, too. While it is open, the
// machine asks c.DNS for names, or knows c.Hosts: see setDNS.
//
// What a tunnel that ended in a crash has left is removed first.
func OpenTUN(c Config) (*Tunnel, error) {
	const op = "open a tunnel for the whole machine"
	if err := c.check(); err != nil {
		return nil, err
	}
	if _, err := netlink.LinkByName(LinkName); err == nil {
		return nil, cloudpal.E(op, cloudpal.Exist, errors.New("there is an interface "+LinkName)).
			WithHint("end the other one: cloudpal disconnect")
	}
	if err := Restore(); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	d, err := tun.CreateTUN(LinkName, MTU)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	mark := uint32(0)
	if c.everything() {
		mark = fwmark
	}
	t, err := start(c, d, conn.NewDefaultBind(), mark)
	if err != nil {
		return nil, err
	}
	t.link = &link{resolv: resolvConf, hosts: etcHosts, everything: c.everything()}
	if err := t.link.set(c); err != nil {
		return nil, errors.Join(cloudpal.E(op, "", err), t.Close())
	}
	return t.begin(), nil
}

func (c Config) everything() bool {
	return slices.ContainsFunc(c.Routes, func(p netip.Prefix) bool { return p.Bits() == 0 })
}

// set makes the addresses, the routes and the rest.
func (l *link) set(c Config) error {
	dev, err := netlink.LinkByName(LinkName)
	if err != nil {
		return err
	}
	l.dev, l.v6 = dev, hasIPv6()
	if err := netlink.LinkSetUp(dev); err != nil {
		return fmt.Errorf("bring up %s: %w", LinkName, err)
	}
	for _, a := range c.Addrs {
		if err := l.addAddr(a); err != nil {
			return fmt.Errorf("add address %v: %w", a, err)
		}
	}
	for _, r := range c.Routes {
		if err := l.addRoute(r); err != nil {
			return fmt.Errorf("add the route to %v: %w", r, err)
		}
	}
	if c.everything() {
		if err := l.takeAll(c.Addrs); err != nil {
			return err
		}
	}
	return l.setDNS(c)
}

// hasIPv6 reports whether this machine has IPv6 at all.
func hasIPv6() bool {
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + LinkName + "/disable_ipv6")
	return err == nil && strings.TrimSpace(string(off)) == "0"
}

func (l *link) addAddr(a netip.Addr) error {
	if a.Is6() && !l.v6 {
		return nil
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return netlink.AddrReplace(l.dev, addr)
}

func (l *link) addRoute(p netip.Prefix) error {
	if p.Addr().Is6() && !l.v6 {
		return nil
	}
	r := &netlink.Route{LinkIndex: l.dev.Attrs().Index, Dst: ipNet(p), Scope: netlink.SCOPE_LINK}
	if p.Addr().Is6() {
		r.Scope = netlink.SCOPE_UNIVERSE
	}
	if p.Bits() == 0 {
		r.Table = tableNumber
	}
	return netlink.RouteReplace(r)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// takeAll leads everything that WireGuard did not send itself into the tunnel.
func (l *link) takeAll(own []netip.Addr) error {
	for _, family := range l.families() {
		if err := addRules(family); err != nil {
			return fmt.Errorf("add the routing rules: %w", err)
		}
	}
	// So that answers to marked packets pass a strict reverse path filter. It
	// stays: it means nothing to who marks nothing.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/src_valid_mark", []byte("1"), 0); err != nil {
		return fmt.Errorf("let marks count: %w", err)
	}
	return setTable(own)
}

func (l *link) families() []int {
	if l.v6 {
		return []int{netlink.FAMILY_V4, netlink.FAMILY_V6}
	}
	return []int{netlink.FAMILY_V4}
}

// addRules adds two: the main table but its default route; then, for what bears
// no mark, ours.
func addRules(family int) error {
	nearer := netlink.NewRule()
	nearer.Family, nearer.Priority = family, rulePriority
	nearer.Table, nearer.SuppressPrefixlen = unix.RT_TABLE_MAIN, 0
	rest := netlink.NewRule()
	rest.Family, rest.Priority = family, rulePriority+1
	rest.Table, rest.Mark, rest.Invert = tableNumber, fwmark, true
	return errors.Join(netlink.RuleAdd(nearer), netlink.RuleAdd(rest))
}

// setTable makes the rules of nftables: nobody outside the tunnel speaks to our
// addresses in it, and the answers to marked packets get their mark.
func setTable(own []netip.Addr) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("speak to nftables: %w", err)
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	add := func(ch *nftables.Chain, e ...expr.Any) { c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: e}) }
	chain := func(name string, hook *nftables.ChainHook, at *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: at})
	}
	raw := chain("foreign", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	for _, a := range own {
		add(raw, notThroughTunnelTo(a)...)
	}
	mark := binaryutil.NativeEndian.PutUint32(fwmark)
	leaving := chain("leaving", nftables.ChainHookPostrouting, nftables.ChainPriorityMangle)
	add(leaving,
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: mark},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true})
	coming := chain("coming", nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	add(coming,
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: mark},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("set the nftables rules: %w", err)
	}
	return nil
}

// notThroughTunnelTo drops what comes to an address of ours by another
// interface, but from this machine itself.
func notThroughTunnelTo(a netip.Addr) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16)
	if a.Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, LinkName)
	local := make([]byte, 4)
	binary.NativeEndian.PutUint32(local, unix.RTN_LOCAL)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(a.BitLen() / 8)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
		&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: local},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// Around returns a Dialer whose connections do not go through the tunnel,
// whatever else does.
func (t *Tunnel) Around() *net.Dialer {
	d := &net.Dialer{Timeout: dialTimeout}
	if t.link == nil || !t.link.everything {
		return d
	}
	d.Control = func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, fwmark)
		})
		return errors.Join(err, controlErr)
	}
	return d
}

// InUse returns the networks that this machine has routes to, but the default
// ones: an overlay had better be none of them.
func InUse() (list []netip.Prefix) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, _ := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			a, ok := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			if ok && bits > 0 {
				list = append(list, netip.PrefixFrom(a.Unmap(), bits))
			}
		}
	}
	return list
}

// undo restores what is not gone with the interface itself.
func (l *link) undo() error { return restore(l.resolv, l.hosts) }

// Restore removes what a tunnel of the whole machine has left that ended in a
// crash: it puts this machine's own DNS servers back and removes the rules that
// are not gone with the interface. It must not be called while another process
// has such a tunnel open.
func Restore() error { return restore(resolvConf, etcHosts) }

func restore(resolv resolvFile, hosts hostsFile) error {
	errs := []error{resolv.restore(), hosts.set(nil)}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			continue // it has no IPv6
		}
		for _, r := range rules {
			ours := r.Priority == rulePriority && r.Table == unix.RT_TABLE_MAIN || r.Priority == rulePriority+1 && r.Table == tableNumber
			if ours {
				r.Family = family
				errs = append(errs, netlink.RuleDel(&r))
			}
		}
	}
	errs = append(errs, removeTable())
	if err := errors.Join(errs...); err != nil {
		return cloudpal.E("restore this machine's network", "", err)
	}
	return nil
}

func removeTable() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil // a kernel without nftables has none of ours
	}
	for _, t := range tables {
		if t.Name == tableName {
			c.DelTable(t)
		}
	}
	return c.Flush()
}
