package wallet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	center "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/mint"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	paying "github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
	"github.com/tradle/cloudpal/ticket/manifest"
	"github.com/tradle/cloudpal/ticket/signer"
)

const issuer = "mint.example"

// start is the time of the tests, in epoch 82.
var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// A clock goes when somebody waits.
type clock struct {
	mu     sync.Mutex
	at     time.Time
	waited []time.Duration
}

func (c *clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) Wait(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	if d > 0 {
		c.waited = append(c.waited, d)
	}
	return ctx.Err()
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = t
}

// A press has a mint's keys, both halves. They are made when they are first asked for,
// once for all tests.
type press struct {
	mu      sync.Mutex
	signers map[ticket.KeyID]*signer.Signer
	epochs  map[ticket.Epoch]*manifest.Manifest
}

var thePress = &press{signers: map[ticket.KeyID]*signer.Signer{}, epochs: map[ticket.Epoch]*manifest.Manifest{}}

func receiptKey(e ticket.Epoch) (ed25519.PrivateKey, error) {
	return keyOf(fmt.Sprint("receipts of ", e)), nil
}

func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func (p *press) epoch(e ticket.Epoch) *manifest.Manifest {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.epochs[e]; m != nil {
		return m
	}
	m, signers := newManifest(e)
	p.epochs[e] = m
	maps.Copy(p.signers, signers)
	return m
}

// newManifest makes the keys of an epoch.
func newManifest(e ticket.Epoch) (*manifest.Manifest, map[ticket.KeyID]*signer.Signer) {
	var mu sync.Mutex
	var all sync.WaitGroup
	var keys []*ticket.Key
	signers := map[ticket.KeyID]*signer.Signer{}
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
				signers[k.ID()] = s
				keys = append(keys, k)
			})
		}
	}
	all.Wait()
	receipt, _ := receiptKey(e)
	m, err := manifest.New(issuer, e, public(receipt), keys)
	if err != nil {
		panic(err)
	}
	return m, signers
}

// Sign implements mint.Signer.
func (p *press) Sign(_ context.Context, id ticket.KeyID, blinded [][]byte) ([][]byte, error) {
	p.mu.Lock()
	s := p.signers[id]
	p.mu.Unlock()
	if s == nil {
		return nil, cloudpal.E("sign", cloudpal.NotExist, nil)
	}
	var signed [][]byte
	for _, b := range blinded {
		one, err := s.Sign(b)
		if err != nil {
			return nil, err
		}
		signed = append(signed, one)
	}
	return signed, nil
}

// A shelf is the mint's log of keys, which grows.
type shelf struct {
	mu      sync.Mutex
	root    note.Signer
	log     note.Signer
	entries []manifest.Entry
	shown   map[ticket.Epoch]*manifest.Manifest
}

func newShelf() (*shelf, *manifest.Trust) {
	s := &shelf{shown: map[ticket.Epoch]*manifest.Manifest{}}
	var root, origin string
	s.root, root = newNote(issuer)
	s.log, origin = newNote(issuer + "/keys")
	return s, &manifest.Trust{Issuer: issuer, URL: "https://" + issuer, Root: root, Log: origin}
}

func newNote(name string) (note.Signer, string) {
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		panic(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		panic(err)
	}
	return s, public
}

func (s *shelf) add(m *manifest.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry, err := m.Sign(s.root)
	if err != nil {
		panic(err)
	}
	s.entries = append(s.entries, entry)
	s.shown[m.Epoch] = m
}

// Epoch implements mint.Log.
func (s *shelf) Epoch(_ context.Context, e ticket.Epoch) (*manifest.Manifest, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.shown[e]
	if m == nil {
		return nil, nil, cloudpal.E("look for an epoch", cloudpal.NotExist, nil)
	}
	c := log.Checkpoint{Origin: s.log.Name(), Size: uint64(len(s.entries)), Hash: manifest.Root(s.entries)}
	signed, err := note.Sign(&note.Note{Text: string(c.Marshal())}, s.log)
	if err != nil {
		return nil, nil, err
	}
	b := manifest.Bundle{Keys: m.Public(), Entries: s.entries, Checkpoint: manifest.Checkpoint(signed)}
	raw, err := b.Marshal()
	return m, raw, err
}

// A purse is a way to pay at the mint: each code pays one order.
type purse struct {
	mu   sync.Mutex
	paid map[string]string // code to order
}

func (p *purse) Begin(context.Context, paying.Order) (paying.Started, error) {
	return paying.Started{}, nil
}

func (p *purse) Poll(_ context.Context, o paying.Order, _ string) (paying.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, order := range p.paid {
		if order == o.ID {
			return paying.Status{State: paying.Paid}, nil
		}
	}
	return paying.Status{State: paying.Unpaid}, nil
}

