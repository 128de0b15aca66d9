package till

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/ticket"
)

func TestAPalLivesOnTickets(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	if stage, _ := s.Stage(p.Account, p.Request.WireGuard); stage != api.Unpaid {
		t.Errorf("before it is paid it is %s", stage)
	}
	r := p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{})
	first := s.pay(p, r)
	if first.Tab != p.Request.ID || first.Amount != 64 {
		t.Errorf("the center's word is %+v", first)
	}
	// The first is with the mint before the word is given.
	if got := b.Deposited(); got != 64 {
		t.Errorf("the mint has %d units, want 64", got)
	}
	if stage, _ := s.Stage(p.Account, p.Request.WireGuard); stage != api.Funded {
		t.Errorf("paid it is %s", stage)
	}
	if again := s.pay(p, r); again.At != first.At || again.Contract != first.Contract {
		t.Errorf("sent again it is %+v, want %+v", again, first)
	}
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	if v := s.look(p); v.Paid != 128 || v.Pending != 64 {
		t.Errorf("paid %d, pending %d; want 128 and 64", v.Paid, v.Pending)
	}
	// A day awake is 64 units.
	use := s.works(p, Use{}, 12*time.Hour+time.Minute)
	s.agree(p)
	if v := s.look(p); v.Used != 32 || v.Signed != 8 {
		t.Errorf("after half a day %d are used, %d countersigned; want 32 and 8", v.Used, v.Signed)
	}
	s.works(p, use, time.Minute)
	s.agree(p)
	if v := s.look(p); v.Signed != 32 || v.Rate != 64 || v.Ends.Sub(b.Now()).Round(time.Hour) != 24*time.Hour {
		t.Errorf("it is %+v: one slice above what is countersigned is a day", v)
	}
	s.Deposit(t.Context())
	closed := s.closeTab(p)
	record, err := ticket.ParseRecord(closed.Meter.Record)
	center := s.Center()
	if err != nil || record.Used != 32 || !record.Signed(center[:], closed.Meter.Signature) {
		t.Errorf("the final record is %+v (%v)", record, err)
	}
	var back ticket.Units
	for _, r := range closed.Refunds {
		back += p.Refund(r)
	}
	if want := 128 - record.Used; back != want-1 && back != want {
		t.Errorf("%d units come back of 128 when %d are used", back, record.Used)
	}
	if back+s.closedUsed(closed) != 128 {
		t.Errorf("%d come back and %d are used: not 128", back, s.closedUsed(closed))
	}
	if again := s.closeTab(p); !slices.Equal(again.Meter.Signature, closed.Meter.Signature) {
		t.Error("closed again the end is another")
	}
	if stage, _ := s.Stage(p.Account, p.Request.WireGuard); stage != api.Funded {
		t.Errorf("before the next review it is %s", stage)
	}
	s.Review()
	if stage, why := s.Stage(p.Account, p.Request.WireGuard); stage != api.TabNapping || why != "its tab is closed" {
		t.Errorf("after it is closed the pal is %s: %s", stage, why)
	}
}

func (s *shop) closedUsed(c api.Closed) ticket.Units {
	r, err := ticket.ParseRecord(c.Meter.Record)
	if err != nil {
		s.tb.Fatal(err)
	}
	return r.Used
}

// A rest of any size comes back to the unit.
func TestExactChange(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s := newShop(t, b)
	for _, used := range []ticket.Units{0, 1, 17, 63, 64, 65, 100, 127, 128} {
		p := bank.NewPayer(t, b.Bank)
		s.tab(p)
		for range 2 {
			s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
			b.Set(b.Now().Add(5 * time.Minute))
			s.Deposit(t.Context())
		}
		tb, err := s.find(p.Account, p.Request.ID)
		if err != nil {
			t.Fatal(err)
		}
		s.count(p, Use{})
		tb.mu.Lock()
		tb.Count.Nano = uint64(used) * nano
		tb.mu.Unlock()
		if used > 64 {
			s.count(p, Use{})
			s.agree(p)
		}
		closed := s.closeTab(p)
		got := s.closedUsed(closed)
		var back ticket.Units
		for _, r := range closed.Refunds {
			back += p.Refund(r)
		}
		// Each ticket that the mint has costs a unit at least.
		if want := max(used, 2); got != want || back != 128-want {
			t.Errorf("of 128 with %d used the record says %d and %d come back, want %d", used, got, back, 128-want)
		}
	}
}

