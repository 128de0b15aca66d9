package simulation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
	"github.com/tradle/cloudpal/ticket/signer"
)

// doubles is the life of a person who has copied a wallet, and pays with the copies at
// all centers at once, at one of them on two tabs.
func (p *person) doubles() error {
	p.clock.sleep(declared.Rest.Most)
	var copies []*person
	for i, c := range []int{0, 0, 1, 2} {
		q := *p
		q.copied, q.stays, q.folder = i, nil, newFolder(fmt.Sprintf("%s-copy-%d", p.base, i))
		if err := os.CopyFS(q.dir, os.DirFS(p.dir)); err != nil {
			return err
		}
		if err := q.opens(); err != nil {
			return err
		}
		defer q.wallet.Close()
		if _, err := q.comes(p.centers[c]); err != nil {
			return err
		}
		p.stays = append(p.stays, q.stays...)
		copies = append(copies, &q)
	}
	for range 4 {
		var all sync.WaitGroup
		for _, q := range copies {
			all.Go(func() {
				q.wallet.Pay(context.Background(), q.stays[0].at, q.stays[0].tab.ID, ticket.Paid, p.clock.Now())
			})
		}
		all.Wait()
		p.clock.sleep(time.Hour)
	}
	for _, q := range copies {
		for range 20 {
			if _, err := q.wallet.CloseTab(context.Background(), q.stays[0].at, q.stays[0].tab.ID); err == nil || !passes(err) {
				break
			}
			p.clock.sleep(tryEvery)
		}
	}
	return p.wallet.Close()
}

// restores makes a wallet of a person's phrase alone.
func (p *person) restores() error {
	p.folder = newFolder(p.base + "-restored")
	var err error
	if p.wallet, err = wallet.Create(p.config(), p.trust, 0); err != nil {
		return err
	}
	return p.until("restore", func(ctx context.Context) error {
		_, err := p.wallet.Restore(ctx, nil, nil)
		return err
	})
}

// A quiet world is one in which nothing goes wrong of itself, and of one person, who
// has bought.
func quiet(t *testing.T) (*world, *person) {
	t.Parallel()
	w := newWorld(t, home(t), setting{seed: seed(t), people: 3, policy: wallet.Now})
	p := w.person(0, false)
	p.mortal, p.voucher = false, w.codes[0]
	w.people = append(w.people, p)
	w.must(p.opens())
	t.Cleanup(w.close)
	return w, p
}

// pays4 pays twice at a center whose slice is of four units, and returns what the
// center was sent, in its order.
func (p *person) pays4(t *testing.T) (*stay, []message) {
	t.Helper()
	p.must(p.buys())
	p.bought.Add(1)
	s, err := p.comes(p.centers[1])
	p.must(err)
	var sent []message
	p.net.changes = func(m message, a *answer) *answer {
		if m.path == "/v1/deposits" {
			sent = append(sent, m)
		}
		return a
	}
	for range 2 {
		p.must(p.pays(s, 0))
		p.later(10 * time.Minute)
	}
	p.net.changes = nil
	if len(sent) != 2 {
		t.Fatalf("%d deposits", len(sent))
	}
	return s, sent
}

// later lets time go by, and centers go to their mint.
func (w *world) later(d time.Duration) {
	w.clock.sleepAll(d)
	for _, c := range w.centers {
		c.till.Deposit(context.Background())
	}
}

// as asks the mint as a center does.
func (w *world) as(c *center) *mintapi.CenterClient {
	return mintapi.Over("https://"+issuer, line{network: w.net, from: ofCenters}).As(c.key, w.clock.Now)
}

func (w *world) balance(c *center) ticket.Units {
	a, err := w.as(c).Account(context.Background(), 0)
	w.must(err)
	return a.Balance
}

// mustBe is for what has to be refused.
func mustBe(t *testing.T, what string, err error, kinds ...cloudpal.Kind) {
	t.Helper()
	for _, k := range kinds {
		if errors.Is(err, k) {
			return
		}
	}
	t.Errorf("%s: got %v, want one of %v", what, err, kinds)
}