func (p *purse) Hook(r *http.Request) (string, error) { return r.Header.Get("Order"), nil }

func (p *purse) Take(_ context.Context, o paying.Order, code string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.paid[code]; code == "bad" || ok && was != o.ID {
		return cloudpal.E("take a code", cloudpal.Denied, nil)
	}
	p.paid[code] = o.ID
	return nil
}

// A till is paid elsewhere: somebody says that an order is paid.
type till struct {
	mu    sync.Mutex
	state map[string]paying.State
}

func (p *till) Begin(_ context.Context, o paying.Order) (paying.Started, error) {
	return paying.Started{Ref: o.ID, URL: "https://pay.example/" + o.ID}, nil
}

func (p *till) Poll(_ context.Context, o paying.Order, _ string) (paying.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.state[o.ID]; ok {
		return paying.Status{State: s}, nil
	}
	return paying.Status{State: paying.Unpaid}, nil
}

func (p *till) Hook(r *http.Request) (string, error) { return r.Header.Get("Order"), nil }

// paid says that an order is paid, and rings the bell.
func (h *house) paid(order string) {
	h.Helper()
	h.card.mu.Lock()
	h.card.state[order] = paying.Paid
	h.card.mu.Unlock()
	r, err := http.NewRequest(http.MethodPost, "/v1/hooks/card", nil)
	h.must(err)
	r.Header.Set("Order", order)
	h.must(h.Hook(r, "card"))
}

var packs = []api.Pack{
	{Name: "day", Tickets: []ticket.Denomination{64}, Price: 100, Code: "EUR"},
	{Name: "week", Tickets: []ticket.Denomination{1, 1, 4, 4, 16, 16, 64, 64, 256}, Price: 700, Code: "EUR"},
	{Name: "twenty", Tickets: times(20, 64), Price: 2000, Code: "EUR"},
}

func times(n int, d ticket.Denomination) (all []ticket.Denomination) {
	for range n {
		all = append(all, d)
	}
	return all
}

// A house is a mint that runs, behind real TLS.
type house struct {
	testing.TB
	*clock
	*mint.Mint
	shelf   *shelf
	trust   *manifest.Trust
	card    *till
	purse   *purse
	address string
	made    mint.Config

	inner  atomic.Pointer[http.Handler]
	fail   atomic.Pointer[func(path string, before bool) bool] // says what calls are lost
	sunken atomic.Int64                                        // calls that were
	codes  atomic.Int64
}

func newHouse(t testing.TB) *house { return openHouse(t, &clock{at: start}) }

// openHouse opens one that goes by a clock, or by the machine's.
func openHouse(t testing.TB, c *clock) *house {
	t.Helper()
	h := &house{TB: t, clock: c, card: &till{state: map[string]paying.State{}}, purse: &purse{paid: map[string]string{}}}
	h.shelf, h.trust = newShelf()
	h.shelf.add(thePress.epoch(ticket.EpochAt(c.Now())))
	dir := t.TempDir()
	b, err := books.Open(context.Background(), filepath.Join(dir, "books.db"))
	h.must(err)
	t.Cleanup(func() { b.Close() })
	l, err := ledger.OpenPebble(filepath.Join(dir, "ledger"))
	h.must(err)
	t.Cleanup(func() { l.Close() })
	h.made = mint.Config{
		Issuer: issuer, Books: b, Ledger: l, Signer: thePress, Log: h.shelf, Receipt: receiptKey,
		Methods: map[string]mint.Method{
			"code": {Method: h.purse, Class: ticket.Paid},
			"card": {Method: h.card, Class: ticket.Paid},
		},
		Packs: packs, Now: c.Now, Logger: slog.New(slog.DiscardHandler),
	}
	h.reopen()
	h.address = h.serve()
	h.trust.URL = h.address
	return h
}

// reopen makes the mint anew of what it has on its disks, so that it looks at its log.
func (h *house) reopen() {
	h.Helper()
	var err error
	h.made.Log = h.shelf
	h.Mint, err = mint.New(h.made)
	h.must(err)
	handler := h.Handler()
	h.inner.Store(&handler)
}

// serve answers until the test ends.
func (h *house) serve() string {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	h.must(err)
	cert, err := mint.Certificate(key)
	h.must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, l, cert, h.lossy()) }()
	h.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			h.Errorf("the mint ended: %v", err)
		}
	})
	return "https://" + l.Addr().String() + "#" + mint.Fingerprint(cert)
}

