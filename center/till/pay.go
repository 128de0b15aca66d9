package till

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// maxOpen bounds a tab's tickets that are not used up.
const maxOpen = 400

// maxAhead is how long ahead a ticket can be paid: its key is dropped before.
const maxAhead = 5 * 31 * 24 * time.Hour

// Pay books a ticket on an account's tab and gives the center's word for it. Asked
// again, it gives the same word. The first ticket of a tab, and one after a ticket
// that was spent twice, is taken to its mint before.
//
// The error is cloudpal.Denied for a ticket that is not good, was spent before or is
// not for this, cloudpal.Invalid for one that is not taken, and cloudpal.Missing
// where the mint does not answer: the ticket is booked then, and counts once the mint
// does.
func (t *Till) Pay(ctx context.Context, owner api.Fingerprint, id api.TabID, r api.PayRequest) (api.Signed, error) {
	const op = "take a ticket"
	tb, err := t.find(owner, id)
	if err != nil {
		return api.Signed{}, err
	}
	p := &payment{booking: booking{Tab: id, Pay: r, Is: booked}}
	if err := p.parse(t.center); err != nil {
		return api.Signed{}, cloudpal.E(op, cloudpal.Invalid, err)
	}
	if p, err = t.book(ctx, tb, p); err != nil {
		return api.Signed{}, cloudpal.E(op, "", err)
	}
	if t.mustAsk(tb, p) {
		t.take(ctx, p)
	}
	if err := t.review(tb, t.now(), 0); err != nil {
		return api.Signed{}, cloudpal.E(op, "", err)
	}
	return t.answer(tb, p)
}

// mustAsk reports whether a payment counts for nothing before its mint has it, which
// is now to be asked.
func (t *Till) mustAsk(tb *tab, p *payment) bool {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	// Who pays now may say so by a clock that is ahead of this one.
	return p.First && p.Is == booked && p.due(t.now().Add(clockSlack))
}

// answer is the center's word for a payment, always the same.
func (t *Till) answer(tb *tab, p *payment) (api.Signed, error) {
	const op = "take a ticket"
	tb.mu.Lock()
	is, why, first := p.Is, p.Why, p.First
	tb.mu.Unlock()
	switch {
	case is == refused, is == cancelled:
		return api.Signed{}, cloudpal.E(op, cloudpal.Denied, errors.New(why)).WithHint("pay with another ticket")
	case is == returned:
		return api.Signed{}, cloudpal.E(op, cloudpal.Denied, errors.New("the tab was closed before the ticket was used")).WithHint("swap the ticket")
	case is == booked && first && p.due(t.now()):
		return api.Signed{}, cloudpal.E(op, cloudpal.Missing, errors.New("the mint does not answer")).
			WithHint("the ticket's mint cannot be asked now; send the same again")
	}
	serial := p.spend.Serial()
	return api.Sign(t.key, api.ForPaid, api.Paid{
		Tab: p.Tab, Serial: serial[:], Contract: p.contract.Digest(),
		Amount: p.Pay.Amount, NotBefore: p.Pay.NotBefore, At: p.At,
	})
}

// book checks a payment and writes it down, or returns the one that is there.
func (t *Till) book(ctx context.Context, tb *tab, p *payment) (*payment, error) {
	if was, err := t.booked(tb, p); was != nil || err != nil {
		return was, err
	}
	now := t.now()
	if err := t.accept(ctx, tb, p, now); err != nil {
		return nil, err
	}
	if err := t.store.room(); err != nil {
		return nil, err
	}
	serial := p.spend.Serial()
	t.serials[serial[0]].Lock()
	defer t.serials[serial[0]].Unlock()
	if was, err := t.booked(tb, p); was != nil || err != nil {
		return was, err
	}
	if err := t.write(tb, p, now); err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.queue.add(p)
	t.unpaid = slices.DeleteFunc(t.unpaid, func(id api.TabID) bool { return id == p.Tab })
	t.mu.Unlock()
	return p, nil
}

