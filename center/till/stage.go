package till

import (
	"context"
	"errors"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/ticket"
)

// Stage says how an account's pal stands: as the best of its tabs does, and Unpaid
// where there is none.
func (t *Till) Stage(owner api.Fingerprint, wireGuard []byte) (s api.Stage, why string) {
	s = api.Unpaid
	for _, tb := range t.tabsOfPal(owner, wireGuard) {
		tb.mu.Lock()
		stage, o := tb.Stage, tb.Offer
		tb.mu.Unlock()
		terms, _ := t.terms(o)
		if better(stage) > better(s) {
			s = stage
			tb.mu.Lock()
			_, why = tb.limit(ticket.Units(terms.Slice), t.now())
			tb.mu.Unlock()
		}
	}
	return s, why
}

func better(s api.Stage) int {
	switch s {
	case api.Funded:
		return 4
	case api.TabNapping:
		return 3
	case api.TabSealed:
		return 2
	case api.TabDeleted:
		return 1
	}
	return 0
}

// away is how long there may be between two Reviews. What is longer is time in which
// there was no center, or a clock that was set: nobody could have paid then, so it
// counts for nobody's end.
const away = 5 * time.Minute

// lastReview is the row that says when Review was called last.
var lastReview = []byte("l")

func (t *Till) loadReview() error {
	_, err := t.store.get(lastReview, &t.last)
	return err
}

// Review moves tabs from stage to stage as their money and the time have it.
func (t *Till) Review() {
	now := t.now()
	t.mu.Lock()
	gap := now.Sub(t.last)
	if t.last.IsZero() {
		gap = 0
	}
	t.last = now
	t.mu.Unlock()
	if gap < away {
		gap = 0
	}
	for _, tb := range t.all() {
		if err := t.review(tb, now, gap); err != nil {
			t.log.Error("move a tab on; it will be tried again", "err", err)
		}
	}
	b := t.store.begin()
	b.put(lastReview, now)
	if err := b.soon(); err != nil {
		t.log.Error("note the time", "err", err)
	}
}

func (t *Till) review(tb *tab, now time.Time, gap time.Duration) error {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if !tb.stored {
		return nil
	}
	o, _ := t.terms(tb.Offer)
	most, why := tb.limit(ticket.Units(o.Slice), now)
	next := tb.state
	told := next.move(o, most, why, now, gap)
	told = append(told, next.warn(time.Duration(t.cfg.Terms.Warn), endOf(most, &tb.Count, tb.rate, now), now)...)
	if len(told) == 0 && next.Stage == tb.Stage && next.Ended.Equal(tb.Ended) && next.Warned == tb.Warned {
		return nil
	}
	if err := t.recall(tb); err != nil {
		return err
	}
	b := t.store.begin()
	b.put(stateKey(tb.Request.ID), next)
	was := tb.events
	for _, e := range told {
		tb.tell(b, e)
	}
	if err := b.commit(); err != nil {
		tb.events = was
		return err
	}
	tb.state = next
	if len(told) > 0 {
		tb.wake()
	}
	return nil
}

// move takes a tab to the stage that it is to be in, and returns what is to be told:
// each step before it comes to that.
func (s *state) move(o api.Offer, most ticket.Units, why string, now time.Time, gap time.Duration) (told []api.Event) {
	due := func(what api.What, d api.Seconds) api.Event {
		return api.Event{Time: now, What: what, Due: after(s.Ended, d), Reason: why}
	}
	funded := s.Count.Nano < uint64(most)*nano
	switch {
	case funded:
		s.Stage, s.Ended = api.Funded, time.Time{}
		return nil
	case s.Stage == api.Unpaid || s.Stage == api.TabDeleted:
		return nil
	case s.Stage == api.Funded:
		s.Stage, s.Ended, s.Warned = api.TabNapping, now, false
		return []api.Event{{Time: now, What: api.Napped, Reason: why}, due(api.SealDue, o.Seal), due(api.DeletionDue, o.Delete)}
	case gap > 0:
		s.Ended = s.Ended.Add(gap)
		told = append(told, due(api.DeletionDue, o.Delete))
		if s.Stage == api.TabNapping {
			told = append([]api.Event{due(api.SealDue, o.Seal)}, told...)
		}
	}
	if s.Stage == api.TabNapping && !now.Before(after(s.Ended, o.Seal)) {
		s.Stage = api.TabSealed
		told = append(told, api.Event{Time: now, What: api.Dropped, Reason: why}, due(api.DeletionDue, o.Delete))
	}
	if s.Stage == api.TabSealed && !now.Before(after(s.Ended, o.Delete)) {
		s.Stage = api.TabDeleted
		told = append(told, api.Event{Time: now, What: api.PalDeleted, Reason: why})
	}
	return told
}

// warn says once that the money ends soon.
func (s *state) warn(before time.Duration, ends, now time.Time) []api.Event {
	soon := s.Stage == api.Funded && !ends.IsZero() && ends.Sub(now) <= before
	defer func() { s.Warned = soon }()
	if !soon || s.Warned {
		return nil
	}
	return []api.Event{{Time: now, What: api.NapDue, Due: ends, Reason: "its money ends"}}
}

// Events returns what happened to an account's tab after event number after. Where
// that is nothing it waits, for at most wait.
func (t *Till) Events(ctx context.Context, owner api.Fingerprint, id api.TabID, after int64, wait time.Duration) ([]api.Event, error) {
	tb, err := t.find(owner, id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		list, changed, err := t.eventsAfter(tb, after)
		if err != nil || len(list) > 0 || wait == 0 {
			return list, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return list, nil
			}
			return nil, ctx.Err()
		}
	}
}

func (t *Till) eventsAfter(tb *tab, n int64) (list []api.Event, changed chan struct{}, err error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if err := t.recall(tb); err != nil {
		return nil, nil, err
	}
	list = []api.Event{}
	for _, e := range tb.events {
		if e.N > n {
			list = append(list, e)
		}
	}
	return list, tb.changed, nil
}
