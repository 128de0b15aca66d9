package wallet

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	center "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/ticket"
)

// A Counter is a Center that also says how a tab stands. It is center/api's Client.
type Counter interface {
	Center
	Tab(ctx context.Context, id center.TabID) (center.Tab, error)
	Meter(ctx context.Context, id center.TabID) (center.Meter, error)
}

// A Stay is a pal's at a center: what its tabs are opened with, one after the other,
// since none outlives the offer that it was opened under.
type Stay struct {
	Counter   Counter
	Address   center.Address
	WireGuard []byte // the pal's key
	// Name names a tab that is opened with a nonce under an offer, as the pal's core
	// does.
	Name func(nonce [16]byte, offer ticket.Digest) center.TabID
}

// DefaultAhead is how long a pal goes on, awake all the time, when nobody pays for it.
const DefaultAhead = 3 * 24 * time.Hour

// MaxAhead is the longest: tickets that are due later could not be spent any more.
const MaxAhead = 30 * 24 * time.Hour

// A Standing is how a stay is paid for: its tab, as the center says, and the offer that
// it was opened under.
type Standing struct {
	Tab   center.Tab
	Offer center.Offer
}

// Standing asks the center how a stay is paid for, and changes nothing: by its newest
// tab, or while that is not paid yet by one before it that is. The error is
// cloudpal.NotExist where there is no tab that is open.
func (w *Wallet) Standing(ctx context.Context, at Stay) (st Standing, err error) {
	open, err := w.tabsOf(at)
	if err == nil && len(open) == 0 {
		err = noTab()
	}
	if err != nil {
		return st, err
	}
	st, err = open[0].standing(ctx, at)
	if err == nil && st.Tab.Stage == center.Funded {
		return st, nil
	}
	if old, ok := funded(ctx, at, open[1:]); ok {
		return old, nil
	}
	return st, err
}

// funded returns how the first of some tabs stands that has money.
func funded(ctx context.Context, at Stay, list []openTab) (Standing, bool) {
	for _, t := range list {
		if st, err := t.standing(ctx, at); err == nil && st.Tab.Stage == center.Funded && !st.Tab.Closed {
			return st, true
		}
	}
	return Standing{}, false
}

// Fund sees to it that a stay is paid: with tickets that are due now, and with others
// that are due when those are used up, so that the pal goes on for ahead if nobody
// pays meanwhile. It opens a tab where there is none, and another in time before the
// offer of the last one is over. Called again, it pays what was used since.
//
// The error is cloudpal.Exhausted where the wallet has too few tickets. The tab is then
// how it stands nonetheless. Where another is opened and cannot be paid yet, as while
// the mint is away, it is the one before: that keeps the pal as long as it has money.
func (w *Wallet) Fund(ctx context.Context, at Stay, ahead time.Duration) (center.Tab, error) {
	open, err := w.tabsOf(at)
	if err != nil {
		return center.Tab{}, err
	}
	id, err := w.present(ctx, at, open)
	var tab center.Tab
	if err == nil {
		tab, err = w.keep(ctx, at.Counter, id, ahead)
	}
	switch {
	case err == nil && tab.Closed:
		// Its end was not heard of.
		if _, err := w.end(ctx, at.Counter, id); err != nil && !errors.Is(err, cloudpal.Busy) {
			return tab, err
		}
		return w.Fund(ctx, at, ahead)
	case err == nil && tab.Stage == center.Funded:
		return tab, w.moveOut(ctx, at, id)
	case tab.Stage != center.Funded:
		if old, ok := funded(ctx, at, open); ok {
			tab = old.Tab
		}
	}
	return tab, err
}

// renewTab is how long before the end of its offer a tab is followed by another.
const renewTab = 24 * time.Hour

// isOf reports whether a tab is one of a stay's.
func (t *tab) isOf(at Stay) bool {
	a, err := center.ParseAddress(t.Address)
	return err == nil && a.Key == at.Address.Key && slices.Equal(t.Request.WireGuard, at.WireGuard)
}

// An openTab is one of a stay's that is not closed.
type openTab struct {
	id     center.TabID
	offer  center.Offer
	digest ticket.Digest // of the offer
	opened time.Time
}

func (t openTab) standing(ctx context.Context, at Stay) (Standing, error) {
	tab, err := at.Counter.Tab(ctx, t.id)
	return Standing{tab, t.offer}, err
}

