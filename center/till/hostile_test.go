package till

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/ticket"
)

// Payments that come twice, at once and in any order are booked once each.
func TestReorderedAndRepeated(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	var pays []api.PayRequest
	for i := range 12 {
		var at time.Time
		if i%3 == 0 {
			at = start.Add(time.Duration(i) * time.Hour)
		}
		r := p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), at)
		pays = append(pays, r, r, r)
	}
	rand.Shuffle(len(pays), func(i, j int) { pays[i], pays[j] = pays[j], pays[i] })
	var all sync.WaitGroup
	var mu sync.Mutex
	words := map[string]string{}
	for _, r := range pays {
		all.Go(func() {
			w, err := s.Pay(t.Context(), p.Account, p.Request.ID, r)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if was, ok := words[string(r.Spend)]; ok && was != string(w.Text) {
				t.Errorf("one ticket, two words: %s and %s", was, w.Text)
			}
			words[string(r.Spend)] = string(w.Text)
		})
	}
	all.Wait()
	// The one at start.Add(0) is not ahead.
	if v := s.look(p); v.Paid+v.Ahead != 12*64 || v.Ahead != 3*64 {
		t.Errorf("of 12 tickets %d units are paid and %d ahead", v.Paid, v.Ahead)
	}
	s.again()
	if v := s.look(p); v.Paid+v.Ahead != 12*64 {
		t.Errorf("after a restart %d units are paid and %d ahead", v.Paid, v.Ahead)
	}
}

// A mint's word that a ticket was spent counts for nothing without a proof, and a
// receipt for something else, or by somebody else, is none.
func TestALyingMint(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	stranger := bank.NewPayer(t, b.Bank)
	foreign := stranger.Buy(ticket.Paid, 64, 82).Sign(ticket.SwapContract{})
	for what, lie := range map[string]func(f *bank.Faults){
		"says spent": func(f *bank.Faults) { f.Pretends = func(ticket.Spend) error { return cloudpal.Exist } },
		"shows another's ticket": pretends(func(ticket.Spend) mint.Evidence {
			return mint.Evidence{Contract: ticket.SwapContract{}, Spend: foreign}
		}),
		"shows a forged contract": pretends(func(s ticket.Spend) mint.Evidence {
			return mint.Evidence{Contract: ticket.SwapContract{Outputs: ticket.Digest{7}}, Spend: s}
		}),
		"denies":                 func(f *bank.Faults) { f.Pretends = func(ticket.Spend) error { return cloudpal.Denied } },
		"credits less":           tampers(func(r *mint.Receipt) { r.Amount = 16 }),
		"credits another ticket": tampers(func(r *mint.Receipt) { r.Serial = make([]byte, 32) }),
		"credits another center": tampers(func(r *mint.Receipt) { r.Center = make([]byte, 32) }),
		"for another contract":   tampers(func(r *mint.Receipt) { r.Contract = make([]byte, 32) }),
		"of another month":       tampers(func(r *mint.Receipt) { r.Epoch = 70 }),
	} {
		b.Fault(func(f *bank.Faults) { *f = bank.Faults{}; lie(f) })
		b.Set(b.Now().Add(maxBackoff * 2))
		s.Deposit(t.Context())
		s.Review()
		if v := s.look(p); v.Pending != 64 || v.Paid != 128 || v.Stage != api.Funded || len(v.Refused) != 0 {
			t.Errorf("a mint that %s makes it %+v", what, v)
		}
	}
	b.Fault(func(f *bank.Faults) { *f = bank.Faults{} })
	b.Set(b.Now().Add(maxBackoff * 2))
	s.Deposit(t.Context())
	if v := s.look(p); v.Pending != 0 || v.Paid != 128 {
		t.Errorf("when it is honest again it is %+v", v)
	}
}

func pretends(e func(ticket.Spend) mint.Evidence) func(*bank.Faults) {
	return func(f *bank.Faults) {
		f.Pretends = func(s ticket.Spend) error { return &mint.Spent{Evidence: e(s)} }
	}
}

func tampers(change func(*mint.Receipt)) func(*bank.Faults) {
	return func(f *bank.Faults) { f.Tampers = change }
}

