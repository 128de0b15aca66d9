package mint

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
)

// A center is paid what it is due, once for each reference, and sees it; what its
// payers may still get back, and what a dispute is about, stays.
func testPayout(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, other, ctx := h.person("ann"), h.till("center"), h.till("other"), t.Context()
	for _, to := range []*till{c, c, other} {
		s := ann.pay(to, ann.lock(), ann.buy("day")[0])
		_, err := to.Deposit(ctx, s.contract, s.spend)
		h.must(err)
		if to == c {
			_, err = h.client.Refund(ctx, c.refund(s, 4))
			h.must(err)
		}
	}
	old := api.HourOf(h.now())
	h.add(3 * time.Hour)
	s := ann.pay(c, ann.lock(), ann.buy("day")[0])
	_, err := c.Deposit(ctx, s.contract, s.spend)
	h.must(err)

	note := func(reference string, to *till, units ticket.Units) (books.Payout, error) {
		return h.Books.Payout(ctx, books.Payout{Reference: reference, Center: to.id(), Units: units, At: h.now()}, old)
	}
	_, err = note("one", c, 121) // 2*60 are due
	refusedAs(t, cloudpal.Exhausted, err)
	_, err = note("", c, 1)
	refusedAs(t, cloudpal.Invalid, err)
	first, err := note("one", c, 100)
	if h.must(err); first.N != 1 || first.Units != 100 {
		t.Errorf("got %+v", first)
	}
	h.add(time.Hour)
	again, err := note("one", c, 100)
	if h.must(err); again != first {
		t.Errorf("noted again it is %+v, want %+v", again, first)
	}
	_, err = note("one", c, 10)
	refusedAs(t, cloudpal.Exist, err)
	_, err = note("one", other, 64)
	refusedAs(t, cloudpal.Exist, err)
	_, err = note("two", c, 21)
	refusedAs(t, cloudpal.Exhausted, err)
	// Of many at once only as many are noted as are due.
	var together sync.WaitGroup
	var mu sync.Mutex
	noted := 0
	for n := range 8 {
		together.Go(func() {
			_, err := note(fmt.Sprint("many", n), c, 5)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				noted++
			} else if !errors.Is(err, cloudpal.Exhausted) {
				t.Error(err)
			}
		})
	}
	together.Wait()
	if noted != 4 {
		t.Errorf("%d payouts of 5 were noted of 20 units", noted)
	}

	a, err := c.Account(ctx, 0)
	if h.must(err); a.Balance != 64 || len(a.Payouts) != 5 {
		t.Errorf("the account is %+v", a)
	}
	last := a.Payouts[4]
	if last.N != 1 || last.Reference != "one" || last.Units != 100 || !last.At.Equal(first.At) {
		t.Errorf("the first payout is %+v", last)
	}
	key, _ := receiptKey(last.Epoch)
	h.must(last.Verify(public(key)))
	last.Units++
	refusedAs(t, cloudpal.Denied, last.Verify(public(key)))
	debts, err := h.Books.Debts(ctx, old)
	h.must(err)
	want := map[ticket.CenterID]books.Debt{
		c.id():     {Center: c.id(), Deposited: 3 * 64, Refunded: 8, PaidOut: 120, Recent: 64},
		other.id(): {Center: other.id(), Deposited: 64},
	}
	for _, d := range debts {
		if d != want[d.Center] {
			t.Errorf("got %+v, want %+v", d, want[d.Center])
		}
		if due := d.Due(); due != 0 && d.Center == c.id() || due != 64 && d.Center == other.id() {
			t.Errorf("due are %d of %+v", due, d)
		}
	}
	if len(debts) != 2 {
		t.Errorf("%d centers are owed something, want 2", len(debts))
	}
	h.check()
	// What is left is still there to be given back.
	_, err = h.client.Refund(ctx, c.refund(s, 63))
	h.must(err)
	h.check()
}
