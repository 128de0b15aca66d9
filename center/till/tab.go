package till

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// A tab is one pal's account.
type tab struct {
	owner   api.Fingerprint // this and request are state's too, and never change
	request api.TabRequest

	mu sync.Mutex
	state
	payments []*payment // those from state.First on, by their numbers
	next     uint64     // number of the next payment
	events   []api.Event
	unread   bool          // events are on disk alone: see recall
	changed  chan struct{} // closed at the next event
	stored   bool          // its state is on disk
	rate     ticket.Units  // a day, as the pal was when last counted
	gone     bool          // it was forgotten, before anything was paid
}

// A state is what is kept of a tab besides its payments.
type state struct {
	Request api.TabRequest  `json:"request"`
	Owner   api.Fingerprint `json:"owner"`
	Offer   ticket.Digest   `json:"offer"` // whose tariff counts
	Stage   api.Stage       `json:"stage"`
	Ended   time.Time       `json:"ended,omitzero"`  // when the money ended; later, where the center was away
	Doubt   bool            `json:"doubt,omitempty"` // a ticket was spent before: the next is asked about first
	Warned  bool            `json:"warned,omitempty"`

	// First is the first payment that is not used up, and Base what those before
	// it were worth.
	First uint64       `json:"first"`
	Base  ticket.Units `json:"base"`

	Count  count      `json:"count"`
	Last   *signature `json:"last,omitempty"`   // the last record
	Agreed *signature `json:"agreed,omitempty"` // the last that is countersigned

	Closed   *api.Signed `json:"closed,omitempty"`
	ClosedAt time.Time   `json:"closedAt,omitzero"`
}

// A signature is a record as it was signed.
type signature struct {
	Record  []byte `json:"record"`
	Center  []byte `json:"center"`
	Counter []byte `json:"counter,omitempty"`
}

func (s *signature) record() *ticket.Record {
	if s == nil {
		return nil
	}
	r, err := ticket.ParseRecord(s.Record)
	if err != nil {
		return nil
	}
	return &r
}

func (s *signature) meter() api.Meter {
	if s == nil {
		return api.Meter{}
	}
	return api.Meter{Record: s.Record, Signature: s.Center, Countersigned: s.Counter}
}

// A standing is what became of a payment; see the drawing above package till.
type standing string

const (
	booked    standing = "booked"
	deposited standing = "deposited"
	refused   standing = "refused"
	cancelled standing = "cancelled"
	returned  standing = "returned"
)

// A payment is one ticket.
type payment struct {
	booking

	contract ticket.PayContract
	spend    ticket.Spend
	when     int64 // when it is taken to its mint: Due, and later where that failed; guarded by Till.mu
	tries    int
}

// A booking is what is written down of a payment. Its tab's mu guards it.
type booking struct {
	N        uint64         `json:"n"`
	Tab      api.TabID      `json:"tab"`
	Issuer   string         `json:"issuer"`
	Epoch    ticket.Epoch   `json:"epoch"`
	Pay      api.PayRequest `json:"pay"`
	At       int64          `json:"at"`              // Unix seconds
	Due      int64          `json:"due"`             // when it is taken to its mint
	Ahead    bool           `json:"ahead,omitempty"` // it came before its NotBefore
	First    bool           `json:"first,omitempty"` // it counts for nothing until the mint has it
	Tried    bool           `json:"tried,omitempty"` // its mint may have it
	Is       standing       `json:"is"`
	Receipt  *mint.Receipt  `json:"receipt,omitempty"`
	Evidence []byte         `json:"evidence,omitempty"` // mint.Evidence that it was spent before
	Why      string         `json:"why,omitempty"`      // it was refused
}

// parse fills in what follows from Pay.
func (p *payment) parse(center ticket.CenterID) (err error) {
	if p.contract, err = p.Pay.Contract(center, p.Tab); err != nil {
		return err
	}
	p.spend, err = ticket.ParseSpend(p.Pay.Spend)
	p.when = p.Due
	return err
}

func (p *payment) units() ticket.Units { return ticket.Units(p.Pay.Amount) }

// due reports whether the payment's time has come.
func (p *payment) due(now time.Time) bool { return now.Unix() >= p.Pay.NotBefore }

// A place is where a ticket's payment is.
type place struct {
	Tab api.TabID `json:"tab"`
	N   uint64    `json:"n"`
}

// paid returns what the tickets that are due are worth, what of it no mint has
// confirmed yet, and what is paid ahead. The caller holds mu.
func (t *tab) paid(now time.Time) (all, pending, ahead ticket.Units) {
	all = t.Base
	for _, p := range t.payments {
		switch {
		case p.Is == deposited:
			all += p.units()
		case p.Is == booked && (!p.due(now) || p.Ahead && !p.Tried):
			// One that came ahead can be taken back until its mint is asked, which is
			// somewhat later than it is due.
			ahead += p.units()
		case p.Is == booked && !p.First:
			all += p.units()
			pending += p.units()
		}
	}
	return all, pending, ahead
}

