package manifest

import (
	"crypto/ed25519"
	"crypto/rand"

	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal/data/compact"
)

// A Key names a core. Who has it can read the core, so it is not to be told to
// those who only carry it: to them DiscoveryKey is enough.
type Key [32]byte

// ParseKey reads a key as people have it; see compact.ParseID.
func ParseKey(s string) (Key, error) {
	id, err := compact.ParseID(s)
	return id, err
}

// String returns the key in z-base-32, as people are shown it.
func (k Key) String() string { return compact.Z32(k[:]) }

// DiscoveryKey returns what a core is called among those who need not be able
// to read it. It tells nothing about the key.
func (k Key) DiscoveryKey() (d [32]byte) {
	h, err := blake2b.New256(k[:])
	if err != nil {
		panic(err) // only a key of more than 64 bytes fails
	}
	h.Write([]byte("hypercore"))
	return [32]byte(h.Sum(d[:0]))
}

// Namespace returns the i-th of the values that keep apart what different
// programs, and different parts of one, hash and sign.
func Namespace(name string, i byte) [32]byte {
	inner := blake2b.Sum256([]byte(name))
	return blake2b.Sum256(append(inner[:], i))
}

// The namespaces of hypercore.
var (
	treeNamespace = Namespace("hypercore", 0)
	// ReplicateInitiator and ReplicateResponder are hashed with the core's key
	// to show a peer that one knows it.
	ReplicateInitiator = Namespace("hypercore", 1)
	ReplicateResponder = Namespace("hypercore", 2)
	manifestNamespace  = Namespace("hypercore", 3)
	// DefaultNamespace is that of signers who have no other.
	DefaultNamespace = Namespace("hypercore", 4)
	// DefaultEncryption is hashed into the keys that blocks are encrypted with.
	DefaultEncryption = Namespace("hypercore", 5)
)

// A KeyPair signs. Its secret is in no text that is made of it. The zero
// KeyPair has none and cannot sign.
type KeyPair struct {
	Public [32]byte
	secret *secret // nil for none
}

// A secret is behind two pointers, so that no format verb gets to its bytes.
type secret struct{ key *ed25519.PrivateKey }

// NewKeyPair returns the key pair of a seed: always the same.
func NewKeyPair(seed [32]byte) KeyPair {
	key := ed25519.NewKeyFromSeed(seed[:])
	return KeyPair{Public: [32]byte(key[32:]), secret: &secret{&key}}
}

// GenerateKeyPair returns a new key pair.
func GenerateKeyPair() KeyPair {
	var seed [32]byte
	rand.Read(seed[:]) // never fails
	return NewKeyPair(seed)
}

// Seed returns what NewKeyPair makes the same key pair from; it is secret. Of
// the zero KeyPair it is zero.
func (p KeyPair) Seed() (seed [32]byte) {
	if p.secret != nil {
		copy(seed[:], p.secret.key.Seed())
	}
	return seed
}

// CanSign reports whether the key pair has its secret.
func (p KeyPair) CanSign() bool { return p.secret != nil }

// String shows the public key only.
func (p KeyPair) String() string { return "key pair of " + compact.Z32(p.Public[:]) }

// GoString shows the public key only.
func (p KeyPair) GoString() string { return p.String() }
