package mint

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/ticket"
)

// suite is what holds over every database.
var suite = map[string]func(t *testing.T, e engine){
	"Buy":         testBuy,
	"Reversed":    testReversed,
	"TakenLate":   testTakenLate,
	"Swap":        testSwap,
	"SwapAtOnce":  testSwapAtOnce,
	"HalfBound":   testHalfBound,
	"Deposit":     testDeposit,
	"NotBefore":   testNotBefore,
	"SpentTwice":  testSpentTwice,
	"Refund":      testRefund,
	"Silence":     testSilence,
	"Answer":      testAnswer,
	"NoRecord":    testNoRecord,
	"FalseClaims": testFalseClaims,
	"Restore":     testRestore,
	"Directory":   testDirectory,
	"Free":        testFree,
	"Counters":    testCounters,
	"Epochs":      testEpochs,
	"Payout":      testPayout,
	"Interrupted": testInterrupted,
	"Behind":      testBehind,
	"Last":        testLast,
	"KilledAt":    testKilledBetween,
	"Killed":      testKilled,
	"Laws":        testLaws,
}

func TestSQLite(t *testing.T) { t.Parallel(); runSuite(t, lite) }

func runSuite(t *testing.T, e engine) {
	for name, test := range suite {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, e) })
	}
}

func testBuy(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, ctx := h.person("ann"), t.Context()
	lock := ann.lock()
	ask := api.QuoteRequest{Method: "purse", Pack: "mixed", Lock: public(lock)}
	q, err := h.client.Quote(ctx, ask)
	h.must(err)
	hand := ann.hand(q.Class, 82, q.Tickets...)
	_, err = h.client.Issue(ctx, q.ID, hand.outputs, lock)
	refusedAs(t, cloudpal.Exhausted, err) // 402 Payment Required

	ask.Pack = "day"
	again, err := h.client.Quote(ctx, ask)
	h.must(err)
	if again.ID != q.ID || again.Pack != "mixed" || again.State != api.Unpaid {
		t.Errorf("the same lock got %+v, want the quote that it has: %+v", again, q)
	}
	q, err = h.client.Pay(ctx, q.ID, "code")
	h.must(err)
	if q.State != api.Paid {
		t.Errorf("after it was paid, the quote is %s", q.State)
	}
	_, err = h.client.Issue(ctx, q.ID, hand.outputs, ann.lock())
	refusedAs(t, cloudpal.Denied, err)
	_, err = h.client.Issue(ctx, q.ID, ann.hand(ticket.Paid, 82, 64, 16, 4, 1).outputs, lock)
	refusedAs(t, cloudpal.Invalid, err)
	_, err = h.client.Issue(ctx, q.ID, ann.hand(ticket.Free, 82, q.Tickets...).outputs, lock)
	refusedAs(t, cloudpal.Invalid, err)

	signed, err := h.client.Issue(ctx, q.ID, hand.outputs, lock)
	h.must(err)
	if got := worthOf(t, h, ann.finish(hand, signed)); got != 85 {
		t.Errorf("bought %d units, want 85", got)
	}
	repeated, err := h.client.Issue(ctx, q.ID, hand.outputs, lock)
	h.must(err)
	if !slices.EqualFunc(signed, repeated, bytes.Equal) {
		t.Error("asked again, the mint signed something else")
	}
	_, err = h.client.Issue(ctx, q.ID, ann.hand(q.Class, 82, q.Tickets...).outputs, lock)
	refusedAs(t, cloudpal.Exist, err)
	// The same outputs for another quote would make one ticket of two.
	lock2 := ann.lock()
	q2, err := h.client.Quote(ctx, api.QuoteRequest{Method: "purse", Pack: "mixed", Lock: public(lock2)})
	h.must(err)
	_, err = h.client.Pay(ctx, q2.ID, "code") // used
	refusedAs(t, cloudpal.Exist, err)
	_, err = h.client.Pay(ctx, q2.ID, "another code")
	h.must(err)
	_, err = h.client.Issue(ctx, q2.ID, hand.outputs, lock2)
	refusedAs(t, cloudpal.Exist, err)
	if q2, err = h.client.Look(ctx, q2.ID); err != nil || q2.State != api.Paid {
		t.Errorf("after a refused issue the quote is %s (%v), want paid", q2.State, err)
	}
	h.check()
}

