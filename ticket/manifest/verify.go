package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/transparency-dev/formats/log"
	cosignature "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// Verify returns the manifest of an epoch that a bundle shows, or says why it is not
// to be believed. Seen is the checkpoint of the bundle that was verified before it,
// whatever its epoch, and "" at first: the caller keeps the new one where it outlives
// a crash before it uses the keys. Now is the caller's clock; for a bundle that was
// kept since it was verified, it is that time.
//
// What it refuses: entries that the root did not sign, a checkpoint of another log or
// of other entries or with fewer than Quorum cosignatures younger than MaxAge, a log
// that is shorter or other than the one of seen (a Fork), a second manifest of any
// epoch, epochs that do not grow or are more than a month ahead, a key that is
// listed twice, and keys that are not those of the listing, each RSA-2048 with the
// exponent 65537. Keys that are revoked the manifest refuses itself.
func (t *Trust) Verify(b *Bundle, e ticket.Epoch, seen Checkpoint, now time.Time) (*Manifest, error) {
	op := fmt.Sprintf("check the keys of %q for epoch %d", t.Issuer, e)
	p, err := t.open()
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	if err := b.check(); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	top, err := t.checkCosigned(p, b.Checkpoint, now)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if err := p.checkTree(b, top, seen); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	h, err := p.read(b.Entries, now)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	m, err := h.manifest(b, e)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return m, nil
}

// Check refuses entries that Verify would refuse whatever their checkpoint is: for a
// mint, since what is in its log stays there.
func (t *Trust) Check(entries []Entry, now time.Time) error {
	op := fmt.Sprintf("check the log of %q", t.Issuer)
	p, err := t.open()
	if err != nil {
		return cloudpal.E(op, cloudpal.Invalid, err)
	}
	if len(entries) > maxEntries {
		return cloudpal.E(op, cloudpal.Exhausted, fmt.Errorf("it has %d entries; %d are the most", len(entries), maxEntries))
	}
	if _, err := p.read(entries, now); err != nil {
		return cloudpal.E(op, "", err)
	}
	return nil
}

// checkCosigned reads a checkpoint that the log signed and enough witnesses cosigned,
// lately.
func (t *Trust) checkCosigned(p *parties, c Checkpoint, now time.Time) (*log.Checkpoint, error) {
	top, n, err := p.openCheckpoint(c)
	if err != nil {
		return nil, err
	}
	cosigned := map[string]bool{}
	for _, s := range n.Sigs {
		if s.Name == p.log.Name() {
			continue
		}
		at, err := cosignature.CoSigV1Timestamp(s)
		if err == nil && now.Sub(at) <= MaxAge && at.Sub(now) <= maxAhead {
			cosigned[s.Name] = true
		}
	}
	if len(cosigned) < t.Quorum {
		return nil, cloudpal.E("", cloudpal.Denied, fmt.Errorf("%d witnesses cosigned the log in the last %d days; %d have to",
			len(cosigned), MaxAge/(24*time.Hour), t.Quorum)).
			WithHint("try again later, and see whether this computer's clock is right")
	}
	return top, nil
}

// openCheckpoint reads a checkpoint that the log signed; the note's verified
// signatures are its own and those of witnesses.
func (p *parties) openCheckpoint(c Checkpoint) (*log.Checkpoint, *note.Note, error) {
	top, rest, n, err := log.ParseCheckpoint([]byte(c), p.log.Name(), p.log, p.witnesses...)
	switch {
	case err != nil:
		return nil, nil, cloudpal.E("", cloudpal.Denied, errors.New("the checkpoint is not one of this log"))
	case len(rest) > 0 || len(top.Hash) != rfc6962.DefaultHasher.Size():
		return nil, nil, cloudpal.E("", cloudpal.Invalid, errors.New("the checkpoint is not written as it has to be"))
	}
	return top, n, nil
}

// A Fork is two checkpoints that one log has signed and that cannot both be true:
// proof, for anybody, that it shows different people different things.
type Fork struct{ Seen, Shown Checkpoint }

func (f *Fork) Error() string { return "the log is not the one that was shown before" }

