package bank

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// A Payer is a person with tickets, who pays one pal's tab.
type Payer struct {
	Account api.Fingerprint    // where no TLS says it
	Request api.TabRequest     // opens the tab
	Counter ed25519.PrivateKey // of the tab

	tb      testing.TB
	bank    *Bank
	seed    ticket.Seed
	n       uint64
	tickets map[ticket.Serial]ticket.Ticket
	blanks  map[ticket.Serial][]ticket.Secret
}

// NewPayer returns one who has the bank's trust without limit.
func NewPayer(tb testing.TB, b *Bank) *Payer {
	tb.Helper()
	p := &Payer{tb: tb, bank: b, tickets: map[ticket.Serial]ticket.Ticket{}, blanks: map[ticket.Serial][]ticket.Secret{}}
	rand.Read(p.seed[:])
	rand.Read(p.Account[:])
	p.Request.WireGuard = make([]byte, 32)
	rand.Read(p.Request.WireGuard)
	p.Anew()
	return p
}

// Anew makes the request one for another tab.
func (p *Payer) Anew() {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		p.tb.Fatal(err)
	}
	p.Counter, p.Request.ID = private, api.TabID(public)
}

// Buy returns a new ticket.
func (p *Payer) Buy(c ticket.Class, d ticket.Denomination, e ticket.Epoch) ticket.Ticket {
	p.tb.Helper()
	press := p.bank.Press(c, d, e)
	p.n++
	s, err := ticket.Derive(p.seed, "purchase", Issuer, press.Key, p.n)
	if err != nil {
		p.tb.Fatal(err)
	}
	out := s.Output()
	t := p.finish(press, s, out)
	p.tickets[t.Serial()] = t
	return t
}

func (p *Payer) finish(press Press, s ticket.Secret, out ticket.Output) ticket.Ticket {
	p.tb.Helper()
	signature, err := press.Sign(out.Blinded[:])
	if err != nil {
		p.tb.Fatal(err)
	}
	t, err := s.Finish(signature)
	if err != nil {
		p.tb.Fatal(err)
	}
	return t
}

// Ticket returns the one that a spend shows.
func (p *Payer) Ticket(spend []byte) ticket.Ticket {
	p.tb.Helper()
	s, err := ticket.ParseSpend(spend)
	if err != nil {
		p.tb.Fatal(err)
	}
	return p.tickets[s.Serial()]
}

// outputs are those for a ticket's change. Only paid ones have any here.
func (p *Payer) outputs(t ticket.Ticket) (list []ticket.Output) {
	p.tb.Helper()
	of, _ := p.bank.press(t.Token.Key)
	if of.Class != ticket.Paid {
		return nil
	}
	if p.blanks[t.Serial()] == nil {
		branch := ticket.Branch(fmt.Sprintf("change of %x", t.Token.Nonce[:8]))
		for i, d := range ticket.Blank(of.Denomination) {
			s, err := ticket.Derive(p.seed, branch, Issuer, p.bank.Press(of.Class, d, of.Epoch).Key, uint64(i))
			if err != nil {
				p.tb.Fatal(err)
			}
			p.blanks[t.Serial()] = append(p.blanks[t.Serial()], s)
		}
	}
	for _, s := range p.blanks[t.Serial()] {
		o := s.Output()
		list = append(list, o)
	}
	return list
}

// Pays returns the request that pays the tab with a ticket, under an offer. A zero
// time is now.
func (p *Payer) Pays(offer api.Signed, with ticket.Ticket, notBefore time.Time) api.PayRequest {
	p.tb.Helper()
	of, _ := p.bank.press(with.Token.Key)
	d, blank := api.OfferDigest(offer), ticket.OutputsDigest(p.outputs(with))
	r := api.PayRequest{Offer: d[:], Nonce: make([]byte, 16), Amount: of.Denomination, Blank: blank[:]}
	rand.Read(r.Nonce)
	if !notBefore.IsZero() {
		r.NotBefore = notBefore.Unix()
	}
	p.Sign(offer, with, &r)
	return r
}

// Sign spends the ticket for what r says.
func (p *Payer) Sign(offer api.Signed, with ticket.Ticket, r *api.PayRequest) {
	p.tb.Helper()
	o, err := api.OpenOffer(offer)
	if err != nil {
		p.tb.Fatal(err)
	}
	c, err := r.Contract(ticket.CenterID(o.Center), p.Request.ID)
	if err != nil {
		p.tb.Fatal(err)
	}
	s := with.Sign(c)
	r.Spend = s.Append(nil)
}

// Refund has the mint give back what a center left, by the mint's rules, and returns
// what that is worth.
func (p *Payer) Refund(r api.Refund) (got ticket.Units) {
	p.tb.Helper()
	serial := ticket.Serial(r.Serial)
	p.bank.mu.Lock()
	c, ok := p.bank.deposits[serial]
	p.bank.mu.Unlock()
	outputs := p.outputs(p.tickets[serial])
	if !ok || ticket.OutputsDigest(outputs) != c.Blank {
		p.tb.Fatal("the mint knows of no such deposit")
	}
	if !ed25519.Verify(c.Center[:], mint.RefundText(serial, r.Units, c.Blank), r.Signature) {
		p.tb.Fatal("the center did not sign the refund")
	}
	which, err := ticket.Change(c.Amount, r.Units)
	if err != nil {
		p.tb.Fatal(err)
	}
	for _, i := range which {
		press, _ := p.bank.press(outputs[i].Key)
		t := p.finish(press, p.blanks[serial][i], outputs[i])
		if err := t.Token.Verify(press.Key); err != nil {
			p.tb.Fatal(err)
		}
		got += ticket.Units(press.Denomination)
	}
	return got
}

// Agrees countersigns a record.
func (p *Payer) Agrees(m api.Meter) api.CountersignRequest {
	p.tb.Helper()
	r, err := ticket.ParseRecord(m.Record)
	if err != nil {
		p.tb.Fatal(err)
	}
	return api.CountersignRequest{Record: m.Record, Signature: r.Sign(p.Counter)}
}
