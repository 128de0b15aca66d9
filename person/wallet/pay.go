package wallet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	center "github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// A Center takes tickets for what it does. It is center/api's Client.
type Center interface {
	Offer(ctx context.Context) (center.Signed, error)
	OpenTab(ctx context.Context, r center.TabRequest) (center.Tab, error)
	Pay(ctx context.Context, id center.TabID, r center.PayRequest) (center.Signed, error)
	CloseTab(ctx context.Context, id center.TabID) (center.Signed, error)
}

// OpenTab opens a tab at a center and returns the offer that counts on it. Address
// is the center's, for people. It may be called again, to see a new offer.
func (w *Wallet) OpenTab(ctx context.Context, at Center, r center.TabRequest, address string) (center.Offer, error) {
	signed, err := at.Offer(ctx)
	if err != nil {
		return center.Offer{}, err
	}
	offer, err := center.OpenOffer(signed)
	if err != nil {
		return center.Offer{}, err
	}
	if !slices.Contains(offer.Issuers, w.trust.Issuer) {
		return center.Offer{}, cloudpal.E("open a tab", cloudpal.Invalid, fmt.Errorf("the center takes no tickets of %s", w.trust.Issuer)).
			WithHint("use a wallet of a mint whose tickets it takes, or another center")
	}
	err = w.change(ctx, func(s *state, c *change) error {
		t := tab{Opened: w.now(), Center: ticket.CenterID(offer.Center), Address: address, Request: r, Offer: signed}
		if old, ok := s.tabs[r.ID]; ok {
			if old.Center != t.Center {
				return cloudpal.E("open a tab", cloudpal.Denied, errors.New("the center signs with another key than it did")).
					WithHint("pay nothing more there; close the tab: cloudpal wallet close")
			}
			t = *old
			t.Request, t.Offer = r, signed
		}
		c.put(kindTab, string(r.ID[:]), t)
		return nil
	})
	if err != nil {
		return center.Offer{}, err
	}
	_, err = at.OpenTab(ctx, r)
	return offer, err
}

// A Payment is one ticket that was spent at a center.
type Payment struct {
	N         uint64              `json:"n"`
	Begun     time.Time           `json:"begun"`
	Tab       center.TabID        `json:"tab"`
	Serial    []byte              `json:"serial"`
	Class     ticket.Class        `json:"class"`
	Amount    ticket.Denomination `json:"amount"`
	NotBefore time.Time           `json:"notBefore"`
	Taken     bool                `json:"taken"` // the center says that it has it
	Ended     bool                `json:"ended"` // nothing more comes of it
}

func (p *payment) show(n uint64) Payment {
	s := p.Coin.serial()
	return Payment{
		N: n, Begun: p.Begun, Tab: p.Tab, Serial: s[:], Class: p.Coin.Class, Amount: p.Coin.Denomination,
		NotBefore: time.Unix(p.NotBefore, 0).UTC(), Taken: p.Taken != nil, Ended: p.Ended,
	}
}

// Pay pays a tab with one ticket of a class, which is due at a time: one that is to
// come, for a pal that lives on while no device is there. Where there is no ticket
// that is worth a slice, others are swapped for one first. It returns once the center
// has taken it; what it did not hear of, Fund repeats.
func (w *Wallet) Pay(ctx context.Context, at Center, id center.TabID, class ticket.Class, due time.Time) (Payment, error) {
	offer, digest, err := w.offerOf(id, class)
	if err != nil {
		return Payment{}, err
	}
	if err := w.exact(ctx, class, offer.Slice, due); err != nil {
		return Payment{}, err
	}
	p := payment{Begun: w.now(), Tab: id, Offer: digest, Nonce: make([]byte, 16)}
	if due.After(w.clock.Now()) {
		// What is due now names no time: the mint would learn when it was paid to the
		// second, whenever the center brings it.
		p.NotBefore = due.Unix()
	}
	rand.Read(p.Nonce)
	var n uint64
	err = w.change(ctx, func(s *state, c *change) error {
		o := w.payable(s, class, offer.Slice, due)
		if o == nil {
			return cloudpal.E("pay", cloudpal.Busy, errors.New("another process has just used the ticket")).WithHint("do it again")
		}
		p.Coin, n = *o, c.number()
		c.dropCoin(o.serial())
		c.put(kindPayment, numbered(n), p)
		return nil
	})
	if err != nil {
		return Payment{}, err
	}
	return w.Deliver(ctx, at, n)
}

