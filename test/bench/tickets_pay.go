package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/ticket"
)

// How many pay at a center, and how often.
const (
	payers    = 64
	payments  = 24 // of each, in a round
	payRounds = 4
)

// A purse is a payer with all that is to be paid.
type purse struct {
	*bank.Payer
	pay []api.PayRequest
}

// benchPay has a center take payments: each is parsed, verified, and booked on disk
// before it is answered. The first of a tab, which is taken to the mint at once, is
// not counted. Beside it are the two signatures alone, which nobody can do without:
// the mint's and the ticket's.
func (c *prices) benchPay(b *run) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	now := bank.NewClock(time.Now())
	mint := bank.New(b, now.Now)
	t := b.till(mint, now)
	t.Chores(context.Background()) // fetches the mint's keys
	purses := make([]*purse, payers)
	var all sync.WaitGroup
	for i := range purses {
		all.Go(func() { purses[i] = b.fill(mint, t, now, 1+payRounds*payments) })
	}
	all.Wait()
	if b.Failed() {
		return errors.New("not all tickets could be bought")
	}
	with := purses[0].pay[0]
	b.payAll(t, purses, 1)
	ours, raw := &contestant{name: "ours"}, &contestant{name: "verifying alone"}
	var waited, computed sample
	for range payRounds {
		waited = append(waited, b.measure(ours, payers*payments, func() sample { return b.payAll(t, purses, payments) })...)
		computed = append(computed, b.measure(raw, payers*payments, func() sample { return b.verifyAll(mint, with) })...)
	}
	c.payment = ours.micros() / 1e6
	const unit = "payments/s"
	b.add(atLeast("verify and book a payment, on 2 cores", unit, ours.rate(), 5000),
		told("  the same", unit, ours.rate(), raw.rate(), "RSA and Ed25519 verified, no more"),
		told("  computing", "µs/payment", ours.micros(), raw.micros(), "RSA and Ed25519 verified, no more"),
		told(fmt.Sprintf("  p99, of %d who pay at once", payers), "ms", waited.at(0.99), computed.at(0.99), "2 who verify"))
	return nil
}

func (b *run) till(mint *bank.Bank, now *bank.Clock) *till.Till {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	b.must(err)
	t, err := till.Open(till.Config{
		Dir: filepath.Join(b.TempDir(), "till"), Key: key, Issuers: []till.Issuer{{Trust: mint.Trust, Mint: mint}},
		Terms: till.Terms{Tariff: api.Tariff{Core: 64, App: 64, Storage: 30, Traffic: 2}, Slice: 64},
		Log:   slog.New(slog.DiscardHandler), Now: now.Now,
	})
	b.must(err)
	b.Cleanup(func() { t.Close() })
	return t
}

// fill buys tickets and writes payments for a tab, which it opens.
func (b *run) fill(mint *bank.Bank, t *till.Till, now *bank.Clock, count int) *purse {
	p := &purse{Payer: bank.NewPayer(b, mint)}
	for range count {
		with := p.Buy(ticket.Paid, 64, ticket.EpochAt(now.Now()))
		p.pay = append(p.pay, p.Pays(t.Offer(), with, time.Time{}))
	}
	_, err := t.OpenTab(p.Account, p.Request)
	b.must(err)
	return p
}

// payAll has each pay so often, and returns how long each payment took.
func (b *run) payAll(t *till.Till, purses []*purse, count int) (took sample) {
	times := make([]sample, len(purses))
	failed := make([]error, len(purses))
	var all sync.WaitGroup
	for i, p := range purses {
		all.Go(func() {
			for _, r := range p.pay[:count] {
				began := time.Now()
				if _, failed[i] = t.Pay(context.Background(), p.Account, p.Request.ID, r); failed[i] != nil {
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
			p.pay = p.pay[count:]
		})
	}
	all.Wait()
	for i := range purses {
		b.must(failed[i])
		took = append(took, times[i]...)
	}
	return took
}

// verifyAll verifies the two signatures of as many payments, on two goroutines: the
// mint's of a ticket, and an owner's of a digest.
func (b *run) verifyAll(mint *bank.Bank, with api.PayRequest) (took sample) {
	press := mint.Press(ticket.Paid, 64, ticket.EpochAt(time.Now()))
	spend, err := ticket.ParseSpend(with.Spend)
	b.must(err)
	token := spend.Token.Append(nil)
	input, signature := token[:len(token)-ticket.BlindSize], token[len(token)-ticket.BlindSize:]
	owner, private, err := ed25519.GenerateKey(rand.Reader)
	b.must(err)
	digest := sha256.Sum256(input)
	signed := ed25519.Sign(private, digest[:])
	var all sync.WaitGroup
	var times [2]sample
	var failed [2]error
	for half := range times {
		all.Go(func() {
			for range payers * payments / len(times) {
				began := time.Now()
				sum := sha512.Sum384(input)
				if failed[half] = rsa.VerifyPSS(press.Signer.Public(), crypto.SHA384, sum[:], signature, nil); failed[half] != nil {
					return
				}
				if !ed25519.Verify(owner, digest[:], signed) {
					failed[half] = errors.New("the owner's signature is not good")
					return
				}
				times[half] = append(times[half], time.Since(began))
			}
		})
	}
	all.Wait()
	b.must(errors.Join(failed[:]...))
	return append(times[0], times[1]...)
}
