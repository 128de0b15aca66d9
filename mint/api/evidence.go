package api

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// Evidence is what proves that a ticket was spent before: what its owner signed. It
// is what the ledger keeps of a spending.
//
// Of the Spend it has the owner's key and signature, and the ID of the mint's key, which
// says what the ticket was worth. Whether the mint signed the ticket is not in
// question: whoever is shown evidence has the ticket.
type Evidence struct {
	Contract ticket.Contract // a ticket.PayContract or a ticket.SwapContract
	Spend    ticket.Spend
}

// The kinds of evidence. Those without the mint's key were written before it was kept,
// and are still read.
const (
	evidencePayKeyless  = 1
	evidenceSwapKeyless = 2
	evidencePay         = 3
	evidenceSwap        = 4

	paySize   = 32 + 32 + 4 + 8 + 32
	swapSize  = 32
	ownerSize = ed25519.PublicKeySize + ed25519.SignatureSize
)

// Append appends the evidence as ParseEvidence reads it.
func (e Evidence) Append(b []byte) []byte {
	key := e.Spend.Token.Key
	switch c := e.Contract.(type) {
	case ticket.PayContract:
		b = appendKind(b, evidencePay, evidencePayKeyless, key)
		b = append(b, c.Center[:]...)
		b = append(b, c.Hidden[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(c.Amount))
		b = binary.BigEndian.AppendUint64(b, uint64(c.NotBefore.Unix()))
		b = append(b, c.Blank[:]...)
	case ticket.SwapContract:
		b = appendKind(b, evidenceSwap, evidenceSwapKeyless, key)
		b = append(b, c.Outputs[:]...)
	}
	b = append(b, e.Spend.Public[:]...)
	return append(b, e.Spend.Signature[:]...)
}

func appendKind(b []byte, kind, keyless byte, key ticket.KeyID) []byte {
	if key == (ticket.KeyID{}) {
		return append(b, keyless)
	}
	return append(append(b, kind), key[:]...)
}

// ParseEvidence reads exactly one.
func ParseEvidence(b []byte) (Evidence, error) {
	var e Evidence
	bad := cloudpal.E("read evidence", cloudpal.Invalid, errors.New("it is not of a payment nor of a swap"))
	if len(b) == 0 {
		return Evidence{}, bad
	}
	kind, b := b[0], b[1:]
	if kind == evidencePay || kind == evidenceSwap {
		if len(b) < len(e.Spend.Token.Key) || ticket.KeyID(b[:32]) == (ticket.KeyID{}) {
			return Evidence{}, bad
		}
		e.Spend.Token.Key, b = ticket.KeyID(b[:32]), b[32:]
	}
	switch {
	case (kind == evidencePay || kind == evidencePayKeyless) && len(b) == paySize+ownerSize:
		e.Contract = ticket.PayContract{
			Center:    ticket.CenterID(b[:32]),
			Hidden:    ticket.Hidden(b[32:64]),
			Amount:    ticket.Denomination(binary.BigEndian.Uint32(b[64:])),
			NotBefore: time.Unix(int64(binary.BigEndian.Uint64(b[68:])), 0).UTC(),
			Blank:     ticket.Digest(b[76:108]),
		}
		b = b[paySize:]
	case (kind == evidenceSwap || kind == evidenceSwapKeyless) && len(b) == swapSize+ownerSize:
		e.Contract = ticket.SwapContract{Outputs: ticket.Digest(b[:32])}
		b = b[swapSize:]
	default:
		return Evidence{}, bad
	}
	e.Spend.Public, e.Spend.Signature = [32]byte(b[:32]), [64]byte(b[32:])
	e.Spend.Token.Nonce = ticket.SerialOf(e.Spend.Public[:])
	return e, nil
}

// Proves checks that the evidence proves that the ticket with that serial, of issuer
// under k, was spent for something else than c.
func (e Evidence) Proves(issuer string, k *ticket.Key, s ticket.Serial, c ticket.Contract) error {
	const op = "check that a ticket was spent before"
	if e.Contract == nil || ticket.SerialOf(e.Spend.Public[:]) != s {
		return cloudpal.E(op, cloudpal.Denied, errors.New("the evidence is of another ticket"))
	}
	if e.Contract.Digest() == c.Digest() {
		return cloudpal.E(op, cloudpal.Denied, errors.New("it was spent for just this"))
	}
	spend := e.Spend
	spend.Token = ticket.Token{Nonce: s, Challenge: ticket.ChallengeDigest(issuer, k.Class), Key: k.ID()}
	if !spend.Signed(e.Contract) {
		return cloudpal.E(op, cloudpal.Denied, errors.New("the ticket's owner did not sign it"))
	}
	return nil
}

// A Spent error says that a ticket was spent before, and proves it.
type Spent struct{ Evidence Evidence }

func (s *Spent) Error() string { return "the ticket was spent before" }

// Is makes it a cloudpal.Exist.
func (s *Spent) Is(target error) bool { return target == cloudpal.Exist }