// A mint that was killed between the voucher and its books knows, however late it is
// asked again, that the quote is paid.
func testTakenLate(t *testing.T, e engine) {
	h := newHouse(t, e)
	q, err := h.client.Quote(t.Context(), api.QuoteRequest{Method: "purse", Pack: "day", Lock: public(h.person("ann").lock())})
	h.must(err)
	h.must(h.purse.Take(t.Context(), payment.Order{ID: q.ID}, "code"))
	h.clock.add(2 * quoteTime)
	_, err = h.client.Pay(t.Context(), q.ID, "code")
	h.must(err)
	q, err = h.client.Look(t.Context(), q.ID)
	if h.must(err); q.State != api.Paid {
		t.Errorf("it is %s", q.State)
	}
	// One that was not is still not.
	q, err = h.client.Quote(t.Context(), api.QuoteRequest{Method: "purse", Pack: "day", Lock: public(h.person("bob").lock())})
	h.must(err)
	h.clock.add(2 * quoteTime)
	_, err = h.client.Pay(t.Context(), q.ID, "another code")
	refusedAs(t, cloudpal.Exhausted, err)
	h.check()
}

// Money that is taken back before anything was issued buys nothing.
func testReversed(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, lock := h.person("ann"), h.person("ann").lock()
	q, err := h.client.Quote(t.Context(), api.QuoteRequest{Method: "purse", Pack: "day", Lock: public(lock)})
	h.must(err)
	_, err = h.client.Pay(t.Context(), q.ID, "code")
	h.must(err)
	h.purse.back[q.ID] = true
	stored, err := h.Books.Look(t.Context(), q.ID)
	h.must(err)
	h.must(h.poll(t.Context(), stored))
	_, err = h.client.Issue(t.Context(), q.ID, ann.hand(ticket.Paid, 82, 64).outputs, lock)
	refusedAs(t, cloudpal.Exhausted, err)
	h.check()
	// Money that is taken back later is the mint's loss, once.
	ann.buy("day")
	list, err := h.Books.Quotes(t.Context(), 10)
	h.must(err)
	for _, q := range list {
		h.purse.back[q.ID] = true
		h.must(h.poll(t.Context(), q))
		h.must(h.poll(t.Context(), q))
	}
	accounts, err := h.Books.Accounts(t.Context())
	h.must(err)
	if !slices.Contains(accounts, books.Account{Unit: "EUR", Name: "loss", Balance: 100}) {
		t.Errorf("the accounts have no loss of 100: %v", accounts)
	}
	h.check()
}