// What a center was paid it has once, as it was paid, when it is due, and for itself.
func TestCenterReuses(t *testing.T) {
	w, p := quiet(t)
	_, sent := p.pays4(t)
	ctx := t.Context()
	var r mintapi.DepositRequest
	w.must(json.Unmarshal(sent[1].body, &r))
	spend, err := ticket.ParseSpend(r.Spend)
	w.must(err)
	contract := ticket.PayContract{
		Center: ticket.CenterID(r.Center), Hidden: ticket.Hidden(r.Hidden), Amount: r.Amount, NotBefore: r.NotBefore, Blank: ticket.Digest(r.Blank),
	}
	mine, other := w.centers[1], w.centers[2]
	again, err := w.as(mine).Deposit(ctx, contract, spend)
	w.must(err)
	if got := w.balance(mine); got != 8 {
		t.Errorf("deposited twice, two tickets of 4 are %d", got)
	}
	// The receipt is proof of what the mint owes.
	w.must(again.Verify(publicOf(keyOf("receipts"))))

	stolen := contract
	stolen.Center = ticket.CenterID(publicOf(other.key))
	for what, try := range map[string]func() error{
		"another center deposits it": func() error { _, err := w.as(other).Deposit(ctx, contract, spend); return err },
		"it says that it is paid":    func() error { _, err := w.as(other).Deposit(ctx, stolen, spend); return err },
		"for a larger amount":        func() error { c := contract; c.Amount = 16; _, err := w.as(mine).Deposit(ctx, c, spend); return err },
		"with change for itself":     func() error { c := contract; c.Blank[0]++; _, err := w.as(mine).Deposit(ctx, c, spend); return err },
		"for another tab":            func() error { c := contract; c.Hidden[0]++; _, err := w.as(mine).Deposit(ctx, c, spend); return err },
		"it was not paid for earlier": func() error {
			c := contract
			c.NotBefore = start
			_, err := w.as(mine).Deposit(ctx, c, spend)
			return err
		},
	} {
		mustBe(t, what, try(), cloudpal.Denied, cloudpal.Invalid, cloudpal.Exist)
	}
	// One that is paid ahead.
	var early message
	w.net.changes = func(m message, a *answer) *answer {
		if strings.HasSuffix(m.path, "/pay") && m.host == mine.name {
			early = m
		}
		return a
	}
	w.must(p.pays(p.stays[0], 2*time.Hour))
	w.net.changes = nil
	var q api.PayRequest
	w.must(json.Unmarshal(early.body, &q))
	c, err := q.Contract(contract.Center, p.stays[0].tab.ID)
	w.must(err)
	if spend, err = ticket.ParseSpend(q.Spend); err != nil {
		t.Fatal(err)
	}
	_, err = w.as(mine).Deposit(ctx, c, spend)
	mustBe(t, "before it is due", err, cloudpal.Denied)
	if a, b := w.balance(mine), w.balance(other); a != 8 || b != 0 {
		t.Errorf("after all that, %d and %d are owed", a, b)
	}
}

// A center that wants the change for itself gets none.
func TestCenterRedirectsChange(t *testing.T) {
	w, p := quiet(t)
	s, _ := p.pays4(t)
	ctx := t.Context()
	var refund message
	w.net.changes = func(m message, a *answer) *answer {
		if m.path == "/v1/refunds" && refund.body == nil {
			refund = m
			return nil // and the person does not hear of it
		}
		return a
	}
	p.wallet.CloseTab(ctx, s.at, s.tab.ID)
	w.net.changes = nil
	var r mintapi.RefundRequest
	w.must(json.Unmarshal(refund.body, &r))
	// It knows the refund that both have signed, and has outputs of its own.
	var own []ticket.Output
	for n := range uint64(3) {
		secret, err := ticket.Derive(ticket.Seed{1}, "a center's", issuer, w.key(ticket.KeyID(r.Outputs[0].Key)), n)
		w.must(err)
		o := secret.Output()
		own = append(own, o)
	}
	redirected := r
	redirected.Outputs = mintapi.Outputs(own)
	asked := mintapi.Over("https://"+issuer, line{network: w.net, from: ofCenters})
	_, err := asked.Refund(ctx, redirected)
	mustBe(t, "outputs of the center's", err, cloudpal.Denied)
	less := r
	less.Units--
	_, err = asked.Refund(ctx, less)
	mustBe(t, "other units", err, cloudpal.Denied, cloudpal.Exist)
	// The person has it all the same.
	w.must(p.leaves(s))
	w.later(0)
	w.holds()
}

