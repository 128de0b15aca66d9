package mint

import (
	"bytes"
	"context"
	"errors"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// How often the log is read: for what is new, and for a key that is not known.
const (
	logEvery = time.Minute
	logSoon  = time.Second
)

// epochsBack is how many epochs before the one that issues can still be swapped.
const epochsBack = 5

// shown is what clients are given of an epoch.
type shown struct{ bundle []byte }

// read reads the keys of the epochs that are worth something, unless that was done
// just now.
func (m *Mint) read(ctx context.Context, atLeast time.Duration) error {
	m.reading.Lock()
	defer m.reading.Unlock()
	m.mu.Lock()
	fresh := !m.asked.IsZero() && time.Since(m.asked) < atLeast
	m.mu.Unlock()
	if fresh {
		return nil
	}
	keys, revoked, bundles := map[ticket.KeyID]*ticket.Key{}, map[ticket.KeyID]*ticket.Key{}, map[ticket.Epoch]shown{}
	now := ticket.EpochAt(m.Now())
	for e := now - min(now, epochsBack); e <= now+1; e++ {
		list, bundle, err := m.Log.Epoch(ctx, e)
		if errors.Is(err, cloudpal.NotExist) {
			continue
		}
		if err != nil {
			return cloudpal.E("read the mint's keys", "", err)
		}
		bundles[e] = shown{bundle}
		for _, k := range list.Keys() {
			keys[k.ID()] = k
		}
		for _, k := range list.All() {
			if keys[k.ID()] == nil {
				revoked[k.ID()] = k
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys, m.revoked, m.shown, m.asked = keys, revoked, bundles, time.Now()
	return nil
}

// key returns one of the mint's keys: no other is ever signed or taken with.
func (m *Mint) key(ctx context.Context, id ticket.KeyID) (*ticket.Key, error) {
	for _, atLeast := range []time.Duration{logEvery, logSoon} {
		if err := m.read(ctx, atLeast); err != nil {
			return nil, err
		}
		m.mu.Lock()
		k := m.keys[id]
		m.mu.Unlock()
		if k != nil {
			return k, nil
		}
	}
	return nil, refuse(cloudpal.Invalid, "no such key is in use: fetch the mint's manifest anew")
}

// anyKey is key, and takes one that is revoked, too: for what was fixed before it was.
func (m *Mint) anyKey(ctx context.Context, id ticket.KeyID) (k *ticket.Key, revoked bool, err error) {
	if k, err = m.key(ctx, id); err == nil {
		return k, false, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.revoked[id]; k != nil {
		return k, true, nil
	}
	return nil, false, err
}

// revokedKey returns one of the mint's keys that is revoked.
func (m *Mint) revokedKey(ctx context.Context, id ticket.KeyID) (*ticket.Key, error) {
	k, revoked, err := m.anyKey(ctx, id)
	if err == nil && !revoked {
		err = refuse(cloudpal.Invalid, "the ticket's key is good: send no seed, which says who you are")
	}
	return k, err
}

// epochKeys returns an epoch's keys, those that are revoked too: what was done under
// them still counts.
func (m *Mint) epochKeys(ctx context.Context, e ticket.Epoch) ([]*ticket.Key, error) {
	list, _, err := m.Log.Epoch(ctx, e)
	if err != nil {
		return nil, err
	}
	return list.All(), nil
}

// Bundle returns what clients verify of an epoch.
func (m *Mint) Bundle(ctx context.Context, e ticket.Epoch) ([]byte, error) {
	if err := m.read(ctx, logEvery); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.shown[e]
	if !ok {
		return nil, refuse(cloudpal.NotExist, "the mint has no keys of that month in use")
	}
	return s.bundle, nil
}

// An output is one to be signed.
type output struct {
	ticket.Output
	key     *ticket.Key
	revoked bool // its key is: nothing new is signed with that
}

// outputs reads outputs, under keys of the mint's that can sign them. What it lets
// pass the signer will not refuse: that would come too late.
func (m *Mint) outputs(ctx context.Context, sent []api.Output) ([]output, ticket.Digest, error) {
	parsed, err := api.ParseOutputs(sent)
	if err != nil {
		return nil, ticket.Digest{}, refuse(cloudpal.Invalid, "send 1 to 100 outputs, each a key's ID and a blinded message of 256 bytes")
	}
	list := make([]output, 0, len(parsed))
	for _, o := range parsed {
		k, revoked, err := m.anyKey(ctx, o.Key)
		if err != nil {
			return nil, ticket.Digest{}, err
		}
		if m.Now().Before(k.Epoch.Begins()) {
			return nil, ticket.Digest{}, refuse(cloudpal.Invalid, "the key's month has not begun; nothing happened")
		}
		if !k.Epoch.Swaps(m.Now()) {
			return nil, ticket.Digest{}, refuse(cloudpal.Exhausted, "the key's month is over: its tickets are worth nothing any more")
		}
		if !signable(k, o.Blinded[:]) {
			return nil, ticket.Digest{}, refuse(cloudpal.Invalid, "a blinded message is no number that the key signs")
		}
		list = append(list, output{o, k, revoked})
	}
	return list, ticket.OutputsDigest(parsed), nil
}

// signable reports whether a blinded message is a number between 0 and the key's
// modulus.
func signable(k *ticket.Key, blinded []byte) bool {
	// SubjectPublicKeyInfo (RFC 5280), and in it an RSAPublicKey (RFC 8017, A.1.1).
	spki := cryptobyte.String(k.Public())
	var info, algorithm, bits, public, modulus cryptobyte.String
	ok := spki.ReadASN1(&info, asn1.SEQUENCE) && info.ReadASN1(&algorithm, asn1.SEQUENCE) && info.ReadASN1(&bits, asn1.BIT_STRING) &&
		bits.Skip(1) && bits.ReadASN1(&public, asn1.SEQUENCE) && public.ReadASN1(&modulus, asn1.INTEGER)
	n := bytes.TrimLeft(modulus, "\x00")
	zero := len(bytes.TrimLeft(blinded, "\x00")) == 0
	return ok && !zero && len(n) == len(blinded) && bytes.Compare(blinded, n) < 0
}

// issuing checks that outputs are under good keys of the epoch that issues now. Under one
// that is revoked only what was fixed before is signed, as change is or what was signed
// already: its owner has it changed then, with its seed.
func (m *Mint) issuing(list []output) error {
	for _, o := range list {
		if o.revoked {
			return refuse(cloudpal.Invalid, "a key of these outputs is revoked: fetch the manifest and make them anew; nothing happened")
		}
		if !o.key.Epoch.Issues(m.Now()) {
			return refuse(cloudpal.Invalid, "new tickets are of this month: fetch its manifest and make the outputs anew; nothing happened")
		}
	}
	return nil
}

// sign signs outputs, each under its key.
func (m *Mint) sign(ctx context.Context, list []output) (api.Signatures, error) {
	signed := make([][]byte, len(list))
	which := map[ticket.KeyID][]int{}
	for i, o := range list {
		which[o.Key] = append(which[o.Key], i)
	}
	for id, of := range which {
		blinded := make([][]byte, 0, len(of))
		for _, i := range of {
			blinded = append(blinded, list[i].Blinded[:])
		}
		signatures, err := m.Signer.Sign(ctx, id, blinded)
		if err == nil && len(signatures) != len(of) {
			err = errors.New("the signer left some out")
		}
		if err != nil {
			return api.Signatures{}, cloudpal.E("sign tickets", "", err)
		}
		for n, i := range of {
			signed[i] = signatures[n]
		}
	}
	return api.Signatures{Signatures: signed}, nil
}