func testSwap(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, ctx := h.person("ann"), t.Context()
	have := ann.buy("mixed") // 1, 4, 16, 64
	to := ann.hand(ticket.Paid, 82, 1, 4, 16, 16, 16, 16, 16)
	spend := func(to hand, have ...ticket.Ticket) (spends []ticket.Spend) {
		for _, t := range have {
			spends = append(spends, t.Sign(ticket.SwapContract{Outputs: to.digest()}))
		}
		return spends
	}
	for name, bad := range map[string][]ticket.Spend{
		"less":     spend(to, have[:3]...),
		"twice":    spend(to, have[3], have[3], have[2], have[1], have[0]),
		"nothing":  nil,
		"unsigned": spend(ann.hand(ticket.Paid, 82, 1, 4, 16, 64), have...),
	} {
		if _, err := h.client.Swap(ctx, bad, to.outputs); !errors.Is(err, cloudpal.Invalid) && !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	free := ann.hand(ticket.Free, 82, 64)
	_, err := h.client.Swap(ctx, spend(free, have[3]), free.outputs)
	refusedAs(t, cloudpal.Invalid, err)

	signed, err := h.client.Swap(ctx, spend(to, have...), to.outputs)
	h.must(err)
	got := ann.finish(to, signed)
	repeated, err := h.client.Swap(ctx, spend(to, have...), to.outputs)
	h.must(err)
	if !slices.EqualFunc(signed, repeated, bytes.Equal) {
		t.Error("asked again, the mint signed something else")
	}
	// What came out is good, and what went in is not.
	merged := ann.hand(ticket.Paid, 82, 64)
	_, err = h.client.Swap(ctx, spend(merged, got[2:6]...), merged.outputs)
	h.must(err)
	other := ann.hand(ticket.Paid, 82, 64)
	_, err = h.client.Swap(ctx, spend(other, have[3]), other.outputs)
	var spent *api.Spent
	if !errors.As(err, &spent) {
		t.Fatalf("a ticket that was swapped was swapped again: %v", err)
	}
	h.must(spent.Evidence.Proves(issuer, h.keyOf(have[3]), have[3].Serial(), ticket.SwapContract{Outputs: other.digest()}))
	h.check()
}

// Asked twice at once, a swap is one, at whatever instant the other comes in between.
func testSwapAtOnce(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, ctx := h.person("ann"), t.Context()
	looks, at, other := 0, 0, func() {}
	c := h.Config
	c.Now = func() time.Time {
		if looks++; looks == at {
			other()
		}
		return h.clock.now()
	}
	m, err := New(c)
	h.must(err)
	for came := true; came; at++ { // at first nobody comes
		to := ann.hand(ticket.Paid, 82, 1, 1, 1, 1)
		spend := ann.buy("small")[0].Sign(ticket.SwapContract{Outputs: to.digest()})
		r := api.SwapRequest{Inputs: [][]byte{spend.Append(nil)}, Outputs: api.Outputs(to.outputs)}
		var first api.Signatures
		came = at == 0
		other = func() {
			first, err = h.Swap(ctx, r)
			h.must(err)
			came = true
		}
		looks = 0
		second, err := m.Swap(ctx, r)
		if err != nil {
			t.Fatalf("the other came at instant %d: %v", at, err)
		}
		if first.Signatures != nil && !slices.EqualFunc(first.Signatures, second.Signatures, bytes.Equal) {
			t.Error("asked twice at once, the mint signed two things")
		}
		ann.finish(to, second.Signatures)
	}
	if at < 10 {
		t.Errorf("the other came at %d instants", at-2)
	}
	h.check()
}

// A swap that binds one ticket and then finds another spent is completed with a third
// in its place.
func testHalfBound(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, ctx := h.person("ann"), t.Context()
	h.must(h.chores(ctx)) // so that it completes nothing later
	two, one := ann.buy("small"), ann.buy("small")[0]
	to := ann.hand(ticket.Paid, 82, 4, 4)
	contract := ticket.SwapContract{Outputs: to.digest()}
	// The first is bound, as by a mint that was cut off.
	h.must(h.spend(ctx, input{two[0].Sign(contract), h.keyOf(two[0])}, contract))
	away := ann.hand(ticket.Paid, 82, 4)
	_, err := h.client.Swap(ctx, []ticket.Spend{two[1].Sign(ticket.SwapContract{Outputs: away.digest()})}, away.outputs)
	h.must(err)
	_, err = h.client.Swap(ctx, []ticket.Spend{two[0].Sign(contract), two[1].Sign(contract)}, to.outputs)
	refusedAs(t, cloudpal.Exist, err)
	signed, err := h.client.Swap(ctx, []ticket.Spend{two[0].Sign(contract), one.Sign(contract)}, to.outputs)
	h.must(err)
	ann.finish(to, signed)
	h.check()
}

func testDeposit(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	s := ann.pay(c, ann.lock(), ann.buy("day")[0])
	_, err := h.till("thief").Deposit(ctx, s.contract, s.spend)
	refusedAs(t, cloudpal.Denied, err)
	redirected := s.contract
	redirected.Center = h.till("thief").id()
	_, err = h.till("thief").Deposit(ctx, redirected, s.spend)
	refusedAs(t, cloudpal.Denied, err)
	more := s.contract
	more.Amount = 256
	if _, err = c.Deposit(ctx, more, s.spend); err == nil {
		t.Error("a ticket was taken for more than it is worth")
	}
	receipt, err := c.Deposit(ctx, s.contract, s.spend)
	h.must(err)
	receipts, _ := receiptKey(82)
	h.must(receipt.Verify(public(receipts)))
	h.add(3 * time.Hour)
	again, err := c.Deposit(ctx, s.contract, s.spend)
	h.must(err)
	if !bytes.Equal(again.Signature, receipt.Signature) {
		t.Error("asked again, the mint gave another receipt")
	}
	a, err := c.Account(ctx, 0)
	h.must(err)
	if a.Balance != 64 || len(a.Deposits) != 1 || !bytes.Equal(a.Deposits[0].Receipt.Signature, receipt.Signature) {
		t.Errorf("the account is %+v, want one deposit of 64", a)
	}
	if a, err = c.Account(ctx, 1); err != nil || len(a.Deposits) != 0 {
		t.Errorf("after number 1 there are %d deposits (%v)", len(a.Deposits), err)
	}
	h.check()
}

func testNotBefore(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	two := ann.buy("small")
	var slips []slip
	for _, t := range two {
		s := ann.pay(c, ann.lock(), t)
		s.contract.NotBefore = h.now().Add(time.Hour).Truncate(time.Second)
		s.spend = s.ticket.Sign(s.contract)
		slips = append(slips, s)
	}
	_, err := c.Deposit(ctx, slips[0].contract, slips[0].spend)
	refusedAs(t, cloudpal.Denied, err)
	// Until it is due, the payer can take it back.
	to := ann.hand(ticket.Paid, 82, 4)
	_, err = h.client.Swap(ctx, []ticket.Spend{two[0].Sign(ticket.SwapContract{Outputs: to.digest()})}, to.outputs)
	h.must(err)
	h.add(time.Hour)
	_, err = c.Deposit(ctx, slips[0].contract, slips[0].spend)
	refusedAs(t, cloudpal.Exist, err)
	_, err = c.Deposit(ctx, slips[1].contract, slips[1].spend)
	h.must(err)
	h.check()
}

// Of many who try to spend a ticket at once, one does, and the others get the proof.
func testSpentTwice(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, ctx := h.person("ann"), t.Context()
	bought := ann.buy("day")[0]
	const centers = 8
	type answer struct {
		contract ticket.PayContract
		err      error
	}
	answers := make(chan answer, centers)
	for i := range centers {
		c := h.till(string(rune('a' + i)))
		s := ann.pay(c, ann.lock(), bought)
		go func() {
			_, err := c.Deposit(ctx, s.contract, s.spend)
			answers <- answer{s.contract, err}
		}()
	}
	accepted := 0
	for range centers {
		a := <-answers
		var spent *api.Spent
		switch {
		case a.err == nil:
			accepted++
		case !errors.As(a.err, &spent):
			t.Errorf("got %v, want evidence", a.err)
		default:
			if err := spent.Evidence.Proves(issuer, h.keyOf(bought), bought.Serial(), a.contract); err != nil {
				t.Error(err)
			}
		}
	}
	if accepted != 1 {
		t.Errorf("the ticket was accepted %d times", accepted)
	}
	h.check()
}

func testRefund(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	s := ann.pay(c, ann.lock(), ann.buy("day")[0])
	_, err := h.client.Refund(ctx, c.refund(s, 39))
	refusedAs(t, cloudpal.NotExist, err)
	_, err = c.Deposit(ctx, s.contract, s.spend)
	h.must(err)
	forged := c.refund(s, 39)
	forged.Units = 63
	_, err = h.client.Refund(ctx, forged)
	refusedAs(t, cloudpal.Denied, err)
	mine := s
	mine.blank = h.person("center's own").hand(ticket.Paid, 82, ticket.Blank(64)...)
	_, err = h.client.Refund(ctx, c.refund(mine, 39))
	refusedAs(t, cloudpal.Denied, err)
	for _, units := range []ticket.Units{0, 64, 1 << 40} {
		_, err = h.client.Refund(ctx, c.refund(s, units))
		refusedAs(t, cloudpal.Invalid, err)
	}
	signed, err := h.client.Refund(ctx, c.refund(s, 39))
	h.must(err)
	if got := worthOf(t, h, ann.finish(s.change(39), signed)); got != 39 {
		t.Errorf("%d units came back, want 39", got)
	}
	again, err := h.client.Refund(ctx, c.refund(s, 39))
	h.must(err)
	if !slices.EqualFunc(signed, again, bytes.Equal) {
		t.Error("asked again, the mint signed something else")
	}
	_, err = h.client.Refund(ctx, c.refund(s, 40))
	refusedAs(t, cloudpal.Exist, err)
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 25 || a.Deposits[0].Refunded != 39 {
		t.Errorf("the account is %+v (%v), want 25 left", a, err)
	}
	h.check()
}

// A claim is a tab's payments and a dispute about them.
func (p *person) claim(c *till, tab ed25519.PrivateKey, record *ticket.Record, slips ...slip) api.DisputeRequest {
	id := c.id()
	r := api.DisputeRequest{Center: id[:], Tab: public(tab)}
	for _, s := range slips {
		serial := s.ticket.Serial()
		r.Payments = append(r.Payments, api.Payment{
			Serial: serial[:], Tariff: s.terms.Tariff[:], Nonce: s.terms.Nonce[:], Amount: s.contract.Amount, NotBefore: s.contract.NotBefore, Blank: s.contract.Blank[:],
		})
	}
	last := slips[len(slips)-1]
	if record != nil {
		r.Record, r.Signature = record.Append(nil), record.Sign(c.key)
	}
	r.Outputs, r.Public = api.Outputs(last.blank.outputs), last.ticket.Public()
	r.Payer = ed25519.Sign(owner(last.ticket), api.DisputeText(last.ticket.Serial(), last.blank.digest(), r.Record))
	return r
}

// tabOf pays two day tickets on a tab of which 70 units are used.
func (p *person) tabOf(c *till) (tab ed25519.PrivateKey, record ticket.Record, slips []slip) {
	p.Helper()
	tab = p.lock()
	for range 2 {
		s := p.pay(c, tab, p.buy("day")[0])
		_, err := c.Deposit(p.Context(), s.contract, s.spend)
		p.must(err)
		slips = append(slips, s)
	}
	return tab, ticket.Record{Tab: [32]byte(public(tab)), Seq: 5, Used: 70, At: p.now()}, slips
}

// Who is silent for a day has lost.
func testSilence(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	tab, record, slips := ann.tabOf(c)
	d, err := h.client.Dispute(ctx, ann.claim(c, tab, &record, slips...))
	h.must(err)
	if d.State != api.Open || d.Units != 58 || len(d.Signatures) != 0 {
		t.Fatalf("got %+v, want 58 units claimed", d)
	}
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 128 || a.Held != 58 {
		t.Errorf("the account is %+v (%v), want 58 of 128 held", a, err)
	}
	if open, err := c.Disputes(ctx); err != nil || len(open) != 1 || open[0].ID != d.ID {
		t.Errorf("the center sees %+v (%v)", open, err)
	}
	h.add(api.AnswerTime)
	late := record
	late.Seq, late.Used = 6, 100
	_, err = c.Answer(ctx, d.ID, api.AnswerRequest{Record: late.Append(nil), Countersigned: late.Sign(tab)})
	refusedAs(t, cloudpal.Exhausted, err)
	h.must(h.chores(ctx))
	for range 2 {
		d, err = h.client.Dispute(ctx, ann.claim(c, tab, &record, slips...))
		h.must(err)
		if d.State != api.Settled || d.Units != 58 || worthOf(t, h, ann.finish(slips[1].change(58), d.Signatures)) != 58 {
			t.Fatalf("got %+v, want 58 units back", d)
		}
	}
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 70 || a.Held != 0 {
		t.Errorf("the account is %+v (%v), want the 70 that were used", a, err)
	}
	h.check()
}

// Who took a ticket and never gave a record has nothing to show for it: all but a unit
// comes back.
func testNoRecord(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	tab := ann.lock()
	s := ann.pay(c, tab, ann.buy("day")[0])
	_, err := c.Deposit(ctx, s.contract, s.spend)
	h.must(err)
	_, err = h.client.Dispute(ctx, ann.claim(c, tab, nil, s))
	h.must(err)
	h.add(api.AnswerTime)
	d, err := h.client.Dispute(ctx, ann.claim(c, tab, nil, s))
	h.must(err)
	if d.State != api.Settled || d.Units != 63 || worthOf(t, h, ann.finish(s.change(63), d.Signatures)) != 63 {
		t.Errorf("got %+v, want 63 units back", d)
	}
	h.check()
}

func testAnswer(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	tab, record, slips := ann.tabOf(c)
	d, err := h.client.Dispute(ctx, ann.claim(c, tab, &record, slips...))
	h.must(err)
	answer := func(seq uint64, used ticket.Units, by ed25519.PrivateKey) error {
		r := record
		r.Seq, r.Used = seq, used
		_, err := c.Answer(ctx, d.ID, api.AnswerRequest{Record: r.Append(nil), Countersigned: r.Sign(by)})
		return err
	}
	refusedAs(t, cloudpal.Denied, answer(6, 128, c.key))
	refusedAs(t, cloudpal.Invalid, answer(5, 128, tab))
	_, err = h.till("other").Answer(ctx, d.ID, api.AnswerRequest{})
	refusedAs(t, cloudpal.NotExist, err)
	h.must(answer(6, 100, tab))
	h.must(answer(6, 100, tab)) // repeated
	d, err = h.client.Dispute(ctx, ann.claim(c, tab, &record, slips...))
	h.must(err)
	if d.State != api.Settled || d.Units != 28 || worthOf(t, h, ann.finish(slips[1].change(28), d.Signatures)) != 28 {
		t.Fatalf("got %+v, want 28 units back", d)
	}
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 100 || a.Held != 0 {
		t.Errorf("the account is %+v (%v), want the 100 that were used", a, err)
	}
	h.check()
}

func testFalseClaims(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	tab, record, slips := ann.tabOf(c)
	other := ann.pay(c, ann.lock(), ann.buy("day")[0])
	_, err := c.Deposit(ctx, other.contract, other.spend)
	h.must(err)
	undeposited := ann.pay(c, tab, ann.buy("day")[0])
	claim := func(change func(*api.DisputeRequest), slips ...slip) error {
		r := ann.claim(c, tab, &record, slips...)
		if change != nil {
			change(&r)
		}
		_, err := h.client.Dispute(ctx, r)
		return err
	}
	refusedAs(t, cloudpal.Denied, claim(nil, other, slips[0], slips[1]))     // of another tab
	refusedAs(t, cloudpal.NotExist, claim(nil, undeposited, slips[0]))       // the center does not have it
	refusedAs(t, cloudpal.Invalid, claim(nil, slips[0], slips[0], slips[1])) // counted twice
	refusedAs(t, cloudpal.Invalid, claim(nil, slips[1]))                     // 70 of 64 are used
	refusedAs(t, cloudpal.Denied, claim(func(r *api.DisputeRequest) {        // less used than the center signed
		record := record
		record.Used = 1
		r.Record = record.Append(nil)
		r.Payer = ed25519.Sign(owner(slips[1].ticket), api.DisputeText(slips[1].ticket.Serial(), slips[1].blank.digest(), r.Record))
	}, slips...))
	refusedAs(t, cloudpal.Denied, claim(func(r *api.DisputeRequest) { r.Payer = ed25519.Sign(c.key, []byte("x")) }, slips...))
	refusedAs(t, cloudpal.Denied, claim(func(r *api.DisputeRequest) {
		r.Outputs = api.Outputs(ann.hand(ticket.Paid, 82, ticket.Blank(64)...).outputs)
	}, slips...))
	// What was given back by agreement is not given back again.
	_, err = h.client.Refund(ctx, c.refund(slips[1], 58))
	h.must(err)
	if err := claim(nil, slips...); !errors.Is(err, cloudpal.Exist) && !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("got %v, want a refusal", err)
	}
	h.check()
}