// answersOf changes what a center says when a tab is closed.
func (s *stay) answersOf(change func(*api.Closed)) func(message, *answer) *answer {
	return func(m message, a *answer) *answer {
		if !strings.HasSuffix(m.path, "/close") || a.status != http.StatusOK {
			return a
		}
		var signed api.Signed
		var closed api.Closed
		if json.Unmarshal(a.body, &signed) != nil || signed.Open(publicOf(s.at.key), api.ForClosed, &closed) != nil {
			panic("a center's answer cannot be read")
		}
		change(&closed)
		signed, err := api.Sign(s.at.key, api.ForClosed, closed)
		if err != nil {
			panic(err)
		}
		body, err := json.Marshal(signed)
		if err != nil {
			panic(err)
		}
		return &answer{a.status, a.header, body}
	}
}

// A center that says that it never took what it took is proven wrong by the mint.
func TestCenterDenies(t *testing.T) {
	w, p := quiet(t)
	s, sent := p.pays4(t)
	var r mintapi.DepositRequest
	w.must(json.Unmarshal(sent[1].body, &r))
	spend, err := ticket.ParseSpend(r.Spend)
	w.must(err)
	serial := spend.Serial()
	w.net.changes = s.answersOf(func(c *api.Closed) {
		c.Refunds, c.Returned, c.Meter = nil, [][]byte{serial[:]}, api.Meter{}
	})
	proven := w.proven
	_, err = p.wallet.CloseTab(t.Context(), s.at, s.tab.ID)
	w.net.changes = nil
	if err == nil {
		t.Error("the wallet believes that it was never taken")
	}
	if w.proven == proven {
		t.Error("there is no proof that it was")
	}
	// The mint decides, and the center has no record that the person agreed with.
	p.disputes(t, s)
	b, err := p.wallet.Balance()
	w.must(err)
	// Of two tickets of 4, one was said to come back and is not in the dispute; of
	// the other a unit stays with the center.
	if b.Paid < ticket.Sum(pack)-8+3 {
		t.Errorf("the wallet has %d of %d", b.Paid, ticket.Sum(pack))
	}
	w.must(w.mint.books.Check(t.Context(), w.mint.log.shown.Keys()))
}

// disputes takes a tab to the mint, and waits until it has decided.
func (p *person) disputes(t *testing.T, s *stay) ticket.Units {
	t.Helper()
	d, err := p.wallet.Dispute(t.Context(), s.tab.ID)
	p.must(err)
	if d.State != mintapi.Open {
		t.Fatalf("the dispute is %+v", d)
	}
	p.clock.sleepAll(mintapi.AnswerTime + time.Hour)
	d, err = p.wallet.Dispute(t.Context(), s.tab.ID)
	p.must(err)
	if d.State != mintapi.Settled {
		t.Errorf("a day later the dispute is %+v", d)
	}
	p.must(p.wallet.Resume(t.Context()))
	return d.Units
}

// A center that gives back less than its own record says is found out, and the mint
// gives the rest.
func TestCenterGivesTooLittle(t *testing.T) {
	w, p := quiet(t)
	s, _ := p.pays4(t)
	w.net.changes = s.answersOf(func(c *api.Closed) { c.Refunds = nil })
	_, err := p.wallet.CloseTab(t.Context(), s.at, s.tab.ID)
	w.net.changes = nil
	var short *wallet.Short
	if !errors.As(err, &short) || short.Got != 0 || short.Want == 0 {
		t.Fatalf("got %v", err)
	}
	if got := p.disputes(t, s); got == 0 || got > 3 {
		t.Errorf("the dispute brings %d", got)
	}
	w.must(w.mint.books.Check(t.Context(), w.mint.log.shown.Keys()))
}

