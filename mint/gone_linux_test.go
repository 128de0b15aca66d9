package mint

import (
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/test/postgres"
	"github.com/tradle/cloudpal/ticket"
)

// A database that is killed and comes back has cost nobody anything: who asks
// meanwhile is told so, and then gets what there is to get.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	s := postgres.New(t)
	h := newHouse(t, func(testing.TB) string { return s.Database("books") })
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	slip := ann.pay(c, ann.lock(), ann.buy("day")[0])
	lock := ann.lock()
	q, err := h.client.Quote(ctx, api.QuoteRequest{Method: "purse", Pack: "day", Lock: public(lock)})
	h.must(err)
	_, err = h.client.Pay(ctx, q.ID, "code")
	h.must(err)
	hand := ann.hand(ticket.Paid, 82, 64)

	s.Kill()
	for range 3 {
		_, err = c.Deposit(ctx, slip.contract, slip.spend)
		refusedAs(t, cloudpal.Missing, err)
		_, err = h.client.Issue(ctx, q.ID, hand.outputs, lock)
		refusedAs(t, cloudpal.Missing, err)
		if hint := cloudpal.HintOf(err); !strings.Contains(hint, "nothing is lost") {
			t.Errorf("the hint is %q", hint)
		}
	}
	s.Start()
	_, err = c.Deposit(ctx, slip.contract, slip.spend)
	h.must(err)
	signed, err := h.client.Issue(ctx, q.ID, hand.outputs, lock)
	h.must(err)
	ann.finish(hand, signed)
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 64 {
		t.Errorf("the account is %+v (%v), want 64", a, err)
	}
	h.check()
}