func testDirectory(t *testing.T, e engine) {
	h := newHouse(t, e)
	for _, url := range []string{"https://old.example", "https://center.example:7443#key"} {
		h.must(h.Books.List(t.Context(), books.Center{ID: h.till("center").id(), Name: "Center", URL: url}))
	}
	d, err := h.client.Centers(t.Context())
	h.must(err)
	key, _ := receiptKey(d.Epoch)
	h.must(d.Verify(public(key)))
	if len(d.Centers) != 1 || d.Centers[0].URL != "https://center.example:7443#key" {
		t.Errorf("the directory is %+v", d.Centers)
	}
}

func testRestore(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, ctx := h.person("ann"), t.Context()
	have := ann.buy("mixed")
	lost := h.person("ann") // all but the seed
	lost.n = 1              // the lock's
	all := lost.hand(ticket.Paid, 82, 1, 4, 16, 64, 64, 64)
	signed, err := h.client.Restore(ctx, all.outputs)
	h.must(err)
	for i, s := range signed {
		if (s != nil) != (i < len(have)) {
			t.Fatalf("output %d was restored: %v", i, s != nil)
		}
		if s != nil {
			got, err := all.secrets[i].Finish(s)
			h.must(err)
			if got.Serial() != have[i].Serial() {
				t.Errorf("ticket %d came back as another", i)
			}
		}
	}
}