// limit returns up to where the tab can be used: no further than it is paid for with
// what mints have confirmed and one slice besides, nor than one slice above what the
// pal's side has agreed to. The caller holds mu.
func (t *tab) limit(slice ticket.Units, now time.Time) (most ticket.Units, why string) {
	all, pending, _ := t.paid(now)
	most, why = all-pending+min(pending, slice), "its money is at an end"
	agreed := slice
	if r := t.Agreed.record(); r != nil {
		agreed += r.Used
	}
	if agreed < most {
		most, why = agreed, "its use is not countersigned"
	}
	switch {
	case t.Closed != nil:
		return 0, "its tab is closed"
	case t.Doubt:
		return 0, "a ticket was spent before"
	}
	return most, why
}

// settle lets go of payments of which nothing is to be done here any more: they are
// used up for good, or the tab is closed and says itself what comes back of them. The
// caller holds mu and writes the state.
func (t *tab) settle() {
	closed, used := t.Closed != nil, ticket.Units(0)
	if r := t.Agreed.record(); r != nil {
		used = r.Used
	}
	for len(t.payments) > 0 {
		p := t.payments[0]
		switch {
		case p.Is == deposited && (closed || t.Base+p.units() <= used):
			t.Base += p.units()
		case p.Is == deposited, p.Is == booked, p.Is == refused && closed:
			return // of a closed tab it can still be seen what was refused
		}
		t.payments, t.First = t.payments[1:], p.N+1
	}
}

// maxEvents is how many events of a tab are kept.
const maxEvents = 100

// recall reads a tab's events where that was not done yet: most tabs are over, and
// nobody asks for theirs. The caller holds the tab's mu.
func (t *Till) recall(tb *tab) error {
	if !tb.unread {
		return nil
	}
	var list []api.Event
	err := t.store.below(eventsOf(tb.Request.ID), func(_, value []byte) error {
		var e api.Event
		err := json.Unmarshal(value, &e)
		list = append(list, e)
		return err
	})
	if err != nil {
		return err
	}
	tb.events, tb.unread = list, false
	return nil
}

// tell adds an event to a batch that changes the tab, whose events are read. The caller
// holds mu, and calls wake when the batch is written.
func (t *tab) tell(b *batch, e api.Event) {
	e.N = 1
	if len(t.events) > 0 {
		e.N = t.events[len(t.events)-1].N + 1
	}
	t.events = append(t.events, e)
	b.put(numbered(eventsOf(t.Request.ID), uint64(e.N)), e)
	if len(t.events) > maxEvents {
		b.del(numbered(eventsOf(t.Request.ID), uint64(t.events[0].N)))
		t.events = slices.Clone(t.events[1:])
	}
}

// wake tells those who wait for events.
func (t *tab) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// view returns what is said of the tab.
func (t *Till) view(tab *tab) api.Tab {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return t.viewLocked(tab)
}

func (t *Till) viewLocked(tab *tab) api.Tab {
	now := t.now()
	v := api.Tab{
		ID: tab.Request.ID, Request: tab.Request, Offer: tab.Offer, Stage: tab.Stage,
		Used: tab.Count.used(), Rate: tab.rate, Closed: tab.Closed != nil,
	}
	v.Paid, v.Pending, v.Ahead = tab.paid(now)
	if r := tab.Agreed.record(); r != nil {
		v.Signed = r.Used
	}
	for _, p := range tab.payments {
		if p.Is == refused {
			serial := p.spend.Serial()
			v.Refused = append(v.Refused, api.Refusal{Serial: serial[:], Why: p.Why})
		}
		if at := time.Unix(p.Pay.NotBefore, 0).UTC(); p.Is == booked && !p.due(now) && (v.NextAhead.IsZero() || at.Before(v.NextAhead)) {
			v.NextAhead = at
		}
	}
	o, _ := t.terms(tab.Offer)
	switch tab.Stage {
	case api.Funded:
		most, _ := tab.limit(ticket.Units(o.Slice), now)
		v.Ends = endOf(most, &tab.Count, tab.rate, now)
		v.Seals, v.Deletes = after(v.Ends, o.Seal), after(v.Ends, o.Delete)
	case api.TabNapping, api.TabSealed, api.TabDeleted:
		_, v.Reason = tab.limit(ticket.Units(o.Slice), now)
		v.Ends, v.Seals, v.Deletes = tab.Ended, after(tab.Ended, o.Seal), after(tab.Ended, o.Delete)
	}
	return v
}

// after is d after a time that is known.
func after(t time.Time, d api.Seconds) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(d.Duration())
}

// Bounds of what accounts can have here without paying.
const (
	maxUnpaid = 4096 // tabs in memory
	maxOwned  = 100  // of an account, closed ones included
)

