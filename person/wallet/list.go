package wallet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	center "github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// A Holding is tickets of one kind: they are of one key, and hide among those that it
// signed.
type Holding struct {
	Class        ticket.Class        `json:"class"`
	Denomination ticket.Denomination `json:"denomination"`
	Epoch        ticket.Epoch        `json:"epoch"`
	Tickets      int                 `json:"tickets"`
	Resting      int                 `json:"resting"`        // of them, too young to be used
	Ready        time.Time           `json:"ready,omitzero"` // when the last of those is not
	Spend        time.Time           `json:"spend"`          // until when they can be paid with
	Swap         time.Time           `json:"swap"`           // until when they can be swapped for newer ones: then they are worth nothing
	Crowd        Crowd               `json:"crowd,omitzero"`
}

// A Crowd is how many tickets a key signed, and how many of those were spent, by the
// mint's counters.
type Crowd struct {
	Issued   uint64    `json:"issued"`
	Redeemed uint64    `json:"redeemed"`
	At       time.Time `json:"at"` // of the mint's clock
}

// A Balance is what a wallet has.
type Balance struct {
	Issuer    string       `json:"issuer"`
	Alone     bool         `json:"alone"` // the mint has no witnesses: right for one of one's own only
	Device    uint32       `json:"device"`
	Paid      ticket.Units `json:"paid"` // in tickets that were bought, and their change
	Free      ticket.Units `json:"free"`
	Moving    ticket.Units `json:"moving"`            // in swaps that are not done
	Revoked   ticket.Units `json:"revoked,omitempty"` // in tickets whose key was revoked: Resume changes them, where it can
	Holdings  []Holding    `json:"holdings"`
	Purchases []Purchase   `json:"purchases"` // that are not done
	Payments  []Payment    `json:"payments"`  // of which something may come back
	Tabs      []Tab        `json:"tabs"`
	Gifts     []Gift       `json:"gifts"`
	Lost      ticket.Units `json:"lost"` // in tickets that turned out to be spent already
}

// Balance tells what the wallet has. It asks nobody.
func (w *Wallet) Balance() (Balance, error) {
	s, err := w.look()
	if err != nil {
		return Balance{}, err
	}
	b := Balance{
		Issuer: w.trust.Issuer, Alone: w.trust.Alone(), Device: w.Device(),
		Holdings: []Holding{}, Purchases: []Purchase{}, Payments: []Payment{}, Tabs: []Tab{}, Gifts: []Gift{},
	}
	now := w.clock.Now()
	b.Holdings = s.holdings(now)
	for _, h := range b.Holdings {
		if h.Class == ticket.Free {
			b.Free += ticket.Units(h.Denomination) * ticket.Units(h.Tickets)
		} else {
			b.Paid += ticket.Units(h.Denomination) * ticket.Units(h.Tickets)
		}
	}
	for _, sw := range s.swaps {
		if sw.Gift == 0 && sw.Pay == 0 {
			b.Moving += worth(sw.Inputs)
		}
	}
	revoked := s.revoked()
	for _, o := range s.coins {
		if revoked[o.token.Key] && o.Epoch.Swaps(now) {
			b.Revoked += ticket.Units(o.Denomination)
		}
	}
	for n, p := range s.purchases {
		if !p.Done {
			b.Purchases = append(b.Purchases, p.show(n))
		}
	}
	for n, p := range s.payments {
		if !p.Ended {
			b.Payments = append(b.Payments, p.show(n))
		}
	}
	for n, g := range s.gifts {
		if g.Ours {
			b.Gifts = append(b.Gifts, g.show(n))
		}
	}
	for id, t := range s.tabs {
		b.Tabs = append(b.Tabs, s.showTab(id, t, now))
	}
	for _, l := range s.losses {
		b.Lost += l.Units
	}
	slices.SortFunc(b.Purchases, func(a, b Purchase) int { return cmp.Compare(a.N, b.N) })
	slices.SortFunc(b.Payments, func(a, b Payment) int { return cmp.Compare(a.N, b.N) })
	slices.SortFunc(b.Gifts, func(a, b Gift) int { return cmp.Compare(a.N, b.N) })
	slices.SortFunc(b.Tabs, func(a, b Tab) int {
		return cmp.Or(a.Opened.Compare(b.Opened), slices.Compare(a.ID[:], b.ID[:]))
	})
	return b, nil
}

