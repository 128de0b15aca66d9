package wallet

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tradle/cloudpal"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A Seller sells tickets.
type Seller interface {
	Mint(ctx context.Context) (mint.Mint, error)
	Quote(ctx context.Context, r mint.QuoteRequest) (mint.Quote, error)
	Free(ctx context.Context, r mint.FreeRequest) (mint.Quote, error)
	Look(ctx context.Context, quote string) (mint.Quote, error)
	Pay(ctx context.Context, quote, voucher string) (mint.Quote, error)
	Issue(ctx context.Context, quote string, outputs []ticket.Output, lock ed25519.PrivateKey) ([][]byte, error)
}

// A Changer makes tickets of tickets.
type Changer interface {
	Swap(ctx context.Context, inputs []ticket.Spend, outputs []ticket.Output) ([][]byte, error)
	Recoup(ctx context.Context, inputs []ticket.Spend, seeds [][]byte, outputs []ticket.Output) ([][]byte, error)
	Refund(ctx context.Context, r mint.RefundRequest) ([][]byte, error)
	Dispute(ctx context.Context, r mint.DisputeRequest) (mint.Dispute, error)
	Restore(ctx context.Context, outputs []ticket.Output) ([][]byte, error)
}

// A Teller says what everybody may know of a mint, unchecked.
type Teller interface {
	Manifest(ctx context.Context, e ticket.Epoch) ([]byte, error)
	Counters(ctx context.Context, e ticket.Epoch) (mint.Counters, error)
}

// A Mint is asked over one connection. It is mint/api's Client.
type Mint interface {
	Seller
	Changer
	Teller
	Close()
}

// Connect returns the mint over a connection that nothing else was asked over: what
// comes over one belongs together.
type Connect func() (Mint, error)

// ask asks the mint one thing over a connection of its own, which hides who asks.
func ask[T any](w *Wallet, f func(Mint) (T, error)) (T, error) { return over(w.connect, f) }

// askOpenly asks what everybody asks, or what says itself who asks.
func askOpenly[T any](w *Wallet, f func(Mint) (T, error)) (T, error) { return over(w.direct, f) }

func over[T any](connect Connect, f func(Mint) (T, error)) (T, error) {
	m, err := connect()
	if err != nil {
		var none T
		return none, err
	}
	defer m.Close()
	return f(m)
}

// pause waits between two messages that have nothing to do with each other.
func (w *Wallet) pause(ctx context.Context) error {
	if err := w.clock.Wait(ctx, w.draw(w.policy.Gap)); err != nil {
		return cloudpal.E("wait a little, so that what is asked next looks like somebody else's", "", err)
	}
	return nil
}

// passes reports whether an error says nothing about what was asked: the answer got
// lost, or nobody was there.
func passes(err error) bool {
	switch cloudpal.KindOf(err) {
	case cloudpal.Other, cloudpal.Busy, cloudpal.Missing, cloudpal.Timeout, cloudpal.NoSpace, cloudpal.NoMemory:
		return true
	}
	return false
}

// A logFact is the mint's log of keys, as it was last verified.
type logFact struct {
	Entries    []manifest.Entry    `json:"entries"`
	Checkpoint manifest.Checkpoint `json:"checkpoint"`
	At         time.Time           `json:"at"`
	Again      time.Time           `json:"again"` // when it is looked at anew
}

// again is when a mint's log is looked at anew, to see what was revoked: at random
// times, so that the mint cannot know when it could show something else to whom.
var again = Spread{Least: 6 * time.Hour, Mean: 24 * time.Hour, Most: 72 * time.Hour}

// keys returns the verified keys of an epoch. They are the journal's before anything
// is done with them.
func (w *Wallet) keys(ctx context.Context, e ticket.Epoch) (*manifest.Manifest, error) {
	m, err := w.knownKeys(e)
	if err != nil || m != nil {
		return m, err
	}
	m, err = w.fetchKeys(ctx, e)
	if err == nil || !passes(err) {
		return m, err
	}
	// The mint is not there: what is known is good for as long as it would show it.
	if old, oldErr := w.keptKeys(e, manifest.MaxAge); oldErr == nil && old != nil {
		return old, nil
	}
	return nil, err
}

// knownKeys returns the keys of an epoch where they need not be looked at anew, or
// nil.
func (w *Wallet) knownKeys(e ticket.Epoch) (*manifest.Manifest, error) {
	w.mu.Lock()
	err := w.refresh()
	var log logFact
	known := err == nil && w.state.fact(factLog, &log) && w.clock.Now().Before(log.Again)
	w.mu.Unlock()
	if err != nil {
		return nil, cloudpal.E("read the wallet", "", err)
	}
	if !known {
		return nil, nil
	}
	return w.keptKeys(e, again.Most)
}

// keptKeys returns the keys of an epoch by a log that was verified at most so long
// ago, or nil.
func (w *Wallet) keptKeys(e ticket.Epoch, age time.Duration) (*manifest.Manifest, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.manifests[e]; m != nil {
		return m, nil
	}
	var log logFact
	var public [][]byte
	if !w.state.fact(factLog, &log) || !w.state.fact(factKeys+epochName(e), &public) || w.clock.Now().Sub(log.At) > age {
		return nil, nil
	}
	b := &manifest.Bundle{Keys: public, Entries: log.Entries, Checkpoint: log.Checkpoint}
	m, err := w.trust.Verify(b, e, "", log.At)
	if err != nil {
		return nil, distrust(err)
	}
	w.manifests[e] = m
	return m, nil
}

func epochName(e ticket.Epoch) string { return strconv.FormatUint(uint64(e), 10) }