// lossy loses calls before the mint hears of them, or their answers.
func (h *house) lossy() http.Handler {
	lose := func(r *http.Request, before bool) bool {
		f := h.fail.Load()
		return f != nil && (*f)(r.URL.Path, before)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner := *h.inner.Load()
		if lose(r, true) {
			h.sunken.Add(1)
			panic(http.ErrAbortHandler)
		}
		if !lose(r, false) {
			inner.ServeHTTP(w, r)
			return
		}
		h.sunken.Add(1)
		inner.ServeHTTP(nowhere{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	})
}

// nowhere is where an answer goes that is lost.
type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// lose has f say which calls are lost from now on.
func (h *house) lose(f func(path string, before bool) bool) { h.fail.Store(&f) }

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("%v (%s)", err, cloudpal.HintOf(err))
	}
}

// dial is a connection of its own.
func (h *house) dial() (Mint, error) { return api.Dial(h.address, nil) }

// code is a voucher that was not used.
func (h *house) code() string { return fmt.Sprintf("code %d", h.codes.Add(1)) }

// seedOf is a person's.
func seedOf(name string) ticket.Seed { return ticket.Seed(sha256.Sum256([]byte(name))) }

// A purse of a person's, in a test.
type own struct {
	*Wallet
	*house
}

func (h *house) config(dir, name string, p Policy) Config {
	return Config{Dir: dir, Seed: seedOf(name), Connect: h.dial, Policy: p, Clock: h.clock, Random: mrand.NewPCG(1, 2)}
}

// wallet makes a person's wallet that does not wait.
func (h *house) wallet(name string) *own {
	h.Helper()
	w, err := Create(h.config(filepath.Join(h.TempDir(), "wallet"), name, Now), h.trust, FirstDevice)
	h.must(err)
	h.Cleanup(func() { w.Close() })
	return &own{w, h}
}

// with is the same wallet under another policy.
func (o *own) with(p Policy) *own {
	o.Helper()
	c := o.config(o.dir, "", p)
	c.Seed = o.seed
	w, err := Open(c)
	o.must(err)
	o.Cleanup(func() { w.Close() })
	return &own{w, o.house}
}

// buy buys a pack with a voucher.
func (o *own) buy(pack string) {
	o.Helper()
	p, err := o.Buy(o.Context(), Order{Pack: pack, Method: "code", Voucher: o.code()})
	o.must(err)
	if !p.Done {
		o.Fatalf("the purchase is %s", p.State)
	}
}

// units is what the wallet has, in coins that can be used.
func (o *own) units() ticket.Units {
	o.Helper()
	b, err := o.Balance()
	o.must(err)
	return b.Paid + b.Free
}

// all is what the wallet has, in whatever state.
func (w *Wallet) all() (u ticket.Units) {
	s, err := w.look()
	if err != nil {
		panic(err)
	}
	for _, c := range s.coins {
		u += ticket.Units(c.Denomination)
	}
	for _, sw := range s.swaps {
		if sw.Gift == 0 && sw.Pay == 0 {
			u += worth(sw.Inputs)
		}
	}
	for _, g := range s.gifts {
		u += worth(g.Coins)
	}
	for _, p := range s.payments {
		if !p.Ended {
			u += ticket.Units(p.Coin.Denomination)
		}
	}
	return u
}

// A shop is a center as far as a wallet sees it: it takes tickets to the mint, meters
// and gives back, honestly unless it is told otherwise.
type shop struct {
	*house
	key   ed25519.PrivateKey
	slice ticket.Denomination

	turn   sync.Mutex // held by ServeHTTP: one call is done before the next begins
	mu     sync.Mutex
	tabs   map[center.TabID]*shopTab
	hoard  bool         // it keeps tickets, and does not take them to the mint
	cheat  ticket.Units // it gives back so much less
	refuse bool         // it says that tickets are not good
}

type shopTab struct {
	pal    []byte // whose key countersigns: see palKey
	paid   []center.PayRequest
	taken  []bool // to the mint
	used   ticket.Units
	meter  center.Meter
	seq    uint64
	prev   ticket.Digest
	closed *center.Signed
}

func (h *house) shop(name string, slice ticket.Denomination) *shop {
	return &shop{house: h, key: keyOf(name), slice: slice, tabs: map[center.TabID]*shopTab{}}
}

func (s *shop) id() ticket.CenterID { return ticket.CenterID(public(s.key)) }

func (s *shop) Offer(context.Context) (center.Signed, error) {
	return center.Sign(s.key, center.ForOffer, center.Offer{
		Center: public(s.key), Issuers: []string{issuer}, Classes: ticket.Classes,
		Tariff: center.Tariff{Core: 64}, Slice: s.slice, Until: s.Now().Add(24 * 365 * time.Hour),
		Grace: 300, Seal: 3600, Delete: 7200,
	})
}

