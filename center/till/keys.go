package till

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A keyring has the keys of the mints' manifests. A manifest is used only once it is
// verified and, with the checkpoint of the log that showed it, kept: so a mint that
// shows this center another log later is found out, and one that cannot be reached
// stops nothing.
type keyring struct {
	store   *store
	log     *slog.Logger
	issuers []Issuer

	asking sync.Mutex // held while mints are asked
	asked  time.Time  // when a key was missing; guarded by asking

	mu       sync.Mutex
	known    map[ticket.KeyID]known
	receipts map[receiptKey]ed25519.PublicKey
}

// A known key is one of an issuer's.
type known struct {
	*ticket.Key
	issuer *Issuer
}

type receiptKey struct {
	issuer string
	epoch  ticket.Epoch
}

// A pin is a bundle as it was verified.
type pin struct {
	Bundle []byte    `json:"bundle"`
	At     time.Time `json:"at"`
}

// issuer returns the issuer of a name, or nil.
func (k *keyring) issuer(name string) *Issuer {
	for i := range k.issuers {
		if k.issuers[i].Trust.Issuer == name {
			return &k.issuers[i]
		}
	}
	return nil
}

// load takes up the manifests that are kept. What is kept of an issuer that is not
// taken any more stays where it is.
func (k *keyring) load() error {
	return k.store.each(pins, func(key, value []byte) error {
		if len(key) < 5 {
			return errors.New("a manifest has no epoch")
		}
		i := k.issuer(string(key[:len(key)-5]))
		if i == nil {
			return nil
		}
		var p pin
		if err := json.Unmarshal(value, &p); err != nil {
			return err
		}
		m, err := k.verify(i, p, epochOf(key))
		if err != nil {
			// Somebody else is to be believed since: the chores fetch it again.
			k.log.Warn("a mint's keys that were kept do not hold any more", "issuer", i.Trust.Issuer, "err", err)
			return nil
		}
		k.learn(i, m)
		return nil
	})
}

func epochOf(key []byte) ticket.Epoch {
	var e ticket.Epoch
	for _, b := range key[len(key)-4:] {
		e = e<<8 | ticket.Epoch(b)
	}
	return e
}

// verify checks a pin as of its time, against nothing that was seen before.
func (k *keyring) verify(i *Issuer, p pin, e ticket.Epoch) (*manifest.Manifest, error) {
	b, err := manifest.ParseBundle(p.Bundle)
	if err != nil {
		return nil, err
	}
	return i.Trust.Verify(b, e, "", p.At)
}

// learn replaces what is known of a manifest's epoch.
func (k *keyring) learn(i *Issuer, m *manifest.Manifest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, old := range k.known {
		if old.Epoch == m.Epoch && old.issuer.Trust.Issuer == i.Trust.Issuer {
			delete(k.known, id) // one that was revoked is not in m.Keys any more
		}
	}
	for _, key := range m.Keys() {
		k.known[key.ID()] = known{key, i}
	}
	k.receipts[receiptKey{i.Trust.Issuer, m.Epoch}] = m.Receipt
}

// receipt returns what a mint signs receipts of an epoch with, or nil.
func (k *keyring) receipt(issuer string, e ticket.Epoch) ed25519.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.receipts[receiptKey{issuer, e}]
}

// askEvery is how often an unknown key makes the center ask the mints.
const askEvery = 30 * time.Second

// find returns the key of a ticket. For one that is not known the mints are asked,
// now and then: a month may just have begun.
func (k *keyring) find(ctx context.Context, id ticket.KeyID, now time.Time) (known, error) {
	if key, ok := k.look(id); ok {
		return key, nil
	}
	k.asking.Lock()
	defer k.asking.Unlock()
	key, ok := k.look(id) // who asked meanwhile may have brought it
	if !ok && now.Sub(k.asked).Abs() >= askEvery {
		k.asked = now
		if err := k.fetchAll(ctx, now); err != nil {
			k.log.Warn("a ticket's key is not known, and its mint cannot be asked", "err", err)
			return known{}, cloudpal.E("find a ticket's key", cloudpal.Missing, err)
		}
		key, ok = k.look(id)
	}
	if !ok {
		return known{}, cloudpal.E("find a ticket's key", cloudpal.NotExist, nil)
	}
	return key, nil
}

func (k *keyring) look(id ticket.KeyID) (known, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.known[id]
	return key, ok
}

// present returns an issuer's key of a class, denomination and epoch, or nil where it is
// not known.
func (k *keyring) present(issuer string, c ticket.Class, d ticket.Denomination, e ticket.Epoch) *ticket.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.known {
		if key.issuer.Trust.Issuer == issuer && key.Class == c && key.Denomination == d && key.Epoch == e {
			return key.Key
		}
	}
	return nil
}

// clockSlack is how far the center's clock and a mint's may be apart.
const clockSlack = 10 * time.Minute

// maxSpendEpochs is how many epochs' tickets can be spent at a time.
const maxSpendEpochs = 4

// refresh fetches the manifests of all epochs whose tickets can be spent or refunded.
// Epochs from before there was a mint have none.
func (k *keyring) refresh(ctx context.Context, now time.Time) error {
	k.asking.Lock()
	defer k.asking.Unlock()
	return k.fetchAll(ctx, now)
}

// fetchAll is refresh for who holds asking.
func (k *keyring) fetchAll(ctx context.Context, now time.Time) error {
	var errs []error
	first, last := ticket.EpochAt(now.Add(-clockSlack)), ticket.EpochAt(now.Add(clockSlack))
	first -= min(first, maxSpendEpochs)
	for n := range k.issuers {
		i := &k.issuers[n]
		for e := first; e <= last; e++ {
			err := k.fetch(ctx, i, e, now)
			if errors.Is(err, cloudpal.NotExist) && e != ticket.EpochAt(now) {
				continue // there was no mint yet, or it has not begun
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, epoch %d: %w", i.Trust.Issuer, e, err))
			}
		}
	}
	return errors.Join(errs...)
}

// fetch fetches, verifies and keeps one manifest, and then uses it.
func (k *keyring) fetch(ctx context.Context, i *Issuer, e ticket.Epoch, now time.Time) error {
	raw, err := i.Mint.Manifest(ctx, e)
	if err != nil {
		return err
	}
	b, err := manifest.ParseBundle(raw)
	if err != nil {
		return err
	}
	var seen manifest.Checkpoint
	if _, err := k.store.get(checkpointKey(i.Trust.Issuer), &seen); err != nil {
		return err
	}
	m, err := i.Trust.Verify(b, e, seen, now)
	if err != nil {
		return err
	}
	w := k.store.begin()
	w.put(pinKey(i.Trust.Issuer, e), pin{raw, now})
	w.put(checkpointKey(i.Trust.Issuer), b.Checkpoint)
	if err := w.commit(); err != nil {
		return err
	}
	k.learn(i, m)
	return nil
}
