package tickets

import (
	"context"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

// stay is the person's pal's at a center that is reached by desk.
func (p *person) stay(desk wallet.Counter) wallet.Stay {
	return wallet.Stay{
		Counter: desk, Address: api.Address{Host: "center.example", Port: 7443, Key: api.Fingerprint{1}}, WireGuard: p.tab.WireGuard,
		Name: func(nonce [16]byte, offer ticket.Digest) api.TabID {
			key := p.meter.Key(nonce, offer)
			id := api.TabID(key.Public().(ed25519.PublicKey))
			p.keys[id] = key
			return id
		},
	}
}

const ahead = 3 * 24 * time.Hour

// funds pays for the stay, and has the pal use that tab.
func (p *person) funds(desk wallet.Counter) api.Tab {
	p.Helper()
	tab, err := p.Fund(p.Context(), p.stay(desk), ahead)
	if err != nil {
		p.Fatal(err)
	}
	p.tab.ID, p.counter = tab.ID, p.keys[tab.ID]
	return tab
}

// passes lets a time go by in which the pal is awake and its core countersigns, and no
// device of the person's is there.
func (c *center) passes(p *person, d time.Duration) {
	c.Helper()
	const step = time.Hour
	for ; d > 0; d -= step {
		c.Add(step)
		c.Deposit(c.Context())
		p.awake += step
		c.count(p, p.awake)
		m, err := c.Meter(p.account, p.tab.ID)
		c.must(err)
		if r, err := ticket.ParseRecord(m.Record); err == nil && len(m.Countersigned) == 0 {
			_, err = c.Countersign(p.account, p.tab.ID, api.CountersignRequest{Record: m.Record, Signature: r.Sign(p.counter)})
			c.must(err)
		}
		c.Review()
	}
}

func (c *center) wants(p *person, want api.Stage) {
	c.Helper()
	if got, why := c.Stage(p.account, p.tab.WireGuard); got != want {
		c.Fatalf("the pal is %s (%s), want %s", got, why, want)
	}
}

// A pal lives on tickets that are due later while its person is away, naps when they are
// used up, and wakes when they are back and pay.
func TestStayIsPaidAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.center(), w.person()
	p.buys()
	p.buys()
	desk := counter{c, p.account}
	tab := p.funds(desk)
	if tab.Paid != 64 || tab.Ahead != 128 || tab.Stage != api.Funded || p.has() != 3*64 {
		t.Errorf("paid ahead the tab is %+v, and the wallet has %d", tab, p.has())
	}
	if again := p.funds(desk); again.ID != tab.ID || again.Ahead != 128 || p.has() != 3*64 {
		t.Errorf("with nothing used it paid again: %+v, and the wallet has %d", again, p.has())
	}
	c.count(p, 0)
	c.passes(p, 70*time.Hour)
	c.wants(p, api.Funded)
	c.passes(p, 4*time.Hour)
	c.wants(p, api.TabNapping)

	p.buys()
	tab = p.funds(desk)
	c.wants(p, api.Funded)
	if tab.Ahead == 0 || tab.Stage != api.Funded {
		t.Errorf("back, the tab is %+v", tab)
	}
	c.passes(p, 20*time.Hour)
	c.wants(p, api.Funded)

	// All that was not used comes back. What was used while it could nap was not paid.
	if _, err := p.Leave(t.Context(), p.stay(desk)); err != nil {
		t.Fatal(err)
	}
	c.Review()
	c.wants(p, api.TabNapping)
	v, err := c.Tab(p.account, p.tab.ID)
	w.must(err)
	if back := p.has(); back+v.Used < 9*64-2 || back+v.Used > 9*64+1 {
		t.Errorf("of 576 units %d were used, and %d are back", v.Used, back)
	}
}

