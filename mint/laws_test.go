package mint

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// A model is a mint as one can keep it in one's head: who has what. All that it says
// of a sequence of requests, the mint must say too.
type model struct {
	*house
	*person
	t *rapid.T

	lock   map[string]ed25519.PrivateKey // of quotes
	paid   []string                      // quotes to be issued
	issued []issuedQuote
	have   []ticket.Ticket
	slips  []*laid
	owed   map[ticket.CenterID]int64
	tills  []*till
	given  ticket.Units // for quotes
}

type issuedQuote struct {
	id     string
	hand   hand
	signed [][]byte
}

// A laid slip was deposited.
type laid struct {
	slip
	till     *till
	tab      ed25519.PrivateKey
	receipt  api.Receipt
	back     ticket.Units // given back
	refunded bool
	claim    *api.DisputeRequest
	dispute  string
	held     ticket.Units
	until    time.Time
}

// testLaws does whatever comes in whatever order.
func testLaws(t *testing.T, e engine) {
	rapid.Check(t, func(rt *rapid.T) {
		p := newParts(t, e)
		h := p.open(t)
		m := &model{
			house: h, person: h.person("ann"), t: rt, lock: map[string]ed25519.PrivateKey{}, owed: map[ticket.CenterID]int64{},
			tills: []*till{h.till("a"), h.till("b")},
		}
		for range 4 {
			q, err := m.Quote(m.ctx(), api.QuoteRequest{Method: "purse", Pack: "mixed", Lock: public(m.newLock())})
			m.ok(err)
			_, err = m.Pay(m.ctx(), q.ID, api.PayRequest{Voucher: q.ID})
			m.ok(err)
			m.paid = append(m.paid, q.ID)
			m.issue(rt)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"buy":          m.buy,
			"issue":        m.issue,
			"issue again":  m.issueAgain,
			"swap":         m.swap,
			"deposit":      m.deposit,
			"again":        m.depositAgain,
			"elsewhere":    m.depositElsewhere,
			"refund":       m.refund,
			"refund again": m.refundAgain,
			"dispute":      m.dispute,
			"answer":       m.answer,
			"silence":      m.silence,
			"":             m.agree,
		})
		h.Books.Close()
		h.Ledger.Close()
	})
}

func (m *model) ok(err error) {
	if err != nil {
		m.t.Fatalf("%v (%s)", err, cloudpal.HintOf(err))
	}
}

func (m *model) wants(kind cloudpal.Kind, err error) {
	if !errors.Is(err, kind) {
		m.t.Fatalf("got %v, want %v", err, kind)
	}
}

func (m *model) ctx() context.Context { return context.Background() }

func pick[T any](t *rapid.T, list []T, what string) T {
	if len(list) == 0 {
		t.Skip("there is no " + what)
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(t, what)]
}

// newLock makes a lock and remembers which quote it is of.
func (m *model) newLock() ed25519.PrivateKey {
	lock := m.person.lock()
	m.lock[quoteID(public(lock))] = lock
	return lock
}

func (m *model) buy(t *rapid.T) {
	pack, lock := pick(t, packs, "pack"), m.newLock()
	q, err := m.Quote(m.ctx(), api.QuoteRequest{Method: "purse", Pack: pack.Name, Lock: public(lock)})
	m.ok(err)
	if rapid.Bool().Draw(t, "pays") {
		_, err = m.Pay(m.ctx(), q.ID, api.PayRequest{Voucher: q.ID})
		m.ok(err)
		m.paid = append(m.paid, q.ID)
		return
	}
	hand := m.hand(ticket.Paid, 82, pack.Tickets...)
	_, err = m.Issue(m.ctx(), issueRequest(q.ID, hand, lock))
	m.wants(cloudpal.Exhausted, err)
}

func issueRequest(id string, h hand, lock ed25519.PrivateKey) api.IssueRequest {
	return api.IssueRequest{Quote: id, Outputs: api.Outputs(h.outputs), Signature: ed25519.Sign(lock, api.IssueText(id, h.digest()))}
}

func (m *model) issue(t *rapid.T) {
	id := pick(t, m.paid, "paid quote")
	q, err := m.Look(m.ctx(), id)
	m.ok(err)
	hand := m.hand(ticket.Paid, 82, q.Tickets...)
	s, err := m.Issue(m.ctx(), issueRequest(id, hand, m.lock[id]))
	m.ok(err)
	m.paid = slices.DeleteFunc(m.paid, func(p string) bool { return p == id })
	m.issued = append(m.issued, issuedQuote{id, hand, s.Signatures})
	m.have = append(m.have, m.finish(hand, s.Signatures)...)
	m.given += ticket.Sum(q.Tickets)
}