// tabsOf returns the tabs of a stay that are open, the newest first. There is more than
// one while the last cannot be paid yet.
func (w *Wallet) tabsOf(at Stay) (open []openTab, err error) {
	s, err := w.look()
	if err != nil {
		return nil, err
	}
	for id, t := range s.tabs {
		if !t.isOf(at) || t.Closed != nil || t.Dispute != nil {
			continue
		}
		o, err := center.OpenOffer(t.Offer)
		if err != nil {
			return nil, err
		}
		open = append(open, openTab{id, o, center.OfferDigest(t.Offer), t.Opened})
	}
	slices.SortFunc(open, func(a, b openTab) int {
		return cmp.Or(b.opened.Compare(a.opened), b.offer.Until.Compare(a.offer.Until), slices.Compare(a.id[:], b.id[:]))
	})
	return open, nil
}

// present returns the tab that a stay is paid on: the newest or, where there is none or
// its offer is over soon and the center has made another, one that it opens under that.
func (w *Wallet) present(ctx context.Context, at Stay, open []openTab) (id center.TabID, err error) {
	now := w.clock.Now()
	if len(open) > 0 && open[0].offer.Until.Sub(now) >= renewTab {
		return open[0].id, nil
	}
	signed, err := at.Counter.Offer(ctx)
	if errors.Is(err, cloudpal.NotExist) {
		return id, cloudpal.E("pay a center", cloudpal.NotExist, errors.New("it takes no money: pals are free of charge there"))
	}
	if err != nil {
		return id, err
	}
	digest := center.OfferDigest(signed)
	if len(open) > 0 && open[0].digest == digest && now.Before(open[0].offer.Until) {
		return open[0].id, nil
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	r := center.TabRequest{ID: at.Name(nonce, digest), WireGuard: at.WireGuard, Nonce: nonce[:]}
	_, err = w.OpenTab(ctx, sold{at.Counter, signed}, r, at.Address.String())
	return r.ID, err
}

// sold is a center whose offer is known already: a tab's name follows from it.
type sold struct {
	Center
	offer center.Signed
}

func (s sold) Offer(context.Context) (center.Signed, error) { return s.offer, nil }

// moveOut closes the tabs of a stay that were before this one.
func (w *Wallet) moveOut(ctx context.Context, at Stay, id center.TabID) error {
	s, err := w.look()
	if err != nil {
		return err
	}
	for old, t := range s.tabs {
		if old == id || !t.isOf(at) || t.Closed != nil {
			continue
		}
		if _, err := w.end(ctx, at.Counter, old); err != nil && !errors.Is(err, cloudpal.Busy) {
			return err
		}
	}
	return nil
}

// keep pays a tab what it lacks.
func (w *Wallet) keep(ctx context.Context, at Counter, id center.TabID, ahead time.Duration) (center.Tab, error) {
	if err := w.deliverAll(ctx, at, id); err != nil {
		return center.Tab{}, err
	}
	tab, offer, err := w.standing(ctx, at, id)
	if err != nil || tab.Closed {
		return tab, err
	}
	for extra := false; ; {
		due, lacks := lacking(tab, offer, w.now(), min(ahead, MaxAhead))
		if !lacks && tab.Stage != center.Funded && !extra && tab.Used < tab.Signed+ticket.Units(offer.Slice) {
			// A ticket that is good takes away the doubt that a bad one has left.
			extra, lacks, due = true, true, w.now()
		}
		if !lacks {
			return tab, nil
		}
		class, err := w.class(offer)
		if err != nil {
			return tab, err
		}
		if _, err := w.Pay(ctx, at, id, class, due); err != nil {
			return tab, err
		}
		if tab, err = at.Tab(ctx, id); err != nil {
			return tab, err
		}
	}
}

// lacking says whether a tab is to be paid another ticket, and when that is to be due:
// now, where less than a quarter of a slice is left; else, where half a slice and more is
// lacking, when half a slice of what is paid already will be left at the earliest, which
// is where the pal is awake all the time.
func lacking(t center.Tab, o center.Offer, now time.Time, ahead time.Duration) (due time.Time, lacks bool) {
	slice := ticket.Units(o.Slice)
	left := t.Paid - min(t.Used, t.Paid)
	if left <= slice/4 || t.Stage == center.Unpaid {
		return now, true
	}
	day := float64(max(t.Rate, o.Tariff.Core)) // units
	days := float64(ahead) / float64(24*time.Hour)
	half := float64(slice) / 2
	if have := float64(left + t.Ahead); have+half < day*days {
		return now.Add(time.Duration((have - half) / day * float64(24*time.Hour))), true
	}
	return now, false
}

// standing asks a center how a tab stands, and keeps the last record of its meter that both
// sides signed. A center that has forgotten a tab, since nothing was paid on it, is told
// of it again.
func (w *Wallet) standing(ctx context.Context, at Counter, id center.TabID) (center.Tab, center.Offer, error) {
	s, err := w.look()
	if err != nil {
		return center.Tab{}, center.Offer{}, err
	}
	t, ok := s.tabs[id]
	if !ok {
		return center.Tab{}, center.Offer{}, noTab()
	}
	offer, err := center.OpenOffer(t.Offer)
	if err != nil {
		return center.Tab{}, offer, err
	}
	v, err := at.Tab(ctx, id)
	if errors.Is(err, cloudpal.NotExist) && !s.paidOn(id) {
		v, err = at.OpenTab(ctx, t.Request)
	}
	if err != nil {
		return v, offer, err
	}
	m, err := at.Meter(ctx, id)
	if err != nil || len(m.Countersigned) == 0 {
		return v, offer, err
	}
	return v, offer, w.KeepMeter(ctx, id, m)
}

func (s *state) paidOn(id center.TabID) bool {
	for _, p := range s.payments {
		if p.Tab == id {
			return true
		}
	}
	return false
}

// class returns what tickets a slice is paid with: free ones, where the center takes
// them and there are some.
func (w *Wallet) class(o center.Offer) (ticket.Class, error) {
	s, err := w.look()
	if err != nil {
		return 0, err
	}
	for _, c := range []ticket.Class{ticket.Free, ticket.Paid} {
		have := sumOf(s.choice(c, w.clock.Now(), true))
		if slices.Contains(o.Classes, c) && have >= ticket.Units(o.Slice) {
			return c, nil
		}
	}
	return o.Classes[0], nil
}

// deliverAll takes those payments to the center of which it is not known that it has
// them. What it does not take comes back.
func (w *Wallet) deliverAll(ctx context.Context, at Center, id center.TabID) error {
	s, err := w.look()
	if err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(s.payments)) {
		if p := s.payments[n]; p.Tab != id || p.Taken != nil || p.Ended {
			continue
		}
		_, err := w.Deliver(ctx, at, n)
		if errors.Is(err, cloudpal.Denied) || errors.Is(err, cloudpal.Invalid) {
			err = w.reclaim(ctx, n)
		}
		var taken *Taken
		if err != nil && !errors.As(err, &taken) {
			return err
		}
	}
	return nil
}

