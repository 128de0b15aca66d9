//go:build linux

package route

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// asHost is the chain with the rules of this file. They are made by a message
// of our own: package nftables does not tell the kernel that a port is given
// (NF_NAT_RANGE_PROTO_SPECIFIED, expr.Masq of v0.3.0), and it then takes any.
const asHost = "as-host"

// masquerade fills the chain asHost, all at once: VMs speak to the world as the
// host. Their WireGuard does so from the port that it is reached at; all else
// from ports that nobody is reached at.
func (t *table) masquerade() error {
	peers := join(udp4, load(from4, 1), load(portFrom, word1), mapped("outward", 1, 1))
	others := join(within(from4, t.v4), not(within(to4, t.v4)), exprs(
		&expr.Immediate{Register: 1, Data: big16(FirstPort)}, &expr.Immediate{Register: 2, Data: big16(LastPort)}))
	var m messages
	m.begin()
	m.add(unix.NFT_MSG_DELRULE, 0, t.chainOf(asHost))
	m.rule(t.chainOf(asHost), peers, masq(1, 1))
	m.rule(t.chainOf(asHost), others, masq(1, 2))
	m.end()
	if m.err != nil {
		return m.err
	}
	return m.send()
}

func (t *table) chainOf(name string) []netlink.Attribute {
	return []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: zeroed(t.Name)},
		{Type: unix.NFTA_RULE_CHAIN, Data: zeroed(name)},
	}
}

// masq is the expression "masquerade to" the ports in two registers.
func masq(least, most uint32) []netlink.Attribute {
	return []netlink.Attribute{
		{Type: unix.NFTA_MASQ_FLAGS, Data: big32(unix.NF_NAT_RANGE_PROTO_SPECIFIED)},
		{Type: unix.NFTA_MASQ_REG_PROTO_MIN, Data: big32(least)},
		{Type: unix.NFTA_MASQ_REG_PROTO_MAX, Data: big32(most)},
	}
}

// messages are a batch to nftables (linux/netfilter/nfnetlink.h).
type messages struct {
	all []netlink.Message
	err error
}

func (m *messages) begin() { m.raw(unix.NFNL_MSG_BATCH_BEGIN, netlink.Request, batchOf(), nil) }
func (m *messages) end()   { m.raw(unix.NFNL_MSG_BATCH_END, netlink.Request, batchOf(), nil) }

// batchOf is the header of who begins or ends a batch for nftables.
func batchOf() []byte { return []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES} }

func (m *messages) add(kind uint16, flags netlink.HeaderFlags, attrs []netlink.Attribute) {
	m.raw(unix.NFNL_SUBSYS_NFTABLES<<8|kind, netlink.Request|netlink.Acknowledge|flags,
		[]byte{unix.NFPROTO_INET, 0, 0, 0}, attrs)
}

func (m *messages) raw(kind uint16, flags netlink.HeaderFlags, header []byte, attrs []netlink.Attribute) {
	m.all = append(m.all, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: flags},
		Data:   append(header, m.attrs(attrs)...),
	})
}

func (m *messages) attrs(as []netlink.Attribute) []byte {
	b, err := netlink.MarshalAttributes(as)
	if err != nil && m.err == nil {
		m.err = fmt.Errorf("write a message to nftables: %w", err)
	}
	return b
}

// rule adds one that ends in the given masquerade.
func (m *messages) rule(chain []netlink.Attribute, match []expr.Any, last []netlink.Attribute) {
	var list []netlink.Attribute
	for _, e := range match {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil && m.err == nil {
			m.err = err
		}
		list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b})
	}
	list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: m.attrs([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: zeroed("masq")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: m.attrs(last)},
	})})
	m.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, append(chain, netlink.Attribute{
		Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: m.attrs(list),
	}))
}

func (m *messages) send() error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.SendMessages(m.all); err != nil {
		return err
	}
	// All but the batch's own two ends are acknowledged.
	for heard := 0; heard < len(m.all)-2; {
		answers, err := c.Receive()
		if err != nil {
			return err
		}
		heard += len(answers)
	}
	return nil
}

func zeroed(s string) []byte { return append([]byte(s), 0) }

func big32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
