package wallet

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// Resume goes on with all that was begun and is not done: purchases that are paid,
// swaps, gifts, refunds and disputes; and has tickets whose key was revoked changed for
// good ones, each by itself, for which it shows the mint which message it had signed
// became that ticket. One that cannot go on now does not hold up the
// others; the error is the first of theirs.
func (w *Wallet) Resume(ctx context.Context) error {
	s, err := w.look()
	if err != nil {
		return err
	}
	var steps []func() error
	for _, n := range slices.Sorted(maps.Keys(s.swaps)) {
		steps = append(steps, func() error { return w.runSwap(ctx, n) })
	}
	for _, n := range slices.Sorted(maps.Keys(s.gifts)) {
		if g := s.gifts[n]; g.Back || !g.Ours {
			steps = append(steps, func() error { return w.resumeGift(ctx, n, g) })
		}
	}
	for _, n := range slices.Sorted(maps.Keys(s.purchases)) {
		if p := s.purchases[n]; !p.Done && !w.isOver(p) {
			steps = append(steps, func() error { _, err := w.GoOn(ctx, n); return err })
		}
	}
	for id, t := range s.tabs {
		switch {
		case t.Ended:
		case t.Dispute != nil:
			steps = append(steps, func() error { _, err := w.Dispute(ctx, id); return err })
		case t.Closed != nil:
			steps = append(steps, func() error { _, err := w.collect(ctx, id); return err })
		}
	}
	first := w.each(ctx, steps)
	// What these brought may be of such a key, too.
	if s, err = w.look(); err != nil {
		return errors.Join(first, err)
	}
	lost := s.recoverable(w.clock.Now())
	if len(lost) > 0 && len(steps) > 0 {
		if err := w.pause(ctx); err != nil {
			return errors.Join(first, err)
		}
	}
	steps = nil
	for _, serial := range lost {
		steps = append(steps, func() error { return w.renew(ctx, serial) })
	}
	return cmp.Or(first, w.each(ctx, steps))
}

// each takes steps apart in time.
func (w *Wallet) each(ctx context.Context, steps []func() error) error {
	var first error
	for i, step := range steps {
		if i > 0 {
			if err := w.pause(ctx); err != nil {
				return err
			}
		}
		var taken *Taken
		if err := step(); err != nil && !errors.As(err, &taken) && first == nil {
			first = err
		}
	}
	return first
}

// lateMoney is how long after its end a quote is looked at: money comes late.
const lateMoney = 14 * 24 * time.Hour

// isOver reports whether nothing will come of a purchase any more.
func (w *Wallet) isOver(p *purchase) bool {
	return p.Quote.ID != "" && p.Outputs == nil && w.clock.Now().After(p.Quote.Expires.Add(lateMoney))
}

func (w *Wallet) resumeGift(ctx context.Context, n uint64, g *gift) error {
	if err := w.runGift(ctx, n, nil); err != nil || g.Ours {
		return err
	}
	_, err := w.received(n, *g)
	return err
}

// renewWithin is how long before tickets can no longer be paid with they are swapped
// for newer ones.
const renewWithin = 14 * 24 * time.Hour

// Renew swaps tickets that can soon no longer be paid with, each for one of this
// month's, and says how many there were.
func (w *Wallet) Renew(ctx context.Context) (int, error) {
	s, err := w.look()
	if err != nil {
		return 0, err
	}
	var old []ticket.Serial
	now, revoked := w.clock.Now(), s.revoked()
	for _, o := range s.coins {
		if !revoked[o.token.Key] && o.Epoch.Swaps(now) && !o.Epoch.Spends(now.Add(renewWithin)) {
			old = append(old, o.serial())
		}
	}
	var steps []func() error
	for _, serial := range old {
		steps = append(steps, func() error { return w.renew(ctx, serial) })
	}
	return len(old), w.each(ctx, steps)
}

// renew swaps one ticket for another of the same worth.
func (w *Wallet) renew(ctx context.Context, serial ticket.Serial) error {
	e, err := w.issuing(ctx)
	if err != nil {
		return err
	}
	s, err := w.look()
	if err != nil {
		return err
	}
	o, ok := s.coins[serial]
	if !ok {
		return nil
	}
	into, err := w.parts(ctx, e, o.Class, o.Denomination)
	if err != nil {
		return err
	}
	var n uint64
	err = w.change(ctx, func(s *state, c *change) error {
		o, ok := s.coins[serial]
		if !ok {
			return nil
		}
		n = c.begin(swap{Begun: w.now(), Inputs: []coin{*o}, Origin: Swapped, Outputs: wants(swapBranch(serial), o.Class, e, into)})
		return nil
	})
	if err != nil || n == 0 {
		return err
	}
	return w.runSwap(ctx, n)
}

// recoverable returns the tickets of keys that are revoked, of which the wallet can show
// that the mint has signed them.
func (s *state) recoverable(now time.Time) (list []ticket.Serial) {
	revoked := s.revoked()
	for serial, o := range s.coins {
		if revoked[o.token.Key] && o.seed != (ticket.BlindSeed{}) && o.Epoch.Swaps(now) {
			list = append(list, serial)
		}
	}
	return list
}

// parts returns what takes the place of a ticket in an epoch: one that is worth as much
// or, where the key of those is revoked, several that are worth less each.
func (w *Wallet) parts(ctx context.Context, e ticket.Epoch, c ticket.Class, d ticket.Denomination) ([]ticket.Denomination, error) {
	m, err := w.keys(ctx, e)
	if err != nil {
		return nil, err
	}
	for n := 1; n <= mint.MaxOutputs; n, d = 4*n, d/4 {
		if !d.Valid() {
			break
		}
		if _, err := m.Key(c, d); err == nil {
			return slices.Repeat([]ticket.Denomination{d}, n), nil
		}
	}
	return nil, cloudpal.E("change a ticket", cloudpal.Busy, errors.New("the keys for what it would become are revoked")).
		WithHint("nothing is lost: it goes on with next month's keys")
}

// Forget drops what is of no use any more: purchases and payments that are over since
// long, and tickets that are worth nothing.
func (w *Wallet) Forget(ctx context.Context) error {
	return w.change(ctx, func(s *state, c *change) error {
		now := w.clock.Now()
		for serial, o := range s.coins {
			if !o.Epoch.Swaps(now) {
				c.dropCoin(serial)
			}
		}
		for n, p := range s.purchases {
			if (p.Done && now.After(p.Begun.Add(lateMoney))) || w.isOver(p) {
				c.drop(kindPurchase, numbered(n))
			}
		}
		for id, t := range s.tabs {
			if t.Ended && now.After(t.Opened.Add(lateMoney)) {
				c.drop(kindTab, string(id[:]))
			}
		}
		for n, p := range s.payments {
			if t, ok := s.tabs[p.Tab]; p.Ended && (!ok || t.Ended) {
				c.drop(kindPayment, numbered(n))
			}
		}
		for n, g := range s.gifts {
			if g.Ours && len(g.Coins) == 0 {
				c.drop(kindGift, numbered(n))
			}
		}
		return nil
	})
}