// Tickets that are not good, or not for this, are refused, and cost nothing.
func TestBadPayments(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p, other := newShop(t, b), bank.NewPayer(t, b.Bank), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.tab(other)
	good := func() (ticket.Ticket, api.PayRequest) {
		ticket := p.Buy(ticket.Paid, 64, 82)
		return ticket, p.Pays(s.Offer(), ticket, time.Time{})
	}
	signed := func(change func(*api.PayRequest)) api.PayRequest {
		with, r := good()
		change(&r)
		p.Sign(s.Offer(), with, &r)
		return r
	}
	changed := func(change func(*api.PayRequest)) api.PayRequest {
		_, r := good()
		change(&r)
		return r
	}
	forged := func() api.PayRequest {
		with, r := good()
		with.Token.Authenticator[7] ^= 1
		p.Sign(s.Offer(), with, &r)
		return r
	}
	for what, c := range map[string]struct {
		pay  api.PayRequest
		want cloudpal.Kind
	}{
		"empty":                {api.PayRequest{}, cloudpal.Invalid},
		"truncated":            {changed(func(r *api.PayRequest) { r.Spend = r.Spend[:len(r.Spend)-1] }), cloudpal.Invalid},
		"longer":               {changed(func(r *api.PayRequest) { r.Spend = append(r.Spend, 0) }), cloudpal.Invalid},
		"huge":                 {changed(func(r *api.PayRequest) { r.Spend = make([]byte, 1<<20) }), cloudpal.Invalid},
		"another nonce":        {changed(func(r *api.PayRequest) { r.Nonce[0] ^= 1 }), cloudpal.Denied},
		"another blank":        {changed(func(r *api.PayRequest) { r.Blank[0] ^= 1 }), cloudpal.Denied},
		"another time":         {changed(func(r *api.PayRequest) { r.NotBefore = 1 }), cloudpal.Denied},
		"no signature":         {changed(func(r *api.PayRequest) { clear(r.Spend[len(r.Spend)-64:]) }), cloudpal.Denied},
		"no ticket of a mint":  {forged(), cloudpal.Denied},
		"another public key":   {changed(func(r *api.PayRequest) { r.Spend[ticket.TokenSize] ^= 1 }), cloudpal.Invalid},
		"an offer of nobody's": {signed(func(r *api.PayRequest) { r.Offer[0] ^= 1 }), cloudpal.Invalid},
		"a short nonce":        {changed(func(r *api.PayRequest) { r.Nonce = r.Nonce[:15] }), cloudpal.Invalid},
		"another amount":       {signed(func(r *api.PayRequest) { r.Amount = 16 }), cloudpal.Invalid},
		"an amount of none":    {changed(func(r *api.PayRequest) { r.Amount = 65 }), cloudpal.Invalid},
		"next century":         {signed(func(r *api.PayRequest) { r.NotBefore = start.AddDate(100, 0, 0).Unix() }), cloudpal.Invalid},
		"beyond time":          {changed(func(r *api.PayRequest) { r.NotBefore = 1 << 62 }), cloudpal.Invalid},
		"a free one":           {p.Pays(s.Offer(), p.Buy(ticket.Free, 64, 82), time.Time{}), cloudpal.Invalid},
		"when its key is over": {p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), ticket.Epoch(82).SpendEnds()), cloudpal.Invalid},
	} {
		_, err := s.Pay(t.Context(), p.Account, p.Request.ID, c.pay)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if v := s.look(p); v.Paid+v.Ahead+v.Pending != 0 || b.Deposited() != 0 {
		t.Errorf("bad tickets were taken: %+v", v)
	}
	// A good one is for its own tab, and its own account.
	_, r := good()
	if _, err := s.Pay(t.Context(), other.Account, other.Request.ID, r); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("on another's tab: %v", err)
	}
	if _, err := s.Pay(t.Context(), other.Account, p.Request.ID, r); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("on a tab of another account: %v", err)
	}
	s.pay(p, r)
	// The ticket again, for another contract.
	with := p.Ticket(r.Spend)
	r.Nonce[3] ^= 1
	p.Sign(s.Offer(), with, &r)
	if _, err := s.Pay(t.Context(), p.Account, p.Request.ID, r); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("one ticket twice on one tab: %v", err)
	}
	elsewhere := other.Pays(s.Offer(), with, time.Time{})
	if _, err := s.Pay(t.Context(), other.Account, other.Request.ID, elsewhere); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("one ticket on two tabs: %v", err)
	}
}