// Where the center's clock and the mint's differ nothing is lost: tickets of a month
// that has begun for one of them are taken, and what is too early for the mint is
// brought again.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	turn := ticket.Epoch(83).Begins()
	for what, skew := range map[string]time.Duration{"behind": -8 * time.Minute, "ahead": 8 * time.Minute} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBank(t)
			b.Publish(t, 83)
			b.Set(turn.Add(time.Minute))
			s := openShop(t, b, t.TempDir(), func(c *Config) { c.Now = func() time.Time { return b.Now().Add(skew) } })
			p := bank.NewPayer(t, b.Bank)
			s.tab(p)
			fresh := p.Buy(ticket.Free, 64, 83)
			if _, err := s.Pay(t.Context(), p.Account, p.Request.ID, p.Pays(s.Offer(), fresh, time.Time{})); err == nil || !errors.Is(err, cloudpal.Invalid) {
				t.Errorf("a free ticket where none are taken: %v", err)
			}
			s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 83), time.Time{}))
			s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
			// Due in an hour: for the center that is ahead, eight minutes early.
			s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 83), turn.Add(time.Hour)))
			for range 90 {
				b.Add(time.Minute)
				s.Deposit(t.Context())
			}
			if v := s.look(p); b.Deposited() != 3*64 || v.Paid != 3*64 || v.Pending+v.Ahead != 0 || len(v.Refused) != 0 {
				t.Errorf("the mint has %d, the tab is %+v", b.Deposited(), v)
			}
			// At its end a ticket is refused when it could come too late.
			b.Set(ticket.Epoch(82).SpendEnds().Add(-5 * time.Minute))
			if _, err := s.Pay(t.Context(), p.Account, p.Request.ID, p.Pays(s.renewed(), p.Buy(ticket.Paid, 64, 82), time.Time{})); !errors.Is(err, cloudpal.Invalid) {
				t.Errorf("a ticket of the last minutes: %v", err)
			}
		})
	}
}

// renewed is an offer that is good now.
func (s *shop) renewed() api.Signed {
	s.tb.Helper()
	if err := s.renewOffer(); err != nil {
		s.tb.Fatal(err)
	}
	return s.Offer()
}

// A fullDisk is one that may be full.
type fullDisk struct {
	vfs.FS
	full atomic.Bool
}

func (d *fullDisk) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	if d.full.Load() {
		return vfs.DiskUsage{AvailBytes: minRoom - 1}, nil
	}
	return vfs.DiskUsage{AvailBytes: minRoom}, nil
}

// On a disk that is almost full no more money is taken; what was paid stays, is used
// and given back, and the till goes on when there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	disk := &fullDisk{FS: vfs.Default}
	s := openShop(t, b, t.TempDir(), func(c *Config) { c.fs = disk })
	p, other := bank.NewPayer(t, b.Bank), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.tab(other)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	s.works(p, Use{}, 4*time.Hour)
	disk.full.Store(true)
	s.store.looked.Store(0)
	r := other.Pays(s.Offer(), other.Buy(ticket.Paid, 64, 82), time.Time{})
	if _, err := s.Pay(t.Context(), other.Account, other.Request.ID, r); !errors.Is(err, cloudpal.NoSpace) || cloudpal.HintOf(err) == "" {
		t.Errorf("on a full disk: %v", err)
	}
	s.agree(p)
	if v := s.look(p); v.Stage != api.Funded {
		t.Errorf("what was paid is %s", v.Stage)
	}
	if closed := s.closeTab(p); len(closed.Refunds) != 1 {
		t.Errorf("closed it is %+v", closed)
	}
	disk.full.Store(false)
	s.pay(other, r)
}

// A center answers a dispute with what the person's side has countersigned since.
func TestDisputesAreAnswered(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	use := s.works(p, Use{}, 4*time.Hour)
	s.agree(p)
	early, err := s.Meter(p.Account, p.Request.ID)
	if err != nil {
		t.Fatal(err)
	}
	s.works(p, use, 6*time.Hour)
	s.agree(p)
	late, err := s.Meter(p.Account, p.Request.ID)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		record []byte
		state  mint.DisputeState
		tab    []byte
		want   int
	}{
		"nothing":            {nil, mint.Open, p.Request.ID[:], 1},
		"an earlier record":  {early.Record, mint.Open, p.Request.ID[:], 1},
		"the last record":    {late.Record, mint.Open, p.Request.ID[:], 0},
		"what is settled":    {nil, mint.Settled, p.Request.ID[:], 0},
		"a tab of nobody's":  {nil, mint.Open, make([]byte, 32), 0},
		"a tab that is none": {nil, mint.Open, []byte("x"), 0},
		"no record":          {[]byte("nonsense"), mint.Open, p.Request.ID[:], 1},
	} {
		b.Fault(func(f *bank.Faults) {
			f.Answers, f.Disputed = nil, []mint.Dispute{{ID: "1", State: c.state, Tab: c.tab, Record: c.record}}
		})
		if err := s.answerDisputes(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(b.Answers) != c.want {
			t.Errorf("%s is answered %d times, want %d", what, len(b.Answers), c.want)
			continue
		}
		for _, a := range b.Answers {
			r, err := ticket.ParseRecord(a.Record)
			if err != nil || r.Used != 16 || !r.Signed(p.Request.ID[:], a.Countersigned) {
				t.Errorf("%s is answered with %+v (%v)", what, r, err)
			}
		}
	}
}

