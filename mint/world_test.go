package mint

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/payment"
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

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

func (c *clock) add(d time.Duration) { c.set(c.now().Add(d)) }

// A press has a mint's keys, both halves. They are made when they are first asked for,
// once for all tests.
type press struct {
	making sync.Mutex // held while an epoch is made, which takes a slow machine minutes

	mu      sync.Mutex
	signers map[ticket.KeyID]*signer.Signer
	epochs  map[ticket.Epoch]*manifest.Manifest
}

var thePress = &press{signers: map[ticket.KeyID]*signer.Signer{}, epochs: map[ticket.Epoch]*manifest.Manifest{}}

// receiptKey is the key for receipts of an epoch.
func receiptKey(e ticket.Epoch) (ed25519.PrivateKey, error) {
	seed := sha256.Sum256(fmt.Append(nil, "receipts of ", e))
	return ed25519.NewKeyFromSeed(seed[:]), nil
}

func (p *press) made(e ticket.Epoch) *manifest.Manifest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epochs[e]
}

func (p *press) epoch(e ticket.Epoch) *manifest.Manifest {
	if m := p.made(e); m != nil {
		return m
	}
	p.making.Lock()
	defer p.making.Unlock()
	if m := p.made(e); m != nil {
		return m
	}
	signers := map[ticket.KeyID]*signer.Signer{}
	var keys []*ticket.Key
	for _, c := range ticket.Classes {
		for _, d := range ticket.Denominations {
			s, err := signer.Generate()
			if err != nil {
				panic(err)
			}
			k, err := ticket.NewKey(c, d, e, s.Public())
			if err != nil {
				panic(err)
			}
			signers[k.ID()] = s
			keys = append(keys, k)
		}
	}
	receipt, _ := receiptKey(e)
	m, err := manifest.New(issuer, e, receipt.Public().(ed25519.PublicKey), keys)
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.signers, signers)
	p.epochs[e] = m
	return m
}

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

// A shelf shows the epochs that are there, as a log does.
type shelf []ticket.Epoch

func (s shelf) Epoch(_ context.Context, e ticket.Epoch) (*manifest.Manifest, []byte, error) {
	if slices.Contains(s, e) {
		return thePress.epoch(e), fmt.Append(nil, "the bundle of ", e), nil
	}
	return nil, nil, cloudpal.E("look for an epoch", cloudpal.NotExist, nil)
}

// A purse is a way to pay here: each code pays one order.
type purse struct {
	mu   sync.Mutex
	paid map[string]string // code to order
	back map[string]bool   // orders whose money was taken back
}

func newPurse() *purse { return &purse{paid: map[string]string{}, back: map[string]bool{}} }

func (p *purse) Begin(context.Context, payment.Order) (payment.Started, error) {
	return payment.Started{}, nil
}

func (p *purse) Poll(_ context.Context, o payment.Order, _ string) (payment.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, order := range p.paid {
		if order == o.ID {
			if p.back[order] {
				return payment.Status{State: payment.Reversed}, nil
			}
			return payment.Status{State: payment.Paid}, nil
		}
	}
	return payment.Status{State: payment.Unpaid, Hint: "nothing came yet"}, nil
}

func (p *purse) Hook(r *http.Request) (string, error) { return r.Header.Get("Order"), nil }

func (p *purse) Take(_ context.Context, o payment.Order, code string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.paid[code]; ok && was != o.ID {
		return cloudpal.E("take a code", cloudpal.Exist, nil).WithHint("the code was used")
	}
	p.paid[code] = o.ID
	return nil
}

var packs = []api.Pack{
	{Name: "day", Tickets: []ticket.Denomination{64}, Price: 100, Code: "EUR"},
	{Name: "mixed", Tickets: []ticket.Denomination{1, 4, 16, 64}, Price: 140, Code: "EUR"},
	{Name: "small", Tickets: []ticket.Denomination{4, 4}, Price: 10, Code: "EUR"},
}

// A house is a mint that runs, behind real TLS.
type house struct {
	testing.TB
	*clock
	*Mint
	purse   *purse
	log     *lockedWriter
	address string
	client  *api.Client
}

