package tickets

import (
	"testing"
	"time"

	"github.com/tradle/cloudpal/center/api"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// From the voucher to the last unit of change: nothing is lost, and nothing is made.
func TestFromBuyingToLeaving(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.center(), w.person()
	p.buys()
	desk := counter{c, p.account}
	_, err := p.OpenTab(t.Context(), desk, p.tab, "https://center.example")
	w.must(err)
	_, err = p.Pay(t.Context(), desk, p.tab.ID, ticket.Paid, w.Now())
	w.must(err)
	_, err = p.Pay(t.Context(), desk, p.tab.ID, ticket.Paid, w.Now().Add(20*time.Hour))
	w.must(err)
	if stage, _ := c.Stage(p.account, p.tab.WireGuard); stage != api.Funded || p.has() != 64 {
		t.Errorf("paid it is %s, and the wallet has %d", stage, p.has())
	}
	c.works(p, 0, 6*time.Hour)
	meter, err := c.Meter(p.account, p.tab.ID)
	w.must(err)
	w.must(p.KeepMeter(t.Context(), p.tab.ID, meter))
	if _, err := p.CloseTab(t.Context(), desk, p.tab.ID); err != nil {
		t.Fatal(err)
	}
	w.must(p.Resume(t.Context()))
	if got := p.has(); got != 3*64-16 {
		t.Errorf("of 192 units 16 were used, and the wallet has %d", got)
	}
	// What came back is good: it pays another center.
	second := w.center()
	p.tab.ID = api.TabID{7}
	desk = counter{second, p.account}
	_, err = p.OpenTab(t.Context(), desk, p.tab, "")
	w.must(err)
	for range 2 {
		_, err = p.Pay(t.Context(), desk, p.tab.ID, ticket.Paid, w.Now())
		w.must(err)
	}
	if got := p.has(); got != 64-16 {
		t.Errorf("after two days at another center the wallet has %d", got)
	}
	tab, err := second.Tab(p.account, p.tab.ID)
	w.must(err)
	if tab.Paid != 128 {
		t.Errorf("the other center has %d", tab.Paid)
	}
}

// A center that vanishes costs its person nothing, and one that is claimed too much of
// answers with what the pal's side has countersigned.
func TestDisputes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for what, c := range map[string]struct {
		kept  bool // the wallet knows the first record, of 10 units
		there bool // the center answers
		want  ticket.Units
	}{
		"no record, gone":     {false, false, 63},
		"no record, there":    {false, true, 43},
		"early record, gone":  {true, false, 54},
		"early record, there": {true, true, 43},
	} {
		t.Run(what, func(t *testing.T) {
			shop, p := w.center(), w.person()
			p.buys()
			desk := counter{shop, p.account}
			_, err := p.OpenTab(t.Context(), desk, p.tab, "")
			w.must(err)
			_, err = p.Pay(t.Context(), desk, p.tab.ID, ticket.Paid, w.Now())
			w.must(err)
			shop.works(p, 0, 4*time.Hour)
			if c.kept {
				m, err := shop.Meter(p.account, p.tab.ID)
				w.must(err)
				w.must(p.KeepMeter(t.Context(), p.tab.ID, m))
			}
			shop.works(p, 4*time.Hour, 4*time.Hour) // the rest of 21 units
			d, err := p.Dispute(t.Context(), p.tab.ID)
			if err != nil || d.State != mintapi.Open || d.Units < 54 {
				t.Fatalf("the dispute is %+v (%v)", d, err)
			}
			if c.there {
				shop.Chores(t.Context())
			}
			w.Add(mintapi.AnswerTime + time.Hour)
			d, err = p.Dispute(t.Context(), p.tab.ID)
			if err != nil || d.State != mintapi.Settled || d.Units != c.want {
				t.Fatalf("a day later it is %+v (%v), want %d", d, err, c.want)
			}
			w.must(p.Resume(t.Context()))
			if got := p.has(); got != 2*64+c.want {
				t.Errorf("the wallet has %d, want %d", got, 2*64+c.want)
			}
		})
	}
}

// A ticket that two people have, as a copied wallet, is spent once.
func TestTwoCopiesOfAWallet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two, p := w.center(), w.center(), w.person()
	p.buys()
	var sent api.PayRequest
	desk := counter{one, p.account}
	_, err := p.OpenTab(t.Context(), desk, p.tab, "")
	w.must(err)
	_, err = p.Pay(t.Context(), spy{desk, &sent}, p.tab.ID, ticket.Paid, w.Now())
	w.must(err)
	// The same bytes are for the first center: the second cannot use them.
	_, err = two.OpenTab(p.account, p.tab)
	w.must(err)
	if _, err := two.Pay(t.Context(), p.account, p.tab.ID, sent); err == nil {
		t.Error("a ticket that was paid elsewhere is taken")
	}
	if v, err := two.Tab(p.account, p.tab.ID); err != nil || v.Paid != 0 {
		t.Errorf("the tab is %+v (%v)", v, err)
	}
}