// Who spends one ticket at two centers has service at one: first tickets are asked
// about before; later ones end the service when the mint shows what was signed.
func TestDoubleSpendAtTwoCenters(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	one, two := newShop(t, b), newShop(t, b)
	p := bank.NewPayer(t, b.Bank)
	one.tab(p)
	two.tab(p)
	same := p.Buy(ticket.Paid, 64, 82)
	one.pay(p, p.Pays(one.Offer(), same, time.Time{}))
	if _, err := two.Pay(t.Context(), p.Account, p.Request.ID, p.Pays(two.Offer(), same, time.Time{})); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("the second center takes it: %v", err)
	}
	if stage, _ := two.Stage(p.Account, p.Request.WireGuard); stage != api.Unpaid {
		t.Errorf("the second center's tab is %s", stage)
	}
	// The second center is paid honestly, then with a ticket that the first has too.
	two.pay(p, p.Pays(two.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	same = p.Buy(ticket.Paid, 64, 82)
	two.pay(p, p.Pays(two.Offer(), same, time.Time{}))
	one.pay(p, p.Pays(one.Offer(), same, time.Time{}))
	if v := two.look(p); v.Paid != 128 || v.Stage != api.Funded {
		t.Errorf("until the mint is asked it is %+v", v)
	}
	b.Set(start.Add(5 * time.Minute))
	one.Deposit(t.Context())
	two.Deposit(t.Context())
	two.Review()
	v := two.look(p)
	if v.Paid != 64 || v.Stage != api.TabNapping || len(v.Refused) != 2 || v.Reason == "" {
		t.Errorf("after the mint was asked it is %+v", v)
	}
	two.again()
	two.Review()
	if v := two.look(p); v.Stage != api.TabNapping || len(v.Refused) != 2 {
		t.Errorf("after a restart it is %+v", v)
	}
	// The evidence is kept: it proves what was signed, to anybody.
	tb, _ := two.find(p.Account, p.Request.ID)
	for _, pay := range tb.payments {
		if pay.Is != refused {
			continue
		}
		e, err := mint.ParseEvidence(pay.Evidence)
		if err != nil || e.Proves(bank.Issuer, b.Press(ticket.Paid, 64, 82).Key, pay.spend.Serial(), pay.contract) != nil {
			t.Errorf("what is kept proves nothing: %v", err)
		}
	}
	// A good ticket brings it back, but not before the mint has it.
	b.Fault(func(f *bank.Faults) { f.Down = true })
	r := p.Pays(two.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{})
	if _, err := two.Pay(t.Context(), p.Account, p.Request.ID, r); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("when the mint is away: %v", err)
	}
	if v := two.look(p); v.Stage != api.TabNapping {
		t.Errorf("unseen by the mint it is %s", v.Stage)
	}
	b.Fault(func(f *bank.Faults) { f.Down = false })
	two.pay(p, r)
	if v := two.look(p); v.Stage != api.Funded || v.Paid != 128 {
		t.Errorf("paid well it is %+v", v)
	}
}

// Tickets are taken to the mint one by one, after at least a minute and within the
// grace, in no order.
func TestDepositsAreSpread(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s := newShop(t, b)
	var all []*bank.Payer
	for range 8 {
		p := bank.NewPayer(t, b.Bank)
		s.tab(p)
		s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
		all = append(all, p)
	}
	for _, p := range all {
		for range 3 {
			s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
		}
	}
	b.Fault(func(f *bank.Faults) { f.Times = nil })
	for at := start; at.Before(start.Add(6 * time.Minute)); at = at.Add(time.Second) {
		b.Set(at)
		s.Deposit(t.Context())
	}
	if len(b.Times) != 24 {
		t.Fatalf("the mint has %d, want 24", len(b.Times))
	}
	distinct := map[time.Time]bool{}
	for _, at := range b.Times {
		distinct[at] = true
		if d := at.Sub(start); d < time.Minute || d > 5*time.Minute {
			t.Errorf("one came after %v", d)
		}
	}
	if len(distinct) < 15 {
		t.Errorf("24 tickets came at %d moments", len(distinct))
	}
}