func (m *model) issueAgain(t *rapid.T) {
	q := pick(t, m.issued, "issued quote")
	s, err := m.Issue(m.ctx(), issueRequest(q.id, q.hand, m.lock[q.id]))
	m.ok(err)
	if !slices.EqualFunc(s.Signatures, q.signed, bytes.Equal) {
		t.Fatal("asked again, the mint signed something else")
	}
	var other hand
	for _, s := range q.hand.secrets { // as many new ones
		k, err := m.house.Mint.key(m.ctx(), s.Output().Key)
		m.ok(err)
		one := m.hand(ticket.Paid, 82, k.Denomination)
		other.secrets, other.outputs = append(other.secrets, one.secrets...), append(other.outputs, one.outputs...)
	}
	_, err = m.Issue(m.ctx(), issueRequest(q.id, other, m.lock[q.id]))
	m.wants(cloudpal.Exist, err)
}

// take takes a ticket out of what the person has.
func (m *model) take(t *rapid.T) ticket.Ticket {
	if len(m.have) == 0 {
		t.Skip("there is no ticket")
	}
	i := rapid.IntRange(0, len(m.have)-1).Draw(t, "ticket")
	one := m.have[i]
	m.have = slices.Delete(m.have, i, i+1)
	return one
}

func (m *model) swap(t *rapid.T) {
	var in []ticket.Ticket
	for range rapid.IntRange(1, 3).Draw(t, "inputs") {
		if len(m.have) > 0 {
			in = append(in, m.take(t))
		}
	}
	if len(in) == 0 {
		t.Skip("there is no ticket")
	}
	worth := worthOf(m.house, m.house, in)
	of := ticket.Split(worth)
	if d := of[len(of)-1]; d > 1 && rapid.Bool().Draw(t, "splits") {
		of = append(of[:len(of)-1], d/4, d/4, d/4, d/4)
	}
	hand := m.hand(ticket.Paid, 82, of...)
	var spends [][]byte
	for _, one := range in {
		s := one.Sign(ticket.SwapContract{Outputs: hand.digest()})
		spends = append(spends, s.Append(nil))
	}
	r := api.SwapRequest{Inputs: spends, Outputs: api.Outputs(hand.outputs)}
	s, err := m.Swap(m.ctx(), r)
	m.ok(err)
	again, err := m.Swap(m.ctx(), r)
	m.ok(err)
	if !slices.EqualFunc(s.Signatures, again.Signatures, bytes.Equal) {
		t.Fatal("asked again, the mint signed something else")
	}
	m.have = append(m.have, m.finish(hand, s.Signatures)...)
}

func depositRequest(s slip) api.DepositRequest {
	c := s.contract
	return api.DepositRequest{Spend: s.spend.Append(nil), Center: c.Center[:], Hidden: c.Hidden[:], Amount: c.Amount, NotBefore: c.NotBefore, Blank: c.Blank[:]}
}

func (m *model) deposit(t *rapid.T) {
	l := &laid{till: pick(t, m.tills, "center"), tab: m.person.lock()}
	l.slip = m.pay(l.till, l.tab, m.take(t))
	r, err := m.Deposit(m.ctx(), l.till.id(), depositRequest(l.slip))
	m.ok(err)
	l.receipt = r
	m.owed[l.till.id()] += int64(l.contract.Amount)
	m.slips = append(m.slips, l)
}

func (m *model) depositAgain(t *rapid.T) {
	l := pick(t, m.slips, "deposit")
	r, err := m.Deposit(m.ctx(), l.till.id(), depositRequest(l.slip))
	m.ok(err)
	if !bytes.Equal(r.Signature, l.receipt.Signature) {
		t.Fatal("asked again, the mint gave another receipt")
	}
}

func (m *model) depositElsewhere(t *rapid.T) {
	l := pick(t, m.slips, "deposit")
	other := m.pay(pick(t, m.tills, "center"), l.tab, l.ticket)
	_, err := m.Deposit(m.ctx(), other.contract.Center, depositRequest(other))
	var spent *api.Spent
	if !errors.As(err, &spent) {
		t.Fatalf("got %v, want evidence", err)
	}
	m.ok(spent.Evidence.Proves(issuer, m.keyOf(l.ticket), l.ticket.Serial(), other.contract))
}

func (m *model) refund(t *rapid.T) {
	l := pick(t, m.slips, "deposit")
	if l.contract.Amount == 1 {
		t.Skip("one unit has no change")
	}
	units := ticket.Units(rapid.IntRange(1, int(l.contract.Amount)-1).Draw(t, "units"))
	s, err := m.Refund(m.ctx(), l.till.refund(l.slip, units))
	switch {
	case l.refunded && units != l.back:
		m.wants(cloudpal.Exist, err)
		return
	case l.refunded:
		m.ok(err)
		return
	case m.owed[l.till.id()]-m.heldAt(l.till)+int64(l.held) < int64(units):
		m.wants(cloudpal.Exhausted, err)
		return
	}
	m.ok(err)
	m.gotBack(l, units, s.Signatures)
}

