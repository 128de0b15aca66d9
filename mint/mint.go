// Package mint is the issuer's service: it sells tickets, signs them without seeing
// them, and takes them back from centers, which it pays for them. It knows who buys,
// where a method of payment tells; it never learns what for.
//
// A Mint follows one rule: a ticket is spent for one contract, and that is written
// before anything is given for it. The ledger of spent tickets is written first, the
// books then, and the signatures are computed last, each time they are asked for. So
// whatever is cut off in the middle is completed by asking again, and what was given
// once is given again and nothing else. What nobody asks for again, a mint completes
// when it starts.
//
//	check ──► ledger: spent for this contract ──► books: credited, signed ──► answer
//	             │ for another before
//	             └──► the evidence, which proves it
//
// The private keys of tickets are not here: see package signing.
package mint

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A Signer signs blinded messages with one of the mint's keys, in their order, or
// none of them, and always the same.
type Signer interface {
	Sign(ctx context.Context, id ticket.KeyID, blinded [][]byte) ([][]byte, error)
}

// A Log has the mint's keys as everybody is shown them.
type Log interface {
	// Epoch returns the manifest of an epoch, and the bundle that clients verify.
	// It is cloudpal.NotExist where the log has none.
	Epoch(ctx context.Context, e ticket.Epoch) (*manifest.Manifest, []byte, error)
}

// A Method is a way to pay for tickets of a class.
type Method struct {
	payment.Method
	Class ticket.Class
}

// Config is what a mint is made of. It closes none of it.
type Config struct {
	Issuer  string
	Books   *books.Books
	Ledger  ledger.Ledger
	Signer  Signer
	Log     Log
	Receipt func(ticket.Epoch) (ed25519.PrivateKey, error) // the key that an epoch's manifest names

	Methods map[string]Method
	Packs   []api.Pack

	Now    func() time.Time
	Logger *slog.Logger
}

// A Mint is the service. Its methods may be called by many goroutines at once.
type Mint struct {
	Config
	gate *gate

	mu      sync.Mutex
	keys    map[ticket.KeyID]*ticket.Key
	revoked map[ticket.KeyID]*ticket.Key
	shown   map[ticket.Epoch]shown
	asked   time.Time // when the log was last read
	final   map[root]hashes
	polls   map[string]time.Time // when a quote's payment was last asked for

	reading sync.Mutex // held while the log is read

	working sync.Mutex            // held while chores are done
	whole   map[ticket.Epoch]bool // of which the books are completed
	gone    map[ticket.Epoch]bool // what was dropped
}

// New returns a mint that is ready to answer.
func New(c Config) (*Mint, error) {
	for _, p := range c.Packs {
		if len(p.Tickets) == 0 || len(p.Tickets) > api.MaxOutputs || p.Price < 0 {
			return nil, cloudpal.E("make a mint", cloudpal.Invalid, errors.New("a pack has 1 to 100 tickets and a price"))
		}
		for _, d := range p.Tickets {
			if !d.Valid() {
				return nil, cloudpal.E("make a mint", cloudpal.Invalid, errors.New("a pack has a ticket of no denomination"))
			}
		}
	}
	return &Mint{
		Config: c, gate: newGate(), keys: map[ticket.KeyID]*ticket.Key{}, shown: map[ticket.Epoch]shown{},
		final: map[root]hashes{}, polls: map[string]time.Time{},
		whole: map[ticket.Epoch]bool{}, gone: map[ticket.Epoch]bool{},
	}, nil
}

// hour is what the books date things with.
func (m *Mint) hour() int64 { return api.HourOf(m.Now()) }

// A refusal is an error that who asked may know all of.
type refusal struct {
	kind cloudpal.Kind
	hint string
}

func refuse(kind cloudpal.Kind, hint string) error { return refusal{kind, hint} }

func (r refusal) Error() string { return string(r.kind) + ": " + r.hint }

func (r refusal) Unwrap() error { return r.kind }

// problemOf is what a stranger is told of err: its kind, and a hint where it was
// written for them.
func problemOf(err error) api.Problem {
	p := api.ProblemOf(err)
	var r refusal
	var b books.Refusal
	switch {
	case errors.As(err, &r):
		p.Hint = r.hint
	case errors.As(err, &b):
		p.Hint = b.Why
	case p.Status == http.StatusConflict && p.Evidence != nil:
		p.Hint = "the ticket was spent before: what its owner signed then is the evidence"
	case p.Status == http.StatusInternalServerError:
		p.Hint = "ask again later, the same: nothing is lost"
	case cloudpal.KindOf(err) == cloudpal.Busy || p.Status > http.StatusInternalServerError:
		// What the mint needs is away, and not too much was asked.
		p.Status = http.StatusServiceUnavailable
		p.Hint = "the mint cannot do it just now: ask again later, the same; nothing is lost"
	}
	return p
}
