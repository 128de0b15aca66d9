package till

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
	"github.com/tradle/cloudpal/ticket/manifest"
	"github.com/tradle/cloudpal/ticket/signer"
)

const issuer = "mint.example"

// start is the time of the tests, in epoch 82.
var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// A clock goes when it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: start} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = t
}

// A bank is a mint as its contract has it: it issues, deposits and refunds for real,
// with a real ledger, and only its HTTP is missing. Faults are for tests to set.
type bank struct {
	*clock
	trust  *manifest.Trust
	root   note.Signer
	log    note.Signer
	ledger ledger.Ledger
	key    ed25519.PrivateKey // of receipts

	mu       sync.Mutex
	presses  map[ticket.KeyID]press
	entries  []manifest.Entry
	shown    map[ticket.Epoch]*manifest.Manifest
	deposits map[ticket.Serial]ticket.PayContract
	refunded map[ticket.Serial]ticket.Units
	times    []time.Time // of deposits
	disputes []mint.Dispute
	answers  []mint.AnswerRequest
	down     bool                     // it cannot be reached
	loses    int                      // so many answers get lost
	tampers  func(*mint.Receipt)      // of a mint that lies
	pretends func(ticket.Spend) error // likewise
}

// A press signs the tickets of one key.
type press struct {
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

// publicKey returns a public key whose private one nobody has.
func publicKey(seed string) *rsa.PublicKey {
	var b []byte
	for i := 0; len(b) < 256; i++ {
		h := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b = append(b, h[:]...)
	}
	b[0] |= 0x80
	b[255] |= 1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(b), E: 65537}
}