// Post-dated slices keep a pal going while its person is away, are taken when they
// are due and not before, and can be taken back until then.
func TestPostDatedSlices(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	var ahead []ticket.Ticket
	for day := range 3 {
		with := p.Buy(ticket.Paid, 64, 82)
		ahead = append(ahead, with)
		s.pay(p, p.Pays(s.Offer(), with, start.Add(time.Duration(day+1)*23*time.Hour)))
	}
	if v := s.look(p); v.Paid != 64 || v.Ahead != 3*64 || !v.NextAhead.Equal(start.Add(23*time.Hour)) {
		t.Errorf("it is %+v", v)
	}
	s.again()
	use := Use{}
	for day := range 3 {
		if day == 2 {
			b.Swap(t, ahead[2]) // the person takes the last one back
		}
		for range 8 {
			use = s.works(p, use, 3*time.Hour)
			if m, _ := s.Meter(p.Account, p.Request.ID); len(m.Record) > 0 {
				s.agree(p)
			}
			s.Deposit(t.Context())
		}
		if stage, why := s.Stage(p.Account, p.Request.WireGuard); day < 2 && stage != api.Funded {
			t.Errorf("on day %d it is %s: %s", day+1, stage, why)
		}
	}
	// Three days of money are used, and the fourth ticket is gone: no cheating.
	v := s.look(p)
	if got := b.Deposited(); got != 3*64 || v.Paid != 3*64 || len(v.Refused) != 0 {
		t.Errorf("the mint has %d, the tab is %+v", got, v)
	}
	s.works(p, use, time.Hour)
	if stage, why := s.Stage(p.Account, p.Request.WireGuard); stage != api.TabNapping || why != "its money is at an end" {
		t.Errorf("at the end it is %s: %s", stage, why)
	}
}

// A ticket that is due is ahead until its mint is asked for it, so that no money is out
// of sight and none is paid in its place.
func TestDueIsAheadUntilItIsTaken(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), start.Add(time.Hour)))
	b.Add(time.Hour)
	if v := s.look(p); v.Paid != 64 || v.Ahead != 64 {
		t.Errorf("when it is due it is %+v", v)
	}
	b.Add(aheadSpread * time.Second)
	s.Deposit(t.Context())
	if v := s.look(p); v.Paid != 2*64 || v.Ahead != 0 {
		t.Errorf("when it is taken it is %+v", v)
	}
}

// Of all that was deposited the operator has the mints' receipts, page by page, also
// when it is used up and its tab is closed; what is not deposited has none.
func TestReceipts(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	for range 3 {
		s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	}
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), start.Add(48*time.Hour)))
	b.Add(10 * time.Minute)
	s.Deposit(t.Context())
	s.works(p, Use{}, 25*time.Hour)
	s.agree(p)
	s.closeTab(p)
	s.again()
	serials := map[string]bool{}
	pages, after := 0, ""
	for first := true; first || after != ""; first = false {
		page, err := s.Receipts(after, 2)
		if err != nil || len(page.Receipts) > 2 {
			t.Fatalf("after %q: %d receipts, %v", after, len(page.Receipts), err)
		}
		for _, r := range page.Receipts {
			var signed mint.Receipt
			if err := json.Unmarshal(r.Signed, &signed); err != nil || r.Issuer != bank.Issuer || signed.Verify(s.keys.receipt(r.Issuer, signed.Epoch)) != nil {
				t.Errorf("a receipt of %s: %+v (%v)", r.Issuer, signed, err)
			}
			serials[string(signed.Serial)] = true
		}
		pages, after = pages+1, page.Next
	}
	if got := b.Deposited(); len(serials) != 3 || got != 3*64 || pages != 3 {
		t.Errorf("there are %d receipts on %d pages, of %d units", len(serials), pages, got)
	}
	for _, after := range []string{"nonsense", "00", strings.Repeat("0", 82)} {
		if _, err := s.Receipts(after, 2); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("after %q: %v", after, err)
		}
	}
}