func (w *Wallet) offerOf(id center.TabID, class ticket.Class) (offer center.Offer, d ticket.Digest, err error) {
	const op = "pay a tab"
	s, err := w.look()
	if err != nil {
		return offer, d, err
	}
	t, ok := s.tabs[id]
	if !ok {
		return offer, d, cloudpal.E(op, cloudpal.NotExist, errors.New("there is no such tab in the wallet"))
	}
	if offer, err = center.OpenOffer(t.Offer); err != nil {
		return offer, d, err
	}
	switch {
	case t.Closed != nil:
		return offer, d, cloudpal.E(op, cloudpal.Exist, errors.New("the tab is closed"))
	case !slices.Contains(offer.Classes, class):
		return offer, d, cloudpal.E(op, cloudpal.Denied, fmt.Errorf("the center takes no %s tickets", class))
	case w.clock.Now().After(offer.Until):
		return offer, d, cloudpal.E(op, cloudpal.Exhausted, errors.New("the center's offer is over")).WithHint("ask it for a new one")
	}
	return offer, center.OfferDigest(t.Offer), nil
}

// payable returns the coin that a slice is paid with, or nil.
func (w *Wallet) payable(s *state, class ticket.Class, d ticket.Denomination, due time.Time) *coin {
	now := w.clock.Now()
	for _, o := range s.choice(class, now, w.hurries()) {
		if o.Denomination == d && o.Epoch.Spends(now) && o.Epoch.Spends(due) {
			return o
		}
	}
	return nil
}

// exact sees to it that there is a coin of that worth, and that it hides in a crowd.
func (w *Wallet) exact(ctx context.Context, class ticket.Class, d ticket.Denomination, due time.Time) error {
	s, err := w.look()
	if err != nil {
		return err
	}
	o := w.payable(s, class, d, due)
	if o == nil {
		if young := s.young(class, d, due); young != nil {
			return resting(young.Ready)
		}
		if err := w.make(ctx, class, []ticket.Denomination{d}); err != nil {
			return err
		}
		if s, err = w.look(); err != nil {
			return err
		}
		if o = w.payable(s, class, d, due); o == nil {
			return w.lacking(s, class, ticket.Units(d))
		}
	}
	return w.crowded(ctx, o)
}

// young returns the coin that a slice could be paid with the soonest, or nil.
func (s *state) young(class ticket.Class, d ticket.Denomination, due time.Time) (soonest *coin) {
	revoked := s.revoked()
	for _, o := range s.coins {
		if o.Class == class && o.Denomination == d && !revoked[o.token.Key] && o.Epoch.Spends(due) && (soonest == nil || o.Ready.Before(soonest.Ready)) {
			soonest = o
		}
	}
	return soonest
}

// crowded refuses to spend a ticket in whose crowd nobody hides.
func (w *Wallet) crowded(ctx context.Context, o *coin) error {
	if w.policy.Crowd == 0 || w.trust.Alone() || o.Class == ticket.Free {
		return nil
	}
	counts, err := w.Counters(ctx, o.Epoch, crowdAge)
	if err != nil {
		return err
	}
	if n := counts.of(o.token.Key); n < w.policy.Crowd {
		return cloudpal.E("pay", cloudpal.Busy, &Sparse{n}).
			WithHint("wait until there are more; or, where it does not matter who sees it: --now")
	}
	return nil
}

// A Sparse error says that tickets are there, and would stand out: too few of their kind
// were ever sold.
type Sparse struct{ Sold uint64 }

func (s *Sparse) Error() string {
	return fmt.Sprintf("only %d tickets of this kind were ever sold: this one would stand out", s.Sold)
}

// blanks are the outputs that change of a payment is signed into.
func (p *payment) blanks() []want {
	o := &p.Coin
	return wants(changeBranch(o.serial()), o.Class, o.Epoch, ticket.Blank(o.Denomination))
}

// contract returns what a payment's ticket is spent for, and the outputs that it
// names.
func (w *Wallet) contract(ctx context.Context, p *payment, at ticket.CenterID) (c ticket.PayContract, r center.PayRequest, outputs []ticket.Output, err error) {
	if _, outputs, err = w.secrets(ctx, p.blanks()); err != nil {
		return c, r, nil, err
	}
	blank := ticket.OutputsDigest(outputs)
	r = center.PayRequest{Offer: p.Offer[:], Nonce: p.Nonce, Amount: p.Coin.Denomination, NotBefore: p.NotBefore, Blank: blank[:]}
	if c, err = r.Contract(at, p.Tab); err != nil {
		return c, r, nil, err
	}
	t, err := p.Coin.ticket()
	if err != nil {
		return c, r, nil, err
	}
	spend := t.Sign(c)
	r.Spend = spend.Append(nil)
	return c, r, outputs, nil
}

