package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/keylog"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
	"github.com/tradle/cloudpal/ticket/manifest"
	"github.com/tradle/cloudpal/ticket/signer"
)

const issuer = "mint.example"

// A clock goes when it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// presses make real keys once for all tests.
var presses = func() func(ticket.Denomination) *signer.Signer {
	var mu sync.Mutex
	made := map[ticket.Denomination]*signer.Signer{}
	return func(d ticket.Denomination) *signer.Signer {
		mu.Lock()
		defer mu.Unlock()
		if made[d] == nil {
			s, err := signer.Generate()
			if err != nil {
				panic(err)
			}
			made[d] = s
		}
		return made[d]
	}
}()

// A world has a real mint behind HTTP, with its log and two witnesses.
type world struct {
	testing.TB
	*clock
	trust   *manifest.Trust
	root    note.Signer
	log     *keylog.Log
	config  keylog.Config
	receipt ed25519.PrivateKey
	signers map[ticket.KeyID]*signer.Signer
	keys    map[ticket.Denomination]*ticket.Key // that are real
	mint    *mint.Mint
	client  *api.Client
	n       uint64
}

const epoch = 82

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		TB: t, clock: &clock{at: time.Date(2026, 11, 20, 12, 30, 0, 0, time.UTC)},
		signers: map[ticket.KeyID]*signer.Signer{}, keys: map[ticket.Denomination]*ticket.Key{},
	}
	_, receipt, err := ed25519.GenerateKey(nil)
	w.must(err)
	w.receipt = receipt
	w.openLog()
	b, err := books.Open(t.Context(), filepath.Join(t.TempDir(), "books.db"))
	w.must(err)
	t.Cleanup(func() { w.must(b.Close()) })
	l, err := ledger.OpenPebble(t.TempDir())
	w.must(err)
	t.Cleanup(func() { w.must(l.Close()) })
	w.mint, err = mint.New(mint.Config{
		Issuer: issuer, Books: b, Ledger: l, Signer: w, Log: w,
		Receipt: func(ticket.Epoch) (ed25519.PrivateKey, error) { return w.receipt, nil },
		Methods: map[string]mint.Method{"gift": {Method: gift{}, Class: ticket.Paid}},
		Packs:   []api.Pack{{Name: "day", Tickets: []ticket.Denomination{64}, Price: 1, Code: "EUR"}},
		Now:     w.now, Logger: slog.New(slog.DiscardHandler),
	})
	w.must(err)
	server := httptest.NewServer(w.mint.Handler())
	t.Cleanup(server.Close)
	w.client = api.Over(server.URL, http.DefaultTransport)
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("%v (%s)", err, cloudpal.HintOf(err))
	}
}

func (w *world) pair(name string) (private, public string) {
	w.Helper()
	private, public, err := note.GenerateKey(rand.Reader, name)
	w.must(err)
	return private, public
}

func (w *world) openLog() {
	w.Helper()
	rootKey, root := w.pair(issuer)
	logKey, log := w.pair(issuer + "/log")
	var err error
	w.root, err = note.NewSigner(rootKey)
	w.must(err)
	w.trust = &manifest.Trust{Issuer: issuer, URL: "https://" + issuer, Root: root, Log: log, Quorum: 2}
	w.config = keylog.Config{Folder: w.TempDir(), Key: logKey, Trust: w.trust, Now: w.now}
	for _, name := range []string{"ann.example", "bob.example"} {
		witness, err := keylog.OpenWitness(keylog.WitnessConfig{Folder: w.TempDir(), Name: name, Logs: []string{log}, Now: w.now})
		w.must(err)
		w.Cleanup(func() { w.must(witness.Close()) })
		server := httptest.NewServer(witness)
		w.Cleanup(server.Close)
		w.config.Witnesses = append(w.config.Witnesses, server.URL)
		w.trust.Witnesses = append(w.trust.Witnesses, witness.Key())
	}
	w.log, err = keylog.Open(w.config)
	w.must(err)
	w.Cleanup(w.log.Close)
	entry, keys := w.manifest("")
	w.must(w.log.Publish(w.Context(), entry, keys))
}

