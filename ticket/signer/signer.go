// Package signer has the private half of a ticket key: it signs blinded messages
// (RFC 9474, section 4.3) in constant time.
//
// It exists because circl's signer is neither: it raises to the private exponent
// with math/big and without the Chinese remainder theorem. This one uses the field
// arithmetic of Go's own crypto/rsa (filippo.io/bigmod), as crypto/rsa does, which
// itself offers no signing of a bare number. A key that signs tickets signs nothing
// else, ever: a blind signature is a signature of whatever one is given.
package signer

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"

	"filippo.io/bigmod"

	"github.com/tradle/cloudpal"
)

const (
	bits     = 2048
	exponent = 65537
)

// Size is that of a blinded message and of a signature, in bytes.
const Size = bits / 8

// A Signer is a private key. It may be used by several goroutines at once.
type Signer struct {
	key     *rsa.PrivateKey
	n, p, q *bigmod.Modulus
	dp, dq  []byte
	qInv    *bigmod.Nat // modulo p
	qNat    *bigmod.Nat // q, modulo n
	rp, rq  *bigmod.Nat // 2 to the size of the primes, modulo p and q
}

// Generate makes a new key, with the system's randomness. It takes about a second.
func Generate() (*Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, cloudpal.E("make a ticket key", "", err)
	}
	return New(key)
}

// New returns the signer with a key of 2048 bits, of two primes, with the exponent
// 65537.
func New(key *rsa.PrivateKey) (*Signer, error) {
	const op = "use a ticket key"
	if key.N.BitLen() != bits || key.E != exponent || len(key.Primes) != 2 {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it is no RSA-2048 key of two primes with the exponent 65537"))
	}
	if key.Primes[0].BitLen() != bits/2 || key.Primes[1].BitLen() != bits/2 {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("its primes are not of the same size"))
	}
	if err := key.Validate(); err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("its numbers do not belong together"))
	}
	s, err := precompute(key)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err)
	}
	return s, nil
}

func precompute(key *rsa.PrivateKey) (s *Signer, err error) {
	s = &Signer{key: key}
	p, q := key.Primes[0], key.Primes[1]
	if s.n, err = bigmod.NewModulus(key.N.Bytes()); err != nil {
		return nil, err
	}
	if s.p, err = bigmod.NewModulus(p.Bytes()); err != nil {
		return nil, err
	}
	if s.q, err = bigmod.NewModulus(q.Bytes()); err != nil {
		return nil, err
	}
	one := big.NewInt(1)
	less := func(x *big.Int) *big.Int { return new(big.Int).Sub(x, one) }
	s.dp = new(big.Int).Mod(key.D, less(p)).FillBytes(make([]byte, s.p.Size()))
	s.dq = new(big.Int).Mod(key.D, less(q)).FillBytes(make([]byte, s.q.Size()))
	inverse := new(big.Int).ModInverse(q, p)
	if inverse == nil {
		return nil, errors.New("its primes are not two")
	}
	if s.qInv, err = bigmod.NewNat().SetBytes(inverse.FillBytes(make([]byte, s.p.Size())), s.p); err != nil {
		return nil, err
	}
	if s.qNat, err = bigmod.NewNat().SetBytes(q.FillBytes(make([]byte, s.n.Size())), s.n); err != nil {
		return nil, err
	}
	r := new(big.Int).Lsh(one, uint(p.BitLen()))
	if s.rp, err = bigmod.NewNat().SetBytes(new(big.Int).Mod(r, p).FillBytes(make([]byte, s.p.Size())), s.p); err != nil {
		return nil, err
	}
	s.rq, err = bigmod.NewNat().SetBytes(new(big.Int).Mod(r, q).FillBytes(make([]byte, s.q.Size())), s.q)
	return s, err
}

// String hides the key.
func (*Signer) String() string { return "ticket signer" }

// GoString hides it likewise.
func (*Signer) GoString() string { return "signer.Signer{…}" }

// Public returns the public half.
func (s *Signer) Public() *rsa.PublicKey { return &s.key.PublicKey }

// Sign returns blinded to the power of the private exponent, always the same. It
// refuses what is not Size bytes, zero, or no number below the modulus. It checks its
// own work before it gives it away: one wrong signature by the Chinese remainder
// theorem would give the key away (Boneh, DeMillo, Lipton: On the importance of
// checking cryptographic protocols for faults, 1997).
func (s *Signer) Sign(blinded []byte) ([]byte, error) {
	const op = "sign a ticket"
	if len(blinded) != Size {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the blinded message has another size"))
	}
	m, err := bigmod.NewNat().SetBytes(blinded, s.n)
	if err != nil || m.IsZero() == 1 {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the blinded message is no number that the key signs"))
	}
	signed, err := s.power(blinded)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Other, err)
	}
	if bigmod.NewNat().ExpShortVarTime(signed, exponent, s.n).Equal(m) != 1 {
		return nil, cloudpal.E(op, cloudpal.Other, errors.New("the machine calculates wrongly: nothing was signed")).
			WithHint("do not use this machine as a signer: test its memory and processor")
	}
	return signed.Bytes(s.n), nil
}

// power is m to the private exponent, by Garner's form of the Chinese remainder
// theorem (RFC 8017, section 5.1.2, 2.b).
func (s *Signer) power(m []byte) (*bigmod.Nat, error) {
	mp, err := reduce(m, s.rp, s.p)
	if err != nil {
		return nil, err
	}
	mq, err := reduce(m, s.rq, s.q)
	if err != nil {
		return nil, err
	}
	m1 := bigmod.NewNat().Exp(mp, s.dp, s.p)
	m2 := bigmod.NewNat().Exp(mq, s.dq, s.q)
	h := m1.Sub(mp.Mod(m2, s.p), s.p).Mul(s.qInv, s.p)
	return h.ExpandFor(s.n).Mul(s.qNat, s.n).Add(m2.ExpandFor(s.n), s.n), nil
}

// reduce is m, which is twice as long as a prime, modulo the prime: its upper half
// times r, and its lower half. A multiplication does in a microsecond what bigmod's
// own Mod does bit by bit.
func reduce(m []byte, r *bigmod.Nat, prime *bigmod.Modulus) (*bigmod.Nat, error) {
	upper, err := bigmod.NewNat().SetOverflowingBytes(m[:len(m)/2], prime)
	if err != nil {
		return nil, err
	}
	lower, err := bigmod.NewNat().SetOverflowingBytes(m[len(m)/2:], prime)
	if err != nil {
		return nil, err
	}
	return upper.Mul(r, prime).Add(lower, prime), nil
}

const block = "PRIVATE KEY"

// Marshal returns the key as PKCS #8 in PEM: a secret.
func (s *Signer) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, cloudpal.E("write a ticket key", "", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}), nil
}

// Parse reads what Marshal has written. Its errors tell nothing of what it read.
func Parse(text []byte) (*Signer, error) {
	const op = "read a ticket key"
	b, _ := pem.Decode(text)
	if b == nil || b.Type != block {
		return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("it is no private key in PEM"))
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("it is no private key in PKCS #8"))
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it is no RSA key"))
	}
	return New(private)
}