// checkTree checks that a checkpoint is of just a bundle's entries, and that the
// first of them are those of the checkpoint that was seen before.
func (p *parties) checkTree(b *Bundle, top *log.Checkpoint, seen Checkpoint) error {
	before := &log.Checkpoint{Hash: rfc6962.DefaultHasher.EmptyRoot()}
	if seen != "" {
		var err error
		if before, _, err = p.openCheckpoint(seen); err != nil {
			return cloudpal.E("read the checkpoint that was kept", "", err)
		}
	}
	if top.Size < before.Size {
		return cloudpal.E("", cloudpal.Denied, fmt.Errorf("the log has %d entries, and had %d before", top.Size, before.Size)).
			WithHint("try again later; if it stays so, the mint hides entries")
	}
	if uint64(len(b.Entries)) != top.Size {
		return cloudpal.E("", cloudpal.Denied, fmt.Errorf("%d entries are shown of the %d that the log has", len(b.Entries), top.Size))
	}
	if !bytes.Equal(Root(b.Entries), top.Hash) {
		return cloudpal.E("", cloudpal.Denied, errors.New("the entries are not those of the log"))
	}
	if !bytes.Equal(Root(b.Entries[:before.Size]), before.Hash) {
		return cloudpal.E("", cloudpal.Denied, &Fork{Seen: seen, Shown: b.Checkpoint}).
			WithHint("the mint shows different logs; keep both checkpoints and show them to others")
	}
	return nil
}

// Root returns the root of the Merkle tree of RFC 6962 over entries.
func Root(entries []Entry) []byte {
	h := rfc6962.DefaultHasher
	if len(entries) == 0 {
		return h.EmptyRoot()
	}
	r := (&compact.RangeFactory{Hash: h.HashChildren}).NewEmptyRange(0)
	for _, e := range entries {
		// Appending fails only after 2^64 entries.
		_ = r.Append(h.HashLeaf([]byte(e)), nil)
	}
	root, _ := r.GetRootHash(nil)
	return root
}

// A history is what all entries of a log say.
type history struct {
	issuer   string
	newest   ticket.Epoch
	listings map[ticket.Epoch]*Listing
	listed   map[ticket.KeyID]ticket.Epoch
	revoked  map[ticket.Epoch][]Revocation
}

// read reads a log from its first entry and refuses one that a mint that is honest
// would not write.
func (p *parties) read(entries []Entry, now time.Time) (*history, error) {
	h := &history{
		issuer:   p.root.Name(),
		listings: map[ticket.Epoch]*Listing{},
		listed:   map[ticket.KeyID]ticket.Epoch{},
		revoked:  map[ticket.Epoch][]Revocation{},
	}
	for i, e := range entries {
		s, err := e.Open(p.root)
		if err == nil {
			err = h.add(s)
		}
		if err != nil {
			return nil, cloudpal.E(fmt.Sprintf("entry %d of the log", i), "", err)
		}
	}
	if h.newest > ticket.EpochAt(now)+1 {
		return nil, cloudpal.E("", cloudpal.Denied, errors.New("the log has keys for more than a month ahead")).
			WithHint("see whether this computer's clock is right")
	}
	return h, nil
}

func (h *history) add(s Statement) error {
	refuse := func(text string, args ...any) error {
		return cloudpal.E("", cloudpal.Denied, fmt.Errorf(text, args...))
	}
	switch s := s.(type) {
	case *Listing:
		if h.listings[s.Epoch] != nil {
			return refuse("a second manifest of epoch %d", s.Epoch)
		}
		if len(h.listings) > 0 && s.Epoch <= h.newest {
			return refuse("a manifest of epoch %d after that of epoch %d", s.Epoch, h.newest)
		}
		for _, id := range s.Keys {
			if e, ok := h.listed[id]; ok {
				return refuse("a key of epoch %d that was one of epoch %d", s.Epoch, e)
			}
			h.listed[id] = s.Epoch
		}
		h.listings[s.Epoch], h.newest = s, s.Epoch
	case *Revocation:
		if e, ok := h.listed[s.Key]; !ok || e != s.Epoch {
			return refuse("it revokes a key that epoch %d does not have", s.Epoch)
		}
		h.revoked[s.Epoch] = append(h.revoked[s.Epoch], *s)
	}
	return nil
}

// manifest makes the listing of an epoch and a bundle's keys whole.
func (h *history) manifest(b *Bundle, e ticket.Epoch) (*Manifest, error) {
	l := h.listings[e]
	if l == nil {
		return nil, cloudpal.E("", cloudpal.NotExist, errors.New("the log has no manifest of the epoch"))
	}
	m := &Manifest{Issuer: l.Issuer, Epoch: e, Receipt: l.Receipt, revoked: h.revoked[e]}
	for other, list := range h.revoked {
		if other != e {
			m.others = append(m.others, list...)
		}
	}
	for i, s := range slots {
		k, err := ticket.ParseKey(s.class, s.denomination, e, b.Keys[i])
		if err != nil {
			return nil, cloudpal.E("the key for "+s.String(), "", err)
		}
		if k.ID() != l.Keys[i] {
			return nil, cloudpal.E("", cloudpal.Denied, fmt.Errorf("the key for %s is not the one in the log", s))
		}
		m.keys = append(m.keys, k)
	}
	return m, nil
}