// A center cannot have a record agreed with that nobody countersigned.
func TestCenterClaimsTooMuch(t *testing.T) {
	w, p := quiet(t)
	s, _ := p.pays4(t)
	p.works(s)
	w.clock.sleepAll(3 * time.Hour) // 8 units
	w.centers[1].till.Count(s.at.account, s.tab.WireGuard, till.Use{Awake: 3 * time.Hour, Up: true})
	m, err := s.at.meter(t.Context(), s.tab.ID)
	w.must(err)
	r, err := ticket.ParseRecord(m.Record)
	w.must(err)
	if r.Used > 4 {
		t.Errorf("with nothing countersigned the center claims %d, more than a slice", r.Used)
	}
	// It signs its own record of all, in the person's name: the tab's key is not its.
	r.Seq, r.Used = r.Seq+1, 8
	mustBe(t, "the wallet keeps what nobody countersigned", p.wallet.KeepMeter(t.Context(), s.tab.ID, m), cloudpal.Denied)
	_, err = s.at.countersign(t.Context(), s.tab.ID, api.CountersignRequest{Record: m.Record, Signature: r.Sign(s.at.key)})
	mustBe(t, "it countersigns itself", err, cloudpal.Denied)
	d, err := p.wallet.Dispute(t.Context(), s.tab.ID)
	w.must(err)
	_, err = w.as(w.centers[1]).Answer(t.Context(), d.ID, mintapi.AnswerRequest{Record: r.Append(nil), Countersigned: r.Sign(s.at.key)})
	mustBe(t, "it answers a dispute with it", err, cloudpal.Denied)
	w.clock.sleepAll(mintapi.AnswerTime + time.Hour)
	if d, err = p.wallet.Dispute(t.Context(), s.tab.ID); err != nil || d.State != mintapi.Settled || d.Units != 3 {
		t.Errorf("the dispute is %+v (%v), want 3 of 8 units", d, err)
	}
}

// Signatures by another key than everybody's are refused, and cost nothing.
func TestMintSignsWithASecondKey(t *testing.T) {
	w, p := quiet(t)
	ctx := t.Context()
	other := made()[len(made())-1]
	w.net.changes = func(m message, a *answer) *answer {
		if m.path != "/v1/issue" && m.path != "/v1/swap" || a.status != http.StatusOK {
			return a
		}
		var r mintapi.SwapRequest
		if json.Unmarshal(m.body, &r) != nil {
			panic("a request cannot be read")
		}
		var signed mintapi.Signatures
		for _, o := range r.Outputs {
			s, err := other.Sign(o.Blinded)
			if err != nil { // a blinded message may be larger than the other key
				s = bytes.Repeat([]byte{1}, ticket.BlindSize)
			}
			signed.Signatures = append(signed.Signatures, s)
		}
		body, err := json.Marshal(signed)
		if err != nil {
			panic(err)
		}
		return &answer{a.status, a.header, body}
	}
	_, err := p.wallet.Buy(ctx, wallet.Order{Pack: "pack", Method: "voucher", Voucher: p.voucher})
	if err == nil || !strings.Contains(cloudpal.HintOf(err), "another key") {
		t.Fatalf("bought with %v", err)
	}
	if has := w.has(p); has != 0 {
		t.Errorf("the wallet has taken %d units that are none", has)
	}
	w.net.changes = nil
	w.must(p.buys())
	w.bought.Add(1)
	w.holds()
}

