package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
)

// An Unlock is what a device tells a core that has just booted. By is set when
// it is sealed.
type Unlock struct {
	Secrets Secrets
	List    *List     // the newest that the device knows
	Time    time.Time // of sealing, by the device's clock
	By      SignKey   // who sealed it
}

const (
	unlockVersion = 1
	// MaxUnlock bounds a sealed unlock.
	MaxUnlock = MaxListSize + 1<<10
	// maxSkew is how far the clocks of a core and a device may be apart, and so
	// for how long somebody can hold an unlock back: wide enough for a clock
	// that is in the wrong time zone.
	maxSkew = 24 * time.Hour

	unlockHead = 1 + 8 + 2*ed25519.PublicKeySize + len(secretBytes{})
	minUnlock  = unlockHead + ed25519.SignatureSize
)

// The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305 of RFC
// 9180, in base mode: who sent it is told by the signature inside.
var (
	kem  = hpke.DHKEM(ecdh.X25519())
	kdf  = hpke.HKDFSHA256()
	aead = hpke.ChaCha20Poly1305()
)

// An UnlockKey is what a core that is locked has: it is made at boot, is in
// memory only and opens only what was sealed to this boot.
type UnlockKey struct{ secret[unlockKey] }

type unlockKey struct{ key hpke.PrivateKey }

// NewUnlockKey makes a key.
func NewUnlockKey() *UnlockKey {
	key, err := kem.GenerateKey()
	if err != nil {
		panic(err) // the system has no randomness
	}
	return newUnlockKey(key)
}

func newUnlockKey(key hpke.PrivateKey) *UnlockKey {
	return &UnlockKey{hide(&unlockKey{key})}
}

// Public returns the key to seal to, 32 bytes.
func (k *UnlockKey) Public() []byte { return k.get().key.PublicKey().Bytes() }

// SealUnlock seals u to the core with this public key, signed by a device of
// u.List or by the root. The error is cloudpal.Invalid for a key that is none,
// cloudpal.Denied for a signer that is not in the list.
func SealUnlock(core []byte, by Signer, u Unlock) ([]byte, error) {
	const op = "seal an unlock"
	if u.List == nil || u.Secrets.IsZero() {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it has no list or no secrets"))
	}
	if s := u.Time.Unix(); s < 0 || s > maxTime {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("the clock says %v", u.Time.UTC()))
	}
	if !u.List.speaks(by.SignKey()) {
		return nil, cloudpal.E(op, cloudpal.Denied, errors.New("who seals it is not in the device list"))
	}
	public, err := kem.NewPublicKey(core)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the core's key is not valid"))
	}
	u.By = by.SignKey()
	payload := u.payload()
	defer clear(payload)
	signed := slices.Concat(core, payload)
	defer clear(signed)
	plain := append(payload, by.sign(purposeUnlock, signed)...)
	sealed, err := hpke.Seal(public, kdf, aead, []byte(purposeUnlock), plain)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the core's key is not valid"))
	}
	return sealed, nil
}

// payload is, all numbers big endian:
//
//	  1 byte   version, 1
//	  8 bytes  time, Unix seconds
//	 32 bytes  the root's ID
//	 32 bytes  public key of who signs
//	128 bytes  secrets: WireGuard (32), disk (64), corestore (32)
//	    ...    the list
//
// What is sealed is the payload and, behind it, the signature (64 bytes) of
// purposeUnlock, the core's public key and the payload.
func (u Unlock) payload() []byte {
	b := make([]byte, 0, minUnlock+len(u.List.data)) // room for all, or append would leave copies of secrets behind
	b = append(b, unlockVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(u.Time.Unix()))
	b = append(b, u.List.root[:]...)
	b = append(b, u.By[:]...)
	b = append(b, u.Secrets.get()[:]...)
	return append(b, u.List.data...)
}

// Open opens an unlock that was sealed to this key and verifies it in itself:
// that the list in it is one of the root it names, that a device of that list
// or the root sealed it, for this core and not more than a day from now. It
// is the caller's to ask Unlock.Against whether this root and this list are
// those of its pal. The error is cloudpal.Denied for what is not for this core
// or by nobody who may, else cloudpal.Invalid.
func (k *UnlockKey) Open(sealed []byte, now time.Time) (Unlock, error) {
	const op = "open an unlock"
	if len(sealed) > MaxUnlock {
		return Unlock{}, cloudpal.E(op, cloudpal.Invalid, errors.New("it is too large"))
	}
	plain, err := hpke.Open(k.get().key, kdf, aead, []byte(purposeUnlock), sealed)
	if err != nil {
		return Unlock{}, cloudpal.E(op, cloudpal.Denied, errors.New("it was not sealed to this core")).
			WithHint("a core has another key each time it boots: ask for it again")
	}
	defer clear(plain)
	u, err := readUnlock(k.Public(), plain)
	if err != nil {
		return Unlock{}, cloudpal.E(op, "", err)
	}
	if skew := now.Sub(u.Time).Abs(); skew > maxSkew {
		u.Secrets.Wipe()
		return Unlock{}, cloudpal.E(op, cloudpal.Denied, fmt.Errorf("it was sealed %v from now", skew.Round(time.Hour))).
			WithHint("set the clock of the device, or that of the center's host")
	}
	return u, nil
}

func readUnlock(core, plain []byte) (Unlock, error) {
	invalid := cloudpal.E("", cloudpal.Invalid, errors.New("it is not an unlock of this version"))
	if len(plain) < minUnlock || plain[0] != unlockVersion {
		return Unlock{}, invalid
	}
	end := len(plain) - ed25519.SignatureSize
	payload, signature := plain[:end], plain[end:]
	r := reader(payload[1:])
	seconds := binary.BigEndian.Uint64(r.next(8))
	if seconds > maxTime {
		return Unlock{}, invalid
	}
	u := Unlock{Time: time.Unix(int64(seconds), 0).UTC()}
	root := ID(r.next(len(ID{})))
	u.By = SignKey(r.next(len(u.By)))
	secrets := r.next(len(secretBytes{}))
	signed := slices.Concat(core, payload)
	defer clear(signed)
	if !verify(u.By, purposeUnlock, signed, signature) {
		return Unlock{}, cloudpal.E("", cloudpal.Denied, errors.New("its signature is not valid"))
	}
	list, err := ParseList(root, r)
	if err != nil {
		return Unlock{}, err
	}
	if !list.speaks(u.By) {
		return Unlock{}, cloudpal.E("", cloudpal.Denied, errors.New("who sealed it is not in the device list"))
	}
	u.List = list
	b := new(secretBytes)
	copy(b[:], secrets)
	u.Secrets = Secrets{hide(b)}
	return u, nil
}

// Against returns the newer of the unlock's list and the one that the core has
// stored (nil where the volume is new): the list to go by. The error is
// cloudpal.Denied where the lists are of different people or have parted, and
// where the newer one has revoked the device that sealed the unlock. Then the
// core must be locked again: a device that was revoked still knows the
// secrets, and brings a list from before.
func (u Unlock) Against(stored *List) (*List, error) {
	const op = "unlock"
	list, err := Newest(u.List, stored)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if !list.speaks(u.By) {
		return nil, cloudpal.E(op, cloudpal.Denied, errors.New("the device that sealed it is revoked"))
	}
	return list, nil
}