// newBank makes a mint whose keys for tickets of 64 units, and for their change, are
// real ones; the others nobody can sign with.
func newBank(tb testing.TB, c *clock) *bank {
	tb.Helper()
	l, err := ledger.OpenPebble(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	b := &bank{
		clock: c, ledger: l, presses: map[ticket.KeyID]press{}, shown: map[ticket.Epoch]*manifest.Manifest{},
		deposits: map[ticket.Serial]ticket.PayContract{}, refunded: map[ticket.Serial]ticket.Units{},
	}
	_, b.key, _ = ed25519.GenerateKey(rand.Reader)
	var root, log string
	b.root, root = noteKey(tb, issuer)
	b.log, log = noteKey(tb, issuer+"/keys")
	b.trust = &manifest.Trust{Issuer: issuer, URL: "https://" + issuer, Root: root, Log: log}
	b.publish(tb, 82)
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

// real are the keys that can sign, and by which key pair.
var real = map[ticket.Denomination]int{1: 0, 4: 1, 16: 2, 64: 3}

func (b *bank) publish(tb testing.TB, e ticket.Epoch) {
	tb.Helper()
	var keys []*ticket.Key
	for _, c := range ticket.Classes {
		for _, d := range ticket.Denominations {
			public := publicKey(fmt.Sprint(c, d, e))
			var s *signer.Signer
			if n, ok := real[d]; ok && (c == ticket.Paid || d == 64) && (e == 82 || d == 64) {
				if c == ticket.Free {
					n = 4
				}
				if e != 82 {
					n = 5 + int(e-83)
				}
				s = signers(n)
				public = s.Public()
			}
			k, err := ticket.NewKey(c, d, e, public)
			if err != nil {
				tb.Fatal(err)
			}
			if e != 82 && c == ticket.Free {
				s, public = nil, publicKey(fmt.Sprint("other", c, d, e))
				if k, err = ticket.NewKey(c, d, e, public); err != nil {
					tb.Fatal(err)
				}
			}
			if s != nil {
				b.presses[k.ID()] = press{s, k}
			}
			keys = append(keys, k)
		}
	}
	m, err := manifest.New(issuer, e, b.key.Public().(ed25519.PublicKey), keys)
	if err != nil {
		tb.Fatal(err)
	}
	entry, err := m.Sign(b.root)
	if err != nil {
		tb.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, entry)
	b.shown[e] = m
}

// press returns the one that signs tickets of a class and denomination.
func (b *bank) press(c ticket.Class, d ticket.Denomination, e ticket.Epoch) press {
	for _, p := range b.presses {
		if p.Class == c && p.Denomination == d && p.Epoch == e {
			return p
		}
	}
	panic(fmt.Sprintf("no press for %v %d of epoch %d", c, d, e))
}

var errDown = cloudpal.E("ask the mint", cloudpal.Missing, mint.ErrUnreachable)

// Manifest implements Mint.
func (b *bank) Manifest(_ context.Context, e ticket.Epoch) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.shown[e]
	switch {
	case b.down:
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

// Deposit implements Mint.
func (b *bank) Deposit(ctx context.Context, c ticket.PayContract, s ticket.Spend) (r mint.Receipt, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return r, errDown
	}
	if b.pretends != nil {
		if err := b.pretends(s); err != nil {
			return r, err
		}
	}
	p, ok := b.presses[s.Token.Key]
	if !ok {
		return r, cloudpal.E("deposit", cloudpal.Denied, errors.New("no such key"))
	}
	if err := s.Verify(issuer, p.Key, c); err != nil {
		return r, err
	}
	now := b.now()
	if now.Before(c.NotBefore) || !p.Epoch.Spends(now) {
		return r, cloudpal.E("deposit", cloudpal.Denied, errors.New("not at this time"))
	}
	row := ledger.Row{Serial: ledger.SerialOf(s.Serial()), Tag: ticket.TagOf(c), Evidence: mint.Evidence{Contract: c, Spend: s}.Append(nil)}
	there, err := b.ledger.Spend(ctx, p.Epoch, []ledger.Row{row})
	if err != nil {
		return r, err
	}
	if there[0].Tag != row.Tag {
		e, err := mint.ParseEvidence(there[0].Evidence)
		if err != nil {
			return r, err
		}
		return r, cloudpal.E("deposit", cloudpal.Exist, &mint.Spent{Evidence: e})
	}
	b.deposits[s.Serial()] = c
	b.times = append(b.times, now)
	if b.loses > 0 {
		b.loses--
		return r, errDown
	}
	serial, digest := s.Serial(), c.Digest()
	r = mint.Receipt{
		Serial: serial[:], Key: s.Token.Key[:], Center: c.Center[:], Amount: c.Amount, Contract: digest[:],
		Credited: now.Truncate(time.Hour), Epoch: p.Epoch,
	}
	if b.tampers != nil {
		b.tampers(&r)
	}
	r.Signature = ed25519.Sign(b.key, r.Text())
	return r, nil
}

// swap spends a ticket for itself, as its owner may.
func (b *bank) swap(tb testing.TB, t ticket.Ticket) {
	tb.Helper()
	c := ticket.SwapContract{Outputs: ticket.Digest{9}}
	s := t.Sign(c)
	row := ledger.Row{Serial: ledger.SerialOf(s.Serial()), Tag: ticket.TagOf(c), Evidence: mint.Evidence{Contract: c, Spend: s}.Append(nil)}
	there, err := b.ledger.Spend(tb.Context(), b.presses[t.Token.Key].Epoch, []ledger.Row{row})
	if err != nil || there[0].Tag != row.Tag {
		tb.Fatalf("the ticket cannot be swapped: %v", err)
	}
}

// Disputes implements Mint.
func (b *bank) Disputes(context.Context) ([]mint.Dispute, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, errDown
	}
	return b.disputes, nil
}

// Answer implements Mint.
func (b *bank) Answer(_ context.Context, _ string, r mint.AnswerRequest) (mint.Dispute, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers = append(b.answers, r)
	return mint.Dispute{}, nil
}

// deposited returns what the center has been credited.
func (b *bank) deposited() (u ticket.Units) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.deposits {
		u += ticket.Units(c.Amount)
	}
	return u
}

func (b *bank) fault(set func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	set()
}

// A payer is a person with tickets and an account.
type payer struct {
	tb      testing.TB
	bank    *bank
	account api.Fingerprint
	seed    ticket.Seed
	n       uint64
	counter ed25519.PrivateKey
	request api.TabRequest
	blanks  map[ticket.Serial][]ticket.Secret
	tickets map[ticket.Serial]ticket.Ticket
}

func newPayer(tb testing.TB, b *bank) *payer {
	tb.Helper()
	p := &payer{tb: tb, bank: b, blanks: map[ticket.Serial][]ticket.Secret{}, tickets: map[ticket.Serial]ticket.Ticket{}}
	rand.Read(p.seed[:])
	rand.Read(p.account[:])
	p.anew()
	rand.Read(p.request.WireGuard)
	return p
}

