package till

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/ticket"
)

// A center starts with what is open: of tabs that are over it reads neither payments
// nor events, and answers for them all the same.
func TestAStartReadsWhatIsOpen(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, gone, stays := newShop(t, b), bank.NewPayer(t, b.Bank), bank.NewPayer(t, b.Bank)
	s.tab(gone)
	s.tab(stays)
	first := gone.Pays(s.Offer(), gone.Buy(ticket.Paid, 64, 82), time.Time{})
	word := s.pay(gone, first)
	for range 2 {
		s.pay(gone, gone.Pays(s.Offer(), gone.Buy(ticket.Paid, 64, 82), time.Time{}))
		s.pay(stays, stays.Pays(s.Offer(), stays.Buy(ticket.Paid, 64, 82), time.Time{}))
	}
	for _, p := range []*bank.Payer{gone, stays} {
		use := s.works(p, Use{}, 25*time.Hour)
		for range 2 { // a slice more at a time
			s.agree(p)
			s.count(p, use)
		}
	}
	s.closeTab(gone) // of its tickets one is yet to be taken to the mint, and one is left alone
	s.Deposit(t.Context())
	s.count(stays, Use{})
	s.agree(stays) // the first ticket is used up, and with the mint

	was := s.look(gone)
	events, err := s.Events(t.Context(), gone.Account, gone.Request.ID, 0, 0)
	if err != nil || len(events) == 0 || was.Paid != 2*64 || was.Pending != 0 {
		t.Fatalf("it is %+v, with %d events (%v)", was, len(events), err)
	}
	s.again()
	for p, want := range map[*bank.Payer]int{gone: 0, stays: 1} {
		tb, err := s.find(p.Account, p.Request.ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(tb.payments) != want || len(tb.events) > 0 {
			t.Errorf("%d payments and %d events were read, want %d and none", len(tb.payments), len(tb.events), want)
		}
	}
	if v := s.look(gone); v.Paid != was.Paid || v.Used != was.Used || v.Stage != was.Stage || !v.Closed {
		t.Errorf("after a start it is %+v, and was %+v", v, was)
	}
	if v := s.look(stays); v.Paid != 2*64 {
		t.Errorf("the other is %+v", v)
	}
	again, err := s.Events(t.Context(), gone.Account, gone.Request.ID, 0, 0)
	if err != nil || len(again) != len(events) || again[0] != events[0] {
		t.Errorf("after a start its events are %v (%v), and were %v", again, err, events)
	}
	if w := s.pay(gone, first); w.Contract != word.Contract || w.At != word.At {
		t.Errorf("sent again, a payment is %+v, and was %+v", w, word)
	}
	s.pay(stays, stays.Pays(s.Offer(), stays.Buy(ticket.Paid, 64, 82), time.Time{}))
	if v := s.look(stays); v.Paid != 3*64 {
		t.Errorf("paid after a start it is %+v", v)
	}
}

// A tab can be asked for while what its pal uses is counted.
func TestAskedForWhileItIsCounted(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	var all sync.WaitGroup
	all.Go(func() {
		for i := range 100 {
			if _, _, err := s.Count(p.Account, p.Request.WireGuard, Use{Awake: time.Duration(i) * time.Second}); err != nil {
				t.Error(err)
			}
		}
	})
	for range 100 {
		_, err := s.Meter(p.Account, p.Request.ID)
		_, again := s.OpenTab(p.Account, p.Request)
		if list := s.Tabs(p.Account); err != nil || again != nil || len(list) != 1 {
			t.Errorf("there are %d tabs (%v)", len(list), errors.Join(err, again))
		}
	}
	all.Wait()
}
