package ticket

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/cryptobyte"

	"github.com/tradle/cloudpal"
)

// tokenType is Blind RSA with 2048 bits (RFC 9578, section 8.2.2).
const tokenType = 0x0002

// TokenSize is that of a Token on the wire, in bytes.
const TokenSize = tokenInput + BlindSize

// tokenInput is how much of it is signed.
const tokenInput = 2 + 32 + 32 + 32

// A Token is what a mint signed: an RFC 9577 Token of type 0x0002.
type Token struct {
	Nonce         [32]byte // Serial of the ticket's key
	Challenge     [32]byte // ChallengeDigest of the mint and class
	Key           KeyID
	Authenticator [BlindSize]byte
}

// ParseToken reads exactly one.
func ParseToken(b []byte) (t Token, err error) {
	if len(b) != TokenSize || binary.BigEndian.Uint16(b) != tokenType {
		return t, cloudpal.E("read a token", cloudpal.Invalid, errors.New("it is no token of Blind RSA with 2048 bits"))
	}
	copy(t.Nonce[:], b[2:])
	copy(t.Challenge[:], b[34:])
	copy(t.Key[:], b[66:])
	copy(t.Authenticator[:], b[98:])
	return t, nil
}

// Append appends the token as ParseToken reads it.
func (t *Token) Append(b []byte) []byte {
	return append(t.appendInput(b), t.Authenticator[:]...)
}

// appendInput appends what is signed: RFC 9577's token_input.
func (t *Token) appendInput(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, tokenType)
	b = append(b, t.Nonce[:]...)
	b = append(b, t.Challenge[:]...)
	return append(b, t.Key[:]...)
}

// Verify checks the mint's signature. That k is a good key, and may be used now, is
// the caller's to know.
func (t *Token) Verify(k *Key) error {
	const op = "check a token"
	if t.Key != k.id {
		return cloudpal.E(op, cloudpal.Invalid, errors.New("it is of another key"))
	}
	var room [tokenInput]byte
	if err := k.client.Verify(t.appendInput(room[:0]), t.Authenticator[:]); err != nil {
		return cloudpal.E(op, cloudpal.Denied, errors.New("the mint did not sign it"))
	}
	return nil
}

// A Serial is what a ticket is known by once it is shown: the hash of its public
// key. No two tickets have one.
type Serial [32]byte

// SerialOf returns the serial of the ticket with a public key: its token's nonce.
func SerialOf(public ed25519.PublicKey) Serial {
	h := sha256.New()
	h.Write([]byte("cloudpal ticket v1"))
	h.Write(public)
	return Serial(h.Sum(nil))
}

// Challenge returns the RFC 9577 TokenChallenge that all tickets of a mint and a
// class answer. It is the same for all, since each difference would part the crowd.
// The issuer is the mint's name, such as "mint.example", of at most 255 bytes.
func Challenge(issuer string, c Class) []byte {
	context := sha256.Sum256(append([]byte("cloudpal ticket class v1"), byte(c)))
	var b cryptobyte.Builder
	b.AddUint16(tokenType)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(issuer)) })
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(context[:]) })
	b.AddUint16LengthPrefixed(func(*cryptobyte.Builder) {}) // origin_info: for any center
	return b.BytesOrPanic()
}

// ChallengeDigest is what a token says of its challenge.
func ChallengeDigest(issuer string, c Class) [32]byte { return sha256.Sum256(Challenge(issuer, c)) }
