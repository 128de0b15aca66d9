package wallet

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	center "github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// A Tab is how an account at a center stands, as far as the wallet knows.
type Tab struct {
	ID      center.TabID  `json:"id"`
	Opened  time.Time     `json:"opened"`
	Address string        `json:"address,omitempty"`
	Paid    ticket.Units  `json:"paid"`  // with tickets that are due
	Ahead   ticket.Units  `json:"ahead"` // with tickets that are not due yet
	Used    ticket.Units  `json:"used"`  // by the last record that is known
	Closed  bool          `json:"closed"`
	Dispute *mint.Dispute `json:"dispute,omitempty"`
	Ended   bool          `json:"ended"` // all that was not used is back
}

// KeepMeter keeps the last record of a tab's meter that both sides signed, for a
// dispute. An older one than is known changes nothing. One that the pal's side did not
// countersign is cloudpal.Denied: a center could claim by it what was never used.
func (w *Wallet) KeepMeter(ctx context.Context, id center.TabID, m center.Meter) error {
	return w.change(ctx, func(s *state, c *change) error {
		old, ok := s.tabs[id]
		if !ok {
			return noTab()
		}
		r, err := old.record(id, m)
		if err != nil {
			return err
		}
		if !r.Signed(id[:], m.Countersigned) {
			return cloudpal.E("keep a tab's meter", cloudpal.Denied, errors.New("the pal's side did not countersign it"))
		}
		if known, err := ticket.ParseRecord(old.Meter.Record); err == nil && known.Seq >= r.Seq {
			return nil
		}
		t := *old
		t.Meter = m
		c.put(kindTab, string(id[:]), t)
		return nil
	})
}

func noTab() error {
	return cloudpal.E("find a tab", cloudpal.NotExist, errors.New("there is no such tab in the wallet"))
}

// record reads a meter's record that the center signed.
func (t *tab) record(id center.TabID, m center.Meter) (r ticket.Record, err error) {
	const op = "read a tab's meter"
	if r, err = ticket.ParseRecord(m.Record); err != nil {
		return r, err
	}
	if r.Tab != [32]byte(id) {
		return r, cloudpal.E(op, cloudpal.Denied, errors.New("it is another tab's"))
	}
	if !r.Signed(t.Center[:], m.Signature) {
		return r, cloudpal.E(op, cloudpal.Denied, errors.New("the center did not sign it"))
	}
	return r, nil
}

// A Short error says that a center gives back less than it has to. Dispute brings the
// rest.
type Short struct{ Got, Want ticket.Units }

func (s *Short) Error() string {
	return fmt.Sprintf("the center gives back %d units of %d", s.Got, s.Want)
}

// CloseTab ends a tab and brings back what is not used of it: change of the tickets
// that were deposited, straight from the mint, and those that were not.
//
// Where the center gives back too little, the error has a *Short in its trail, and
// none of that is taken: a mint gives back what a center agrees to or what it decides
// in a dispute, not both.
func (w *Wallet) CloseTab(ctx context.Context, at Center, id center.TabID) (ticket.Units, error) {
	short, err := w.closeAt(ctx, at, id)
	if err != nil {
		return 0, err
	}
	got, err := w.collect(ctx, id)
	if err == nil && short != nil {
		err = cloudpal.E("close a tab", cloudpal.Denied, short).
			WithHint("the mint decides, and the wallet has the proof: cloudpal wallet dispute")
	}
	return got, err
}

// closeAt has the center end a tab, and keeps its word.
func (w *Wallet) closeAt(ctx context.Context, at Center, id center.TabID) (*Short, error) {
	signed, err := at.CloseTab(ctx, id)
	if err != nil {
		return nil, err
	}
	return w.keepClosed(ctx, id, signed)
}

// keepClosed checks what a center says at the end, and keeps it.
func (w *Wallet) keepClosed(ctx context.Context, id center.TabID, signed center.Signed) (*Short, error) {
	s, err := w.look()
	if err != nil {
		return nil, err
	}
	t, ok := s.tabs[id]
	if !ok {
		return nil, noTab()
	}
	var closed center.Closed
	if err := signed.Open(t.Center[:], center.ForClosed, &closed); err != nil {
		return nil, err
	}
	if closed.Tab != id {
		return nil, cloudpal.E("close a tab", cloudpal.Denied, errors.New("the center closed another"))
	}
	if t.Closed != nil && !t.Short {
		return nil, nil // it was found to be right, and some of it may be back already
	}
	short, meter, err := w.checkClosed(ctx, s, t, closed)
	if err != nil {
		return nil, err
	}
	return short, w.change(ctx, func(s *state, c *change) error {
		now, ok := s.tabs[id]
		if !ok || now.Closed != nil {
			return nil
		}
		next := *now
		next.Closed, next.Meter, next.Short = &signed, meter, short != nil
		c.put(kindTab, string(id[:]), next)
		for _, r := range closed.Refunds {
			if n, p := s.paymentOf(id, r.Serial); p != nil {
				refunded := *p
				refunded.Refund = &r
				c.put(kindPayment, numbered(n), refunded)
			}
		}
		return nil
	})
}