// A mint that shows somebody keys of their own is refused: by a log with a second
// manifest, by one that no witness saw, and by one that is another than before, which
// it has signed: proof for all.
func TestMintTags(t *testing.T) {
	w, p := quiet(t)
	ctx := t.Context()
	own := press{}
	mine, err := manifest.New(issuer, ticket.EpochAt(start), publicOf(keyOf("receipts")), own.keys(ticket.EpochAt(start), []*signer.Signer{made()[3], made()[0], made()[1]}))
	w.must(err)
	l := w.mint.log
	entry, err := mine.Sign(l.root)
	w.must(err)
	shows := func(entries []manifest.Entry, witnesses ...noter) {
		w.net.changes = func(m message, a *answer) *answer {
			if !strings.HasPrefix(m.path, "/v1/manifests/") {
				return a
			}
			raw, err := l.bundle(mine, entries, witnesses...)
			if err != nil {
				panic(err)
			}
			return &answer{http.StatusOK, a.header, raw}
		}
	}
	buy := func() error {
		if b, err := p.wallet.Balance(); err != nil || len(b.Purchases) > 0 {
			_, err = p.wallet.GoOn(ctx, b.Purchases[0].N)
			return err
		}
		_, err := p.wallet.Buy(ctx, wallet.Order{Pack: "pack", Method: "voucher", Voucher: p.voucher})
		return err
	}
	shows(append(l.entries[:1:1], entry), l.witnesses...)
	mustBe(t, "a second manifest", buy(), cloudpal.Denied)
	shows([]manifest.Entry{entry})
	mustBe(t, "a log that no witness saw", buy(), cloudpal.Denied)
	shows([]manifest.Entry{entry}, l.witnesses[0])
	mustBe(t, "a log that one friend saw", buy(), cloudpal.Denied)
	w.net.changes = nil
	w.must(p.buys())
	w.bought.Add(1)
	// Witnesses that are the mint's, all of them, still leave a proof with who has seen
	// the log before. The wallet looks at it anew within three days.
	w.clock.sleepAll(73 * time.Hour)
	shows([]manifest.Entry{entry}, l.witnesses...)
	_, err = p.comes(w.centers[1])
	w.must(err)
	_, err = p.wallet.Pay(ctx, p.stays[0].at, p.stays[0].tab.ID, ticket.Paid, w.clock.Now())
	var fork *manifest.Fork
	if !errors.As(err, &fork) {
		t.Fatalf("shown another log: %v", err)
	}
	seen, shown := &manifest.Bundle{Keys: l.shown.Public(), Entries: l.entries, Checkpoint: fork.Seen}, &manifest.Bundle{Keys: mine.Public(), Entries: []manifest.Entry{entry}, Checkpoint: fork.Shown}
	for _, b := range []*manifest.Bundle{seen, shown} {
		if _, err := w.trust.Verify(b, ticket.EpochAt(start), "", w.clock.Now()); err != nil {
			t.Errorf("a part of the proof is no good: %v", err)
		}
	}
	w.net.changes = nil
	w.mint.kill() // it reads its log anew
	w.must(p.pays(p.stays[0], 0))
	w.must(p.leaves(p.stays[0]))
	w.later(0)
	w.holds()
}

// A mint that says no, or that a ticket was spent that was not, takes nothing from
// anybody: what they have stays good, and shows that it is.
func TestMintRefusesAndLies(t *testing.T) {
	w, p := quiet(t)
	ctx := t.Context()
	w.must(p.buys())
	w.bought.Add(1)
	s, err := p.comes(w.centers[1])
	w.must(err)
	w.must(p.pays(s, 0))
	foreign, err := ticket.ParseSpend(bytes.Repeat([]byte{0}, ticket.SpendSize))
	if err == nil {
		t.Log("a spend of zeros is read")
	}
	says := func(path string, e mintapi.Evidence) {
		w.net.changes = func(m message, a *answer) *answer {
			if m.path != path {
				return a
			}
			p := mintapi.Problem{Title: string(cloudpal.Exist), Status: http.StatusConflict, Evidence: e.Append(nil)}
			if e.Contract == nil {
				p = mintapi.Problem{Title: string(cloudpal.Denied), Status: http.StatusForbidden}
			}
			body, err := json.Marshal(p)
			if err != nil {
				panic(err)
			}
			return &answer{p.Status, a.header, body}
		}
	}
	lie := mintapi.Evidence{Contract: ticket.SwapContract{Outputs: ticket.Digest{1}}, Spend: foreign}
	// The second payment is taken on credit, and the mint does not want to know of it.
	for _, e := range []mintapi.Evidence{{}, lie} {
		says("/v1/deposits", e)
		w.must(p.pays(s, 0))
		w.later(10 * time.Minute)
		tab, err := w.centers[1].till.Tab(s.at.account, s.tab.ID)
		w.must(err)
		if tab.Pending == 0 || len(tab.Refused) > 0 {
			t.Errorf("a lie of the mint's costs the center %+v", tab)
		}
		w.net.changes = nil
		w.later(time.Hour)
		if tab, err = w.centers[1].till.Tab(s.at.account, s.tab.ID); err != nil || tab.Pending > 0 {
			t.Errorf("after it, %+v (%v)", tab, err)
		}
	}
	// A wallet keeps a ticket that it cannot swap.
	before := w.has(p)
	n := p.paysLater(s)
	for _, e := range []mintapi.Evidence{{}, lie} {
		says("/v1/swap", e)
		if err := p.wallet.Cancel(ctx, n); err == nil {
			t.Error("it is cancelled by a lie")
		}
	}
	w.net.changes = nil
	w.must(p.wallet.Resume(ctx))
	if after := w.has(p); after != before {
		t.Errorf("the wallet has %d, and had %d", after, before)
	}
	p.hasAll(t, s)
}

