package identity

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
)

// MeterKeys are what the keys follow from that countersign a pal's meter, one for each
// of its tabs at centers. A core has them, and its person: with them one can agree to
// what was used, and spend nothing.
type MeterKeys struct{ secret[[32]byte] }

// MeterKeys returns those of the pal. They outlive the secrets' Wipe.
func (s Secrets) MeterKeys() MeterKeys {
	key, err := hkdf.Key(sha256.New, s.Corestore(), nil, "CloudPal v1 meter", 32)
	if err != nil {
		panic(err) // sizes are constants
	}
	defer clear(key)
	k := [32]byte(key)
	return MeterKeys{hide(&k)}
}

// Key returns the key of the tab that was opened with a nonce under an offer. Its
// public half names the tab, so that a core knows by a record alone that just this
// offer, with this tariff, was agreed to.
func (k MeterKeys) Key(nonce [16]byte, offer [32]byte) ed25519.PrivateKey {
	info := "CloudPal v1 tab\x00" + string(nonce[:]) + string(offer[:])
	seed, err := hkdf.Key(sha256.New, k.get()[:], nil, info, ed25519.SeedSize)
	if err != nil {
		panic(err)
	}
	defer clear(seed)
	return ed25519.NewKeyFromSeed(seed)
}

// Wipe overwrites the keys, in all their copies.
func (k MeterKeys) Wipe() {
	if !k.IsZero() {
		clear(k.get()[:])
	}
}