func (s *shop) OpenTab(_ context.Context, r center.TabRequest) (center.Tab, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tabs[r.ID] == nil {
		s.tabs[r.ID] = &shopTab{pal: r.WireGuard}
	}
	return center.Tab{ID: r.ID, Request: r}, nil
}

// deposit takes a ticket to the mint.
func (s *shop) deposit(ctx context.Context, id center.TabID, r center.PayRequest) error {
	contract, err := r.Contract(s.id(), id)
	if err != nil {
		return err
	}
	spend, err := ticket.ParseSpend(r.Spend)
	if err != nil {
		return err
	}
	c, err := api.Dial(s.address, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.As(s.key, s.Now).Deposit(ctx, contract, spend)
	return err
}

func (s *shop) Pay(ctx context.Context, id center.TabID, r center.PayRequest) (center.Signed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tabs[id]
	if t == nil || s.refuse {
		return center.Signed{}, cloudpal.E("pay a tab", cloudpal.Denied, nil)
	}
	contract, err := r.Contract(s.id(), id)
	if err != nil {
		return center.Signed{}, err
	}
	due := r.NotBefore <= s.Now().Unix()
	known := false
	for _, p := range t.paid {
		known = known || string(p.Spend) == string(r.Spend)
	}
	if !known && t.closed != nil {
		return center.Signed{}, cloudpal.E("pay a tab", cloudpal.Denied, nil)
	}
	if !known {
		if due && !s.hoard {
			if err := s.deposit(ctx, id, r); err != nil {
				return center.Signed{}, cloudpal.E("pay a tab", cloudpal.Denied, err)
			}
		}
		t.paid, t.taken = append(t.paid, r), append(t.taken, due && !s.hoard)
	}
	spend, _ := ticket.ParseSpend(r.Spend)
	serial := spend.Serial()
	return center.Sign(s.key, center.ForPaid, center.Paid{
		Tab: id, Serial: serial[:], Contract: contract.Digest(), Amount: r.Amount, NotBefore: r.NotBefore, At: s.Now().Unix(),
	})
}

// use has the tab's pal use so much.
func (s *shop) use(id center.TabID, units ticket.Units) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tabs[id]
	t.used += units
	t.seq++
	r := ticket.Record{Tab: id, Seq: t.seq, Used: t.used, At: s.Now(), Prev: t.prev}
	t.prev = r.Digest()
	t.meter = center.Meter{Record: r.Append(nil), Signature: r.Sign(s.key), Countersigned: r.Sign(palKey(t.pal))}
}

func (s *shop) meterOf(id center.TabID) center.Meter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tabs[id].meter
}

func (s *shop) CloseTab(_ context.Context, id center.TabID) (center.Signed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tabs[id]
	if t == nil {
		return center.Signed{}, cloudpal.E("close a tab", cloudpal.NotExist, nil)
	}
	if t.closed != nil {
		return *t.closed, nil
	}
	c := center.Closed{Tab: id, Meter: t.meter, Agreed: t.meter}
	left := t.used + s.cheat
	for i, p := range t.paid {
		spend, _ := ticket.ParseSpend(p.Spend)
		serial := spend.Serial()
		if !t.taken[i] {
			c.Returned = append(c.Returned, serial[:])
			continue
		}
		used := min(left, ticket.Units(p.Amount))
		left -= used
		if units := ticket.Units(p.Amount) - used; units > 0 && used > 0 {
			c.Refunds = append(c.Refunds, center.Refund{
				Issuer: issuer, Serial: serial[:], Units: units, Blank: p.Blank,
				Signature: ed25519.Sign(s.key, api.RefundText(serial, units, ticket.Digest(p.Blank))),
			})
		}
	}
	signed, err := center.Sign(s.key, center.ForClosed, c)
	t.closed = &signed
	return signed, err
}

// tab opens one, and returns it with the key that countersigns.
// palKey is the key that a pal's side agrees with what is used by. Here, who knows the
// pal knows it.
func palKey(pal []byte) ed25519.PrivateKey { return keyOf("tab " + string(pal)) }

func (o *own) tab(s *shop, name string) (center.TabID, ed25519.PrivateKey) {
	o.Helper()
	pal := public(keyOf("pal " + name))
	key := palKey(pal)
	id := center.TabID(public(key))
	_, err := o.OpenTab(o.Context(), s, center.TabRequest{ID: id, WireGuard: pal}, "https://center.example")
	o.must(err)
	return id, key
}

func mustBe(t testing.TB, want cloudpal.Kind, err error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	var e *cloudpal.Error
	if !errors.As(err, &e) {
		t.Errorf("%v is no *cloudpal.Error", err)
	}
}

func asJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}