// manifest makes one for the epoch. With a seed, all keys are others, which nobody can
// sign with; else those of up to 64 paid units are real.
func (w *world) manifest(seed string) (manifest.Entry, [][]byte) {
	w.Helper()
	var keys []*ticket.Key
	for _, c := range ticket.Classes {
		for _, d := range ticket.Denominations {
			public := unsignable(fmt.Sprint(seed, c, d))
			isReal := seed == "" && c == ticket.Paid && d <= 64
			if isReal {
				public = presses(d).Public()
			}
			k, err := ticket.NewKey(c, d, epoch, public)
			w.must(err)
			if isReal {
				w.keys[d], w.signers[k.ID()] = k, presses(d)
			}
			keys = append(keys, k)
		}
	}
	m, err := manifest.New(issuer, epoch, w.receipt.Public().(ed25519.PublicKey), keys)
	w.must(err)
	entry, err := m.Sign(w.root)
	w.must(err)
	return entry, m.Public()
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

// Epoch shows the mint its own log.
func (w *world) Epoch(_ context.Context, e ticket.Epoch) (*manifest.Manifest, []byte, error) {
	raw, err := w.log.Bundle(e)
	if err != nil {
		return nil, nil, err
	}
	b, err := manifest.ParseBundle(raw)
	if err != nil {
		return nil, nil, err
	}
	m, err := w.trust.Verify(b, e, "", w.now())
	return m, raw, err
}

// Sign signs what the mint is to sign, or what a thief is.
func (w *world) Sign(_ context.Context, id ticket.KeyID, blinded [][]byte) (signed [][]byte, err error) {
	for _, b := range blinded {
		s, err := w.signers[id].Sign(b)
		if err != nil {
			return nil, err
		}
		signed = append(signed, s)
	}
	return signed, nil
}

// A gift is a way to pay that takes nothing.
type gift struct{}

func (gift) Begin(context.Context, payment.Order) (payment.Started, error) {
	return payment.Started{}, nil
}

func (gift) Poll(context.Context, payment.Order, string) (payment.Status, error) {
	return payment.Status{State: payment.Paid}, nil
}
func (gift) Hook(*http.Request) (string, error) { return "", nil }

func (gift) Take(context.Context, payment.Order, string) error { return nil }

// secrets makes outputs of denominations.
func (w *world) secrets(of ...ticket.Denomination) (secrets []ticket.Secret, outputs []ticket.Output) {
	w.Helper()
	for _, d := range of {
		w.n++
		s, err := ticket.Derive(ticket.Seed{1}, "test", issuer, w.keys[d], w.n)
		w.must(err)
		o := s.Output()
		secrets, outputs = append(secrets, s), append(outputs, o)
	}
	return secrets, outputs
}

// buy buys a day, and returns what proves it besides.
func (w *world) buy() (ticket.Ticket, Signed) {
	w.Helper()
	_, lock, err := ed25519.GenerateKey(nil)
	w.must(err)
	q, err := w.client.Quote(w.Context(), api.QuoteRequest{Method: "gift", Pack: "day", Lock: lock.Public().(ed25519.PublicKey)})
	w.must(err)
	_, err = w.client.Pay(w.Context(), q.ID, "please")
	w.must(err)
	secrets, outputs := w.secrets(64)
	signatures, err := w.client.Issue(w.Context(), q.ID, outputs, lock)
	w.must(err)
	t, err := secrets[0].Finish(signatures[0])
	w.must(err)
	return t, Signed{Output: api.Outputs(outputs)[0], Signature: signatures[0], At: w.now()}
}

// print makes a ticket that the books know nothing of.
func (w *world) print() ticket.Ticket {
	w.Helper()
	secrets, outputs := w.secrets(64)
	signatures, err := w.Sign(w.Context(), outputs[0].Key, [][]byte{outputs[0].Blinded[:]})
	w.must(err)
	t, err := secrets[0].Finish(signatures[0])
	w.must(err)
	return t
}

// deposit pays a center with a ticket, of which units come back.
func (w *world) deposit(t ticket.Ticket, units ticket.Units) api.Receipt {
	w.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	w.must(err)
	center := w.client.As(key, w.now)
	_, blank := w.secrets(ticket.Blank(64)...)
	c := ticket.PayContract{
		Center: ticket.CenterID(key.Public().(ed25519.PublicKey)), Hidden: ticket.Hidden{1}, Amount: 64,
		NotBefore: w.now().Truncate(time.Second), Blank: ticket.OutputsDigest(blank),
	}
	r, err := center.Deposit(w.Context(), c, t.Sign(c))
	w.must(err)
	if units == 0 {
		return r
	}
	seed := t.KeySeed()
	text := api.RefundText(t.Serial(), units, ticket.OutputsDigest(blank))
	_, err = w.client.Refund(w.Context(), api.RefundRequest{
		Serial: r.Serial, Units: units, Outputs: api.Outputs(blank),
		Payer: ed25519.Sign(ed25519.NewKeyFromSeed(seed[:]), text), Center: ed25519.Sign(key, text),
	})
	w.must(err)
	return r
}

// swap changes a day for smaller tickets.
func (w *world) swap(t ticket.Ticket) {
	w.Helper()
	_, outputs := w.secrets(16, 16, 16, 4, 4, 4, 1, 1, 1, 1)
	_, err := w.client.Swap(w.Context(), []ticket.Spend{t.Sign(ticket.SwapContract{Outputs: ticket.OutputsDigest(outputs)})}, outputs)
	w.must(err)
}
