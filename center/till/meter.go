package till

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/ticket"
)

// recordsIn is how many records a slice gives: so much of it is used between them.
const recordsIn = 8

// Count takes what an account's pal has used so far, and signs a record where one is
// due. It returns the record that waits to be countersigned, or none.
func (t *Till) Count(owner api.Fingerprint, wireGuard []byte, u Use) (r api.TabRequest, m api.Meter, err error) {
	tb := t.tabOfPal(owner, wireGuard)
	if tb == nil {
		return r, m, nil
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if tb.Closed != nil {
		return r, m, nil
	}
	o, _ := t.terms(tb.Offer)
	now := t.now()
	next := tb.state
	next.Count.add(o.Tariff, u, now)
	tb.rate = rate(o.Tariff, u)
	b := t.store.begin()
	if s := t.record(&next, o, now); s != nil {
		next.Last = s
		b.put(stateKey(tb.Request.ID), next)
		err = b.commit()
	} else {
		b.put(stateKey(tb.Request.ID), next)
		err = b.soon()
	}
	if err != nil {
		return r, m, err
	}
	tb.state = next
	if tb.Last != nil && tb.Last.Counter == nil {
		m = tb.Last.meter()
	}
	return tb.Request, m, nil
}

// tabOfPal returns the tab that a pal's use goes on: one with money before one whose
// money is at an end.
func (t *Till) tabOfPal(owner api.Fingerprint, wireGuard []byte) (best *tab) {
	for _, tb := range t.tabsOfPal(owner, wireGuard) {
		tb.mu.Lock()
		fits, funded := tb.Closed == nil && tb.stored, tb.Stage == api.Funded
		tb.mu.Unlock()
		if fits && (best == nil || funded) {
			best = tb
		}
		if fits && funded {
			return best
		}
	}
	return best
}

func (t *Till) tabsOfPal(owner api.Fingerprint, wireGuard []byte) []*tab {
	if len(wireGuard) != 32 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.pals[palKey{owner, [32]byte(wireGuard)}])
}

// record signs the next record where enough was used since the last, and that is
// countersigned.
func (t *Till) record(s *state, o api.Offer, now time.Time) *signature {
	last := s.Last.record()
	r := ticket.Record{Tab: s.Request.ID, Seq: 1, Used: s.claim(ticket.Units(o.Slice)), At: now.Truncate(time.Second)}
	var before ticket.Units
	if last != nil {
		if s.Last.Counter == nil {
			return nil
		}
		before, r.Seq, r.Prev = last.Used, last.Seq+1, last.Digest()
		if r.At.Before(last.At) {
			r.At = last.At // the clock was set back
		}
	}
	if r.Used < before+max(1, ticket.Units(o.Slice)/recordsIn) {
		return nil
	}
	return &signature{Record: r.Append(nil), Center: r.Sign(t.key)}
}

// Meter returns the last record of an account's tab.
func (t *Till) Meter(owner api.Fingerprint, id api.TabID) (api.Meter, error) {
	tb, err := t.find(owner, id)
	if err != nil {
		return api.Meter{}, err
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.Last.meter(), nil
}

// Countersign takes the agreement of the person's side to the last record. It is in
// the signature: whoever brings it may.
func (t *Till) Countersign(owner api.Fingerprint, id api.TabID, q api.CountersignRequest) (api.Meter, error) {
	const op = "take a countersignature"
	tb, err := t.find(owner, id)
	if err != nil {
		return api.Meter{}, err
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	last := tb.Last.record()
	switch {
	case last == nil || !bytes.Equal(q.Record, tb.Last.Record):
		return api.Meter{}, cloudpal.E(op, cloudpal.Exist, errors.New("it is not of the last record")).WithHint("ask for the meter again")
	case !last.Signed(ed25519.PublicKey(id[:]), q.Signature):
		return api.Meter{}, cloudpal.E(op, cloudpal.Denied, errors.New("it is not by the tab's key"))
	case tb.Last.Counter != nil || tb.Closed != nil:
		return tb.Last.meter(), nil
	}
	was, payments := tb.state, tb.payments
	agreed := *tb.Last
	agreed.Counter = bytes.Clone(q.Signature)
	tb.Last, tb.Agreed = &agreed, &agreed
	tb.settle()
	b := t.store.begin()
	b.put(stateKey(id), tb.state)
	if err := b.commit(); err != nil {
		tb.state, tb.payments = was, payments
		return api.Meter{}, err
	}
	return tb.Last.meter(), nil
}