// claimed returns what is used of a tab that was paid with tickets, by the record that
// a center closes it with, and that record. Where a center claims more than it may, it
// is what the pal's side has agreed with: the most is a slice more than that, or a unit
// of each ticket that is not used up.
func (t *tab) claimed(closed center.Closed, paid []ticket.Units) (ticket.Units, center.Meter, error) {
	if len(closed.Meter.Record) == 0 {
		return 0, closed.Meter, nil
	}
	final, err := t.record(closed.Tab, closed.Meter)
	if err != nil {
		return 0, closed.Meter, err
	}
	offer, err := center.OpenOffer(t.Offer)
	if err != nil {
		return 0, closed.Meter, err
	}
	var agreed ticket.Units
	r, err := t.record(closed.Tab, closed.Agreed)
	if err == nil && r.Signed(closed.Tab[:], closed.Agreed.Countersigned) {
		agreed = r.Used
	} else {
		closed.Agreed = center.Meter{}
	}
	least, left := ticket.Units(0), agreed
	for _, units := range paid {
		if left < units {
			least, left = least+1, 0
			continue
		}
		least, left = least+units, left-units
	}
	if final.Used > max(agreed+ticket.Units(offer.Slice), least) {
		return agreed, closed.Agreed, nil
	}
	return final.Used, closed.Meter, nil
}

// checkClosed checks each refund, and whether they are all that there is to give
// back: what was paid, less what was used. It returns the record that says how much
// that is.
func (w *Wallet) checkClosed(ctx context.Context, s *state, t *tab, closed center.Closed) (*Short, center.Meter, error) {
	var got ticket.Units
	for _, r := range closed.Refunds {
		_, p := s.paymentOf(closed.Tab, r.Serial)
		if p == nil || p.Ended {
			continue // it is no loss of ours, or back already
		}
		if err := w.verifiedRefund(ctx, p, t.Center, r); err != nil {
			return nil, closed.Meter, err
		}
		got += r.Units
	}
	// What is being taken back the center may have had before; of what is back already
	// the mint may not have told it yet; and what it did not say that it has, it may have
	// taken. It may claim that to be used, and does not owe it.
	var paid, most []ticket.Units
	for n, p := range s.payments {
		serial := p.Coin.serial()
		back := slices.ContainsFunc(closed.Returned, func(r []byte) bool { return slices.Equal(r, serial[:]) })
		if p.Tab != closed.Tab || back {
			continue
		}
		most = append(most, ticket.Units(p.Coin.Denomination))
		if p.Taken != nil && !p.Ended && !s.reclaims(n) {
			paid = append(paid, ticket.Units(p.Coin.Denomination))
		}
	}
	used, meter, err := t.claimed(closed, slices.Sorted(slices.Values(most)))
	if err != nil {
		return nil, meter, err
	}
	var all ticket.Units
	for _, units := range paid {
		all += units
	}
	if used < all && got < all-used {
		return &Short{Got: got, Want: all - used}, meter, nil
	}
	return nil, meter, nil
}

// reclaims reports whether a payment is being taken back: it is not known yet whether the
// center has it.
func (s *state) reclaims(n uint64) bool {
	for _, sw := range s.swaps {
		if sw.Pay == n {
			return true
		}
	}
	return false
}

func (s *state) paymentOf(id center.TabID, serial []byte) (uint64, *payment) {
	for n, p := range s.payments {
		own := p.Coin.serial()
		if p.Tab == id && slices.Equal(own[:], serial) {
			return n, p
		}
	}
	return 0, nil
}

