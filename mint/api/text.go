package api

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// text is what is signed: a purpose and the parts that belong to it, each behind its
// length, so that no signature can be taken for one of another purpose.
func text(purpose string, parts ...[]byte) []byte {
	var b []byte
	for _, p := range append([][]byte{[]byte(purpose)}, parts...) {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

func number[T ~int64 | ~uint64 | ~uint32](n T) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(n))
}

// IssueText is what a quote's lock signs to have it issued.
func IssueText(quote string, outputs ticket.Digest) []byte {
	return text("cloudpal issue v1", []byte(quote), outputs[:])
}

// RefundText is what payer and center sign for a refund.
func RefundText(s ticket.Serial, units ticket.Units, outputs ticket.Digest) []byte {
	return text("cloudpal refund v1", s[:], number(units), outputs[:])
}

// DisputeText is what the payer signs to open a dispute about a ticket. The record
// is as the request has it.
func DisputeText(s ticket.Serial, outputs ticket.Digest, record []byte) []byte {
	return text("cloudpal dispute v1", s[:], outputs[:], record)
}

// Text is what the mint signs of a receipt.
func (r Receipt) Text() []byte {
	return text("cloudpal receipt v1", r.Serial, r.Key, r.Center, number(r.Amount), r.Contract, number(r.Credited.Unix()), number(r.Epoch))
}

// Verify checks a receipt by the receipt key of its epoch.
func (r Receipt) Verify(key ed25519.PublicKey) error {
	return verify("check a receipt", key, r.Text(), r.Signature)
}

// Leaf is what is counted of a receipt: the hash of what the mint signs of it, which
// tells nobody who does not have the receipt what it is of.
func (r Receipt) Leaf() [32]byte { return sha256.Sum256(r.Text()) }

// Text is what the mint signs of a payout.
func (p Payout) Text() []byte {
	return text("cloudpal payout v1", p.Center, number(p.N), number(p.Units), []byte(p.Reference), number(p.At.Unix()), number(p.Epoch))
}

// Verify checks a payout by the receipt key of its epoch.
func (p Payout) Verify(key ed25519.PublicKey) error {
	return verify("check a payout", key, p.Text(), p.Signature)
}

// Text is what the mint signs of the directory.
func (d Directory) Text() []byte {
	parts := [][]byte{number(d.Time.Unix()), number(d.Epoch)}
	for _, c := range d.Centers {
		parts = append(parts, c.ID, []byte(c.Name), []byte(c.URL))
	}
	return text("cloudpal centers v1", parts...)
}

// Verify checks the directory by the receipt key of its epoch.
func (d Directory) Verify(key ed25519.PublicKey) error {
	return verify("check the directory of centers", key, d.Text(), d.Signature)
}

// Text is what the mint signs of its counters.
func (c Counters) Text() []byte {
	parts := [][]byte{[]byte(c.Issuer), number(c.Epoch), number(c.Time.Unix()), number(c.Signed)}
	for _, k := range c.Keys {
		parts = append(parts, k.Key, number(k.Issued), number(k.Redeemed), number(k.Refunded), number(int64(len(k.Hours))))
		for _, h := range k.Hours {
			parts = append(parts, number(h.Hour), number(h.Issued), number(h.Redeemed), number(h.Refunded), h.Outputs, h.Spent, h.Deposits)
		}
	}
	return text("cloudpal counters v2", parts...)
}

// Verify checks the counters by the receipt key of the epoch that they name.
func (c Counters) Verify(key ed25519.PublicKey) error {
	return verify("check a mint's counters", key, c.Text(), c.Signature)
}

func verify(op string, key ed25519.PublicKey, text, signature []byte) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, text, signature) {
		return cloudpal.E(op, cloudpal.Denied, errors.New("the mint's receipt key did not sign it"))
	}
	return nil
}

// HourOf returns the hour of a time, since 1970.
func HourOf(t time.Time) int64 { return t.Unix() / 3600 }

// BlindedHash is what a mint keeps of an output that it signed.
func BlindedHash(o ticket.Output) [32]byte {
	h := sha256.New()
	h.Write([]byte("cloudpal output v1"))
	h.Write(o.Key[:])
	h.Write(o.Blinded[:])
	return [32]byte(h.Sum(nil))
}

// Root returns the Merkle tree hash of leaves as RFC 6962, section 2.1 has it, each
// leaf a hash. They are sorted, so that a set has one root.
func Root(leaves [][32]byte) [32]byte {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0][:]...))
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	left, right := Root(leaves[:k]), Root(leaves[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}
