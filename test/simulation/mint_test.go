package simulation_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/payment/voucher"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
	"github.com/tradle/cloudpal/ticket/manifest"
	"github.com/tradle/cloudpal/ticket/signer"
)

const (
	issuer = "mint.example"
	price  = 300 // cents, of the pack
)

// start is when a simulation begins: early in a month, whose keys last for all of it.
var start = time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)

// pack is what everybody buys: tickets for those who take one unit at a time, and for
// those who take four.
var pack = func() (list []ticket.Denomination) {
	for range 52 {
		list = append(list, 1)
	}
	for range 48 {
		list = append(list, 4)
	}
	return list
}()

// keyOf returns a key that follows from a name.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// A party of the log signs notes: plainly, or as a witness.
type noter struct {
	name    string
	key     ed25519.PrivateKey
	witness bool
	now     func() time.Time
}

func (p noter) public() []byte {
	kind := byte(1)
	if p.witness {
		kind = 4
	}
	return append([]byte{kind}, publicOf(p.key)...)
}

// Name implements note.Signer.
func (p noter) Name() string { return p.name }

// KeyHash implements note.Signer.
func (p noter) KeyHash() uint32 {
	h := sha256.Sum256(append([]byte(p.name+"\n"), p.public()...))
	return binary.BigEndian.Uint32(h[:])
}

// Sign implements note.Signer.
func (p noter) Sign(msg []byte) ([]byte, error) {
	if !p.witness {
		return ed25519.Sign(p.key, msg), nil
	}
	at := uint64(p.now().Unix())
	signature := ed25519.Sign(p.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, msg))
	return append(binary.BigEndian.AppendUint64(nil, at), signature...), nil
}

func (p noter) verifier() string {
	return fmt.Sprintf("%s+%08x+%s", p.name, p.KeyHash(), base64.StdEncoding.EncodeToString(p.public()))
}

// A press has a mint's private keys. Those of tickets that nobody buys here nobody
// can sign with.
type press map[ticket.KeyID]*signer.Signer

// made are the key pairs of all simulations in this process: making one takes long.
var made = sync.OnceValue(func() []*signer.Signer {
	list := make([]*signer.Signer, 4)
	var all sync.WaitGroup
	for i := range list {
		all.Go(func() {
			s, err := signer.Generate()
			if err != nil {
				panic(err)
			}
			list[i] = s
		})
	}
	all.Wait()
	return list
})

// signable are the denominations whose tickets can be bought or swapped for. The last
// of made is nobody's but a cheat's.
var signable = []ticket.Denomination{1, 4, 16}

// keys returns the keys of an epoch, and fills the press.
func (p press) keys(e ticket.Epoch, signers []*signer.Signer) (keys []*ticket.Key) {
	others := unsignable()
	for _, c := range ticket.Classes {
		for i, d := range ticket.Denominations {
			public := others[len(keys)]
			if c == ticket.Paid && i < len(signable) {
				public = signers[i].Public()
			}
			k, err := ticket.NewKey(c, d, e, public)
			if err != nil {
				panic(err)
			}
			if c == ticket.Paid && i < len(signable) {
				p[k.ID()] = signers[i]
			}
			keys = append(keys, k)
		}
	}
	return keys
}

// unsignable returns public keys whose private ones nobody keeps, always the same. Six
// primes make fifteen of them in no time. They are primes, since a number that had a
// small factor would now and then have it in common with a message, which could not be
// blinded then.
var unsignable = sync.OnceValue(func() (keys []*rsa.PublicKey) {
	var primes []*big.Int
	for n := range 6 {
		p := primeOf(fmt.Sprint("prime ", n))
		for _, q := range primes {
			keys = append(keys, &rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537})
		}
		primes = append(primes, p)
	}
	return keys
})

// primeOf returns a prime of half a key's size that follows from a name.
func primeOf(name string) *big.Int {
	var b []byte
	for i := 0; len(b) < ticket.BlindSize/2; i++ {
		h := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, i))
		b = append(b, h[:]...)
	}
	b[0] |= 0xc0 // so that two make a whole key
	b[len(b)-1] |= 1
	p := new(big.Int).SetBytes(b)
	for !p.ProbablyPrime(1) {
		p.Add(p, big.NewInt(2))
	}
	return p
}

