// Package till takes a center's money: it says what is sold in an offer, keeps a tab
// for each pal, books the tickets that are paid, takes each to its mint in time,
// counts what is used, and gives leave to have the rest back.
//
// What was answered survives kill -9 and a power cut: a payment, a record and the end
// of a tab are synced to disk before anybody hears of them.
//
// A ticket is good when its mint signed it with a key of a manifest that this center
// has verified and keeps, and its owner spends it for just this tab. Whether it was
// spent before, only the mint knows. It is asked before service for the first ticket
// of a tab; later ones count at once, up to one slice, and are taken to the mint one
// by one at random moments within the grace, so that no two of one tab can be told to
// belong together. One that turns out to be spent ends the service, and what proves
// it is kept.
//
//	booked ──► deposited          the mint has it; its rest can be refunded
//	   │  └──► refused            it was spent before: here is the proof
//	   ├─────► cancelled          swapped by its owner before it was due
//	   └─────► returned           the tab was closed before it was needed
package till

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A Mint is asked on behalf of the center. *mint/api.CenterClient is one. Its methods
// may be called from many goroutines, each ends when its context does, and to repeat
// a call changes nothing.
type Mint interface {
	// Deposit has a ticket credited. An error with *mint.Spent in its trail says
	// that it was spent for something else.
	Deposit(ctx context.Context, c ticket.PayContract, s ticket.Spend) (mint.Receipt, error)
	Disputes(ctx context.Context) ([]mint.Dispute, error)
	Answer(ctx context.Context, dispute string, r mint.AnswerRequest) (mint.Dispute, error)
	// Manifest returns a manifest.Bundle.
	Manifest(ctx context.Context, e ticket.Epoch) ([]byte, error)
}

// An Issuer is a mint whose tickets are taken, and who is believed about its keys.
type Issuer struct {
	Trust *manifest.Trust
	Mint  Mint
}

// A Config is what a till is made of.
type Config struct {
	Dir     string             // on disk, the till's own
	Key     ed25519.PrivateKey // that tickets are paid to; nothing else of the center's
	Issuers []Issuer
	Terms   Terms
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now

	fs vfs.FS // of Dir; nil: the system's
}

// A Till takes money. Make it with Open; its methods may be called from many
// goroutines.
type Till struct {
	cfg    Config
	log    *slog.Logger
	key    ed25519.PrivateKey
	center ticket.CenterID
	store  *store
	keys   *keyring

	serials [256]sync.Mutex // of tickets, by their first byte; taken before a tab's mu

	mu     sync.Mutex
	offer  api.Signed // the present one
	offers map[ticket.Digest]api.Offer
	tabs   map[api.TabID]*tab
	pals   map[palKey][]*tab
	unpaid []api.TabID // tabs in memory alone, the oldest first
	queue  queue
	last   time.Time // of Review; see there
}

// Open opens a till and takes up what an earlier one left. It asks nobody: Run, or the
// methods that it calls, do.
func Open(cfg Config) (*Till, error) {
	const op = "open the till"
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if len(cfg.Issuers) == 0 {
		return nil, cloudpal.E(op, cloudpal.Missing, errors.New("there is no mint whose tickets it takes"))
	}
	if err := cfg.Terms.complete(); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	if cfg.fs == nil {
		cfg.fs = vfs.Default
	}
	s, err := openStore(cfg.Dir, cfg.fs)
	if err != nil {
		return nil, err
	}
	t := &Till{
		cfg: cfg, log: cfg.Log, key: cfg.Key, center: ticket.CenterID(cfg.Key.Public().(ed25519.PublicKey)),
		store: s, offers: map[ticket.Digest]api.Offer{}, tabs: map[api.TabID]*tab{}, pals: map[palKey][]*tab{},
	}
	t.keys = &keyring{store: s, log: cfg.Log, issuers: cfg.Issuers, known: map[ticket.KeyID]known{}, receipts: map[receiptKey]ed25519.PublicKey{}}
	if err := errors.Join(t.keys.load(), t.loadOffers(), t.loadTabs(), t.loadReview()); err != nil {
		return nil, errors.Join(cloudpal.E(op, cloudpal.Corrupt, err), s.close())
	}
	if err := t.renewOffer(); err != nil {
		return nil, errors.Join(cloudpal.E(op, "", err), s.close())
	}
	return t, nil
}

// Close closes the till. Nothing else may be under way.
func (t *Till) Close() error { return t.store.close() }

// How often Run does what.
const (
	depositEvery = time.Second
	reviewEvery  = 5 * time.Second
	choresEvery  = 10 * time.Minute
)

// Run does what is due until ctx ends.
func (t *Till) Run(ctx context.Context) {
	var tasks sync.WaitGroup
	every := func(d time.Duration, f func(context.Context)) {
		tasks.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for ctx.Err() == nil {
				f(ctx)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	every(depositEvery, t.Deposit)
	every(reviewEvery, func(context.Context) { t.Review() })
	every(choresEvery, t.Chores)
	tasks.Wait()
}

// Chores fetches the mints' keys, answers disputes, renews the offer and drops what
// can be of no use any more. What fails is tried again the next time.
func (t *Till) Chores(ctx context.Context) {
	for what, do := range map[string]func() error{
		"fetch the mints' keys": func() error { return t.keys.refresh(ctx, t.now()) },
		"answer disputes":       func() error { return t.answerDisputes(ctx) },
		"renew the offer":       t.renewOffer,
		"drop what is over":     t.prune,
	} {
		if err := do(); err != nil && ctx.Err() == nil {
			t.log.Error(what+"; it will be tried again", "err", err)
		}
	}
}

func (t *Till) now() time.Time { return t.cfg.Now().UTC() }

// Center is what tickets are paid to.
func (t *Till) Center() ticket.CenterID { return t.center }