// distrust tells a person what it means that keys are not to be believed.
func distrust(err error) error {
	e := cloudpal.E("trust the mint's keys", "", err)
	if e.Hint == "" {
		e.Hint = "do not buy there now: a mint that shows you other keys than everybody could follow your tickets; ask its operator, and others who use it"
	}
	return e
}

// fetchKeys asks the mint for an epoch's keys, and verifies them against all that it
// has ever shown.
func (w *Wallet) fetchKeys(ctx context.Context, e ticket.Epoch) (*manifest.Manifest, error) {
	raw, err := askOpenly(w, func(m Mint) ([]byte, error) { return m.Manifest(ctx, e) })
	if err != nil {
		return nil, err
	}
	b, err := manifest.ParseBundle(raw)
	if err != nil {
		return nil, distrust(err)
	}
	next := w.draw(again)
	var m *manifest.Manifest
	err = w.change(ctx, func(s *state, c *change) error {
		var log logFact
		s.fact(factLog, &log)
		now := w.clock.Now()
		if m, err = w.trust.Verify(b, e, log.Checkpoint, now); err != nil {
			return distrust(err)
		}
		c.putFact(factLog, logFact{b.Entries, b.Checkpoint, now, now.Add(next)})
		c.putFact(factKeys+epochName(e), b.Keys)
		var revoked [][]byte
		for _, r := range m.EverRevoked() {
			revoked = append(revoked, r.Key[:])
		}
		if len(revoked) > 0 {
			c.putFact(factRevoked, revoked)
		}
		clear(w.manifests) // of a shorter log, which may lack a revocation
		return nil
	})
	return m, err
}

// Receipt returns the key that the mint's own word of an epoch is signed with.
func (w *Wallet) Receipt(ctx context.Context, e ticket.Epoch) (ed25519.PublicKey, error) {
	m, err := w.keys(ctx, e)
	if err != nil {
		return nil, err
	}
	return m.Receipt, nil
}

// key returns the key of a ticket.
func (w *Wallet) key(ctx context.Context, c ticket.Class, d ticket.Denomination, e ticket.Epoch) (*ticket.Key, error) {
	m, err := w.keys(ctx, e)
	if err != nil {
		return nil, err
	}
	return m.Key(c, d)
}

// A ring has the keys of many outputs.
type ring map[ticket.Epoch]*manifest.Manifest

func (w *Wallet) ring(ctx context.Context, all []want) (ring, error) {
	r := ring{}
	for _, o := range all {
		if r[o.Epoch] != nil {
			continue
		}
		m, err := w.keys(ctx, o.Epoch)
		if err != nil {
			return nil, err
		}
		r[o.Epoch] = m
	}
	return r, nil
}

// key returns an output's key, also one that is revoked: the mint signs with that what was
// fixed before, and nothing else.
func (r ring) key(o want) (*ticket.Key, error) { return r[o.Epoch].AnyKey(o.Class, o.Denomination) }

// secrets returns what outputs are made of, and them.
func (w *Wallet) secrets(ctx context.Context, all []want) ([]ticket.Secret, []ticket.Output, error) {
	keys, err := w.ring(ctx, all)
	if err != nil {
		return nil, nil, err
	}
	secrets, outputs := make([]ticket.Secret, len(all)), make([]ticket.Output, len(all))
	for i, o := range all {
		k, err := keys.key(o)
		if err == nil {
			secrets[i], err = ticket.Derive(w.seed, o.Branch, w.trust.Issuer, k, o.N)
		}
		if err != nil {
			return nil, nil, err
		}
		outputs[i] = secrets[i].Output()
	}
	return secrets, outputs, nil
}

// finish makes coins of signatures. What is made together rests for one while, and
// each ticket for a moment of its own besides: of many that rested each for itself,
// the first would be ready soon after all were made.
func (w *Wallet) finish(ctx context.Context, all []want, secrets []ticket.Secret, signatures [][]byte, o Origin) ([]coin, error) {
	const op = "take the mint's signatures"
	if len(signatures) != len(all) {
		return nil, cloudpal.E(op, cloudpal.Denied, fmt.Errorf("it sent %d for %d tickets", len(signatures), len(all)))
	}
	keys, err := w.ring(ctx, all)
	if err != nil {
		return nil, err
	}
	rest := w.draw(w.policy.Rest)
	var coins []coin
	for i, s := range signatures {
		k, err := keys.key(all[i])
		if err != nil {
			return nil, err
		}
		t, err := secrets[i].Finish(s)
		if err != nil {
			return nil, cloudpal.E(op, "", err).WithHint("the mint signed with another key than it published; nothing is lost yet: try again, and tell its operator")
		}
		made := newCoin(t, k, o, w.now().Add(min(rest+w.draw(w.policy.Gap), w.policy.Rest.Most)))
		made.seed = secrets[i].BlindSeed()
		coins = append(coins, made)
	}
	return coins, nil
}

// boundary is how near the end of a month a wallet asks the mint what month it has.
const boundary = time.Hour

// issuing returns the epoch whose keys sign now.
func (w *Wallet) issuing(ctx context.Context) (ticket.Epoch, error) {
	now := w.clock.Now()
	e := ticket.EpochAt(now)
	if ticket.EpochAt(now.Add(-boundary)) == e && ticket.EpochAt(now.Add(boundary)) == e {
		return e, nil
	}
	m, err := askOpenly(w, func(m Mint) (mint.Mint, error) { return m.Mint(ctx) })
	if err != nil {
		return 0, err
	}
	if d := int64(m.Epoch) - int64(e); d < -1 || d > 1 {
		return 0, cloudpal.E("ask the mint what month it is", cloudpal.Denied, errors.New("its clock and this machine's are months apart")).
			WithHint("see that this machine's clock is right: date")
	}
	return m.Epoch, nil
}