// anew makes the next OpenTab open another tab.
func (p *payer) anew() {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		p.tb.Fatal(err)
	}
	p.counter, p.request.ID = private, api.TabID(public)
	if p.request.WireGuard == nil {
		p.request.WireGuard = make([]byte, 32)
	}
}

// buy returns a new ticket.
func (p *payer) buy(c ticket.Class, d ticket.Denomination, e ticket.Epoch) ticket.Ticket {
	p.tb.Helper()
	press := p.bank.press(c, d, e)
	p.n++
	s, err := ticket.Derive(p.seed, "purchase", issuer, press.Key, p.n)
	if err != nil {
		p.tb.Fatal(err)
	}
	out, err := s.Output()
	if err != nil {
		p.tb.Fatal(err)
	}
	signature, err := press.Sign(out.Blinded[:])
	if err != nil {
		p.tb.Fatal(err)
	}
	t, err := s.Finish(signature)
	if err != nil {
		p.tb.Fatal(err)
	}
	p.tickets[t.Serial()] = t
	return t
}

// blank makes the outputs for a ticket's change, once.
func (p *payer) blank(t ticket.Ticket) ticket.Digest {
	p.tb.Helper()
	if p.blanks[t.Serial()] == nil {
		for i, d := range ticket.Blank(p.bank.presses[t.Token.Key].Denomination) {
			press := p.bank.press(p.bank.presses[t.Token.Key].Class, d, p.bank.presses[t.Token.Key].Epoch)
			s, err := ticket.Derive(p.seed, ticket.Branch(fmt.Sprintf("change %d", p.n)), issuer, press.Key, uint64(i))
			if err != nil {
				p.tb.Fatal(err)
			}
			p.blanks[t.Serial()] = append(p.blanks[t.Serial()], s)
		}
	}
	return ticket.OutputsDigest(p.outputs(t.Serial()))
}

func (p *payer) outputs(s ticket.Serial) (list []ticket.Output) {
	for _, secret := range p.blanks[s] {
		o, err := secret.Output()
		if err != nil {
			p.tb.Fatal(err)
		}
		list = append(list, o)
	}
	return list
}

// pays returns the request that pays a tab of a till with a ticket.
func (p *payer) pays(t *Till, with ticket.Ticket, notBefore time.Time) api.PayRequest {
	p.tb.Helper()
	d := api.OfferDigest(t.Offer())
	r := api.PayRequest{Offer: d[:], Nonce: make([]byte, 16), Amount: p.bank.presses[with.Token.Key].Denomination}
	rand.Read(r.Nonce)
	if !notBefore.IsZero() {
		r.NotBefore = notBefore.Unix()
	}
	if r.Amount == 64 && p.bank.presses[with.Token.Key].Epoch == 82 && p.bank.presses[with.Token.Key].Class == ticket.Paid {
		blank := p.blank(with)
		r.Blank = blank[:]
	} else {
		r.Blank = make([]byte, 32)
	}
	p.sign(t, with, &r)
	return r
}

// sign spends the ticket for what r says.
func (p *payer) sign(t *Till, with ticket.Ticket, r *api.PayRequest) {
	p.tb.Helper()
	c, err := r.Contract(t.Center(), p.request.ID)
	if err != nil {
		p.tb.Fatal(err)
	}
	s := with.Sign(c)
	r.Spend = s.Append(nil)
}

// refund has the mint give back what a center left, as the mint's rules are.
func (p *payer) refund(center ticket.CenterID, r api.Refund) ticket.Units {
	p.tb.Helper()
	b := p.bank
	serial := ticket.Serial(r.Serial)
	c, ok := b.deposits[serial]
	outputs := p.outputs(serial)
	if !ok || ticket.OutputsDigest(outputs) != c.Blank {
		p.tb.Fatal("the mint knows of no such deposit")
	}
	text := mint.RefundText(serial, r.Units, c.Blank)
	if !ed25519.Verify(center[:], text, r.Signature) {
		p.tb.Fatal("the center did not sign the refund")
	}
	which, err := ticket.Change(c.Amount, r.Units)
	if err != nil {
		p.tb.Fatal(err)
	}
	var got ticket.Units
	for _, i := range which {
		press := b.presses[outputs[i].Key]
		signature, err := press.Sign(outputs[i].Blinded[:])
		if err != nil {
			p.tb.Fatal(err)
		}
		t, err := p.blanks[serial][i].Finish(signature)
		if err != nil {
			p.tb.Fatal(err)
		}
		if err := t.Token.Verify(press.Key); err != nil {
			p.tb.Fatal(err)
		}
		got += ticket.Units(press.Denomination)
	}
	b.refunded[serial] += got
	return got
}