// parts are what a house is made of that outlives it.
type parts struct {
	place  string // of its books
	folder string // of its ledger
	clock  *clock
	purse  *purse
	epochs shelf
}

// An engine makes places for books.
type engine func(testing.TB) string

func lite(t testing.TB) string { return filepath.Join(t.TempDir(), "books.db") }

func newParts(t testing.TB, e engine) parts {
	return parts{place: e(t), folder: t.TempDir(), clock: &clock{at: start}, purse: newPurse(), epochs: shelf{82}}
}

func newHouse(t testing.TB, e engine) *house { return newParts(t, e).open(t) }

func (p parts) open(t testing.TB) *house {
	t.Helper()
	for _, e := range p.epochs {
		thePress.epoch(e) // before anybody waits for an answer
	}
	h := &house{TB: t, clock: p.clock, purse: p.purse, log: &lockedWriter{w: &bytes.Buffer{}}}
	b, err := books.Open(t.Context(), p.place)
	h.must(err)
	t.Cleanup(func() { b.Close() })
	l, err := ledger.OpenPebble(p.folder)
	h.must(err)
	t.Cleanup(func() { l.Close() })
	h.Mint, err = New(Config{
		Issuer: issuer, Books: b, Ledger: l, Signer: thePress, Log: p.epochs, Receipt: receiptKey,
		Methods: map[string]Method{"purse": {p.purse, ticket.Paid}}, Packs: packs, Now: p.clock.now,
		Logger: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	h.must(err)
	h.address = h.serve()
	h.client = h.dial()
	return h
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// logged is what the operator was told.
func (h *house) logged() string {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	return h.log.w.String()
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// serve answers until the test ends.
func (h *house) serve() string {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	h.must(err)
	cert, err := Certificate(key)
	h.must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, l, cert, h.Handler()) }()
	h.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			h.Errorf("the mint ended: %v", err)
		}
	})
	return "https://" + l.Addr().String() + "#" + Fingerprint(cert)
}

func (h *house) dial() *api.Client {
	c, err := api.Dial(h.address, nil)
	h.must(err)
	h.Cleanup(c.Close)
	return c
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("%v (%s)", err, cloudpal.HintOf(err))
	}
}

// key returns a key of the epoch.
func (h *house) key(c ticket.Class, d ticket.Denomination, e ticket.Epoch) *ticket.Key {
	h.Helper()
	k, err := thePress.epoch(e).Key(c, d)
	h.must(err)
	return k
}

// refusedAs fails the test unless err is of that kind.
func refusedAs(t testing.TB, kind cloudpal.Kind, err error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, want %v", err, kind)
	}
}

// check holds the books to their rules.
func (h *house) check() {
	h.Helper()
	for _, e := range []ticket.Epoch{82, 83} {
		keys, err := h.epochKeys(context.Background(), e)
		if errors.Is(err, cloudpal.NotExist) {
			continue
		}
		h.must(err)
		h.must(h.Books.Check(context.Background(), keys))
	}
}

// A person has a seed and, of each key, a counter.
type person struct {
	*house
	seed ticket.Seed
	n    uint64
}

func (h *house) person(name string) *person {
	return &person{house: h, seed: ticket.Seed(sha256.Sum256([]byte(name)))}
}

// A hand is secrets and their outputs, before they are signed.
type hand struct {
	secrets []ticket.Secret
	outputs []ticket.Output
}

// hand makes new outputs.
func (p *person) hand(c ticket.Class, e ticket.Epoch, of ...ticket.Denomination) hand {
	p.Helper()
	var h hand
	for _, d := range of {
		p.n++
		s, err := ticket.Derive(p.seed, "test", issuer, p.key(c, d, e), p.n)
		p.must(err)
		o := s.Output()
		h.secrets, h.outputs = append(h.secrets, s), append(h.outputs, o)
	}
	return h
}

func (h hand) digest() ticket.Digest { return ticket.OutputsDigest(h.outputs) }