func testFree(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, ctx := h.person("ann"), t.Context()
	account := AccountHash("the secret of an account")
	h.must(h.Books.Allow(ctx, account[:], "laptop", 2))
	_, err := h.client.Free(ctx, api.FreeRequest{Account: "a guess", Pack: "day", Lock: public(ann.lock())})
	refusedAs(t, cloudpal.Denied, err)
	var locks []ed25519.PrivateKey
	for range 2 {
		locks = append(locks, ann.lock())
		for range 2 { // to ask again is to get the same
			q, err := h.client.Free(ctx, api.FreeRequest{Account: "the secret of an account", Pack: "day", Lock: public(locks[len(locks)-1])})
			h.must(err)
			if q.State != api.Paid || q.Class != ticket.Free || q.Price != 0 {
				t.Errorf("got %+v", q)
			}
		}
	}
	_, err = h.client.Free(ctx, api.FreeRequest{Account: "the secret of an account", Pack: "day", Lock: public(ann.lock())})
	refusedAs(t, cloudpal.Exhausted, err)
	id := quoteID(public(locks[0]))
	_, err = h.client.Issue(ctx, id, ann.hand(ticket.Paid, 82, 64).outputs, locks[0])
	refusedAs(t, cloudpal.Invalid, err)
	hand := ann.hand(ticket.Free, 82, 64)
	signed, err := h.client.Issue(ctx, id, hand.outputs, locks[0])
	h.must(err)
	free := ann.finish(hand, signed)[0]
	to := ann.hand(ticket.Paid, 82, 64)
	_, err = h.client.Swap(ctx, []ticket.Spend{free.Sign(ticket.SwapContract{Outputs: to.digest()})}, to.outputs)
	refusedAs(t, cloudpal.Invalid, err)
	c := h.till("center")
	s := ann.pay(c, ann.lock(), free)
	_, err = c.Deposit(ctx, s.contract, s.spend)
	h.must(err)
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 0 || a.Free != 64 {
		t.Errorf("the account is %+v (%v), want 64 free and nothing to pay", a, err)
	}
	h.check()
}