// Leave ends a stay: it closes its tabs and brings back what is not used of them. It
// waits for what the center has yet to deposit, as long as ctx lasts; what has not come
// by then, Resume brings.
//
// All are closed before it waits for any: only the center's word that a tab is closed
// is to be had with the account, which may be gone when Resume is called.
func (w *Wallet) Leave(ctx context.Context, at Stay) (got ticket.Units, err error) {
	s, err := w.look()
	if err != nil {
		return 0, err
	}
	for id, t := range s.tabs {
		if t.isOf(at) && t.Closed == nil && t.Dispute == nil && s.paidOn(id) {
			_, _ = w.closeAt(ctx, at.Counter, id) // what fails here fails again below
		}
	}
	for id, t := range s.tabs {
		if t.isOf(at) && !t.Ended && t.Dispute == nil {
			units, failed := w.EndTab(ctx, at.Counter, id)
			got += units
			err = cmp.Or(err, failed)
		}
	}
	return got, err
}

// depositWait parts the questions for a refund of what a center has yet to deposit.
const depositWait = time.Second

// EndTab closes a tab, as CloseTab does, and waits until all is back that comes back.
func (w *Wallet) EndTab(ctx context.Context, at Center, id center.TabID) (got ticket.Units, err error) {
	for {
		units, err := w.end(ctx, at, id)
		got += units
		if !errors.Is(err, cloudpal.Busy) {
			return got, err
		}
		if wait := w.clock.Wait(ctx, depositWait); wait != nil {
			return got, err
		}
	}
}

// end closes a tab, or goes on with that. One that was never paid is forgotten.
func (w *Wallet) end(ctx context.Context, at Center, id center.TabID) (ticket.Units, error) {
	s, err := w.look()
	if err != nil {
		return 0, err
	}
	t, ok := s.tabs[id]
	switch {
	case !ok:
		return 0, noTab()
	case t.Closed != nil && !t.Short:
		return w.collect(ctx, id)
	case !s.paidOn(id):
		return 0, w.change(ctx, func(_ *state, c *change) error {
			c.drop(kindTab, string(id[:]))
			return nil
		})
	}
	return w.CloseTab(ctx, at, id)
}