// A shop is a till on a folder, and what it was made with.
type shop struct {
	*Till
	tb     testing.TB
	config Config
	bank   *bank
}

var tariff = api.Tariff{Core: 64, App: 64, Storage: 30, Traffic: 2}

// openShop opens a till; adjust may be nil.
func openShop(tb testing.TB, b *bank, dir string, adjust func(*Config)) *shop {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := Config{
		Dir: dir, Key: key, Issuers: []Issuer{{b.trust, b}}, Log: slog.New(slog.DiscardHandler), Now: b.now,
		Terms: Terms{Tariff: tariff, Slice: 64},
	}
	if adjust != nil {
		adjust(&c)
	}
	s := &shop{tb: tb, config: c, bank: b}
	s.open()
	tb.Cleanup(func() {
		if s.Till != nil {
			s.Close()
		}
	})
	return s
}

func newShop(tb testing.TB, b *bank) *shop { return openShop(tb, b, tb.TempDir(), nil) }

func (s *shop) open() {
	s.tb.Helper()
	t, err := Open(s.config)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.Till = t
}

// again closes the till and opens it anew.
func (s *shop) again() {
	s.tb.Helper()
	if err := s.Close(); err != nil {
		s.tb.Fatal(err)
	}
	s.open()
}

// tab opens the payer's tab.
func (s *shop) tab(p *payer) api.Tab {
	s.tb.Helper()
	v, err := s.OpenTab(p.account, p.request)
	if err != nil {
		s.tb.Fatal(err)
	}
	return v
}

func (s *shop) pay(p *payer, r api.PayRequest) api.Paid {
	s.tb.Helper()
	signed, err := s.Pay(s.tb.Context(), p.account, p.request.ID, r)
	if err != nil {
		s.tb.Fatalf("pay: %v", err)
	}
	center := s.Center()
	var paid api.Paid
	if err := signed.Open(center[:], api.ForPaid, &paid); err != nil {
		s.tb.Fatal(err)
	}
	return paid
}

func (s *shop) look(p *payer) api.Tab {
	s.tb.Helper()
	v, err := s.Tab(p.account, p.request.ID)
	if err != nil {
		s.tb.Fatal(err)
	}
	return v
}

// works lets an awake pal work for so long, in steps as the center counts.
func (s *shop) works(p *payer, from Use, d time.Duration) Use {
	s.tb.Helper()
	const step = time.Minute
	s.count(p, from)
	for ; d > 0; d -= step {
		s.bank.set(s.bank.now().Add(step))
		from.Awake += step
		from.Up = true
		s.count(p, from)
		s.Review()
	}
	return from
}

func (s *shop) count(p *payer, u Use) api.Meter {
	s.tb.Helper()
	_, m, err := s.Count(p.account, p.request.WireGuard, u)
	if err != nil {
		s.tb.Fatal(err)
	}
	return m
}

// agree countersigns the last record.
func (s *shop) agree(p *payer) {
	s.tb.Helper()
	m, err := s.Meter(p.account, p.request.ID)
	if err != nil || len(m.Record) == 0 {
		s.tb.Fatalf("there is no record: %v", err)
	}
	r, err := ticket.ParseRecord(m.Record)
	if err != nil {
		s.tb.Fatal(err)
	}
	q := api.CountersignRequest{Record: m.Record, Signature: r.Sign(p.counter)}
	if _, err := s.Countersign(p.account, p.request.ID, q); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *shop) closeTab(p *payer) api.Closed {
	s.tb.Helper()
	signed, err := s.CloseTab(p.account, p.request.ID)
	if err != nil {
		s.tb.Fatal(err)
	}
	center := s.Center()
	var c api.Closed
	if err := signed.Open(center[:], api.ForClosed, &c); err != nil {
		s.tb.Fatal(err)
	}
	return c
}