func testCounters(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	s := ann.pay(c, ann.lock(), ann.buy("day")[0])
	receipt, err := c.Deposit(ctx, s.contract, s.spend)
	h.must(err)
	_, err = h.client.Refund(ctx, c.refund(s, 3))
	h.must(err)
	day, one := h.key(ticket.Paid, 64, 82).ID(), h.key(ticket.Paid, 1, 82).ID()
	counters := func() map[ticket.KeyID]api.KeyCounter {
		got, err := h.client.Counters(ctx, 82)
		h.must(err)
		key, _ := receiptKey(got.Signed)
		h.must(got.Verify(public(key)))
		by := map[ticket.KeyID]api.KeyCounter{}
		for _, k := range got.Keys {
			by[ticket.KeyID(k.Key)] = k
		}
		return by
	}
	if got := counters()[day]; got.Issued != 0 {
		t.Errorf("an hour that is not over is published: %+v", got)
	}
	hour := api.HourOf(h.now())
	_, err = h.client.Leaves(ctx, day, api.LeafOutputs, hour)
	refusedAs(t, cloudpal.NotExist, err)
	h.add(2 * time.Hour)
	got := counters()
	if k := got[day]; k.Issued != 1 || k.Redeemed != 1 || k.Refunded != 0 || len(k.Hours) != 1 || k.Hours[0].Spent != nil || k.Hours[0].Deposits != nil {
		t.Errorf("of day tickets the counters are %+v", k)
	}
	if k := got[one]; k.Issued != 3 || k.Refunded != 3 {
		t.Errorf("of the change the counters are %+v", k)
	}
	leaves, err := h.client.Leaves(ctx, one, api.LeafOutputs, hour)
	h.must(err)
	if root := api.Root(leaves); !bytes.Equal(root[:], got[one].Hours[0].Outputs) {
		t.Error("the root is not that of the leaves")
	}
	if mine := api.BlindedHash(s.change(3).outputs[0]); !slices.Contains(leaves, mine) {
		t.Error("what was signed for the payer is not among the leaves")
	}
	for _, late := range []api.Kind{api.LeafSpent, api.LeafDeposits} {
		_, err = h.client.Leaves(ctx, day, late, hour)
		refusedAs(t, cloudpal.NotExist, err)
	}
	h.add(24 * time.Hour)
	leaves, err = h.client.Leaves(ctx, day, api.LeafSpent, hour)
	h.must(err)
	if root := api.Root(leaves); len(leaves) != 1 || leaves[0] != s.ticket.Serial() || !bytes.Equal(root[:], counters()[day].Hours[0].Spent) {
		t.Errorf("the spent of the hour are %d leaves, or another root", len(leaves))
	}
	leaves, err = h.client.Leaves(ctx, day, api.LeafDeposits, hour)
	h.must(err)
	if root := api.Root(leaves); len(leaves) != 1 || leaves[0] != receipt.Leaf() || !bytes.Equal(root[:], counters()[day].Hours[0].Deposits) {
		t.Errorf("the deposits of the hour are %d leaves, or another root", len(leaves))
	}
}

