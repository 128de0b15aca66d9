package till

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// CloseTab ends an account's tab: it signs the final record, and for each ticket of
// which something is left that its mint may give that back. Asked again, it gives the
// same. What is signed is good without this center: the person has the rest of the
// mint.
func (t *Till) CloseTab(owner api.Fingerprint, id api.TabID) (api.Signed, error) {
	const op = "close a tab"
	tb, err := t.find(owner, id)
	if err != nil {
		return api.Signed{}, err
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if tb.Closed != nil {
		return *tb.Closed, nil
	}
	if !tb.stored {
		return api.Signed{}, cloudpal.E(op, cloudpal.Invalid, errors.New("nothing was paid on it"))
	}
	next, kept, back := t.finish(tb)
	was, payments := tb.state, tb.payments
	b := t.store.begin()
	tb.state = next
	for _, p := range back {
		p.Is = returned
		b.put(numbered(paymentsOf(id), p.N), p.booking)
	}
	tb.settle()
	b.put(stateKey(id), tb.state)
	if err := b.commit(); err != nil {
		for _, p := range back {
			p.Is = booked
		}
		tb.state, tb.payments = was, payments
		return api.Signed{}, err
	}
	// What is still to be taken to a mint is taken now: until then there is no
	// refund of it.
	t.hurry(kept)
	return *tb.Closed, t.announce(tb, api.Event{Time: next.ClosedAt, What: api.TabEnded})
}

// finish works out a tab's end: the state that it has then, the payments that the
// center keeps, and those that it leaves alone. The caller holds the tab's mu.
func (t *Till) finish(tb *tab) (next state, kept, back []*payment) {
	next = tb.state
	o, _ := t.terms(tb.Offer)
	now := t.now().Truncate(time.Second)
	used := tb.claim(ticket.Units(o.Slice))
	worth := tb.Base
	for _, p := range tb.payments {
		switch {
		case p.Is == deposited, p.Is == booked && (p.Tried || worth < used && p.due(now)):
			kept = append(kept, p)
			worth += p.units()
		case p.Is == booked:
			back = append(back, p)
		}
	}
	// A mint gives back less than a whole ticket: each that was taken to it costs a
	// unit.
	used = min(max(used, tb.Base+ticket.Units(len(kept))), worth)
	final := t.final(&next, used, now)
	closed := api.Closed{Tab: tb.Request.ID, Meter: final.meter(), Agreed: tb.Agreed.meter()}
	for i, rest := range rests(kept, used-tb.Base) {
		if rest > 0 {
			closed.Refunds = append(closed.Refunds, t.refund(kept[i], rest))
		}
	}
	for _, p := range back {
		serial := p.spend.Serial()
		closed.Returned = append(closed.Returned, serial[:])
	}
	// Marshalling what is of our own making does not fail.
	signed, _ := api.Sign(t.key, api.ForClosed, closed)
	next.Last, next.Closed, next.ClosedAt = final, &signed, now
	return next, kept, back
}

// claim is what the center claims to be used: no more than one slice above what was
// countersigned.
func (s *state) claim(slice ticket.Units) ticket.Units {
	most := slice
	if r := s.Agreed.record(); r != nil {
		most += r.Used
	}
	return min(s.Count.used(), most)
}

// final signs a final record, or returns the last one where it says the same.
func (t *Till) final(s *state, used ticket.Units, now time.Time) *signature {
	r := ticket.Record{Tab: s.Request.ID, Seq: 1, Used: used, At: now}
	if last := s.Last.record(); last != nil {
		if last.Used == used {
			return s.Last
		}
		r.Seq, r.Prev = last.Seq+1, last.Digest()
		if r.At.Before(last.At) {
			r.At = last.At
		}
		r.Used = max(used, last.Used)
	}
	return &signature{Record: r.Append(nil), Center: r.Sign(t.key)}
}

// rests says what is left of each payment when used of all of them is: the oldest go
// first, but of each at least a unit.
func rests(kept []*payment, used ticket.Units) []ticket.Units {
	list := make([]ticket.Units, len(kept))
	for i, p := range kept {
		after := ticket.Units(len(kept) - i - 1) // one unit of each of those that follow
		take := min(p.units(), max(1, used-min(used, after)))
		list[i] = p.units() - min(take, used)
		used -= min(take, used)
	}
	return list
}

func (t *Till) refund(p *payment, units ticket.Units) api.Refund {
	serial := p.spend.Serial()
	return api.Refund{
		Issuer: p.Issuer, Serial: serial[:], Units: units, Blank: p.Pay.Blank,
		Signature: ed25519.Sign(t.key, mint.RefundText(serial, units, p.contract.Blank)),
	}
}

// hurry has payments taken to their mints at once.
func (t *Till) hurry(list []*payment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now().Unix()
	for _, p := range list {
		p.when = min(p.when, now)
	}
	t.queue.order()
}

// answerDisputes answers what people say against this center with the last record
// that their side has countersigned, where it is later than theirs.
func (t *Till) answerDisputes(ctx context.Context) error {
	var errs []error
	for _, i := range t.cfg.Issuers {
		list, err := i.Mint.Disputes(ctx)
		errs = append(errs, err)
		for _, d := range list {
			r := t.rebut(d)
			if r == nil {
				continue
			}
			_, err := i.Mint.Answer(ctx, d.ID, *r)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// rebut returns a center's answer to a dispute, or nil where it has none.
func (t *Till) rebut(d mint.Dispute) *mint.AnswerRequest {
	if d.State != mint.Open || len(d.Tab) != 32 {
		return nil
	}
	t.mu.Lock()
	tb := t.tabs[api.TabID(d.Tab)]
	t.mu.Unlock()
	if tb == nil {
		return nil
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	mine := tb.Agreed.record()
	if mine == nil || bytes.Equal(d.Record, tb.Agreed.Record) {
		return nil
	}
	if theirs, err := ticket.ParseRecord(d.Record); err == nil && theirs.Seq >= mine.Seq {
		return nil
	}
	return &mint.AnswerRequest{Record: tb.Agreed.Record, Countersigned: tb.Agreed.Counter}
}

// lastPrune is the row that says in which month prune was done.
var lastPrune = []byte("d")

// prune drops what can be of no use any more: payments whose keys are no more, and
// tabs that have ended and have none. It reads all payments, so it does that once in
// each month: keys end with one.
func (t *Till) prune() error {
	now := t.now().Add(-clockSlack)
	month := ticket.EpochAt(now)
	var done ticket.Epoch
	if found, err := t.store.get(lastPrune, &done); err != nil || found && done == month {
		return err
	}
	b := t.store.begin()
	b.put(lastPrune, month)
	left := map[api.TabID]bool{}
	err := t.store.each(payments, func(key, value []byte) error {
		p := new(payment)
		if err := json.Unmarshal(value, p); err != nil {
			return err
		}
		if err := p.parse(t.center); err != nil {
			return err
		}
		if p.Epoch.Swaps(now) || now.Before(p.Epoch.Begins()) || p.Is == booked {
			left[p.Tab] = true
			return nil
		}
		b.del(append([]byte{payments}, key...))
		b.del(placeKey(p.spend.Serial()))
		return nil
	})
	if err != nil {
		return errors.Join(err, b.b.Close())
	}
	for _, tb := range t.all() {
		tb.mu.Lock()
		over := (tb.Closed != nil || tb.Stage == api.TabDeleted) && !left[tb.Request.ID]
		if over {
			b.del(stateKey(tb.Request.ID))
			b.err = errors.Join(b.err, t.recall(tb))
			for _, e := range tb.events {
				b.del(numbered(eventsOf(tb.Request.ID), uint64(e.N)))
			}
		}
		tb.mu.Unlock()
		if over {
			t.mu.Lock()
			t.forgetLocked(tb)
			t.mu.Unlock()
		}
	}
	return b.commit()
}