// gotBack counts change.
func (m *model) gotBack(l *laid, units ticket.Units, signatures [][]byte) {
	l.refunded, l.back, l.held = true, units, 0
	m.owed[l.till.id()] -= int64(units)
	if units > 0 {
		m.have = append(m.have, m.finish(l.change(units), signatures)...)
	}
}

func (m *model) heldAt(c *till) (units int64) {
	for _, l := range m.slips {
		if l.till == c {
			units += int64(l.held)
		}
	}
	return units
}

func (m *model) refundAgain(t *rapid.T) {
	l := pick(t, m.slips, "deposit")
	if !l.refunded || l.back == 0 {
		t.Skip("nothing was given back")
	}
	s, err := m.Refund(m.ctx(), l.till.refund(l.slip, l.back))
	m.ok(err)
	m.finish(l.change(l.back), s.Signatures)
}

func (m *model) dispute(t *rapid.T) {
	l := pick(t, m.slips, "deposit")
	if l.refunded || l.claim != nil || l.contract.Amount == 1 {
		t.Skip("there is nothing to dispute")
	}
	used := ticket.Units(rapid.IntRange(0, int(l.contract.Amount)-1).Draw(t, "used"))
	record := ticket.Record{Tab: [32]byte(public(l.tab)), Seq: 3, Used: used, At: m.now()}
	claim := m.claim(l.till, l.tab, &record, l.slip)
	free := max(0, m.owed[l.till.id()]-m.heldAt(l.till))
	d, err := m.Dispute(m.ctx(), claim)
	m.ok(err)
	want := min(ticket.Units(l.contract.Amount)-max(used, 1), ticket.Units(free))
	if d.State != api.Open || d.Units != want {
		t.Fatalf("got %s, %d units claimed; want %d", d.State, d.Units, want)
	}
	l.claim, l.dispute, l.held, l.until = &claim, d.ID, want, d.Until
}

func (m *model) answer(t *rapid.T) {
	l := pick(t, m.slips, "deposit")
	if l.claim == nil || l.refunded {
		t.Skip("there is no dispute")
	}
	used := ticket.Units(rapid.IntRange(0, 2*int(l.contract.Amount)).Draw(t, "used"))
	record := ticket.Record{Tab: [32]byte(public(l.tab)), Seq: 4, Used: used, At: m.now()}
	d, err := m.Answer(m.ctx(), l.till.id(), l.dispute, api.AnswerRequest{Record: record.Append(nil), Countersigned: record.Sign(l.tab)})
	if !m.now().Before(l.until) {
		m.wants(cloudpal.Exhausted, err)
		return
	}
	m.ok(err)
	want := ticket.Units(0)
	if used < ticket.Units(l.contract.Amount) {
		want = min(ticket.Units(l.contract.Amount)-max(used, 1), l.held)
	}
	if d.State != api.Settled || d.Units != want {
		t.Fatalf("got %s, %d units; want %d", d.State, d.Units, want)
	}
	m.settled(l, want)
}

// settled fetches what a dispute gave back.
func (m *model) settled(l *laid, want ticket.Units) {
	d, err := m.Dispute(m.ctx(), *l.claim)
	m.ok(err)
	if d.State != api.Settled || d.Units != want {
		m.t.Fatalf("got %s, %d units; want %d", d.State, d.Units, want)
	}
	m.gotBack(l, want, d.Signatures)
	if want == 0 { // by agreement something could still be given back
		m.slips = slices.DeleteFunc(m.slips, func(o *laid) bool { return o == l })
	}
}

func (m *model) silence(t *rapid.T) {
	l := pick(t, m.slips, "deposit")
	if l.claim == nil || l.refunded || m.now().After(start.Add(6*24*time.Hour)) {
		t.Skip("there is no dispute, or the month ends")
	}
	m.add(api.AnswerTime)
	m.settled(l, l.held)
}

// agree compares the books with what one has in one's head.
func (m *model) agree(t *rapid.T) {
	m.ok(m.Books.Check(m.ctx(), thePress.epoch(82).Keys()))
	var owed int64
	for _, c := range m.tills {
		got, held, err := m.Books.Balance(m.ctx(), c.id(), ticket.Paid)
		m.ok(err)
		if got+held != m.owed[c.id()] || held != m.heldAt(c) {
			t.Fatalf("the books owe a center %d and hold %d; want %d and %d", got, held, m.owed[c.id()]-m.heldAt(c), m.heldAt(c))
		}
		owed += m.owed[c.id()]
	}
	if held := worthOf(m.house, m.house, m.have); int64(m.given) != int64(held)+owed {
		t.Fatalf("%d units were given; %d are held and %d owed", m.given, held, owed)
	}
}
