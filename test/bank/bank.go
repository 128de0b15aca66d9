// Package bank has a mint and its customers in one process, for tests of who takes
// tickets: it issues, deposits, and gives change for real, with a real ledger, log
// and signatures. Only its HTTP and its books are missing. Its faults are for tests
// to set.
package bank

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
	"github.com/tradle/cloudpal/ticket/manifest"
	"github.com/tradle/cloudpal/ticket/signer"
)

// Issuer is the mint's name.
const Issuer = "mint.example"

// A Clock goes when it is told to.
type Clock struct {
	mu sync.Mutex
	at time.Time
}

// NewClock returns a clock that stands at a time.
func NewClock(at time.Time) *Clock { return &Clock{at: at} }

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Set sets the clock.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = t
}

// Add moves the clock on.
func (c *Clock) Add(d time.Duration) { c.Set(c.Now().Add(d)) }

// A Bank is a mint.
type Bank struct {
	Trust  *manifest.Trust
	now    func() time.Time
	root   note.Signer
	log    note.Signer
	ledger ledger.Ledger
	key    ed25519.PrivateKey // of receipts

	mu       sync.Mutex
	presses  map[ticket.KeyID]Press
	entries  []manifest.Entry
	shown    map[ticket.Epoch]*manifest.Manifest
	deposits map[ticket.Serial]ticket.PayContract

	Faults // guarded by mu: see Fault
}

// Faults are a bank's, and what it saw.
type Faults struct {
	Down     bool                     // it cannot be reached
	Loses    int                      // so many of its answers get lost
	Tampers  func(*mint.Receipt)      // it lies
	Pretends func(ticket.Spend) error // likewise, that a ticket was spent
	Disputed []mint.Dispute           // what it says is open
	Answers  []mint.AnswerRequest     // what it was answered
	Times    []time.Time              // when tickets were deposited
}

// A Press signs the tickets of one key.
type Press struct {
	*signer.Signer
	*ticket.Key
}

// signers makes key pairs once for all tests: making one takes a second.
var signers = func() func(int) *signer.Signer {
	var mu sync.Mutex
	made := map[int]*signer.Signer{}
	return func(n int) *signer.Signer {
		mu.Lock()
		defer mu.Unlock()
		if made[n] == nil {
			s, err := signer.Generate()
			if err != nil {
				panic(err)
			}
			made[n] = s
		}
		return made[n]
	}
}()

// New makes a mint that has published the keys of the epoch that it is now.
func New(tb testing.TB, now func() time.Time) *Bank {
	tb.Helper()
	l, err := ledger.OpenPebble(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	b := &Bank{
		now: now, ledger: l, presses: map[ticket.KeyID]Press{}, shown: map[ticket.Epoch]*manifest.Manifest{},
		deposits: map[ticket.Serial]ticket.PayContract{},
	}
	if _, b.key, err = ed25519.GenerateKey(rand.Reader); err != nil {
		tb.Fatal(err)
	}
	var root, log string
	b.root, root = noteKey(tb, Issuer)
	b.log, log = noteKey(tb, Issuer+"/keys")
	b.Trust = &manifest.Trust{Issuer: Issuer, URL: "https://" + Issuer, Root: root, Log: log}
	b.Publish(tb, ticket.EpochAt(now()))
	return b
}

func noteKey(tb testing.TB, name string) (note.Signer, string) {
	tb.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := note.NewSigner(secret)
	if err != nil {
		tb.Fatal(err)
	}
	return s, public
}

// Publish makes and shows the keys of an epoch. Those of paid tickets of up to 64
// units are real; the others nobody can sign with, but for free ones of 64.
func (b *Bank) Publish(tb testing.TB, e ticket.Epoch) {
	tb.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []*ticket.Key
	for _, c := range ticket.Classes {
		for i, d := range ticket.Denominations {
			public := unsignable(fmt.Sprint(c, d, e))
			var s *signer.Signer
			if c == ticket.Paid && d <= 64 || c == ticket.Free && d == 64 {
				s = signers(10*len(b.shown) + 5*int(c-ticket.Paid) + i)
				public = s.Public()
			}
			k, err := ticket.NewKey(c, d, e, public)
			if err != nil {
				tb.Fatal(err)
			}
			if s != nil {
				b.presses[k.ID()] = Press{s, k}
			}
			keys = append(keys, k)
		}
	}
	m, err := manifest.New(Issuer, e, b.key.Public().(ed25519.PublicKey), keys)
	if err != nil {
		tb.Fatal(err)
	}
	entry, err := m.Sign(b.root)
	if err != nil {
		tb.Fatal(err)
	}
	b.entries = append(b.entries, entry)
	b.shown[e] = m
}

// unsignable returns a public key whose private one nobody has.
func unsignable(seed string) *rsa.PublicKey {
	var b []byte
	for i := 0; len(b) < ticket.BlindSize; i++ {
		h := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b = append(b, h[:]...)
	}
	b[0] |= 0x80
	b[len(b)-1] |= 1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(b), E: 65537}
}