// testEpochs goes through the months of a key.
func testEpochs(t *testing.T, e engine) {
	p := newParts(t, e)
	p.epochs = shelf{82, 83}
	h := p.open(t)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	three := append(ann.buy("small"), ann.buy("day")...)
	lock := ann.lock()
	q, err := h.client.Quote(ctx, api.QuoteRequest{Method: "purse", Pack: "small", Lock: public(lock)})
	h.must(err)
	_, err = h.client.Pay(ctx, q.ID, "code")
	h.must(err)
	next := ann.hand(ticket.Paid, 83, 4, 4)
	_, err = h.client.Issue(ctx, q.ID, next.outputs, lock) // too early
	refusedAs(t, cloudpal.Invalid, err)

	h.set(ticket.Epoch(83).Begins())
	_, err = h.client.Issue(ctx, q.ID, ann.hand(ticket.Paid, 82, 4, 4).outputs, lock) // too late
	refusedAs(t, cloudpal.Invalid, err)
	_, err = h.client.Issue(ctx, q.ID, next.outputs, lock)
	h.must(err)
	old := ann.hand(ticket.Paid, 82, 4)
	_, err = h.client.Swap(ctx, []ticket.Spend{three[0].Sign(ticket.SwapContract{Outputs: old.digest()})}, old.outputs)
	refusedAs(t, cloudpal.Invalid, err) // old for old

	h.set(ticket.Epoch(82).SpendEnds().Add(-time.Hour))
	s := ann.pay(c, ann.lock(), three[2])
	_, err = c.Deposit(ctx, s.contract, s.spend)
	h.must(err)
	h.set(ticket.Epoch(82).SpendEnds())
	_, err = c.Deposit(ctx, s.contract, s.spend) // again, late
	h.must(err)
	late := ann.pay(c, ann.lock(), three[1])
	_, err = c.Deposit(ctx, late.contract, late.spend)
	refusedAs(t, cloudpal.Exhausted, err)
	_, err = h.client.Refund(ctx, c.refund(s, 10)) // its keys still sign change
	h.must(err)
	h.must(h.chores(ctx))
	h.check()

	h.set(ticket.Epoch(82).SwapEnds())
	to := ann.hand(ticket.Paid, 83, 4)
	_, err = h.client.Swap(ctx, []ticket.Spend{three[0].Sign(ticket.SwapContract{Outputs: to.digest()})}, to.outputs)
	if !errors.Is(err, cloudpal.Exhausted) && !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("got %v, want a refusal", err)
	}
	h.must(h.chores(ctx))
	h.check()
	accounts, err := h.Books.Accounts(ctx)
	h.must(err)
	lost, id4 := int64(0), h.key(ticket.Paid, 4, 82).ID()
	for _, a := range accounts {
		if a.Name == "breakage" && a.Unit == "paid" {
			lost = a.Balance
		}
		if strings.HasPrefix(a.Name, "outstanding/") && strings.Contains(a.Name, fmt.Sprintf("%x", id4[:])) && a.Balance != 0 {
			t.Errorf("%d units are outstanding of a key that is gone", a.Balance)
		}
	}
	if lost != 4+4+10 { // two tickets, and the change
		t.Errorf("%d units were written off, want 18", lost)
	}
	counters, err := h.client.Counters(ctx, 82)
	h.must(err)
	signing, _ := receiptKey(counters.Signed)
	h.must(counters.Verify(public(signing)))
	left := int64(0)
	for i, k := range thePress.epoch(82).All() {
		left += (counters.Keys[i].Issued - counters.Keys[i].Redeemed) * int64(k.Denomination)
	}
	if left != lost {
		t.Errorf("the last counters leave %d units, and %d were written off", left, lost)
	}
	if _, err := h.Ledger.Look(ctx, 82, nil); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("the ledger still has the epoch: %v", err)
	}
}

// testInterrupted cuts a mint off between the ledger and the books.
func testInterrupted(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	h.must(h.chores(ctx)) // so that it completes nothing later
	s := ann.pay(c, ann.lock(), ann.buy("day")[0])
	h.must(h.spend(context.Background(), input{s.spend, h.keyOf(s.ticket)}, s.contract))
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 0 {
		t.Fatalf("the account is %+v (%v)", a, err)
	}
	_, err := c.Deposit(ctx, s.contract, s.spend)
	h.must(err)
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 64 {
		t.Errorf("the account is %+v (%v), want 64", a, err)
	}
	h.check()
}
