//go:build linux

package route

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// burst is how many bytes may pass at once, beyond the rate: a quarter of a
// second's worth, and no less than a few large packets.
func burst(rate int64) uint32 { return uint32(min(max(rate/4, 128<<10), 64<<20)) }

// Limit bounds what passes, in bytes a second each way. What the VM receives
// waits its turn; what it sends beyond the rate is dropped, for it is the VM
// that must be slowed.
func (t *Tap) Limit(rate int64) error {
	rate = min(rate, 1<<32-1)
	shape := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: t.index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       uint64(rate), Buffer: burst(rate), Limit: 2 * burst(rate),
	}
	if err := netlink.QdiscReplace(shape); err != nil {
		return fmt.Errorf("limit what %s receives: %w", t.Name, err)
	}
	if err := limitSent(t.Name, rate); err != nil {
		return fmt.Errorf("limit what %s sends: %w", t.Name, err)
	}
	return nil
}

// Unlimit forgets the bound of what the VM sends. It comes before the tap goes,
// whose name another may have next.
func (t *Tap) Unlimit() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if err := forgetRate(c, t.Name); err != nil {
		return err
	}
	return c.Flush()
}

// limitSent adds the rule for one tap, in place of one that is there. It is a
// rule and no policer of tc's, since small kernels lack those.
func limitSent(name string, rate int64) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if err := forgetRate(c, name); err != nil {
		return err
	}
	table, chain := rateChain()
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, UserData: []byte(name), Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(name)},
		&expr.Limit{Type: expr.LimitTypePktBytes, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Over: true,
			// The kernel adds a second's worth to it (nft_limit_init).
			Burst: uint32(max(int64(burst(rate))-rate, 0))},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return c.Flush()
}

// forgetRate has c delete the rule for a tap, if there is one.
func forgetRate(c *nftables.Conn, name string) error {
	table, chain := rateChain()
	rules, err := c.GetRules(table, chain)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if string(r.UserData) != name {
			continue
		}
		if err := c.DelRule(r); err != nil {
			return err
		}
	}
	return nil
}

func rateChain() (*nftables.Table, *nftables.Chain) {
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	return t, &nftables.Chain{Name: rateChainName, Table: t}
}

// ifname is an interface's name as nftables compares it whole.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