// No tab outlives its offer: another follows in time, and the rest of it comes back.
func TestStayMovesToTheNextOffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.centerWith(till.Terms{Tariff: api.Tariff{Core: 1}, Valid: till.Duration(48 * time.Hour)}), w.person()
	p.buys()
	desk := counter{c, p.account}
	first := p.funds(desk)
	c.Add(23 * time.Hour)
	if same := p.funds(desk); same.ID != first.ID {
		t.Error("it moved while the offer was good for long")
	}
	c.Add(2 * time.Hour)
	if same := p.funds(desk); same.ID != first.ID {
		t.Error("it moved though the center has no other offer")
	}
	c.Chores(t.Context())
	second := p.funds(desk)
	if second.ID == first.ID || second.Stage != api.Funded || second.Offer == first.Offer {
		t.Errorf("a day before the end of the offer the tab is %+v", second)
	}
	old, err := c.Tab(p.account, first.ID)
	w.must(err)
	if !old.Closed || p.has() != 3*64-64-1 {
		t.Errorf("the first tab is %+v, and the wallet has %d", old, p.has())
	}
	if third := p.funds(desk); third.ID != second.ID {
		t.Error("it moved again")
	}
}

// While the next tab cannot be paid, the one before it keeps the pal, and says so; when
// the mint is back, all is as if it had never been away.
func TestStayMovesWithoutTheMint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.centerWith(till.Terms{Tariff: api.Tariff{Core: 64}, Valid: till.Duration(48 * time.Hour)}), w.person()
	p.buys()
	p.buys()
	desk := counter{c, p.account}
	first := p.funds(desk)
	c.count(p, 0)
	c.passes(p, 10*time.Hour)
	c.Add(15 * time.Hour) // asleep
	c.Chores(t.Context())
	w.down.Store(true)
	for range 2 { // when it opens another, and when it finds that
		tab, err := p.Fund(t.Context(), p.stay(desk), ahead)
		if !errors.Is(err, cloudpal.Missing) || tab.ID != first.ID || tab.Stage != api.Funded {
			t.Errorf("without the mint the tab is %+v (%v)", tab, err)
		}
		st, err := p.Standing(t.Context(), p.stay(desk))
		if err != nil || st.Tab.ID != first.ID || st.Tab.Stage != api.Funded {
			t.Errorf("it stands %+v (%v)", st.Tab, err)
		}
	}
	c.passes(p, 10*time.Hour)
	c.wants(p, api.Funded)

	w.down.Store(false)
	second := p.funds(desk)
	old, err := c.Tab(p.account, first.ID)
	w.must(err)
	if second.ID == first.ID || second.Stage != api.Funded || !old.Closed {
		t.Errorf("the mint is back, and the tab is %+v, the one before %+v", second, old)
	}
	c.Deposit(t.Context()) // of the tab that was closed
	if _, err := p.Leave(t.Context(), p.stay(desk)); err != nil {
		t.Fatal(err)
	}
	if got, used := p.has(), ticket.Units(54); got+used < 6*64-4 || got+used > 6*64+1 {
		t.Errorf("of 384 units %d were used, and %d are back", used, got)
	}
}

// Who leaves while the mint is away has closed all tabs at the center: what is left of
// them comes without it, and without the account.
func TestLeaveWithoutTheMint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.centerWith(till.Terms{Tariff: api.Tariff{Core: 64}, Valid: till.Duration(48 * time.Hour)}), w.person()
	p.buys()
	p.buys()
	desk := counter{c, p.account}
	p.funds(desk)
	c.Add(25 * time.Hour)
	c.Chores(t.Context())
	w.down.Store(true)
	if _, err := p.Fund(t.Context(), p.stay(desk), ahead); !errors.Is(err, cloudpal.Missing) {
		t.Fatalf("without the mint: %v", err)
	}
	if _, err := p.Leave(t.Context(), p.stay(desk)); err == nil {
		t.Fatal("all is back without the mint")
	}
	for _, tab := range c.Tabs(p.account) {
		if !tab.Closed {
			t.Errorf("tab %+v is not closed", tab)
		}
	}
	w.down.Store(false)
	c.Deposit(t.Context())
	w.must(p.Resume(t.Context()))
	if b, err := p.Balance(); err != nil || len(b.Payments) != 0 || b.Paid < 6*64-2 {
		t.Errorf("the mint is back, and the wallet has %d and payments %+v (%v)", b.Paid, b.Payments, err)
	}
}

