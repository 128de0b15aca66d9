package wallet

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	center "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

func TestBuyPayAndLeave(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dc := h.wallet("ann"), h.shop("center", 64)
	ann.buy("week")
	if got := ann.units(); got != 426 {
		t.Fatalf("bought %d units, want 426", got)
	}
	tab, _ := ann.tab(dc, "ann's pal")
	p, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
	if p.Amount != 64 || !p.Taken || ann.units() != 362 {
		t.Errorf("paid %v; %d units are left", p, ann.units())
	}
	dc.use(tab, 23)
	got, err := ann.CloseTab(t.Context(), dc, tab)
	h.must(err)
	if got != 41 || ann.units() != 403 {
		t.Errorf("%d units came back, and the wallet has %d; want 41 and 403", got, ann.units())
	}
	// Again, nothing more comes.
	if got, err := ann.CloseTab(t.Context(), dc, tab); err != nil || got != 0 {
		t.Errorf("closed again: %d units came back, %v", got, err)
	}
	// The change can be spent.
	_, text, err := ann.Send(t.Context(), ticket.Paid, 41)
	h.must(err)
	bob := h.wallet("bob")
	if _, err := bob.Receive(t.Context(), text, nil); err != nil || bob.units() != 41 {
		t.Errorf("bob got %d units, %v", bob.units(), err)
	}
}

func TestSwapWhereNoneIsExact(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dc := h.wallet("ann"), h.shop("center", 4)
	ann.buy("day")
	tab, _ := ann.tab(dc, "small")
	_, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
	if ann.units() != 60 {
		t.Errorf("%d units are left, want 60", ann.units())
	}
	// And of small ones a large one is made.
	large := h.shop("large center", 16)
	tab, _ = ann.tab(large, "large")
	for range 3 {
		_, err := ann.Pay(t.Context(), large, tab, ticket.Paid, h.Now())
		h.must(err)
	}
	if ann.units() != 12 {
		t.Errorf("%d units are left, want 12", ann.units())
	}
	_, err = ann.Pay(t.Context(), large, tab, ticket.Paid, h.Now())
	mustBe(t, cloudpal.Exhausted, err)
	if !strings.Contains(cloudpal.HintOf(err), "wallet buy") {
		t.Errorf("the hint is %q", cloudpal.HintOf(err))
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dc := h.wallet("ann"), h.shop("center", 256)
	for range 4 {
		ann.buy("day")
	}
	tab, _ := ann.tab(dc, "large")
	_, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
	if ann.units() != 0 {
		t.Errorf("%d units are left", ann.units())
	}
}

func TestPaidElsewhere(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	p, err := ann.Buy(t.Context(), Order{Pack: "day", Method: "card"})
	h.must(err)
	if p.Done || p.State != api.Unpaid || !strings.HasPrefix(p.Pay, "https://pay.example/") {
		t.Fatalf("the purchase is %+v", p)
	}
	if p, err = ann.GoOn(t.Context(), p.N); err != nil || p.Done {
		t.Fatalf("the purchase is %+v, %v", p, err)
	}
	h.paid(strings.TrimPrefix(p.Pay, "https://pay.example/"))
	h.must(ann.Resume(t.Context()))
	if ann.units() != 64 {
		t.Errorf("%d units, want 64", ann.units())
	}
	// A voucher that is not good leaves nothing behind.
	_, err = ann.Buy(t.Context(), Order{Pack: "day", Method: "code", Voucher: "bad"})
	mustBe(t, cloudpal.Denied, err)
	_, err = ann.Buy(t.Context(), Order{Pack: "no such", Method: "code", Voucher: h.code()})
	if b, _ := ann.Balance(); err == nil || len(b.Purchases) != 0 {
		t.Errorf("got %v, and %d purchases are open", err, len(b.Purchases))
	}
}

// A wallet that was away until its quote had ended is told so: the voucher is good for
// another.
func TestVoucherOfAnExpiredQuote(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	order := Order{Pack: "day", Method: "code", Voucher: h.code()}
	h.lose(func(path string, before bool) bool { return !before && path == "/v1/quotes" })
	_, err := ann.Buy(t.Context(), order)
	mustBe(t, cloudpal.Other, err)
	h.lose(func(string, bool) bool { return false })
	h.set(h.Now().Add(48 * time.Hour))
	mustBe(t, cloudpal.Exhausted, ann.Resume(t.Context()))
	if b, _ := ann.Balance(); len(b.Purchases) != 0 {
		t.Errorf("a purchase is open of which nothing can come: %+v", b.Purchases)
	}
	if p, err := ann.Buy(t.Context(), order); err != nil || !p.Done {
		t.Errorf("the purchase is %+v, %v", p, err)
	}
}

func TestSendAndTakeBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, bob, eve := h.wallet("ann"), h.wallet("bob"), h.wallet("eve")
	ann.buy("week")
	g, text, err := ann.Send(t.Context(), ticket.Paid, 85) // 64, 16, 4, 1
	h.must(err)
	if g.Tickets != 4 || ann.units() != 341 || len(text) > 2400 {
		t.Errorf("sent %d tickets in %d bytes; %d units are left", g.Tickets, len(text), ann.units())
	}
	got, err := bob.Receive(t.Context(), text[:500]+"\n  "+text[500:]+"\n", nil)
	h.must(err)
	if got.Units != 85 || bob.units() != 85 {
		t.Errorf("bob has %d units", bob.units())
	}
	// Who reads it later, or again, gets nothing, and is told.
	_, err = eve.Receive(t.Context(), text, nil)
	mustBe(t, cloudpal.Exist, err)
	_, err = bob.Receive(t.Context(), text, nil)
	mustBe(t, cloudpal.Exist, err)
	if eve.units() != 0 || bob.units() != 85 {
		t.Errorf("eve has %d units, and bob %d", eve.units(), bob.units())
	}
	// Nor can ann take it back.
	g, err = ann.TakeBack(t.Context(), g.N)
	h.must(err)
	if g.Taken != 4 || ann.all() != 341 {
		t.Errorf("%d tickets were taken; ann has %d units in all", g.Taken, ann.all())
	}
	// What nobody took comes back, and is worth nothing to whoever reads it then.
	g, text, err = ann.Send(t.Context(), ticket.Paid, 64)
	h.must(err)
	if _, err := ann.TakeBack(t.Context(), g.N); err != nil || ann.units() != 341 {
		t.Errorf("ann has %d units, %v", ann.units(), err)
	}
	_, err = eve.Receive(t.Context(), text, nil)
	mustBe(t, cloudpal.Exist, err)
	if b, _ := ann.Balance(); b.Lost != 0 {
		t.Errorf("%d units are said to be lost", b.Lost)
	}
}

