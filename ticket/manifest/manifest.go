// Package manifest says which keys are a mint's, and that they are everybody's: a
// mint that signed one person's tickets with a key of their own would know those
// tickets again.
//
// A mint's root signs one Manifest an epoch, and appends it to a log that anybody
// can read; witnesses, who are others than the mint, cosign the log's checkpoints,
// each only those that extend the one it cosigned before. So all who accept a
// checkpoint with enough cosignatures see one log.
//
//	mint                        witnesses           wallet, center
//	root signs Manifest
//	append to the log
//	checkpoint ───────────────► cosign
//	Bundle ──────────────────────────────────────► Trust.Verify
//
// A proof that a key is in the log would not show that it is the only one, nor that
// it was not revoked since. A mint's log grows by a page a month, so a Bundle has
// all of it, for everybody the same: who verifies one sees each manifest and each
// revocation that there ever was, and needs no proofs of inclusion or consistency,
// which follow. The log names keys by their ticket.KeyID; the keys themselves, of one
// epoch, stand beside it.
//
// The package is pure: no network, no clock. Load is all that it reads.
package manifest

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Manifest has the keys of a mint in one epoch: exactly one for each class and
// denomination. That of Trust.Verify knows which are revoked, too.
type Manifest struct {
	Issuer  string
	Epoch   ticket.Epoch
	Receipt ed25519.PublicKey // of what the mint itself signs while the epoch's tickets are worth something

	keys    []*ticket.Key // in the order of slots
	revoked []Revocation
	others  []Revocation // of other epochs
}

// New returns the manifest of an epoch, for a mint to Sign. It refuses all but one
// key of that epoch for each class and denomination; their order does not matter.
func New(issuer string, e ticket.Epoch, receipt ed25519.PublicKey, keys []*ticket.Key) (*Manifest, error) {
	const op = "make a manifest"
	if len(keys) != len(slots) || len(receipt) != ed25519.PublicKeySize {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it has a receipt key, and one key for each of %d", len(slots)))
	}
	m := &Manifest{Issuer: issuer, Epoch: e, Receipt: slices.Clone(receipt)}
	for _, s := range slots {
		i := slices.IndexFunc(keys, func(k *ticket.Key) bool {
			return k.Epoch == e && k.Class == s.class && k.Denomination == s.denomination
		})
		if i < 0 {
			return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it has no key for %s %d", s.class, s.denomination))
		}
		m.keys = append(m.keys, keys[i])
	}
	if err := m.listing().check(); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	return m, nil
}

// A slot is what there is one key for in an epoch.
type slot struct {
	class        ticket.Class
	denomination ticket.Denomination
}

// slots are all, in the order in which a manifest has their keys.
var slots = func() (all []slot) {
	for _, c := range ticket.Classes {
		for _, d := range ticket.Denominations {
			all = append(all, slot{c, d})
		}
	}
	return all
}()

// Sign returns the entry for the log. The root's name is the issuer's.
func (m *Manifest) Sign(root note.Signer) (Entry, error) { return sign(m.listing(), root) }

func (m *Manifest) listing() *Listing {
	l := &Listing{Issuer: m.Issuer, Epoch: m.Epoch, Receipt: m.Receipt}
	for _, k := range m.keys {
		l.Keys = append(l.Keys, k.ID())
	}
	return l
}

// Public returns the epoch's keys as a Bundle has them.
func (m *Manifest) Public() [][]byte {
	public := make([][]byte, len(m.keys))
	for i, k := range m.keys {
		public[i] = k.Public()
	}
	return public
}

// Keys returns the keys that are not revoked, in no order that means anything.
func (m *Manifest) Keys() []*ticket.Key {
	return slices.DeleteFunc(slices.Clone(m.keys), func(k *ticket.Key) bool { return m.isRevoked(k.ID()) != nil })
}

// All returns all keys, also those that are revoked, by class, then by denomination.
func (m *Manifest) All() []*ticket.Key { return slices.Clone(m.keys) }

// Key returns the key for a class and denomination. It refuses one that is revoked.
// Whether its tickets can be issued, spent or swapped now, its Epoch says.
func (m *Manifest) Key(c ticket.Class, d ticket.Denomination) (*ticket.Key, error) {
	k, err := m.AnyKey(c, d)
	if err != nil {
		return nil, err
	}
	return m.good(k)
}

// AnyKey is Key, also where that is revoked: for what was made for it before, and is good
// for nothing but to be changed.
func (m *Manifest) AnyKey(c ticket.Class, d ticket.Denomination) (*ticket.Key, error) {
	i := slices.Index(slots, slot{c, d})
	if i < 0 {
		return nil, cloudpal.E("find a ticket key", cloudpal.NotExist, fmt.Errorf("there are no tickets of %s %d", c, d))
	}
	return m.keys[i], nil
}

// KeyByID returns the key that tickets name so. It refuses one that is revoked.
func (m *Manifest) KeyByID(id ticket.KeyID) (*ticket.Key, error) {
	for _, k := range m.keys {
		if k.ID() == id {
			return m.good(k)
		}
	}
	return nil, cloudpal.E("find a ticket key", cloudpal.NotExist,
		fmt.Errorf("epoch %d of %s has no such key", m.Epoch, m.Issuer))
}

func (m *Manifest) good(k *ticket.Key) (*ticket.Key, error) {
	if err := m.isRevoked(k.ID()); err != nil {
		return nil, cloudpal.E("find a ticket key", cloudpal.Denied, err).
			WithHint("nobody takes this key's tickets; who had them signed gets others: cloudpal wallet sync")
	}
	return k, nil
}

func (m *Manifest) isRevoked(id ticket.KeyID) error {
	for _, r := range m.revoked {
		if r.Key == id {
			return errors.New("the key is revoked: " + r.Reason)
		}
	}
	return nil
}

// Revoked returns the revocations of the epoch's keys.
func (m *Manifest) Revoked() []Revocation { return slices.Clone(m.revoked) }

// EverRevoked returns all revocations that the log has, of whatever epoch.
func (m *Manifest) EverRevoked() []Revocation { return slices.Concat(m.revoked, m.others) }