// A lossy center takes what it is sent, and its answer is not heard.
type lossy struct{ counter }

func (l lossy) Pay(ctx context.Context, id api.TabID, r api.PayRequest) (api.Signed, error) {
	if _, err := l.counter.Pay(ctx, id, r); err != nil {
		return api.Signed{}, err
	}
	return api.Signed{}, cloudpal.Missing
}

// A mean center refuses every ticket.
type mean struct{ counter }

func (mean) Pay(context.Context, api.TabID, api.PayRequest) (api.Signed, error) {
	return api.Signed{}, cloudpal.Denied
}

// Whatever is lost on the way, no slice is paid twice, and no ticket is gone.
func TestStayGoesOnAfterLosses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.center(), w.person()
	p.buys()
	p.buys()
	desk := counter{c, p.account}
	for range 3 { // each time one more ticket is there when the answer is lost
		if _, err := p.Fund(t.Context(), p.stay(lossy{desk}), ahead); !errors.Is(err, cloudpal.Missing) {
			t.Fatalf("without an answer: %v", err)
		}
	}
	if tab := p.funds(desk); tab.Paid != 64 || tab.Ahead != 128 || p.has() != 3*64 {
		t.Errorf("after three answers that were lost: %+v, and the wallet has %d", tab, p.has())
	}
	c.count(p, 0)
	c.passes(p, 30*time.Hour)
	if _, err := p.Fund(t.Context(), p.stay(mean{desk}), ahead); !errors.Is(err, cloudpal.Denied) {
		t.Fatalf("refused: %v", err)
	}
	if tab := p.funds(desk); tab.Stage != api.Funded || p.has() != 64 && p.has() != 2*64 {
		t.Errorf("after a refusal: %+v, and the wallet has %d", tab, p.has())
	}
	// The end of a tab that was not heard of is no end of the stay.
	before, had := p.tab.ID, p.has()
	_, err := c.CloseTab(p.account, before)
	w.must(err)
	p.buys()
	if tab := p.funds(desk); tab.ID == before || tab.Stage != api.Funded {
		t.Errorf("after an end that was not heard of: %+v", tab)
	}
	w.must(p.Resume(t.Context()))
	if p.has() <= had-64 {
		t.Errorf("of the closed tab nothing came back: the wallet has %d", p.has())
	}
}

// A pal goes on while its mint cannot be reached: on what is paid, and on tickets that
// the wallet has; who has none is told so.
func TestStayWithoutTheMint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.centerWith(till.Terms{Tariff: api.Tariff{Core: 64}, Classes: []string{"free", "paid"}}), w.person()
	desk := counter{c, p.account}
	tab, err := p.Fund(t.Context(), p.stay(desk), ahead)
	if !errors.Is(err, cloudpal.Exhausted) || tab.Stage == api.Funded {
		t.Fatalf("an empty wallet: %+v, %v", tab, err)
	}
	w.down.Store(true)
	if _, err := p.Buy(t.Context(), wallet.Order{Pack: "days", Account: account}); err == nil {
		t.Fatal("without the mint it bought something")
	}
	w.down.Store(false)
	w.must(p.Resume(t.Context())) // goes on with the purchase that was begun
	b, err := p.Balance()
	w.must(err)
	if b.Free != 3*64 || len(b.Purchases) != 0 {
		t.Fatalf("the mint is back, and the wallet has %d free and %d purchases", b.Free, len(b.Purchases))
	}
	p.buys()
	if tab = p.funds(desk); tab.Paid != 64 || p.has() != 3*64 {
		t.Errorf("free tickets go first: %+v, and of bought ones there are %d", tab, p.has())
	}
	w.down.Store(true)
	c.count(p, 0)
	c.passes(p, 10*time.Hour)
	c.wants(p, api.Funded)
	if _, err := p.Fund(t.Context(), p.stay(desk), ahead); err != nil {
		t.Errorf("the mint is away, and tickets are there: %v", err)
	}
	c.passes(p, 8*time.Hour)
	c.wants(p, api.Funded)
}
