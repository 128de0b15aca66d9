package identity

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
)

// A Root is a person's root key. It signs the first entries of their List and
// is needed again only to recover.
type Root struct{ secret[rootKey] }

type rootKey struct {
	entropy [entropySize]byte
	key     ed25519.PrivateKey
}

// Root returns the root that the phrase stands for, always the same. It
// outlives the phrase's Wipe.
func (p Phrase) Root() Root {
	r := Root{hide(&rootKey{entropy: *p.get()})}
	seed := r.derive("root", ed25519.SeedSize)
	defer clear(seed)
	r.get().key = ed25519.NewKeyFromSeed(seed)
	return r
}

// ID returns the person's ID.
func (r Root) ID() ID { return ID(r.SignKey()) }

// SignKey returns the key that the root's signatures are checked with: the ID.
func (r Root) SignKey() SignKey { return SignKey(r.get().key.Public().(ed25519.PublicKey)) }

func (r Root) sign(purpose string, message []byte) []byte { return sign(r.get().key, purpose, message) }

// Account returns the key by which the center with this public key knows its
// client. Accounts of different centers have nothing in common that anybody
// without the phrase could find.
func (r Root) Account(centerKey []byte) ed25519.PrivateKey {
	seed := r.derive("account\x00"+string(centerKey), ed25519.SeedSize)
	defer clear(seed)
	return ed25519.NewKeyFromSeed(seed)
}

// PalSecrets returns the secrets of the person's pal, always the same: who has
// the phrase has them.
func (r Root) PalSecrets() Secrets {
	s := Secrets{hide(new(secretBytes))}
	for _, part := range []struct {
		purpose string
		into    []byte
	}{
		{"pal wireguard", s.WireGuard()},
		{"pal disk", s.Disk()},
		{"pal corestore", s.Corestore()},
	} {
		key := r.derive(part.purpose, len(part.into))
		copy(part.into, key)
		clear(key)
	}
	clamp(s.WireGuard())
	return s
}

// WalletSeed returns what the person's tickets follow from, and their backups are
// sealed with: a secret. A pal's core does not have it, since a center could read it
// in its memory.
func (r Root) WalletSeed() [32]byte { return [32]byte(r.derive("wallet", 32)) }

// NetworkSeed returns what the pal's address ranges are chosen from. It is
// no secret.
func (r Root) NetworkSeed() [32]byte { return [32]byte(r.derive("network", 32)) }

// Wipe overwrites the root, in all its copies.
func (r Root) Wipe() {
	clear(r.get().entropy[:])
	clear(r.get().key)
}

// derive is HKDF-SHA256 (RFC 5869) of the phrase's 256 bits, without a salt. They
// are uniformly random, so they need no stretching as passwords do.
func (r Root) derive(purpose string, size int) []byte {
	key, err := hkdf.Key(sha256.New, r.get().entropy[:], nil, "CloudPal v1 "+purpose, size)
	if err != nil {
		panic(err) // sizes are constants
	}
	return key
}

// clamp makes 32 bytes an X25519 private key as WireGuard writes it (RFC 7748,
// section 5).
func clamp(key []byte) {
	key[0] &= 248
	key[31] = key[31]&127 | 64
}
