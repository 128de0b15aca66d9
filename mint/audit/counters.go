package audit

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

const (
	stale    = 3 * time.Hour  // counters are of the last hour that is over
	spentDue = 26 * time.Hour // after an hour, its spent serials are published: a day late
)

// fetchCounters returns the counters of an epoch that the mint has signed, or nil
// where it has not.
func (a *auditor) fetchCounters(ctx context.Context, m *manifest.Manifest) (*api.Counters, error) {
	c, err := a.Mint.Counters(ctx, m.Epoch)
	if withheld(err) {
		a.find(nil, "it keeps back the counters of epoch %d", m.Epoch)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	name := a.keep(fmt.Sprintf("counters-%d", m.Epoch), c)
	by := a.manifests[c.Signed]
	if by == nil || c.Verify(by.Receipt) != nil {
		a.find(name, "it did not sign the counters of epoch %d with a receipt key that is logged", m.Epoch)
		return nil, nil
	}
	if c.Issuer != m.Issuer || c.Epoch != m.Epoch {
		a.find(name, "for epoch %d it gives the counters of %s, epoch %d", m.Epoch, c.Issuer, c.Epoch)
		return nil, nil
	}
	if age := a.Now.Sub(c.Time); age > stale || age < -stale {
		a.find(name, "the counters of epoch %d are of %s", m.Epoch, c.Time.UTC().Format(time.RFC3339))
	}
	return &c, nil
}

// checkCounters checks an epoch's counters: each key's by themselves, and that the
// change that was given is not worth more than what was paid.
func (a *auditor) checkCounters(ctx context.Context, m *manifest.Manifest, c api.Counters) error {
	name := []string{fmt.Sprintf("counters-%d", m.Epoch)}
	a.checkUnchanged(c)
	counted := map[ticket.KeyID]api.KeyCounter{}
	for _, k := range c.Keys {
		if len(k.Key) != len(ticket.KeyID{}) {
			a.find(name, "epoch %d has counters of something that is no key", m.Epoch)
			continue
		}
		id := ticket.KeyID(k.Key)
		if known := a.keys[id]; known == nil || known.Epoch != m.Epoch {
			a.find(name, "epoch %d has counters of the key %x, which is not logged for it", m.Epoch, id)
		}
		if _, ok := counted[id]; ok {
			a.find(name, "epoch %d has the key %x twice", m.Epoch, id)
		}
		counted[id] = k
	}
	paid, back := map[ticket.Class]int64{}, map[ticket.Class]int64{}
	for _, k := range m.All() {
		n, ok := counted[k.ID()]
		if !ok {
			a.find(name, "the counters of epoch %d leave %s out", m.Epoch, nameOf(k))
			continue
		}
		a.until[k.ID()] = c.Time
		if err := a.checkKey(ctx, k, n, c.Time, name); err != nil {
			return err
		}
		paid[k.Class] += n.Redeemed * int64(k.Denomination)
		back[k.Class] += n.Refunded * int64(k.Denomination)
	}
	for _, class := range ticket.Classes {
		if back[class] > paid[class] {
			a.find(name, "epoch %d: of %s tickets %d units were given back, and only %d paid", m.Epoch, class, back[class], paid[class])
		}
	}
	return nil
}

func nameOf(k *ticket.Key) string {
	return fmt.Sprintf("%s %d of epoch %d", k.Class, k.Denomination, k.Epoch)
}

// checkKey checks the counters of a key, hour by hour: at no time was more redeemed
// than issued.
func (a *auditor) checkKey(ctx context.Context, k *ticket.Key, c api.KeyCounter, at time.Time, name []string) error {
	a.report.Keys++
	var issued, redeemed, refunded int64
	last := int64(-1)
	for _, h := range c.Hours {
		switch {
		case h.Hour <= last:
			a.find(name, "%s: the hours are not in their order", nameOf(k))
		case !endOf(h.Hour).Before(at.Add(time.Hour)):
			a.find(name, "%s: an hour is counted that is not over", nameOf(k))
		case h.Issued < 0 || h.Redeemed < 0 || h.Refunded < 0 || h.Refunded > h.Issued:
			a.find(name, "%s: in the hour of %s, %d were issued, %d redeemed and %d of the issued were change", nameOf(k), hourName(h.Hour), h.Issued, h.Redeemed, h.Refunded)
		}
		last = h.Hour
		issued, redeemed, refunded = issued+h.Issued, redeemed+h.Redeemed, refunded+h.Refunded
		if redeemed > issued && redeemed-h.Redeemed <= issued-h.Issued { // where it begins
			a.find(name, "%s: by the hour of %s, %d were redeemed and only %d issued: it printed money", nameOf(k), hourName(h.Hour), redeemed, issued)
		}
		if err := a.checkHour(ctx, k, h, at, name); err != nil {
			return err
		}
	}
	if issued != c.Issued || redeemed != c.Redeemed || refunded != c.Refunded {
		a.find(name, "%s: the hours have %d issued, %d redeemed and %d of change, and the sums %d, %d and %d", nameOf(k), issued, redeemed, refunded, c.Issued, c.Redeemed, c.Refunded)
	}
	if c.Redeemed > c.Issued && redeemed <= issued {
		a.find(name, "%s: %d were redeemed and only %d issued: it printed money", nameOf(k), c.Redeemed, c.Issued)
	}
	a.report.Issued, a.report.Redeemed = a.report.Issued+issued, a.report.Redeemed+redeemed
	return nil
}

func endOf(hour int64) time.Time { return time.Unix((hour+1)*3600, 0) }

func hourName(hour int64) string { return time.Unix(hour*3600, 0).UTC().Format("2006-01-02 15:00") }

// checkHour checks that an hour's roots are over as many leaves as it counts, none of
// which another hour has.
func (a *auditor) checkHour(ctx context.Context, k *ticket.Key, h api.Hour, at time.Time, name []string) error {
	a.report.Hours++
	if err := a.checkLeaves(ctx, k, h.Hour, api.LeafOutputs, h.Issued, h.Outputs, a.outputs, name); err != nil {
		return err
	}
	if len(h.Spent) == 0 && at.Sub(endOf(h.Hour)) < spentDue {
		return nil
	}
	if err := a.checkLeaves(ctx, k, h.Hour, api.LeafSpent, h.Redeemed, h.Spent, a.spent, name); err != nil {
		return err
	}
	return a.checkDeposits(ctx, k, h, name)
}

// checkDeposits checks what was deposited in an hour: not more than was redeemed, the
// rest of which was swapped.
func (a *auditor) checkDeposits(ctx context.Context, k *ticket.Key, h api.Hour, name []string) error {
	if len(h.Deposits) == 0 {
		if h.Redeemed > 0 {
			a.find(name, "%s: it does not say which of the redeemed of %s were deposited", nameOf(k), hourName(h.Hour))
		}
		return nil
	}
	leaves, err := a.leaves(ctx, k, h.Hour, api.LeafDeposits, h.Deposits, name)
	if err != nil {
		return err
	}
	if int64(len(leaves)) > h.Redeemed {
		a.find(name, "%s: of %s it shows %d deposits, and counts %d redeemed", nameOf(k), hourName(h.Hour), len(leaves), h.Redeemed)
	}
	a.deposits[keyHour{k.ID(), h.Hour}] = leaves
	return nil
}

func (a *auditor) checkLeaves(ctx context.Context, k *ticket.Key, hour int64, kind api.Kind, n int64, root []byte, all map[[32]byte]bool, name []string) error {
	if len(root) == 0 {
		if n > 0 {
			a.find(name, "%s: it does not say what the %d %s of %s are", nameOf(k), n, kind, hourName(hour))
		}
		return nil
	}
	leaves, err := a.leaves(ctx, k, hour, kind, root, name)
	if err != nil {
		return err
	}
	if int64(len(leaves)) != n {
		a.find(name, "%s: of %s it counts %d %s, and shows %d", nameOf(k), hourName(hour), n, kind, len(leaves))
	}
	for _, leaf := range leaves {
		if all[leaf] {
			a.find(name, "%s: it has one of the %s of %s twice", nameOf(k), kind, hourName(hour))
		}
		all[leaf] = true
	}
	return nil
}

// leaves returns what a root is over, as the mint shows it.
func (a *auditor) leaves(ctx context.Context, k *ticket.Key, hour int64, kind api.Kind, root []byte, name []string) ([][32]byte, error) {
	leaves, err := a.Mint.Leaves(ctx, k.ID(), kind, hour)
	if withheld(err) {
		a.find(name, "%s: it keeps back the %s of %s", nameOf(k), kind, hourName(hour))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if sum := api.Root(leaves); !bytes.Equal(sum[:], root) {
		a.find(name, "%s: the root of the %s of %s is not that of what it shows", nameOf(k), kind, hourName(hour))
	}
	return leaves, nil
}

// checkUnchanged compares counters with those that were signed before: an hour that
// is over stays what it is.
func (a *auditor) checkUnchanged(c api.Counters) {
	before, ok := a.Config.Memory.Counters[c.Epoch]
	if !ok {
		return
	}
	name := append(a.keep(fmt.Sprintf("counters-%d-before", c.Epoch), before), fmt.Sprintf("counters-%d", c.Epoch))
	if c.Time.Before(before.Time) {
		a.find(name, "epoch %d: it gives older counters than before", c.Epoch)
		return
	}
	for _, was := range before.Keys {
		i := slices.IndexFunc(c.Keys, func(k api.KeyCounter) bool { return bytes.Equal(k.Key, was.Key) })
		if i < 0 {
			continue // which is found where all keys are looked for
		}
		for _, h := range was.Hours {
			j := slices.IndexFunc(c.Keys[i].Hours, func(n api.Hour) bool { return n.Hour == h.Hour })
			if j < 0 || !same(h, c.Keys[i].Hours[j]) {
				a.find(name, "epoch %d: it changed what it had said of the key %x in the hour of %s", c.Epoch, was.Key, hourName(h.Hour))
			}
		}
		a.checkNothingInserted(c.Epoch, was, c.Keys[i], before.Time, name)
	}
}

// checkNothingInserted looks for hours that were over, and had nothing, before.
func (a *auditor) checkNothingInserted(e ticket.Epoch, was, is api.KeyCounter, at time.Time, name []string) {
	for _, h := range is.Hours {
		known := slices.ContainsFunc(was.Hours, func(o api.Hour) bool { return o.Hour == h.Hour })
		if !known && !endOf(h.Hour).Add(time.Hour).After(at) {
			a.find(name, "epoch %d: it counts in the hour of %s, for the key %x, what it had not before", e, hourName(h.Hour), was.Key)
		}
	}
}

// same reports whether an hour is still what it was; that its spent serials come later
// is as it should be.
func same(was, is api.Hour) bool {
	return was.Issued == is.Issued && was.Redeemed == is.Redeemed && was.Refunded == is.Refunded &&
		bytes.Equal(was.Outputs, is.Outputs) && (len(was.Spent) == 0 || bytes.Equal(was.Spent, is.Spent)) &&
		(len(was.Deposits) == 0 || bytes.Equal(was.Deposits, is.Deposits))
}