// Sign implements mint.Signer.
func (p press) Sign(_ context.Context, id ticket.KeyID, blinded [][]byte) (signed [][]byte, err error) {
	s, ok := p[id]
	if !ok {
		return nil, cloudpal.E("sign", cloudpal.NotExist, nil)
	}
	signed = make([][]byte, len(blinded))
	errs := make([]error, len(blinded))
	var all sync.WaitGroup
	for i, b := range blinded {
		all.Go(func() { signed[i], errs[i] = s.Sign(b) })
	}
	all.Wait()
	return signed, errors.Join(errs...)
}

// A keylog is the mint's log of keys, which two witnesses cosign.
type keylog struct {
	root, log noter
	witnesses []noter
	entries   []manifest.Entry
	shown     *manifest.Manifest
}

func newKeylog(now func() time.Time, keys []*ticket.Key) (*keylog, *manifest.Trust) {
	l := &keylog{
		root:      noter{name: issuer, key: keyOf("root")},
		log:       noter{name: issuer + "/keys", key: keyOf("log")},
		witnesses: []noter{{"ann.example", keyOf("ann"), true, now}, {"bob.example", keyOf("bob"), true, now}},
	}
	m, err := manifest.New(issuer, ticket.EpochAt(start), publicOf(keyOf("receipts")), keys)
	if err != nil {
		panic(err)
	}
	entry, err := m.Sign(l.root)
	if err != nil {
		panic(err)
	}
	l.shown, l.entries = m, []manifest.Entry{entry}
	return l, &manifest.Trust{
		Issuer: issuer, URL: "https://" + issuer, Root: l.root.verifier(), Log: l.log.verifier(),
		Witnesses: []string{l.witnesses[0].verifier(), l.witnesses[1].verifier()}, Quorum: 2,
	}
}

// bundle is what is shown of a log by those who signed its checkpoint.
func (l *keylog) bundle(m *manifest.Manifest, entries []manifest.Entry, witnesses ...noter) ([]byte, error) {
	top := log.Checkpoint{Origin: l.log.name, Size: uint64(len(entries)), Hash: manifest.Root(entries)}
	by := []note.Signer{l.log}
	for _, w := range witnesses {
		by = append(by, w)
	}
	signed, err := note.Sign(&note.Note{Text: string(top.Marshal())}, by...)
	if err != nil {
		return nil, err
	}
	b := &manifest.Bundle{Keys: m.Public(), Entries: entries, Checkpoint: manifest.Checkpoint(signed)}
	return b.Marshal()
}

// Epoch implements mint.Log.
func (l *keylog) Epoch(_ context.Context, e ticket.Epoch) (*manifest.Manifest, []byte, error) {
	if e != l.shown.Epoch {
		return nil, nil, cloudpal.E("look for a manifest", cloudpal.NotExist, nil)
	}
	raw, err := l.bundle(l.shown, l.entries, l.witnesses...)
	return l.shown, raw, err
}

// A mortal is a process that can die, at those instants at which it is asked.
type mortal struct {
	odds float64
	dead atomic.Bool
	died atomic.Int64

	fate sync.Mutex // of luck
	luck *rand.Rand
}

var errDead = cloudpal.E("", cloudpal.Missing, errors.New("the process is dead"))

// lives is an error at once, or from now on, where the process is dead.
func (m *mortal) lives() error {
	m.fate.Lock()
	defer m.fate.Unlock()
	if !m.dead.Load() && m.odds > 0 && m.luck.Float64() < m.odds {
		m.kill()
	}
	if m.dead.Load() {
		return errDead
	}
	return nil
}

// kill ends the process before what it is asked next.
func (m *mortal) kill() {
	m.dead.Store(true)
	m.died.Add(1)
}

// A till's mint and a mint's ledger and signer are where a process dies in the middle
// of its work: what was before is done, and what would come after is not.
type (
	mortalLedger struct {
		ledger.Ledger
		*mortal
	}
	mortalSigner struct {
		mint.Signer
		*mortal
	}
)