// collect has the mint sign the change of a closed tab, and takes back the tickets
// that were not deposited. What is not there yet comes when it is called again.
func (w *Wallet) collect(ctx context.Context, id center.TabID) (got ticket.Units, err error) {
	s, err := w.look()
	if err != nil {
		return 0, err
	}
	t, ok := s.tabs[id]
	if !ok || t.Closed == nil || t.Ended {
		return 0, nil
	}
	var closed center.Closed
	if err := t.Closed.Open(t.Center[:], center.ForClosed, &closed); err != nil {
		return 0, err
	}
	var first error
	for n, p := range s.payments {
		serial := p.Coin.serial()
		back := slices.ContainsFunc(closed.Returned, func(r []byte) bool { return slices.Equal(r, serial[:]) })
		if p.Tab != id || p.Ended || t.Short && !back {
			continue
		}
		units, err := w.settle(ctx, n, p, back)
		got += units
		if first == nil {
			first = err
		}
	}
	if first != nil || t.Short {
		return got, first
	}
	return got, w.change(ctx, func(s *state, c *change) error {
		if now, ok := s.tabs[id]; ok {
			next := *now
			next.Ended = true
			c.put(kindTab, string(id[:]), next)
		}
		return nil
	})
}

// settle brings back what there is of one payment.
func (w *Wallet) settle(ctx context.Context, n uint64, p *payment, back bool) (ticket.Units, error) {
	switch {
	case p.Refund != nil:
		return w.refund(ctx, n, p)
	case back || p.Taken == nil:
		var taken *Taken
		err := w.reclaim(ctx, n)
		if errors.As(err, &taken) {
			break // it was deposited, whatever the center says
		}
		if err != nil {
			return 0, err
		}
		return ticket.Units(p.Coin.Denomination), nil
	}
	return 0, w.change(ctx, func(s *state, c *change) error {
		if p, ok := s.payments[n]; ok {
			c.end(n, p)
		}
		return nil
	})
}

// refund has the mint sign the change of one payment.
func (w *Wallet) refund(ctx context.Context, n uint64, p *payment) (ticket.Units, error) {
	blanks := p.blanks()
	secrets, outputs, err := w.secrets(ctx, blanks)
	if err != nil {
		return 0, err
	}
	chosen, err := ticket.Change(p.Coin.Denomination, p.Refund.Units)
	if err != nil {
		return 0, err
	}
	serial := p.Coin.serial()
	key := ed25519.NewKeyFromSeed(p.Coin.secret[:])
	signatures, err := ask(w, func(m Mint) ([][]byte, error) {
		return m.Refund(ctx, mint.RefundRequest{
			Serial: serial[:], Units: p.Refund.Units, Outputs: mint.Outputs(outputs),
			Payer:  ed25519.Sign(key, mint.RefundText(serial, p.Refund.Units, ticket.OutputsDigest(outputs))),
			Center: p.Refund.Signature,
		})
	})
	if errors.Is(err, cloudpal.NotExist) {
		return 0, cloudpal.E("fetch a refund", cloudpal.Busy, errors.New("the center has not deposited the ticket yet")).
			WithHint("do it again in some minutes")
	}
	if err != nil {
		return 0, err
	}
	coins, err := w.finish(ctx, pick(blanks, chosen), pick(secrets, chosen), signatures, Change)
	if err != nil {
		return 0, err
	}
	return p.Refund.Units, w.endPayment(ctx, n, coins)
}

func pick[T any](all []T, which []int) []T {
	some := make([]T, 0, len(which))
	for _, i := range which {
		some = append(some, all[i])
	}
	return some
}

// endPayment keeps what came back of a payment.
func (w *Wallet) endPayment(ctx context.Context, n uint64, coins []coin) error {
	return w.change(ctx, func(s *state, c *change) error {
		p, ok := s.payments[n]
		if !ok || p.Ended {
			return nil
		}
		for _, o := range coins {
			c.putCoin(o)
		}
		c.end(n, p)
		return nil
	})
}

// Dispute asks the mint for what a center does not give back, or looks at what became
// of that: the center has a day to answer. It opens the tab to the mint, which learns
// which payments were one stay at that center, and nothing of who paid.
func (w *Wallet) Dispute(ctx context.Context, id center.TabID) (mint.Dispute, error) {
	s, err := w.look()
	if err != nil {
		return mint.Dispute{}, err
	}
	t, ok := s.tabs[id]
	if !ok {
		return mint.Dispute{}, noTab()
	}
	r, n, err := w.disputeOf(ctx, s, t, id)
	if err != nil {
		return mint.Dispute{}, err
	}
	// What is sent is on the disk: the payments and the record.
	d, err := ask(w, func(m Mint) (mint.Dispute, error) { return m.Dispute(ctx, r) })
	if errors.Is(err, cloudpal.NotExist) {
		// The center never deposited them.
		if got, err := w.reclaimAll(ctx, id); err != nil || got > 0 {
			return mint.Dispute{State: mint.Settled, Tab: id[:], Units: got, Until: w.now()}, err
		}
	}
	if err != nil {
		return mint.Dispute{}, err
	}
	return d, w.keepDispute(ctx, id, n, d)
}