// When the money ends the pal naps, is sealed and is deleted, each told before with
// its date; money brings it back.
func TestTheEndIsAnnounced(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	use := s.works(p, Use{}, 12*time.Hour)
	s.agree(p)
	use = s.works(p, use, 13*time.Hour)
	told := s.told(p)
	due := told[api.NapDue]
	napped := told[api.Napped]
	if due.Time.After(napped.Time.Add(-5*time.Hour)) || due.Due.Sub(napped.Time).Abs() > 10*time.Minute {
		t.Errorf("the nap at %v was told at %v, for %v", napped.Time, due.Time, due.Due)
	}
	seal, deletion := told[api.SealDue], told[api.DeletionDue]
	if !seal.Due.Equal(napped.Time.Add(3*24*time.Hour)) || !deletion.Due.Equal(napped.Time.Add(30*24*time.Hour)) {
		t.Errorf("sealed %v, deleted %v after the nap", seal.Due.Sub(napped.Time), deletion.Due.Sub(napped.Time))
	}
	if v := s.look(p); !v.Seals.Equal(seal.Due) || !v.Deletes.Equal(deletion.Due) || v.Reason != "its money is at an end" {
		t.Errorf("the tab is %+v", v)
	}
	stages := s.wait(p, seal.Due.Add(-time.Minute))
	if stages != api.TabNapping {
		t.Errorf("before its time it is %s", stages)
	}
	if got := s.wait(p, seal.Due.Add(time.Minute)); got != api.TabSealed {
		t.Errorf("after its time it is %s", got)
	}
	// Money brings it back, from wherever it is.
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	s.agree(p)
	s.Review()
	if stage, why := s.Stage(p.Account, p.Request.WireGuard); stage != api.Funded {
		t.Errorf("paid again it is %s: %s", stage, why)
	}
	s.works(p, use, 24*time.Hour)
	napped = s.told(p)[api.Napped]
	deletion = s.told(p)[api.DeletionDue]
	if got := s.wait(p, deletion.Due.Add(-time.Hour)); got != api.TabSealed {
		t.Errorf("an hour before it is to be deleted it is %s", got)
	}
	if got := s.wait(p, deletion.Due.Add(time.Minute)); got != api.TabDeleted {
		t.Errorf("a month after its money ended it is %s", got)
	}
	if told := s.told(p); told[api.PalDeleted].Time.Before(deletion.Due) {
		t.Errorf("deleted at %v, which was told for %v", told[api.PalDeleted].Time, deletion.Due)
	}
}

// told returns the last event of each kind.
func (s *shop) told(p *bank.Payer) map[api.What]api.Event {
	s.tb.Helper()
	list, err := s.Events(s.tb.Context(), p.Account, p.Request.ID, 0, 0)
	if err != nil {
		s.tb.Fatal(err)
	}
	last := map[api.What]api.Event{}
	for _, e := range list {
		last[e.What] = e
	}
	return last
}

// wait lets time go by, with the center at work.
func (s *shop) wait(p *bank.Payer, until time.Time) api.Stage {
	for at := s.bank.Now(); at.Before(until); at = at.Add(50 * time.Second) {
		s.bank.Set(at)
		s.Review()
	}
	s.bank.Set(until)
	s.Review()
	stage, _ := s.Stage(p.Account, p.Request.WireGuard)
	return stage
}

// Time in which the center was not there, or its clock was wrong, deletes nobody.
func TestNobodyIsDeletedForACentersAbsence(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	s.works(p, Use{}, 30*time.Hour) // nobody countersigns: it naps after a slice
	before := s.told(p)[api.DeletionDue]
	if stage, _ := s.Stage(p.Account, p.Request.WireGuard); stage != api.TabNapping {
		t.Fatalf("it is %s", stage)
	}
	s.again()
	b.Set(b.Now().Add(100 * 24 * time.Hour))
	s.Review()
	if stage, _ := s.Stage(p.Account, p.Request.WireGuard); stage != api.TabNapping {
		t.Errorf("after the center was away it is %s", stage)
	}
	after := s.told(p)[api.DeletionDue]
	if got := after.Due.Sub(before.Due).Round(time.Hour); got != 100*24*time.Hour || !after.Due.After(b.Now()) {
		t.Errorf("its deletion is told for %v, %v later than before", after.Due, got)
	}
	b.Set(b.Now().AddDate(-1, 0, 0)) // and a clock that goes back
	s.Review()
	if stage, _ := s.Stage(p.Account, p.Request.WireGuard); stage != api.TabNapping {
		t.Errorf("with a clock that is behind it is %s", stage)
	}
}

