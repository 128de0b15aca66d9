package ticket

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"

	"github.com/cloudflare/circl/blindsign/blindrsa"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/tradle/cloudpal"
)

// Sizes of RSA-2048, in bytes.
const (
	keyBits   = 2048
	BlindSize = keyBits / 8 // of a blinded message, and of a signature
)

// A KeyID is the SHA-256 of a key as RFC 9578, section 8.2.2 encodes it: the
// token_key_id of its tickets.
type KeyID [32]byte

// A Key is the public half of what a mint signs with the tickets of one class, one
// denomination and one epoch. Only keys from a mint's manifest are to be used: one
// that was made for one person would give them away.
type Key struct {
	Class        Class
	Denomination Denomination
	Epoch        Epoch
	spki         []byte
	id           KeyID
	client       blindrsa.Client
}

// NewKey returns the key with that public half. It refuses all but RSA-2048 with
// the exponent 65537.
func NewKey(c Class, d Denomination, e Epoch, public *rsa.PublicKey) (*Key, error) {
	const op = "read a ticket key"
	switch {
	case c != Paid && c != Free:
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("there is no such class"))
	case !d.Valid():
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("there is no such denomination"))
	case public.N.BitLen() != keyBits || public.E != 65537 || public.N.Bit(0) == 0:
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it is no RSA-2048 key with the exponent 65537"))
	}
	client, err := blindrsa.NewClient(blindrsa.SHA384PSSDeterministic, public)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	k := &Key{Class: c, Denomination: d, Epoch: e, spki: encodeKey(public), client: client}
	k.id = sha256.Sum256(k.spki)
	return k, nil
}

// ParseKey reads a key that Public has written.
func ParseKey(c Class, d Denomination, e Epoch, spki []byte) (*Key, error) {
	public, err := decodeKey(spki)
	if err != nil {
		return nil, cloudpal.E("read a ticket key", cloudpal.Invalid, err)
	}
	return NewKey(c, d, e, public)
}

// ID returns what tickets name the key by.
func (k *Key) ID() KeyID { return k.id }

// Public returns the key as RFC 9578 encodes it: a SubjectPublicKeyInfo in DER
// with the algorithm RSASSA-PSS, SHA-384, a salt of 48 bytes.
func (k *Key) Public() []byte { return bytes.Clone(k.spki) }

// pssAlgorithm is the AlgorithmIdentifier of RFC 9578, section 8.2.2: id-RSASSA-PSS
// with SHA-384, MGF1 with SHA-384, and a salt of 48 bytes (RFC 4055).
var pssAlgorithm = func() []byte {
	sha384 := []byte{0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02}
	pss := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a}
	mgf1 := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08}
	context := func(n int) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(pss)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(context(0), func(b *cryptobyte.Builder) { b.AddBytes(sha384) })
			b.AddASN1(context(1), func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(mgf1); b.AddBytes(sha384) })
			})
			b.AddASN1(context(2), func(b *cryptobyte.Builder) { b.AddASN1Int64(48) })
		})
	})
	return b.BytesOrPanic()
}()

func encodeKey(public *rsa.PublicKey) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(pssAlgorithm)
		b.AddASN1BitString(x509.MarshalPKCS1PublicKey(public))
	})
	return b.BytesOrPanic()
}

// maxKey bounds a key in DER, in bytes; one is 342.
const maxKey = 400

func decodeKey(der []byte) (*rsa.PublicKey, error) {
	bad := errors.New("it is not encoded as RFC 9578 says")
	if len(der) > maxKey {
		return nil, bad
	}
	in := cryptobyte.String(der)
	var body, algorithm cryptobyte.String
	var bits []byte
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !in.Empty() ||
		!body.ReadASN1Element(&algorithm, asn1.SEQUENCE) || !bytes.Equal(algorithm, pssAlgorithm) ||
		!body.ReadASN1BitStringAsBytes(&bits) || !body.Empty() {
		return nil, bad
	}
	public, err := x509.ParsePKCS1PublicKey(bits)
	if err != nil {
		return nil, bad
	}
	// Of two encodings of one key one would be another ID.
	if !bytes.Equal(encodeKey(public), der) {
		return nil, bad
	}
	return public, nil
}
