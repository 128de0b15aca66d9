package secretstream

import (
	"crypto/ed25519"
	"crypto/sha512"
	"errors"
	"io"

	"filippo.io/edwards25519"
	"github.com/flynn/noise"
)

// errPoint is what a public key that is none is refused with.
var errPoint = errors.New("not a public key: no point of the curve's prime-order group")

// edwards is Diffie-Hellman on the Edwards curve: the keys that agree on a
// secret are the Ed25519 keys that sign. Noise has no name for it;
// @hyperswarm/secret-stream's is Ed25519. A private key is its 32 byte seed.
type edwards struct{}

func (edwards) DHName() string { return "Ed25519" }
func (edwards) DHLen() int     { return 32 }

// GenerateKeypair makes a key pair of 32 random bytes.
func (edwards) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return noise.DHKey{}, err
	}
	return keypair(ed25519.NewKeyFromSeed(seed)), nil
}

// keypair returns a signing key as Noise has it.
func keypair(key ed25519.PrivateKey) noise.DHKey {
	return noise.DHKey{Private: key.Seed(), Public: key[ed25519.SeedSize:]}
}

// DH multiplies a public key by the scalar of a private one, the one that
// Ed25519 signs with.
func (edwards) DH(seed, public []byte) ([]byte, error) {
	point, err := publicPoint(public)
	if err != nil {
		return nil, err
	}
	digest := sha512.Sum512(seed)
	defer clear(digest[:])
	scalar, err := edwards25519.NewScalar().SetBytesWithClamping(digest[:32])
	if err != nil {
		return nil, err
	}
	return point.ScalarMult(scalar, point).Bytes(), nil
}

// publicPoint reads a public key as libsodium's
// crypto_scalarmult_ed25519_noclamp does: it is refused when it is not the one
// encoding of its point, or when the point is not of the group of prime order.
// Another point would make the secret one of a few that everybody can guess,
// or tell its sender three bits of our scalar. That the clamped scalar was
// reduced, above, also makes no difference only for points of this group.
func publicPoint(public []byte) (*edwards25519.Point, error) {
	point, err := new(edwards25519.Point).SetBytes(public)
	if err != nil || string(point.Bytes()) != string(public) {
		return nil, errPoint
	}
	if point.Equal(edwards25519.NewIdentityPoint()) == 1 || !inPrimeGroup(point) {
		return nil, errPoint
	}
	return point, nil
}

// minusOne is the order of the prime group less one.
var minusOne = edwards25519.NewScalar().Subtract(edwards25519.NewScalar(), one())

func one() *edwards25519.Scalar {
	s, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		panic(err)
	}
	return s
}

// inPrimeGroup reports whether order*p is the identity. The order is no scalar
// (it would be zero), so it asks whether (order-1)*p is -p.
func inPrimeGroup(p *edwards25519.Point) bool {
	q := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusOne, p, edwards25519.NewScalar())
	return q.Equal(new(edwards25519.Point).Negate(p)) == 1
}
