package ticket

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/tradle/cloudpal"
)

// A Digest is a SHA-256 over a purpose and the parts that belong to it.
type Digest [32]byte

// digest hashes parts so that no two lists of them give the same: each follows its
// length.
func digest(purpose string, parts ...[]byte) Digest {
	h := sha256.New()
	var size [8]byte
	for _, p := range append([][]byte{[]byte(purpose)}, parts...) {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
	return Digest(h.Sum(nil))
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// A Contract is what a ticket is spent for: a PayContract or a SwapContract. A
// ticket that was spent for one is not spent for another.
type Contract interface {
	// Digest says all of the contract.
	Digest() Digest
}

// Tag is what a ledger keeps of a contract: the first half of its digest. A ticket
// that comes again with the same tag is the same payment again; with another it is
// spent twice.
type Tag [16]byte

// TagOf returns the tag of a contract.
func TagOf(c Contract) Tag { d := c.Digest(); return Tag(d[:16]) }

// A CenterID is the Ed25519 public key that a center signs with.
type CenterID [32]byte

// Hidden is what a center and a person agreed on and a mint learns nothing of: see
// Terms.
type Hidden Digest

// Terms are what is paid for.
type Terms struct {
	Tab    [32]byte // the account at the center
	Tariff Digest   // of the center's Offer
	Nonce  [16]byte // random, so that equal terms do not look equal
}

// Hide returns what the mint gets to see.
func (t Terms) Hide() Hidden {
	return Hidden(digest("cloudpal terms v1", t.Tab[:], t.Tariff[:], t.Nonce[:]))
}

// A PayContract pays a center for one slice of service.
type PayContract struct {
	Center    CenterID
	Hidden    Hidden
	Amount    Denomination // what the ticket is worth
	NotBefore time.Time    // in whole seconds; a mint takes no earlier deposit, and until then the payer can swap the ticket
	Blank     Digest       // OutputsDigest of the outputs that change is signed into
}

// Digest implements Contract.
func (p PayContract) Digest() Digest {
	return digest("cloudpal pay v1", p.Center[:], p.Hidden[:], number(uint64(p.Amount)), number(uint64(p.NotBefore.Unix())), p.Blank[:])
}

// A SwapContract changes tickets for others of the same value in all.
type SwapContract struct {
	Outputs Digest // OutputsDigest of what the mint is to sign
}

// Digest implements Contract.
func (s SwapContract) Digest() Digest { return digest("cloudpal swap v1", s.Outputs[:]) }

// OutputsDigest is the digest of outputs in their order.
func OutputsDigest(outputs []Output) Digest {
	h := sha256.New()
	h.Write([]byte("cloudpal outputs v1"))
	h.Write(number(uint64(len(outputs))))
	for i := range outputs {
		h.Write(outputs[i].Key[:])
		h.Write(outputs[i].Blinded[:])
	}
	return Digest(h.Sum(nil))
}

// A Spend shows a ticket and says for what it is spent: who holds it can prove that
// the ticket's owner wanted just this.
type Spend struct {
	Token     Token
	Public    [ed25519.PublicKeySize]byte
	Signature [ed25519.SignatureSize]byte // over the contract's digest and the token
}

// SpendSize is that of a Spend on the wire, in bytes.
const SpendSize = TokenSize + ed25519.PublicKeySize + ed25519.SignatureSize

// Sign spends the ticket for a contract.
func (t Ticket) Sign(c Contract) Spend {
	s := Spend{Token: t.Token, Public: [32]byte(t.Public())}
	s.Signature = [64]byte(ed25519.Sign(t.key, s.signable(c.Digest())))
	return s
}

func (s *Spend) signable(d Digest) []byte {
	b := append(make([]byte, 0, 200), "cloudpal spend v1"...)
	b = append(b, d[:]...)
	return s.Token.appendInput(b)
}

// Serial returns what the ticket is known by.
func (s *Spend) Serial() Serial { return Serial(s.Token.Nonce) }

// Verify checks that the ticket is the mint's, of issuer, under k, and that its
// owner spends it for c. It does not know whether it was spent before, nor what day
// it is.
func (s *Spend) Verify(issuer string, k *Key, c Contract) error {
	const op = "check a payment"
	if SerialOf(s.Public[:]) != Serial(s.Token.Nonce) {
		return cloudpal.E(op, cloudpal.Invalid, errors.New("the public key is another ticket's"))
	}
	if s.Token.Challenge != ChallengeDigest(issuer, k.Class) {
		return cloudpal.E(op, cloudpal.Invalid, errors.New("the ticket is of another mint or class"))
	}
	if p, ok := c.(PayContract); ok && p.Amount != k.Denomination {
		return cloudpal.E(op, cloudpal.Invalid, errors.New("the ticket is worth something else"))
	}
	if err := s.Token.Verify(k); err != nil {
		return cloudpal.E(op, "", err)
	}
	if !s.Signed(c) {
		return cloudpal.E(op, cloudpal.Denied, errors.New("the ticket's owner did not spend it for this"))
	}
	return nil
}

// Signed reports whether the owner of the ticket's key spends it for c. It does not
// look whether the mint signed the ticket: see Verify.
func (s *Spend) Signed(c Contract) bool {
	return ed25519.Verify(s.Public[:], s.signable(c.Digest()), s.Signature[:])
}

// Append appends the spend as ParseSpend reads it.
func (s *Spend) Append(b []byte) []byte {
	b = s.Token.Append(b)
	b = append(b, s.Public[:]...)
	return append(b, s.Signature[:]...)
}

// ParseSpend reads exactly one.
func ParseSpend(b []byte) (s Spend, err error) {
	if len(b) != SpendSize {
		return s, cloudpal.E("read a payment", cloudpal.Invalid, errors.New("it has another size"))
	}
	if s.Token, err = ParseToken(b[:TokenSize]); err != nil {
		return s, err
	}
	copy(s.Public[:], b[TokenSize:])
	copy(s.Signature[:], b[TokenSize+ed25519.PublicKeySize:])
	return s, nil
}