// A center that signs a last record of its own, of more than a slice above what the
// person's side agreed with, is not believed, and that record is not used against the
// person.
func TestCenterClaimsAllAtTheEnd(t *testing.T) {
	w, p := quiet(t)
	s, _ := p.pays4(t)
	p.works(s)
	w.clock.sleepAll(time.Hour)
	p.works(s)
	w.net.changes = s.answersOf(func(c *api.Closed) {
		r, err := ticket.ParseRecord(c.Meter.Record)
		w.must(err)
		r.Seq, r.Used, r.Prev = r.Seq+1, 8, r.Digest()
		c.Meter, c.Refunds = api.Meter{Record: r.Append(nil), Signature: r.Sign(s.at.key)}, nil
	})
	_, err := p.wallet.CloseTab(t.Context(), s.at, s.tab.ID)
	w.net.changes = nil
	var short *wallet.Short
	if !errors.As(err, &short) || short.Got != 0 || short.Want < 4 {
		t.Fatalf("the wallet takes it: %v", err)
	}
	if got := p.disputes(t, s); got != 3 {
		t.Errorf("of 8 units 2 were used, and the dispute brings %d of the last ticket, want 3", got)
	}
}

// Whose tab is closed while a payment is taken back, with the answer lost, takes no
// center for a cheat that has learned of it.
func TestClosesWhileCancelling(t *testing.T) {
	w, p := quiet(t)
	s, _ := p.pays4(t)
	n := p.paysLater(s)
	w.net.changes = func(m message, a *answer) *answer {
		if m.path == "/v1/swap" {
			return nil
		}
		return a
	}
	if err := p.wallet.Cancel(t.Context(), n); err == nil {
		t.Fatal("it is taken back, and nobody has heard of it")
	}
	w.later(3 * time.Hour) // the mint tells the center
	p.accusesNobody(t, s)
	w.net.changes = nil
	p.hasAll(t, s)
}

// Nor does one who could not ask the mint, and whose center has that payment by then.
func TestClosesWhileCancellingTooLate(t *testing.T) {
	w, p := quiet(t)
	s := p.pays1()
	n := p.paysLater(s)
	delete(w.net.parties, issuer)
	if err := p.wallet.Cancel(t.Context(), n); err == nil {
		t.Fatal("it is taken back without the mint")
	}
	w.net.parties[issuer] = w.mint
	w.later(3 * time.Hour) // the center takes it to the mint
	p.accusesNobody(t, s)
	p.hasAll(t, s)
}

// Nor does one who has a payment back, of which the mint could not tell the center.
func TestClosesWithWhatIsBack(t *testing.T) {
	w, p := quiet(t)
	s := p.pays1()
	w.later(time.Hour)
	w.must(p.wallet.Cancel(t.Context(), p.paysLater(s)))
	delete(w.net.parties, issuer)
	w.later(3 * time.Hour) // the center asks, and hears nothing
	p.accusesNobody(t, s)
	w.net.parties[issuer] = w.mint
	p.hasAll(t, s)
}

// pays1 pays six times at a center of whose tickets, of one unit, nothing comes back.
func (p *person) pays1() *stay {
	p.must(p.buys())
	p.bought.Add(1)
	s, err := p.comes(p.centers[0])
	p.must(err)
	for range 6 {
		p.must(p.pays(s, 0))
	}
	return s
}

// paysLater pays what is due in two hours, and returns the payment's number.
func (p *person) paysLater(s *stay) uint64 {
	p.must(p.pays(s, 2*time.Hour))
	b, err := p.wallet.Balance()
	p.must(err)
	return b.Payments[len(b.Payments)-1].N
}

// accusesNobody closes a tab, as far as that goes.
func (p *person) accusesNobody(t *testing.T, s *stay) {
	t.Helper()
	_, err := p.wallet.CloseTab(t.Context(), s.at, s.tab.ID)
	var short *wallet.Short
	if errors.As(err, &short) {
		t.Errorf("the center is accused: %v", err)
	}
}

// hasAll leaves, and checks that all units are somewhere.
func (p *person) hasAll(t *testing.T, s *stay) {
	t.Helper()
	p.must(p.leaves(s))
	p.later(0)
	p.must(p.wallet.Resume(t.Context()))
	p.holds()
}