// A tariff that is raised is nobody's who has not paid under it, and an offer is good
// as long as it says.
func TestOffers(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	dir := t.TempDir()
	s, p := openShop(t, b, dir, nil), bank.NewPayer(t, b.Bank)
	s.tab(p)
	old := s.Offer()
	s.pay(p, p.Pays(old, p.Buy(ticket.Paid, 64, 82), time.Time{}))
	s.again()
	if !reflect.DeepEqual(s.Offer(), old) {
		t.Error("after a restart there is another offer")
	}
	s.config.Terms.Tariff.Core = 640
	s.again()
	raised := s.Offer()
	o, err := api.OpenOffer(raised)
	if err != nil || o.Tariff.Core != 640 {
		t.Fatalf("the new offer is %+v (%v)", o, err)
	}
	use := s.works(p, Use{}, 4*time.Hour)
	if v := s.look(p); v.Used > 11 {
		t.Errorf("under the old tariff %d units are used", v.Used)
	}
	// Ahead it changes nothing yet; now it does.
	s.pay(p, p.Pays(raised, p.Buy(ticket.Paid, 64, 82), b.Now().Add(time.Hour)))
	if v := s.look(p); v.Offer != api.OfferDigest(old) {
		t.Error("a ticket that is not due brings the new tariff")
	}
	s.pay(p, p.Pays(old, p.Buy(ticket.Paid, 64, 82), time.Time{})) // the old one is still good
	s.pay(p, p.Pays(raised, p.Buy(ticket.Paid, 64, 82), time.Time{}))
	before := s.look(p).Used
	s.works(p, use, time.Hour)
	if v := s.look(p); v.Used-before < 26 {
		t.Errorf("under the new tariff an hour is %d units", v.Used-before)
	}
	b.Add(31 * 24 * time.Hour)
	if _, err := s.Pay(t.Context(), p.Account, p.Request.ID, p.Pays(old, p.Buy(ticket.Paid, 64, 82), time.Time{})); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("under an offer that is over: %v", err)
	}
	// What is signed for one purpose is good for no other, and changed for none.
	center := s.Center()
	var paid api.Paid
	if err := raised.Open(center[:], api.ForPaid, &paid); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("an offer read as a payment: %v", err)
	}
	raised.Text[len(raised.Text)-2] ^= 1
	if _, err := api.OpenOffer(raised); err == nil {
		t.Error("an offer that was changed is read")
	}
}

// What is over is dropped: payments whose keys are no more, and then their tab.
func TestPrune(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	s.closeTab(p)
	b.Set(ticket.Epoch(82).SwapEnds())
	if err := s.prune(); err != nil {
		t.Fatal(err)
	}
	s.look(p) // is there
	b.Add(25 * time.Hour)
	if err := s.prune(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tab(p.Account, p.Request.ID); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("the tab is there: %v", err)
	}
	for _, kind := range []byte{states, payments, places, events} {
		if err := s.store.each(kind, func(key, _ []byte) error { return errors.New("a row") }); err != nil {
			t.Errorf("of %c there is %v", kind, err)
		}
	}
}

// Tabs that nobody pays take no room for long, and give way to nobody who pays.
func TestTabsCostNothing(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	for n := range maxUnpaid + 100 {
		r := api.TabRequest{WireGuard: p.Request.WireGuard}
		r.ID[0], r.ID[1], r.ID[2] = 1, byte(n), byte(n>>8)
		if _, err := s.OpenTab(api.Fingerprint{byte(n / 50), byte(n / 50 >> 8)}, r); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.tabs); n != maxUnpaid+1 {
		t.Errorf("%d tabs are kept, want %d", n, maxUnpaid+1)
	}
	if v := s.look(p); v.Paid != 64 {
		t.Errorf("the tab that is paid is %+v", v)
	}
	for n := range maxOwned + 1 {
		r := api.TabRequest{WireGuard: p.Request.WireGuard}
		r.ID[0], r.ID[1] = 2, byte(n)
		if _, err := s.OpenTab(p.Account, r); n >= maxOwned-1 && !errors.Is(err, cloudpal.Busy) {
			t.Errorf("tab %d of one account: %v", n+2, err)
		}
	}
}