// A center claims no more than what was countersigned and a slice.
func TestClaimsAreCountersigned(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	for range 3 {
		s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	}
	use := s.works(p, Use{}, 4*time.Hour)
	s.agree(p)
	// The pal's side falls silent; the center goes on for a slice, and stops.
	s.Deposit(t.Context())
	s.works(p, use, 48*time.Hour)
	v := s.look(p)
	if v.Stage != api.TabNapping || v.Reason != "its use is not countersigned" {
		t.Errorf("it is %+v", v)
	}
	closed := s.closeTab(p)
	if got := s.closedUsed(closed); got != v.Signed+64 {
		t.Errorf("the center claims %d, want %d and a slice", got, v.Signed)
	}
	// What is countersigned is by the tab's key, and just the last record.
	p.Anew()
	s.tab(p)
	s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	s.works(p, use, 6*time.Hour)
	m, err := s.Meter(p.Account, p.Request.ID)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ticket.ParseRecord(m.Record)
	center := s.Center()
	if err != nil || !r.Signed(center[:], m.Signature) || r.Follows(nil) != nil {
		t.Fatalf("record %+v (%v)", r, err)
	}
	_, stranger, _ := ed25519.GenerateKey(nil)
	if _, err := s.Countersign(p.Account, p.Request.ID, api.CountersignRequest{Record: m.Record, Signature: r.Sign(stranger)}); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("countersigned by a stranger: %v", err)
	}
	r.Used--
	if _, err := s.Countersign(p.Account, p.Request.ID, api.CountersignRequest{Record: r.Append(nil), Signature: r.Sign(p.Counter)}); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("another record countersigned: %v", err)
	}
}

// While the mint is away a tab goes on for a slice that it cannot confirm, and no
// further; when it is back everything is taken to it.
func TestTheMintIsAwayAndBack(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	s, p := newShop(t, b), bank.NewPayer(t, b.Bank)
	s.tab(p)
	r := p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{})
	if err := s.keys.refresh(t.Context(), b.Now()); err != nil {
		t.Fatal(err)
	}
	b.Fault(func(f *bank.Faults) { f.Down = true })
	if _, err := s.Pay(t.Context(), p.Account, p.Request.ID, r); !errors.Is(err, cloudpal.Missing) || cloudpal.HintOf(err) == "" {
		t.Errorf("a first ticket when the mint is away: %v", err)
	}
	if stage, _ := s.Stage(p.Account, p.Request.WireGuard); stage != api.Unpaid {
		t.Errorf("it is %s", stage)
	}
	// The answer of the mint gets lost, too.
	b.Fault(func(f *bank.Faults) { f.Down, f.Loses = false, 1 })
	if _, err := s.Pay(t.Context(), p.Account, p.Request.ID, r); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("when its answer gets lost: %v", err)
	}
	s.pay(p, r)
	if got := b.Deposited(); got != 64 {
		t.Errorf("the mint has %d, want 64", got)
	}
	b.Fault(func(f *bank.Faults) { f.Down = true })
	for range 3 {
		s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
	}
	s.again() // with the mint away
	use := Use{}
	for range 16 {
		use = s.works(p, use, 3*time.Hour)
		if m, _ := s.Meter(p.Account, p.Request.ID); len(m.Record) > 0 {
			s.agree(p)
		}
		s.Deposit(t.Context())
	}
	s.works(p, use, 2*time.Hour)
	if v := s.look(p); v.Stage != api.TabNapping || v.Paid != 4*64 || v.Pending != 3*64 {
		t.Errorf("with one slice confirmed and one on trust used it is %+v", v)
	}
	b.Fault(func(f *bank.Faults) { f.Down = false })
	for range 20 {
		b.Set(b.Now().Add(maxBackoff))
		s.Deposit(t.Context())
		s.Review()
	}
	if v := s.look(p); v.Stage != api.Funded || v.Pending != 0 || b.Deposited() != 4*64 {
		t.Errorf("when it is back it is %+v, and the mint has %d", v, b.Deposited())
	}
}
