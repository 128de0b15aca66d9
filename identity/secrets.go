package identity

import (
	"crypto/ecdh"
	"crypto/subtle"
	"fmt"

	"github.com/tradle/cloudpal"
)

const (
	wireGuardSize = 32
	diskSize      = 64
	corestoreSize = 32

	secretsVersion = 1
)

type secretBytes [wireGuardSize + diskSize + corestoreSize]byte

// Secrets are what a pal's core needs to work: they are in its memory and,
// kept by the devices, nowhere else. The slices that its methods return are the
// secret's own memory: not to be changed, and zero after Wipe.
type Secrets struct{ secret[secretBytes] }

// WireGuard returns the core's WireGuard private key, 32 bytes, clamped.
func (s Secrets) WireGuard() []byte { return s.get()[:wireGuardSize] }

// WireGuardKey returns the public key of the core's WireGuard.
func (s Secrets) WireGuardKey() WireGuardKey { return publicOf(s.WireGuard()) }

// Disk returns the key of the core's volume: 64 bytes, for AES-256-XTS.
func (s Secrets) Disk() []byte { return s.get()[wireGuardSize : wireGuardSize+diskSize] }

// Corestore returns what the keys of the pal's data derive from, 32 bytes.
func (s Secrets) Corestore() []byte { return s.get()[wireGuardSize+diskSize:] }

// Equal reports whether both are the same secrets, in constant time.
func (s Secrets) Equal(other Secrets) bool {
	if s.IsZero() || other.IsZero() {
		return s.IsZero() && other.IsZero()
	}
	return subtle.ConstantTimeCompare(s.get()[:], other.get()[:]) == 1
}

// Wipe overwrites the secrets, in all their copies.
func (s Secrets) Wipe() {
	if !s.IsZero() {
		clear(s.get()[:])
	}
}

// MarshalBinary returns a version byte and the 128 bytes: keep them as the
// secrets they are.
func (s Secrets) MarshalBinary() ([]byte, error) {
	if s.IsZero() {
		return nil, cloudpal.E("write the pal's secrets", cloudpal.Invalid, fmt.Errorf("there are none"))
	}
	return append([]byte{secretsVersion}, s.get()[:]...), nil
}

// UnmarshalBinary reads what MarshalBinary made. The error is
// cloudpal.Invalid.
func (s *Secrets) UnmarshalBinary(data []byte) error {
	p := new(secretBytes)
	if len(data) != 1+len(p) || data[0] != secretsVersion {
		return cloudpal.E("read the pal's secrets", cloudpal.Invalid, nil)
	}
	copy(p[:], data[1:])
	s.secret = hide(p)
	return nil
}

// publicOf returns the X25519 public key of a private key of 32 bytes.
func publicOf(private []byte) WireGuardKey {
	key, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		panic(err) // any 32 bytes are a key
	}
	return WireGuardKey(key.PublicKey().Bytes())
}