// finish makes tickets of signatures, and of change those that units say.
func (p *person) finish(h hand, signatures [][]byte) []ticket.Ticket {
	p.Helper()
	if len(signatures) != len(h.secrets) {
		p.Fatalf("%d signatures came for %d outputs", len(signatures), len(h.secrets))
	}
	var tickets []ticket.Ticket
	for i, s := range h.secrets {
		t, err := s.Finish(signatures[i])
		p.must(err)
		tickets = append(tickets, t)
	}
	return tickets
}

// lock is a fresh one.
func (p *person) lock() ed25519.PrivateKey {
	p.n++
	seed := sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte("lock"), p.seed[:]...), p.n))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) []byte { return k.Public().(ed25519.PublicKey) }

// buy pays for a pack and has it issued.
func (p *person) buy(pack string) []ticket.Ticket {
	p.Helper()
	lock := p.lock()
	q, err := p.client.Quote(p.Context(), api.QuoteRequest{Method: "purse", Pack: pack, Lock: public(lock)})
	p.must(err)
	_, err = p.client.Pay(p.Context(), q.ID, fmt.Sprintf("code %x", public(lock)))
	p.must(err)
	h := p.hand(q.Class, ticket.EpochAt(p.now()), q.Tickets...)
	signed, err := p.client.Issue(p.Context(), q.ID, h.outputs, lock)
	p.must(err)
	return p.finish(h, signed)
}

// A payer's payment is a ticket that is spent for a center, and the blank outputs of
// its change.
type slip struct {
	ticket   ticket.Ticket
	contract ticket.PayContract
	terms    ticket.Terms
	spend    ticket.Spend
	blank    hand
}

// pay makes a payment on a tab.
func (p *person) pay(c *till, tab ed25519.PrivateKey, t ticket.Ticket) slip {
	p.Helper()
	k := p.keyOf(t)
	s := slip{ticket: t, blank: p.hand(k.Class, k.Epoch, ticket.Blank(k.Denomination)...)}
	p.n++
	s.terms = ticket.Terms{Tab: [32]byte(public(tab)), Tariff: ticket.Digest{7}, Nonce: [16]byte{byte(p.n), byte(p.n >> 8)}}
	s.contract = ticket.PayContract{
		Center: c.id(), Hidden: s.terms.Hide(), Amount: k.Denomination, NotBefore: p.now().Truncate(time.Second), Blank: s.blank.digest(),
	}
	s.spend = t.Sign(s.contract)
	return s
}

func (h *house) keyOf(t ticket.Ticket) *ticket.Key {
	h.Helper()
	k, err := h.Mint.key(context.Background(), t.Token.Key)
	h.must(err)
	return k
}

// A till is a center's side.
type till struct {
	*api.CenterClient
	key ed25519.PrivateKey
}

func (h *house) till(name string) *till {
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	return &till{h.client.As(key, h.now), key}
}

func (c *till) id() ticket.CenterID { return ticket.CenterID(public(c.key)) }

// refund is what payer and center agree to give back.
func (c *till) refund(s slip, units ticket.Units) api.RefundRequest {
	serial := s.ticket.Serial()
	text := api.RefundText(serial, units, s.blank.digest())
	return api.RefundRequest{
		Serial: serial[:], Units: units, Outputs: api.Outputs(s.blank.outputs),
		Payer: ed25519.Sign(owner(s.ticket), text), Center: ed25519.Sign(c.key, text),
	}
}

func owner(t ticket.Ticket) ed25519.PrivateKey {
	seed := t.KeySeed()
	return ed25519.NewKeyFromSeed(seed[:])
}

// change is those of a slip's blank outputs that give back units.
func (s slip) change(units ticket.Units) hand {
	which, err := ticket.Change(s.contract.Amount, units)
	if err != nil {
		panic(err)
	}
	var h hand
	for _, i := range which {
		h.secrets, h.outputs = append(h.secrets, s.blank.secrets[i]), append(h.outputs, s.blank.outputs[i])
	}
	return h
}

func worthOf(h testing.TB, m *house, tickets []ticket.Ticket) (u ticket.Units) {
	for _, t := range tickets {
		u += ticket.Units(m.keyOf(t).Denomination)
	}
	return u
}