// booked returns what is there of a ticket, where it was spent for just this.
func (t *Till) booked(tb *tab, p *payment) (*payment, error) {
	var at place
	found, err := t.store.get(placeKey(p.spend.Serial()), &at)
	if !found || err != nil {
		return nil, err
	}
	other := cloudpal.E("", cloudpal.Denied, errors.New("the ticket was spent here before, for something else")).
		WithHint("pay with another ticket")
	if at.Tab != p.Tab {
		return nil, other
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	for _, was := range tb.payments {
		if was.N == at.N && was.contract.Digest() == p.contract.Digest() {
			return was, nil
		}
	}
	var was payment
	if found, err := t.store.get(numbered(paymentsOf(p.Tab), at.N), &was); !found || err != nil {
		return nil, errors.Join(err, other)
	}
	if err := was.parse(t.center); err != nil || was.contract.Digest() != p.contract.Digest() {
		return nil, other
	}
	return &was, nil
}

// accept checks all of a payment but whether it was spent before.
func (t *Till) accept(ctx context.Context, tb *tab, p *payment, now time.Time) error {
	invalid := func(why, hint string) error {
		return cloudpal.E("", cloudpal.Invalid, errors.New(why)).WithHint(hint)
	}
	digest := ticket.Digest(p.Pay.Offer)
	o, ok := t.terms(digest)
	tb.mu.Lock()
	closed, open := tb.Closed != nil, len(tb.payments)
	tb.mu.Unlock()
	at := now
	if from := time.Unix(p.Pay.NotBefore, 0); from.After(now) {
		at = from
	}
	switch {
	case closed:
		return invalid("the tab is closed", "open another tab")
	case !ok || now.After(o.Until):
		return invalid("the offer is not one of this center that is still good", "ask for the offer again")
	case p.Pay.Amount != o.Slice:
		return invalid("the ticket is not worth a slice", fmt.Sprintf("pay with a ticket of %d units", o.Slice))
	case at.Sub(now) > maxAhead:
		return invalid("it is paid too far ahead", "leave it in the wallet for now")
	case open >= maxOpen:
		return invalid("enough is paid already", "leave it in the wallet for now")
	}
	key, err := t.keys.find(ctx, p.spend.Token.Key, now)
	switch {
	case errors.Is(err, cloudpal.NotExist):
		return cloudpal.E("", cloudpal.Denied, errors.New("the ticket's key is in no manifest that is known here")).
			WithHint("is the ticket of a mint that the offer names?")
	case err != nil:
		return err
	case !slices.Contains(o.Classes, key.Class):
		return invalid("tickets of that class are not taken", "the offer says which are")
	}
	// It is to reach the mint before the key's end, and may be of a month that has
	// begun there and not yet here.
	last := at.Add(o.Grace.Duration() + clockSlack)
	if at.Add(clockSlack).Before(key.Epoch.Begins()) || !last.Before(key.Epoch.SpendEnds()) {
		return invalid("the ticket cannot be spent at that time", "swap it for a newer one")
	}
	if err := p.spend.Verify(key.issuer.Trust.Issuer, key.Key, p.contract); err != nil {
		return err
	}
	p.Issuer, p.Epoch = key.issuer.Trust.Issuer, key.Epoch
	return nil
}

// write gives a payment its number and moment, and makes it durable with its tab.
func (t *Till) write(tb *tab, p *payment, now time.Time) error {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	switch {
	case tb.gone:
		return cloudpal.NotExist
	case tb.Closed != nil:
		return cloudpal.E("", cloudpal.Invalid, errors.New("the tab is closed")).WithHint("open another tab")
	}
	o, _ := t.terms(ticket.Digest(p.Pay.Offer))
	p.N, p.At, p.Ahead = tb.next, now.Unix(), !p.due(now)
	p.First = tb.Doubt || tb.Base == 0 && !slices.ContainsFunc(tb.payments, func(p *payment) bool { return p.Is == deposited })
	// A first one is asked about at once: this is for when that fails. One that came
	// ahead has the moment that its owner chose.
	p.Due = p.At + spread(o.Grace.Duration())
	if p.Ahead {
		p.Due = p.Pay.NotBefore + rand.Int64N(aheadSpread)
	}
	p.when = p.Due
	b := t.store.begin()
	b.put(numbered(paymentsOf(p.Tab), p.N), p.booking)
	b.put(placeKey(p.spend.Serial()), place{p.Tab, p.N})
	next := tb.state
	if !p.Ahead {
		next.Offer = ticket.Digest(p.Pay.Offer) // who signed for it agrees to its tariff
	}
	if !tb.stored || next.Offer != tb.Offer {
		b.put(stateKey(p.Tab), next)
	}
	if err := b.commit(); err != nil {
		return err
	}
	tb.stored, tb.state.Offer = true, next.Offer
	tb.payments, tb.next = append(tb.payments, p), p.N+1
	return nil
}

// aheadSpread is how much later than its owner chose a ticket is taken to its mint at
// most, in seconds.
const aheadSpread = 30

// spread is a random time, in seconds, after which a ticket is taken to its mint: at
// least a minute where the grace allows, and so that it is there within the grace.
func spread(grace time.Duration) int64 {
	from, to := int64(60), int64(grace/time.Second)-30
	if to <= from {
		from = to / 2
	}
	return from + rand.Int64N(to-from+1)
}

// evidence is what a mint has shown, checked: that a payment's ticket was spent for
// something else. Without it a mint's word is nothing.
func (t *Till) evidence(p *payment, err error) *mint.Evidence {
	var spent *mint.Spent
	if !errors.As(err, &spent) {
		return nil
	}
	key, ok := t.keys.look(p.spend.Token.Key)
	if !ok || spent.Evidence.Proves(p.Issuer, key.Key, p.spend.Serial(), p.contract) != nil {
		return nil
	}
	return &spent.Evidence
}