// Spend implements ledger.Ledger.
func (l mortalLedger) Spend(ctx context.Context, e ticket.Epoch, rows []ledger.Row) ([]ledger.Row, error) {
	if err := l.lives(); err != nil {
		return nil, err
	}
	there, err := l.Ledger.Spend(ctx, e, rows)
	return there, errors.Join(err, l.lives())
}

// Sign implements mint.Signer.
func (s mortalSigner) Sign(ctx context.Context, id ticket.KeyID, blinded [][]byte) ([][]byte, error) {
	if err := s.lives(); err != nil {
		return nil, err
	}
	return s.Signer.Sign(ctx, id, blinded)
}

// An issuing mint is one process with its folder.
type theMint struct {
	mortal
	folder
	now   func() time.Time
	press press
	log   *keylog

	mu       sync.RWMutex // held for reading while it works
	books    *books.Books
	ledger   ledger.Ledger
	vouchers *voucher.Vouchers
	handler  http.Handler
}

func (m *theMint) open() error {
	ctx := context.Background()
	var err error
	if m.books, err = books.Open(ctx, filepath.Join(m.dir, "books.db")); err != nil {
		return err
	}
	if m.ledger, err = ledger.OpenPebble(filepath.Join(m.dir, "spent")); err != nil {
		return err
	}
	if m.vouchers, err = voucher.Open(ctx, m.books.DB()); err != nil {
		return err
	}
	service, err := mint.New(mint.Config{
		Issuer: issuer, Books: m.books, Ledger: mortalLedger{m.ledger, &m.mortal}, Signer: mortalSigner{m.press, &m.mortal},
		Log: m.log, Receipt: func(ticket.Epoch) (ed25519.PrivateKey, error) { return keyOf("receipts"), nil }, Now: m.now,
		Methods: map[string]mint.Method{"voucher": {Method: m.vouchers, Class: ticket.Paid}},
		Packs:   []mintapi.Pack{{Name: "pack", Tickets: pack, Price: price, Code: "EUR"}},
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return err
	}
	m.handler = service.Handler()
	return nil
}

func (m *theMint) close() error { return errors.Join(m.books.Close(), m.ledger.Close()) }

// answer implements party.
func (m *theMint) answer(q message) *answer {
	m.mu.RLock()
	if m.lives() != nil {
		m.mu.RUnlock()
		m.again()
		return nil
	}
	a := serve(m.handler, q)
	dead := m.lives() != nil
	m.mu.RUnlock()
	if dead {
		m.again()
		return nil
	}
	return a
}

// again starts a process that died, from what its folder was.
func (m *theMint) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dead.Load() {
		return
	}
	m.move(m.close)
	if err := m.open(); err != nil {
		panic(err)
	}
	m.dead.Store(false)
}

// A folder is a process's.
type folder struct {
	base string
	dir  string
	n    int
}

func newFolder(base string) folder {
	f := folder{base: base, dir: base + "-0"}
	if _, err := os.Stat(f.dir); err != nil {
		if err := os.MkdirAll(f.dir, 0o700); err != nil {
			panic(err)
		}
	}
	return f
}

// move goes on in a copy of the folder as it is at this instant, and only then lets
// the process of the old one end, so that nothing of its ending is in the copy.
func (f *folder) move(end func() error) {
	f.n++
	next := fmt.Sprintf("%s-%d", f.base, f.n)
	copyFolder(f.dir, next)
	end() // nobody is there to hear of an error
	if err := os.RemoveAll(f.dir); err != nil {
		panic(err)
	}
	f.dir = next
}

// copyFolder copies a folder as it is. A database's files are only added to, or come
// and go: it begins anew where one did.
func copyFolder(from, to string) {
	for {
		before := names(from)
		err := os.CopyFS(to, os.DirFS(from))
		if err == nil && before == names(from) {
			return
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			panic(err)
		}
		if err := os.RemoveAll(to); err != nil {
			panic(err)
		}
	}
}

func names(dir string) (all string) {
	filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error {
		all += path + "\n"
		return nil
	})
	return all
}