// reclaimAll swaps those tickets of a tab that the center never deposited, and returns
// what they are worth.
func (w *Wallet) reclaimAll(ctx context.Context, id center.TabID) (got ticket.Units, err error) {
	s, err := w.look()
	if err != nil {
		return 0, err
	}
	for n, p := range s.payments {
		var taken *Taken
		if p.Tab != id || p.Ended {
			continue
		}
		switch err := w.reclaim(ctx, n); {
		case errors.As(err, &taken):
		case err != nil:
			return got, err
		default:
			got += ticket.Units(p.Coin.Denomination)
		}
	}
	return got, nil
}

// disputeOf returns what is said to the mint about a tab, and the number of the
// payment that change comes of: the last.
func (w *Wallet) disputeOf(ctx context.Context, s *state, t *tab, id center.TabID) (r mint.DisputeRequest, n uint64, err error) {
	var paid []numberedPayment
	now := w.clock.Now().Unix()
	for n, p := range s.payments {
		if p.Tab == id && p.NotBefore <= now && (p.Taken != nil || !p.Ended) {
			paid = append(paid, numberedPayment{n, p})
		}
	}
	if len(paid) == 0 || len(paid) > mint.MaxPayments {
		return r, 0, cloudpal.E("open a dispute", cloudpal.Invalid, fmt.Errorf("the tab has %d payments that are due", len(paid)))
	}
	slices.SortFunc(paid, func(a, b numberedPayment) int {
		return cmp.Or(cmp.Compare(a.NotBefore, b.NotBefore), cmp.Compare(a.n, b.n))
	})
	r = mint.DisputeRequest{Center: t.Center[:], Tab: id[:], Record: t.Meter.Record, Signature: t.Meter.Signature}
	var outputs []ticket.Output
	for _, p := range paid {
		var sent center.PayRequest
		if _, sent, outputs, err = w.contract(ctx, p.payment, t.Center); err != nil {
			return r, 0, err
		}
		r.Payments = append(r.Payments, mint.Payment{
			Serial: p.serial(), Tariff: sent.Offer, Nonce: sent.Nonce, Amount: sent.Amount,
			NotBefore: time.Unix(sent.NotBefore, 0).UTC(), Blank: sent.Blank,
		})
	}
	last := paid[len(paid)-1]
	key := ed25519.NewKeyFromSeed(last.Coin.secret[:])
	r.Outputs, r.Public = mint.Outputs(outputs), key.Public().(ed25519.PublicKey)
	r.Payer = ed25519.Sign(key, mint.DisputeText(last.Coin.serial(), ticket.OutputsDigest(outputs), r.Record))
	return r, last.n, nil
}

type numberedPayment struct {
	n uint64
	*payment
}

func (p *payment) serial() []byte {
	s := p.Coin.serial()
	return s[:]
}

// keepDispute keeps what became of a dispute, and the tickets that came of it.
func (w *Wallet) keepDispute(ctx context.Context, id center.TabID, n uint64, d mint.Dispute) error {
	coins, err := w.settled(ctx, n, d)
	if err != nil {
		return err
	}
	d.Signatures = nil
	return w.change(ctx, func(s *state, c *change) error {
		now, ok := s.tabs[id]
		if !ok {
			return nil
		}
		if old := now.Dispute; old != nil && old.State == mint.Settled {
			return nil // another process was faster
		}
		next := *now
		next.Dispute = &d
		next.Ended = d.State == mint.Settled
		c.put(kindTab, string(id[:]), next)
		for _, o := range coins {
			c.putCoin(o)
		}
		for n, p := range s.payments {
			if next.Ended && p.Tab == id && !p.Ended && p.NotBefore <= w.clock.Now().Unix() {
				c.end(n, p)
			}
		}
		return nil
	})
}

// settled makes the tickets of a dispute that is settled.
func (w *Wallet) settled(ctx context.Context, n uint64, d mint.Dispute) ([]coin, error) {
	if d.State != mint.Settled || d.Units == 0 {
		return nil, nil
	}
	s, err := w.look()
	if err != nil {
		return nil, err
	}
	p, ok := s.payments[n]
	if !ok {
		return nil, nil
	}
	blanks := p.blanks()
	secrets, _, err := w.secrets(ctx, blanks)
	if err != nil {
		return nil, err
	}
	chosen, err := ticket.Change(p.Coin.Denomination, d.Units)
	if err != nil {
		return nil, err
	}
	return w.finish(ctx, pick(blanks, chosen), pick(secrets, chosen), d.Signatures, Change)
}
