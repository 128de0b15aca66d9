package till

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// A queue has the payments that are still to be taken to their mints, the next first.
// Each has a moment of its own, drawn at random, so that their order says nothing of
// who paid with them.
type queue []*payment

// order is called when the moments of many have changed.
func (q *queue) order() { heap.Init(q) }

func (q *queue) add(p *payment)    { heap.Push(q, p) }
func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].when < q[j].when }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*payment)) }
func (q *queue) Pop() (x any) {
	last := len(*q) - 1
	x, (*q)[last], *q = (*q)[last], nil, (*q)[:last]
	return x
}

const (
	depositTimeout = 30 * time.Second
	maxDepositing  = 16 // at a time
	maxBackoff     = 10 * time.Minute
)

// Deposit takes to the mints what is due. One that does not answer is asked again
// later, ever less often.
func (t *Till) Deposit(ctx context.Context) {
	var tasks sync.WaitGroup
	room := make(chan struct{}, maxDepositing)
	due := t.dueNow()
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	for _, p := range due {
		room <- struct{}{}
		tasks.Go(func() {
			defer func() { <-room }()
			t.take(ctx, p)
			if t.isBooked(p) {
				t.again(p)
			}
		})
	}
	tasks.Wait()
}

func (t *Till) dueNow() (list []*payment) {
	now := t.now().Unix()
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) > 0 && t.queue[0].when <= now {
		list = append(list, heap.Pop(&t.queue).(*payment))
	}
	return list
}

// again puts a payment back, for later.
func (t *Till) again(p *payment) {
	p.tries++
	wait := min(time.Second<<min(p.tries, 20), maxBackoff)
	wait += rand.N(wait)
	t.mu.Lock()
	defer t.mu.Unlock()
	p.when = t.now().Add(wait).Unix()
	t.queue.add(p)
}

func (t *Till) tabOf(p *payment) *tab {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tabs[p.Tab]
}

func (t *Till) isBooked(p *payment) bool {
	tb := t.tabOf(p)
	if tb == nil {
		return false
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return p.Is == booked
}

// take asks a payment's mint to credit it, and writes down what the mint says. What it
// does not prove changes nothing. It may be called for one payment from many
// goroutines.
func (t *Till) take(ctx context.Context, p *payment) {
	i := t.keys.issuer(p.Issuer)
	if i == nil {
		return
	}
	ok, err := t.begin(p)
	if err != nil {
		t.log.Error("note that a ticket is taken to its mint", "err", err)
	}
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, depositTimeout)
	defer cancel()
	r, err := i.Mint.Deposit(ctx, p.contract, p.spend)
	now := t.now()
	var wrote error
	switch e := t.evidence(p, err); {
	case err == nil:
		if err = t.checkReceipt(ctx, p, r); err == nil {
			wrote = t.deposited(p, &r, now)
		}
	case e != nil:
		wrote = t.spentBefore(p, e, now)
	case isFinal(err) && !now.Before(p.Epoch.SpendEnds()):
		wrote = t.worthless(p, "its mint took it no more", now)
	}
	if err = errors.Join(wrote, err); err != nil && ctx.Err() == nil && !errors.Is(err, cloudpal.Exist) {
		t.log.Warn("take a ticket to its mint", "issuer", p.Issuer, "err", err)
	}
}

// begin notes, for good, that a payment's mint may have it from now on: it can no more
// be given back by leaving it alone. It reports whether there is something to
// take.
func (t *Till) begin(p *payment) (ok bool, err error) {
	tb := t.tabOf(p)
	if tb == nil {
		return false, nil
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if p.Is != booked {
		return false, nil
	}
	if !p.Tried {
		next := p.booking
		next.Tried = true
		b := t.store.begin()
		b.put(numbered(paymentsOf(p.Tab), p.N), &next)
		if err := b.commit(); err != nil {
			return false, err
		}
		p.Tried = true
	}
	return true, nil
}

// isFinal reports whether an error is a mint's word and no trouble on the way.
func isFinal(err error) bool {
	for _, k := range []cloudpal.Kind{cloudpal.Invalid, cloudpal.Denied, cloudpal.Exhausted, cloudpal.NotExist} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// checkReceipt refuses a receipt that is not for the payment, or not the mint's.
func (t *Till) checkReceipt(ctx context.Context, p *payment, r mint.Receipt) error {
	serial, digest := p.spend.Serial(), p.contract.Digest()
	if !bytes.Equal(r.Serial, serial[:]) || !bytes.Equal(r.Contract, digest[:]) || !bytes.Equal(r.Center, t.center[:]) || r.Amount != p.Pay.Amount {
		return cloudpal.E("check a receipt", cloudpal.Denied, errors.New("it is for something else"))
	}
	key := t.keys.receipt(p.Issuer, r.Epoch)
	if key == nil {
		if err := t.keys.refresh(ctx, t.now()); err != nil {
			return err
		}
		key = t.keys.receipt(p.Issuer, r.Epoch)
	}
	return r.Verify(key)
}

// settleWith writes down what became of a payment, once.
func (t *Till) settleWith(p *payment, change func(next *booking, s *state) []api.Event) error {
	tb := t.tabOf(p)
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if p.Is != booked {
		return nil
	}
	next, s := p.booking, tb.state
	told := change(&next, &s)
	state, payments := tb.state, tb.payments
	p.Is, tb.state = next.Is, s
	if tb.Closed != nil {
		tb.settle()
	}
	b := t.store.begin()
	b.put(numbered(paymentsOf(p.Tab), p.N), &next)
	b.put(stateKey(p.Tab), tb.state)
	if err := b.commit(); err != nil {
		p.Is, tb.state, tb.payments = booked, state, payments
		return err
	}
	p.Receipt, p.Evidence, p.Why = next.Receipt, next.Evidence, next.Why
	return t.announce(tb, told...)
}

// announce adds events to a tab. The caller holds the tab's mu.
func (t *Till) announce(tb *tab, list ...api.Event) error {
	if len(list) == 0 {
		return nil
	}
	if err := t.recall(tb); err != nil {
		return err
	}
	b := t.store.begin()
	for _, e := range list {
		tb.tell(b, e)
	}
	tb.wake()
	return b.commit()
}

func (t *Till) deposited(p *payment, r *mint.Receipt, now time.Time) error {
	return t.settleWith(p, func(next *booking, s *state) []api.Event {
		next.Is, next.Receipt = deposited, r
		if next.First {
			s.Doubt = false
		}
		return []api.Event{{Time: now, What: api.TicketPaid}}
	})
}

// spentBefore ends the service of who paid twice with one ticket. One that was paid
// ahead may be taken back until it is due, by swapping it: that is no cheating.
func (t *Till) spentBefore(p *payment, e *mint.Evidence, now time.Time) error {
	_, swapped := e.Contract.(ticket.SwapContract)
	return t.settleWith(p, func(next *booking, s *state) []api.Event {
		next.Evidence = e.Append(nil)
		if next.Why = "the ticket was spent before"; next.Ahead && swapped {
			next.Is = cancelled
			return nil
		}
		next.Is, s.Doubt = refused, true
		return []api.Event{{Time: now, What: api.TicketRefused, Reason: next.Why}}
	})
}

func (t *Till) worthless(p *payment, why string, now time.Time) error {
	return t.settleWith(p, func(next *booking, s *state) []api.Event {
		next.Is, next.Why = refused, why
		return []api.Event{{Time: now, What: api.TicketRefused, Reason: why}}
	})
}