func TestSplitToSend(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	ann.buy("day")
	g, _, err := ann.Send(t.Context(), ticket.Paid, 23)
	h.must(err)
	if g.Units != 23 || ann.units() != 41 {
		t.Errorf("sent %d, kept %d", g.Units, ann.units())
	}
	if _, _, err := ann.Send(t.Context(), ticket.Paid, 42); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("got %v, want %v", err, cloudpal.Exhausted)
	}
	if _, _, err := ann.Send(t.Context(), ticket.Free, 1); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("got %v, want %v", err, cloudpal.Exhausted)
	}
}

func TestPostDated(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dc := h.wallet("ann"), h.shop("center", 64)
	for range 3 {
		ann.buy("day")
	}
	tab, _ := ann.tab(dc, "pal")
	_, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
	later, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now().Add(24*time.Hour))
	h.must(err)
	_, err = ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now().Add(48*time.Hour))
	h.must(err)
	if ann.units() != 0 {
		t.Errorf("%d units are left", ann.units())
	}
	h.must(ann.Cancel(t.Context(), later.N))
	if ann.units() != 64 {
		t.Errorf("%d units are back, want 64", ann.units())
	}
	if err := ann.Cancel(t.Context(), later.N); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("cancelled twice: got %v", err)
	}
	// The center cannot have it any more.
	h.set(h.Now().Add(25 * time.Hour))
	if err := dc.deposit(t.Context(), tab, dc.tabs[tab].paid[1]); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("deposited what was cancelled: got %v", err)
	}
	// At the end the third, which the center never needed, comes back.
	dc.use(tab, 10)
	if got, err := ann.CloseTab(t.Context(), dc, tab); err != nil || got != 54+64 || ann.units() != 64+54+64 {
		t.Errorf("%d units came back, and the wallet has %d, %v", got, ann.units(), err)
	}
}