func (s *state) holdings(now time.Time) []Holding {
	type sort struct {
		class ticket.Class
		d     ticket.Denomination
		epoch ticket.Epoch
	}
	of := map[sort]*Holding{}
	crowds, revoked := map[ticket.Epoch]countFact{}, s.revoked()
	for _, o := range s.coins {
		if !o.Epoch.Swaps(now) || revoked[o.token.Key] {
			continue
		}
		k := sort{o.Class, o.Denomination, o.Epoch}
		h, ok := of[k]
		if !ok {
			h = &Holding{Class: o.Class, Denomination: o.Denomination, Epoch: o.Epoch, Spend: o.Epoch.SpendEnds(), Swap: o.Epoch.SwapEnds()}
			if _, ok := crowds[o.Epoch]; !ok {
				var f countFact
				s.fact(factCounters+epochName(o.Epoch), &f)
				crowds[o.Epoch] = f
			}
			h.Crowd = crowds[o.Epoch].crowd(o.token.Key)
			of[k] = h
		}
		h.Tickets++
		if now.Before(o.Ready) {
			h.Resting++
			if o.Ready.After(h.Ready) {
				h.Ready = o.Ready
			}
		}
	}
	all := []Holding{}
	for _, h := range of {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Denomination, b.Denomination), cmp.Compare(a.Epoch, b.Epoch))
	})
	return all
}

func (s *state) showTab(id center.TabID, t *tab, now time.Time) Tab {
	v := Tab{ID: id, Opened: t.Opened, Address: t.Address, Closed: t.Closed != nil, Dispute: t.Dispute, Ended: t.Ended}
	for _, p := range s.payments {
		switch {
		case p.Tab != id || p.Taken == nil:
		case p.Ended && t.Closed != nil && now.Before(time.Unix(p.NotBefore, 0)):
		case now.Before(time.Unix(p.NotBefore, 0)):
			v.Ahead += ticket.Units(p.Coin.Denomination)
		default:
			v.Paid += ticket.Units(p.Coin.Denomination)
		}
	}
	if r, err := ticket.ParseRecord(t.Meter.Record); err == nil {
		v.Used = r.Used
	}
	return v
}

// A countFact is what a mint counted, as it was last asked.
type countFact struct {
	At   time.Time  `json:"at"`
	Keys []keyCount `json:"keys"`
	Mine time.Time  `json:"mine"` // when it was asked, by this machine's clock
}

type keyCount struct {
	Key      []byte `json:"key"`
	Issued   uint64 `json:"issued"`
	Redeemed uint64 `json:"redeemed"`
}

func (f countFact) of(key ticket.KeyID) uint64 { return f.crowd(key).Issued }

func (f countFact) crowd(key ticket.KeyID) Crowd {
	for _, k := range f.Keys {
		if slices.Equal(k.Key, key[:]) {
			return Crowd{Issued: k.Issued, Redeemed: k.Redeemed, At: f.At}
		}
	}
	return Crowd{}
}

// crowdAge is how old counters may be that a payment goes by.
const crowdAge = 24 * time.Hour

// Counters returns what the mint counted of an epoch, at most so long ago.
func (w *Wallet) Counters(ctx context.Context, e ticket.Epoch, age time.Duration) (f countFact, err error) {
	s, err := w.look()
	if err != nil {
		return f, err
	}
	if s.fact(factCounters+epochName(e), &f) && w.clock.Now().Sub(f.Mine) < age {
		return f, nil
	}
	counters, err := askOpenly(w, func(m Mint) (mint.Counters, error) { return m.Counters(ctx, e) })
	if err != nil {
		return f, err
	}
	if err := w.checkCounters(ctx, counters, e); err != nil {
		return f, err
	}
	f = countFact{At: counters.Time, Mine: w.clock.Now()}
	for _, k := range counters.Keys {
		f.Keys = append(f.Keys, keyCount{k.Key, uint64(max(k.Issued, 0)), uint64(max(k.Redeemed, 0))})
	}
	return f, w.change(ctx, func(_ *state, c *change) error {
		c.putFact(factCounters+epochName(e), f)
		return nil
	})
}

func (w *Wallet) checkCounters(ctx context.Context, counters mint.Counters, e ticket.Epoch) error {
	m, err := w.keys(ctx, counters.Signed)
	if err != nil {
		return err
	}
	if counters.Issuer != w.trust.Issuer || counters.Epoch != e {
		return cloudpal.E("read the mint's counters", cloudpal.Denied, cloudpal.Invalid)
	}
	return counters.Verify(m.Receipt)
}

// Count asks the mint how large the crowds are that the wallet's tickets hide in.
func (w *Wallet) Count(ctx context.Context) error {
	s, err := w.look()
	if err != nil {
		return err
	}
	var epochs []ticket.Epoch
	for _, o := range s.coins {
		if o.Epoch.Swaps(w.clock.Now()) && !slices.Contains(epochs, o.Epoch) {
			epochs = append(epochs, o.Epoch)
		}
	}
	for _, e := range epochs {
		if _, err := w.Counters(ctx, e, 0); err != nil {
			return err
		}
	}
	return nil
}