// FuzzPay sends payments of all kinds to a tab: what is not signed is not booked.
func FuzzPay(f *testing.F) {
	b := newBank(f)
	s, p := newShop(f, b), bank.NewPayer(f, b.Bank)
	s.tab(p)
	good, _ := json.Marshal(p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	f.Add(good)
	f.Add([]byte(`{"spend":"AAAA","amount":64,"notBefore":-1}`))
	f.Add([]byte(`{}`))
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r api.PayRequest
		if json.Unmarshal(body, &r) != nil {
			return
		}
		before, _ := s.Tab(p.Account, p.Request.ID)
		_, err := s.Pay(context.Background(), p.Account, p.Request.ID, r)
		if after, _ := s.Tab(p.Account, p.Request.ID); err != nil && after.Paid != before.Paid {
			t.Errorf("%d units were booked for %v", after.Paid-before.Paid, err)
		}
	})
}

// FuzzTerms reads tariffs: what is taken makes an offer that can be read.
func FuzzTerms(f *testing.F) {
	f.Add([]byte(`{"tariff":{"core":64,"app":64,"storage":8,"traffic":1},"slice":64,"classes":["paid"],"grace":"5m"}`))
	f.Add([]byte(`{"seal":"1h","delete":"1s"}`))
	f.Add([]byte(`{}{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		terms, err := ParseTerms(data)
		if err != nil {
			return
		}
		o := terms.offer()
		o.Center, o.Issuers = make([]byte, 32), []string{"any"}
		if err := o.Check(); err != nil {
			t.Errorf("took terms that make no offer: %v", err)
		}
	})
}

// FuzzUse counts what a host may say: nothing is ever taken back, and no more is
// counted than the tariff gives for the time.
func FuzzUse(f *testing.F) {
	f.Add(int64(time.Hour), int64(1<<30), int64(1<<30), int64(time.Hour))
	f.Add(int64(-1), int64(-1), int64(-1), int64(-1))
	f.Add(int64(1<<63-1), int64(1<<62), int64(1<<62), int64(1<<62))
	f.Fuzz(func(t *testing.T, awake, sent, stored, passed int64) {
		c := count{At: start}
		top := api.Tariff{Core: 1 << 20, Storage: 1 << 20, Traffic: 1 << 20}
		c.add(top, Use{Awake: time.Duration(awake), Sent: 0, Stored: 0}, start.Add(time.Duration(passed)))
		if c.used() > 1<<20 {
			t.Errorf("awake %v in %v, %d units are used", time.Duration(awake), time.Duration(passed), c.used())
		}
		before := c.Nano
		c.add(top, Use{Awake: 0, Sent: sent, Stored: stored}, start)
		if c.Nano < before {
			t.Error("use is taken back")
		}
	})
}

// A ticket that came ahead gives no service before its mint has it: else it could be
// taken back in the minutes between, and that looks like a change of mind.
func TestAheadIsNoCredit(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	with := p.Buy(ticket.Paid, 64, 82)
	s.pay(p, p.Pays(s.Offer(), with, start.Add(time.Second)))
	b.Add(time.Minute)
	if v := s.look(p); v.Paid != 64 {
		t.Errorf("when it is due, and no mint has it, %d units count", v.Paid)
	}
	b.Swap(t, with)
	s.Deposit(t.Context())
	s.Review()
	if v := s.look(p); v.Paid != 64 || v.Stage != api.Funded || len(v.Refused) != 0 {
		t.Errorf("taken back it is %+v", v)
	}
	// Who pays now by a clock that is ahead has service now.
	other := bank.NewPayer(t, b.Bank)
	s.tab(other)
	b.Add(time.Minute)
	early := other.Pays(s.Offer(), other.Buy(ticket.Paid, 64, 82), b.Now())
	b.Add(-30 * time.Second)
	if _, err := s.Pay(t.Context(), other.Account, other.Request.ID, early); err != nil {
		t.Errorf("by a clock that is ahead: %v", err)
	}
	b.Add(time.Minute)
	s.pay(other, early)
	if v := s.look(other); v.Paid != 64 || v.Stage != api.Funded {
		t.Errorf("half a minute later it is %+v", v)
	}
}