// Deliver takes a payment to its center, always the same, and keeps the center's word
// that it has it.
func (w *Wallet) Deliver(ctx context.Context, at Center, n uint64) (Payment, error) {
	s, err := w.look()
	if err != nil {
		return Payment{}, err
	}
	p, ok := s.payments[n]
	if !ok {
		return Payment{}, cloudpal.E("deliver a payment", cloudpal.NotExist, fmt.Errorf("there is none with number %d", n))
	}
	if p.Taken != nil || p.Ended {
		return p.show(n), nil
	}
	t, ok := s.tabs[p.Tab]
	if !ok {
		return Payment{}, cloudpal.E("deliver a payment", cloudpal.NotExist, errors.New("its tab is not in the wallet"))
	}
	contract, r, _, err := w.contract(ctx, p, t.Center)
	if err != nil {
		return p.show(n), err
	}
	signed, err := at.Pay(ctx, p.Tab, r)
	if err != nil {
		return p.show(n), err
	}
	if err := isPaid(signed, t.Center, p, contract); err != nil {
		return p.show(n), err
	}
	taken := *p
	taken.Taken = &signed
	return taken.show(n), w.change(ctx, func(s *state, c *change) error {
		if now, ok := s.payments[n]; ok && !now.Ended {
			next := *now
			next.Taken = &signed
			c.put(kindPayment, numbered(n), next)
		}
		return nil
	})
}

// isPaid checks the center's word that it has a ticket.
func isPaid(signed center.Signed, at ticket.CenterID, p *payment, contract ticket.PayContract) error {
	const op = "check the center's word that it was paid"
	var paid center.Paid
	if err := signed.Open(at[:], center.ForPaid, &paid); err != nil {
		return cloudpal.E(op, "", err)
	}
	serial := p.Coin.serial()
	if paid.Tab != p.Tab || !slices.Equal(paid.Serial, serial[:]) || paid.Contract != contract.Digest() ||
		paid.Amount != p.Coin.Denomination || paid.NotBefore != p.NotBefore {
		return cloudpal.E(op, cloudpal.Denied, errors.New("it is about another payment"))
	}
	return nil
}

// Cancel takes back a payment that is not due yet, by swapping its ticket, or one
// that the center refused. The error is a *Taken where it was deposited.
func (w *Wallet) Cancel(ctx context.Context, n uint64) error {
	const op = "cancel a payment"
	s, err := w.look()
	if err != nil {
		return err
	}
	p, ok := s.payments[n]
	switch {
	case !ok:
		return cloudpal.E(op, cloudpal.NotExist, fmt.Errorf("there is none with number %d", n))
	case p.Ended:
		return cloudpal.E(op, cloudpal.Exist, errors.New("it is over already"))
	case p.Taken != nil && !w.clock.Now().Before(time.Unix(p.NotBefore, 0)):
		return cloudpal.E(op, cloudpal.Denied, errors.New("it is due already")).
			WithHint("close the tab: what is not used comes back then")
	}
	return w.reclaim(ctx, n)
}

// reclaim swaps the ticket of a payment.
func (w *Wallet) reclaim(ctx context.Context, n uint64) error {
	e, err := w.issuing(ctx)
	if err != nil {
		return err
	}
	s, err := w.look()
	if err != nil {
		return err
	}
	p, ok := s.payments[n]
	if !ok || p.Ended {
		return nil
	}
	into, err := w.parts(ctx, e, p.Coin.Class, p.Coin.Denomination)
	if err != nil {
		return err
	}
	var number uint64
	err = w.change(ctx, func(s *state, c *change) error {
		p, ok := s.payments[n]
		if !ok || p.Ended {
			return nil
		}
		for other, sw := range s.swaps {
			if sw.Pay == n {
				number = other
				return nil
			}
		}
		o := p.Coin
		number = c.begin(swap{
			Begun: w.now(), Inputs: []coin{o}, Pay: n, Origin: Swapped,
			Outputs: wants(swapBranch(o.serial()), o.Class, e, into),
		})
		return nil
	})
	if err != nil || number == 0 {
		return err
	}
	return w.runSwap(ctx, number)
}

// end says that nothing more comes of a payment.
func (c *change) end(n uint64, p *payment) {
	ended := *p
	ended.Ended = true
	c.put(kindPayment, numbered(n), ended)
}

// verifiedRefund checks a center's leave to have the rest of a payment back.
func (w *Wallet) verifiedRefund(ctx context.Context, p *payment, at ticket.CenterID, r center.Refund) error {
	const op = "check a refund"
	_, outputs, err := w.secrets(ctx, p.blanks())
	if err != nil {
		return err
	}
	digest, serial := ticket.OutputsDigest(outputs), p.Coin.serial()
	switch {
	case r.Issuer != w.trust.Issuer || !slices.Equal(r.Serial, serial[:]) || !slices.Equal(r.Blank, digest[:]):
		return cloudpal.E(op, cloudpal.Denied, errors.New("it is about something else than was paid"))
	case r.Units == 0 || r.Units >= ticket.Units(p.Coin.Denomination):
		return cloudpal.E(op, cloudpal.Denied, fmt.Errorf("of %d units, %d cannot be given back", p.Coin.Denomination, r.Units))
	case !ed25519.Verify(at[:], mint.RefundText(serial, r.Units, digest), r.Signature):
		return cloudpal.E(op, cloudpal.Denied, errors.New("the center did not sign it"))
	}
	return nil
}