func TestDispute(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dc := h.wallet("ann"), h.shop("center", 64)
	ann.buy("day")
	tab, _ := ann.tab(dc, "pal")
	_, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
	dc.use(tab, 10)
	agreed := dc.meterOf(tab)
	h.must(ann.KeepMeter(t.Context(), tab, agreed))
	// What it alone signs, it cannot have the wallet say.
	claim := ticket.Record{Tab: tab, Seq: 9, Used: 60, At: h.Now()}
	mustBe(t, cloudpal.Denied, ann.KeepMeter(t.Context(), tab,
		center.Meter{Record: claim.Append(nil), Signature: claim.Sign(dc.key), Countersigned: agreed.Countersigned}))
	// The center gives back less than it has to.
	dc.cheat = 20
	got, err := ann.CloseTab(t.Context(), dc, tab)
	var short *Short
	if !errors.As(err, &short) || short.Got != 34 || short.Want != 54 || got != 0 {
		t.Fatalf("got %d units, %v", got, err)
	}
	h.must(ann.Resume(t.Context())) // which takes no less than there is
	mustBe(t, cloudpal.Denied, err)
	d, err := ann.Dispute(t.Context(), tab)
	h.must(err)
	if d.State != api.Open {
		t.Fatalf("the dispute is %+v", d)
	}
	h.set(h.Now().Add(api.AnswerTime + time.Hour))
	h.must(ann.Resume(t.Context()))
	if ann.units() != 54 {
		t.Errorf("the wallet has %d units, want 54", ann.units())
	}
}

func TestCenterVanishes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dc := h.wallet("ann"), h.shop("center", 64)
	ann.buy("day")
	tab, _ := ann.tab(dc, "pal")
	_, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
	dc.use(tab, 1)
	h.must(ann.KeepMeter(t.Context(), tab, dc.meterOf(tab)))
	d, err := ann.Dispute(t.Context(), tab)
	h.must(err)
	if d.State != api.Open {
		t.Fatalf("the dispute is %+v", d)
	}
	h.set(h.Now().Add(api.AnswerTime + time.Hour))
	h.must(ann.Resume(t.Context()))
	if ann.units() != 63 {
		t.Errorf("the wallet has %d units, want 63", ann.units())
	}
	// One that hoards what it was paid gets nothing for it.
	ann.buy("day")
	hoarder := h.shop("hoarder", 64)
	hoarder.hoard = true
	tab, _ = ann.tab(hoarder, "other pal")
	_, err = ann.Pay(t.Context(), hoarder, tab, ticket.Paid, h.Now())
	h.must(err)
	d, err = ann.Dispute(t.Context(), tab)
	h.must(err)
	if d.State != api.Settled || d.Units != 64 {
		t.Errorf("the dispute is %+v", d)
	}
	if ann.units() != 127 {
		t.Errorf("the wallet has %d units, want 127", ann.units())
	}
}

// A center that lies about a refund, or who it is, is not believed.
func TestLyingCenter(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dc := h.wallet("ann"), h.shop("center", 64)
	ann.buy("day")
	tab, _ := ann.tab(dc, "pal")
	dc.refuse = true
	_, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	mustBe(t, cloudpal.Denied, err)
	b, err := ann.Balance()
	h.must(err)
	if len(b.Payments) != 1 || b.Payments[0].Taken {
		t.Fatalf("payments: %+v", b.Payments)
	}
	h.must(ann.Cancel(t.Context(), b.Payments[0].N)) // it never had it
	if ann.units() != 64 {
		t.Errorf("the wallet has %d units, want 64", ann.units())
	}
	dc.refuse = false
	other := h.shop("impostor", 64)
	other.tabs = dc.tabs
	if _, err := ann.Pay(t.Context(), other, tab, ticket.Paid, h.Now()); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("another center's word was taken: %v", err)
	}
	if _, err := ann.OpenTab(t.Context(), other, center.TabRequest{ID: tab, WireGuard: tab[:]}, ""); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("another center took over the tab: %v", err)
	}
	if _, err := ann.CloseTab(t.Context(), other, tab); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("another center closed the tab: %v", err)
	}
}
