// Package tickets has worlds in which a person pays a center with tickets of a mint,
// each the real one: only VMs are missing.
package tickets

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/mint"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/keylog"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/mint/payment/voucher"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
	"github.com/tradle/cloudpal/ticket/manifest"
	"github.com/tradle/cloudpal/ticket/signer"
)

const issuer = "mint.example"

// A world is a mint that sells day tickets, and the time, which all go by.
type world struct {
	testing.TB
	*bank.Clock
	trust    *manifest.Trust
	server   *httptest.Server
	vouchers *voucher.Vouchers
	receipts ed25519.PrivateKey // that the mint signs its word with
	root     note.Signer
	log      *keylog.Log
	press    press
	down     atomic.Bool // nobody reaches the mint
}

// account is the secret of one that has a pack of free tickets.
const account = "an account's secret"

// must is for what is no test's concern.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	// In the middle of this month: keys are made for it, and last for the test.
	now := ticket.EpochAt(time.Now()).Begins().AddDate(0, 0, 12)
	w := &world{TB: t, Clock: bank.NewClock(now)}
	root, rootKey := w.noteKey(issuer)
	logSecret, logPublic := w.noteKey(issuer + "/keys")
	var err error
	w.root, err = note.NewSigner(root)
	w.must(err)
	w.trust = &manifest.Trust{Issuer: issuer, URL: "https://" + issuer, Root: rootKey, Log: logPublic}
	w.log, err = keylog.Open(keylog.Config{Folder: t.TempDir(), Key: logSecret, Trust: w.trust, Now: w.Now})
	w.must(err)
	t.Cleanup(w.log.Close)

	_, w.receipts, err = ed25519.GenerateKey(rand.Reader)
	w.must(err)
	w.press = press{}
	w.publish(ticket.EpochAt(now))

	b, err := books.Open(t.Context(), t.TempDir()+"/books.db")
	w.must(err)
	t.Cleanup(func() { b.Close() })
	spent, err := ledger.OpenPebble(t.TempDir())
	w.must(err)
	t.Cleanup(func() { spent.Close() })
	w.vouchers, err = voucher.Open(t.Context(), b.DB())
	w.must(err)
	service, err := mint.New(mint.Config{
		Issuer: issuer, Books: b, Ledger: spent, Signer: w.press, Log: shown{w.log, w}, Now: w.Now,
		Receipt: func(ticket.Epoch) (ed25519.PrivateKey, error) { return w.receipts, nil },
		Methods: map[string]mint.Method{"voucher": {Method: w.vouchers, Class: ticket.Paid}},
		Packs:   []mintapi.Pack{{Name: "days", Tickets: []ticket.Denomination{64, 64, 64}, Price: 300, Code: "EUR"}},
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	w.must(err)
	hash := mint.AccountHash(account)
	w.must(b.Allow(t.Context(), hash[:], "ann", 1))
	inside := service.Handler()
	w.server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.down.Load() {
			panic(http.ErrAbortHandler)
		}
		inside.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.server.Close)
	return w
}

// publish makes the keys of an epoch.
func (w *world) publish(e ticket.Epoch) manifest.Entry {
	w.Helper()
	m, err := manifest.New(issuer, e, w.receipts.Public().(ed25519.PublicKey), w.press.fill(w, e))
	w.must(err)
	entry, err := m.Sign(w.root)
	w.must(err)
	w.must(w.log.Publish(w.Context(), entry, m.Public()))
	return entry
}

func (w *world) noteKey(name string) (secret, public string) {
	w.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, name)
	w.must(err)
	return secret, public
}

// client asks the mint over HTTPS.
func (w *world) client() *mintapi.Client {
	return mintapi.Over(w.server.URL, w.server.Client().Transport)
}

// A press is a signer that has a mint's keys in memory.
type press map[ticket.KeyID]*signer.Signer

func (p press) fill(w *world, e ticket.Epoch) (keys []*ticket.Key) {
	w.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, c := range ticket.Classes {
		for _, d := range ticket.Denominations {
			all.Go(func() {
				s, err := signer.Generate()
				if err != nil {
					panic(err)
				}
				k, err := ticket.NewKey(c, d, e, s.Public())
				if err != nil {
					panic(err)
				}
				mu.Lock()
				defer mu.Unlock()
				p[k.ID()] = s
				keys = append(keys, k)
			})
		}
	}
	all.Wait()
	return keys
}

func (p press) Sign(_ context.Context, id ticket.KeyID, blinded [][]byte) (signed [][]byte, err error) {
	s, ok := p[id]
	if !ok {
		return nil, cloudpal.E("sign", cloudpal.NotExist, nil)
	}
	for _, b := range blinded {
		one, err := s.Sign(b)
		if err != nil {
			return nil, err
		}
		signed = append(signed, one)
	}
	return signed, nil
}

// shown is the log as a mint shows it.
type shown struct {
	*keylog.Log
	w *world
}

func (s shown) Epoch(_ context.Context, e ticket.Epoch) (*manifest.Manifest, []byte, error) {
	raw, err := s.Bundle(e)
	if err != nil {
		return nil, nil, err
	}
	b, err := manifest.ParseBundle(raw)
	if err != nil {
		return nil, nil, err
	}
	m, err := s.w.trust.Verify(b, e, "", s.w.Now())
	return m, raw, err
}