// Press returns the one that signs tickets of a class and denomination.
func (b *Bank) Press(c ticket.Class, d ticket.Denomination, e ticket.Epoch) Press {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.presses {
		if p.Class == c && p.Denomination == d && p.Epoch == e {
			return p
		}
	}
	panic(fmt.Sprintf("no press for %v %d of epoch %d", c, d, e))
}

func (b *Bank) press(id ticket.KeyID) (Press, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.presses[id]
	return p, ok
}

// Fault sets or reads Faults.
func (b *Bank) Fault(set func(*Faults)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	set(&b.Faults)
}

var errDown = cloudpal.E("ask the mint", cloudpal.Missing, mint.ErrUnreachable)

// Manifest returns a manifest.Bundle.
func (b *Bank) Manifest(_ context.Context, e ticket.Epoch) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.shown[e]
	switch {
	case b.Down:
		return nil, errDown
	case m == nil:
		return nil, cloudpal.E("look for a manifest", cloudpal.NotExist, nil)
	}
	top := log.Checkpoint{Origin: b.log.Name(), Size: uint64(len(b.entries)), Hash: manifest.Root(b.entries)}
	signed, err := note.Sign(&note.Note{Text: string(top.Marshal())}, b.log)
	if err != nil {
		return nil, err
	}
	bundle := &manifest.Bundle{Keys: m.Public(), Entries: b.entries, Checkpoint: manifest.Checkpoint(signed)}
	return bundle.Marshal()
}

// Deposit credits a ticket.
func (b *Bank) Deposit(ctx context.Context, c ticket.PayContract, s ticket.Spend) (r mint.Receipt, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Down {
		return r, errDown
	}
	if b.Pretends != nil {
		if err := b.Pretends(s); err != nil {
			return r, err
		}
	}
	p, ok := b.presses[s.Token.Key]
	if !ok {
		return r, cloudpal.E("deposit", cloudpal.Denied, errors.New("no such key"))
	}
	if err := s.Verify(Issuer, p.Key, c); err != nil {
		return r, err
	}
	now := b.now()
	if now.Before(c.NotBefore) || !p.Epoch.Spends(now) {
		return r, cloudpal.E("deposit", cloudpal.Denied, errors.New("not at this time"))
	}
	if err := b.spend(ctx, p.Epoch, c, s); err != nil {
		return r, err
	}
	b.deposits[s.Serial()] = c
	b.Times = append(b.Times, now)
	if b.Loses > 0 {
		b.Loses--
		return r, errDown
	}
	serial, digest := s.Serial(), c.Digest()
	r = mint.Receipt{
		Serial: serial[:], Key: s.Token.Key[:], Center: c.Center[:], Amount: c.Amount, Contract: digest[:],
		Credited: now.Truncate(time.Hour), Epoch: p.Epoch,
	}
	if b.Tampers != nil {
		b.Tampers(&r)
	}
	r.Signature = ed25519.Sign(b.key, r.Text())
	return r, nil
}

func (b *Bank) spend(ctx context.Context, e ticket.Epoch, c ticket.Contract, s ticket.Spend) error {
	row := ledger.Row{Serial: ledger.SerialOf(s.Serial()), Tag: ticket.TagOf(c), Evidence: mint.Evidence{Contract: c, Spend: s}.Append(nil)}
	there, err := b.ledger.Spend(ctx, e, []ledger.Row{row})
	if err != nil || there[0].Tag == row.Tag {
		return err
	}
	was, err := mint.ParseEvidence(there[0].Evidence)
	if err != nil {
		return err
	}
	return cloudpal.E("deposit", cloudpal.Exist, &mint.Spent{Evidence: was})
}

// Swap spends a ticket for others, as its owner may.
func (b *Bank) Swap(tb testing.TB, t ticket.Ticket) {
	tb.Helper()
	p, _ := b.press(t.Token.Key)
	c := ticket.SwapContract{Outputs: ticket.Digest{9}}
	if err := b.spend(tb.Context(), p.Epoch, c, t.Sign(c)); err != nil {
		tb.Fatalf("the ticket cannot be swapped: %v", err)
	}
}

// Disputes returns what is open against the center.
func (b *Bank) Disputes(context.Context) ([]mint.Dispute, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Down {
		return nil, errDown
	}
	return b.Disputed, nil
}

// Answer takes a center's answer to a dispute.
func (b *Bank) Answer(_ context.Context, _ string, r mint.AnswerRequest) (mint.Dispute, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Answers = append(b.Answers, r)
	return mint.Dispute{}, nil
}

// Deposited returns what centers were credited in all.
func (b *Bank) Deposited() (u ticket.Units) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.deposits {
		u += ticket.Units(c.Amount)
	}
	return u
}