// OpenTab opens a tab of an account. It is on disk once it is paid.
func (t *Till) OpenTab(owner api.Fingerprint, r api.TabRequest) (api.Tab, error) {
	const op = "open a tab"
	if err := r.Check(); err != nil {
		return api.Tab{}, cloudpal.E(op, cloudpal.Invalid, err)
	}
	t.mu.Lock()
	tb, ok := t.tabs[r.ID]
	mine := 0
	for _, other := range t.tabs {
		if other.owner == owner {
			mine++
		}
	}
	switch {
	case ok:
		t.mu.Unlock()
		if tb.owner != owner || !slices.Equal(tb.request.WireGuard, r.WireGuard) || !slices.Equal(tb.request.Nonce, r.Nonce) {
			return api.Tab{}, cloudpal.E(op, cloudpal.Exist, errors.New("a tab with that id is there, for something else"))
		}
		return t.view(tb), nil
	case mine >= maxOwned:
		t.mu.Unlock()
		return api.Tab{}, cloudpal.E(op, cloudpal.Busy, errors.New("the account has too many tabs"))
	}
	tb = newTab(state{Request: r, Owner: owner, Offer: api.OfferDigest(t.offer), Stage: api.Unpaid})
	t.keepLocked(tb)
	t.unpaid = append(t.unpaid, r.ID)
	t.dropUnpaidLocked()
	t.mu.Unlock()
	return t.view(tb), nil
}

func newTab(s state) *tab {
	return &tab{owner: s.Owner, request: s.Request, state: s, next: 1, changed: make(chan struct{})}
}

// dropUnpaidLocked forgets the oldest tabs that nobody paid when there are too many:
// who opens one again has it again.
func (t *Till) dropUnpaidLocked() {
	for len(t.unpaid) > maxUnpaid {
		id := t.unpaid[0]
		t.unpaid = t.unpaid[1:]
		if tb := t.tabs[id]; tb != nil && tb.mu.TryLock() {
			if !tb.stored && tb.next == 1 {
				tb.gone = true
				t.forgetLocked(tb)
			}
			tb.mu.Unlock()
		}
	}
}

// A palKey names a pal as accounts do.
type palKey struct {
	owner     api.Fingerprint
	wireGuard [32]byte
}

func (t *tab) pal() palKey { return palKey{t.owner, [32]byte(t.request.WireGuard)} }

func (t *Till) keepLocked(tb *tab) {
	t.tabs[tb.request.ID] = tb
	t.pals[tb.pal()] = append(t.pals[tb.pal()], tb)
}

func (t *Till) forgetLocked(tb *tab) {
	delete(t.tabs, tb.request.ID)
	t.pals[tb.pal()] = slices.DeleteFunc(t.pals[tb.pal()], func(other *tab) bool { return other == tb })
	if len(t.pals[tb.pal()]) == 0 {
		delete(t.pals, tb.pal())
	}
}

// find returns an account's tab. Another's, and none at all, are the same.
func (t *Till) find(owner api.Fingerprint, id api.TabID) (*tab, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tb := t.tabs[id]
	if tb == nil || tb.owner != owner {
		return nil, cloudpal.E("find a tab", cloudpal.NotExist, nil)
	}
	return tb, nil
}

// Tab describes an account's tab.
func (t *Till) Tab(owner api.Fingerprint, id api.TabID) (api.Tab, error) {
	tb, err := t.find(owner, id)
	if err != nil {
		return api.Tab{}, err
	}
	return t.view(tb), nil
}

// Tabs describes an account's tabs, in no order.
func (t *Till) Tabs(owner api.Fingerprint) []api.Tab {
	list := []api.Tab{}
	for _, tb := range t.all() {
		if tb.owner == owner {
			list = append(list, t.view(tb))
		}
	}
	return list
}

func (t *Till) all() []*tab {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*tab, 0, len(t.tabs))
	for _, tb := range t.tabs {
		list = append(list, tb)
	}
	return list
}

// loadTabs takes up the tabs and what is still to be taken to mints.
func (t *Till) loadTabs() error {
	err := t.store.each(states, func(_, value []byte) error {
		var s state
		if err := json.Unmarshal(value, &s); err != nil {
			return err
		}
		tb := newTab(s)
		tb.stored, tb.unread, tb.next = true, true, max(1, s.First)
		t.keepLocked(tb)
		return nil
	})
	for id, tb := range t.tabs {
		err = errors.Join(err, t.loadPayments(id, tb))
	}
	return err
}

// loadPayments takes up a tab's payments that are not used up. Those before them nobody
// waits for: who paid most tabs and left has none that is read here.
func (t *Till) loadPayments(id api.TabID, tb *tab) error {
	return t.store.since(paymentsOf(id), numbered(nil, tb.First), func(_, value []byte) error {
		p := new(payment)
		if err := json.Unmarshal(value, p); err != nil {
			return err
		}
		if err := p.parse(t.center); err != nil {
			return err
		}
		if p.Is == booked {
			t.queue.add(p)
		}
		tb.payments = append(tb.payments, p)
		tb.next = max(tb.next, p.N+1)
		return nil
	})
}