// A center takes money; what its pals use, the tests say.
type center struct {
	*till.Till
	*world
}

func (w *world) center() *center {
	w.Helper()
	return w.centerWith(till.Terms{Tariff: api.Tariff{Core: 64}})
}

func (w *world) centerWith(terms till.Terms) *center {
	w.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	w.must(err)
	t, err := till.Open(till.Config{
		Dir: w.TempDir(), Key: key, Issuers: []till.Issuer{{Trust: w.trust, Mint: w.client().As(key, w.Now)}},
		Terms: terms, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: w.Now,
	})
	w.must(err)
	w.Cleanup(func() { t.Close() })
	return &center{t, w}
}

// A person has a wallet, and a pal.
type person struct {
	*wallet.Wallet
	*world
	config  wallet.Config
	account api.Fingerprint
	tab     api.TabRequest
	counter ed25519.PrivateKey
	meter   identity.MeterKeys
	keys    map[api.TabID]ed25519.PrivateKey // that countersign, of tabs that a stay opened
	awake   time.Duration                    // of the pal, as its host counts
}

func (w *world) person() *person {
	w.Helper()
	root := identity.NewPhrase().Root()
	p := &person{world: w, meter: root.PalSecrets().MeterKeys(), keys: map[api.TabID]ed25519.PrivateKey{}}
	connect := func() (wallet.Mint, error) { return w.client(), nil }
	var err error
	p.config = wallet.Config{
		Dir: w.TempDir() + "/wallet", Seed: root.WalletSeed(), Connect: connect, Policy: wallet.Now, Clock: at{w.Clock},
	}
	p.Wallet, err = wallet.Create(p.config, w.trust, wallet.FirstDevice)
	w.must(err)
	w.Cleanup(func() { p.Wallet.Close() })
	rand.Read(p.account[:])
	key := root.PalSecrets().WireGuardKey()
	p.tab.WireGuard, p.tab.Nonce = key[:], make([]byte, 16)
	rand.Read(p.tab.Nonce)
	p.counter = root.PalSecrets().MeterKeys().Key([16]byte(p.tab.Nonce), [32]byte{})
	p.tab.ID = api.TabID(p.counter.Public().(ed25519.PublicKey))
	return p
}

// at is the world's clock, by which nobody waits.
type at struct{ *bank.Clock }

func (a at) Wait(context.Context, time.Duration) error { return nil }

// buys buys days of a voucher.
func (p *person) buys() {
	p.Helper()
	codes, err := p.vouchers.Make(p.Context(), "test", payment.Amount{Minor: 300, Currency: "EUR"}, 1)
	p.must(err)
	_, err = p.Buy(p.Context(), wallet.Order{Pack: "days", Method: "voucher", Voucher: codes[0].Print()})
	p.must(err)
}

func (p *person) has() ticket.Units {
	p.Helper()
	b, err := p.Balance()
	p.must(err)
	return b.Paid
}

// A counter is a center as its client sees it.
type counter struct {
	*center
	account api.Fingerprint
}

func (c counter) Tab(_ context.Context, id api.TabID) (api.Tab, error) {
	return c.Till.Tab(c.account, id)
}
func (c counter) Meter(_ context.Context, id api.TabID) (api.Meter, error) {
	return c.Till.Meter(c.account, id)
}
func (c counter) Offer(context.Context) (api.Signed, error) { return c.Till.Offer(), nil }
func (c counter) OpenTab(_ context.Context, r api.TabRequest) (api.Tab, error) {
	return c.Till.OpenTab(c.account, r)
}
func (c counter) Pay(ctx context.Context, id api.TabID, r api.PayRequest) (api.Signed, error) {
	return c.Till.Pay(ctx, c.account, id, r)
}
func (c counter) CloseTab(_ context.Context, id api.TabID) (api.Signed, error) {
	return c.Till.CloseTab(c.account, id)
}

// works lets a pal that was awake for so long be awake for longer, and its side agree
// with the last record.
func (c *center) works(p *person, was, more time.Duration) {
	c.Helper()
	c.count(p, was)
	c.Add(more)
	c.count(p, was+more)
	m, err := c.Meter(p.account, p.tab.ID)
	c.must(err)
	r, err := ticket.ParseRecord(m.Record)
	c.must(err)
	_, err = c.Countersign(p.account, p.tab.ID, api.CountersignRequest{Record: m.Record, Signature: r.Sign(p.counter)})
	c.must(err)
}

func (c *center) count(p *person, awake time.Duration) {
	c.Helper()
	_, _, err := c.Count(p.account, p.tab.WireGuard, till.Use{Awake: awake, Up: true})
	c.must(err)
}

// A spy keeps what was sent.
type spy struct {
	counter
	sent *api.PayRequest
}

func (s spy) Pay(ctx context.Context, id api.TabID, r api.PayRequest) (api.Signed, error) {
	*s.sent = r
	return s.counter.Pay(ctx, id, r)
}
