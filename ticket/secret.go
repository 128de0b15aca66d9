package ticket

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"errors"
	"io"

	"github.com/cloudflare/circl/blindsign/blindrsa"

	"github.com/tradle/cloudpal"
)

// A Seed is what all of a wallet's tickets follow from. Who has it can spend them.
type Seed [32]byte

// String hides the seed.
func (Seed) String() string { return "ticket seed" }

// GoString hides it likewise.
func (Seed) GoString() string { return "ticket.Seed{…}" }

// A Branch parts the tickets of one seed by what they were made for: a purchase, one
// center's change, one device. Tickets of different branches have nothing in common
// that anybody without the seed could find; a wallet that restores asks for each
// branch over a connection of its own, else the mint would learn which belong
// together.
type Branch string

// maxBranch bounds a branch's name, in bytes.
const maxBranch = 255

// A Secret is one ticket before it is signed: its key and what blinds it.
type Secret struct {
	key     ed25519.PrivateKey
	blind   BlindSeed
	of      *Key
	token   Token
	blinded [BlindSize]byte
	state   blindrsa.State // takes the blind off again
}

// Derive returns the n-th secret of a branch under a key of the issuer's, always
// the same.
func Derive(seed Seed, branch Branch, issuer string, k *Key, n uint64) (Secret, error) {
	if branch == "" || len(branch) > maxBranch {
		return Secret{}, cloudpal.E("derive a ticket", cloudpal.Invalid, errors.New("a branch has a name of at most 255 bytes"))
	}
	info := append([]byte("CloudPal ticket v1 "), byte(len(branch)))
	info = append(info, branch...)
	info = append(info, k.id[:]...)
	info = binary.BigEndian.AppendUint64(info, n)
	keys, err := hkdf.Key(sha256.New, seed[:], nil, string(info), 64)
	if err != nil {
		return Secret{}, err
	}
	defer clear(keys)
	s := Secret{key: ed25519.NewKeyFromSeed(keys[:32]), of: k, blind: BlindSeed(keys[32:])}
	s.token = Token{
		Nonce:     SerialOf(s.key.Public().(ed25519.PublicKey)),
		Challenge: ChallengeDigest(issuer, k.Class), Key: k.id,
	}
	s.blinded, s.state, err = blind(k, s.token, s.blind)
	return s, err
}

// String hides the secret.
func (Secret) String() string { return "ticket secret" }

// GoString hides it likewise.
func (Secret) GoString() string { return "ticket.Secret{…}" }

// An Output is what a mint is given to sign: a blinded message, and under which key.
type Output struct {
	Key     KeyID
	Blinded [BlindSize]byte
}

// Output returns what is sent to be signed, always the same.
func (s Secret) Output() Output { return Output{Key: s.token.Key, Blinded: s.blinded} }

// blind blinds a token with what follows from a seed: always the same, so that no state
// needs to be kept between Output and Finish.
func blind(k *Key, t Token, seed BlindSeed) (blinded [BlindSize]byte, state blindrsa.State, err error) {
	stream := sha3.NewSHAKE256()
	stream.Write([]byte("cloudpal ticket blind v1"))
	stream.Write(seed[:])
	b, state, err := k.client.Blind(io.Reader(stream), t.appendInput(nil))
	if err != nil {
		return blinded, state, cloudpal.E("blind a ticket", cloudpal.Invalid, err)
	}
	return [BlindSize]byte(b), state, nil
}

// A BlindSeed is what a ticket's salt and blinding factor are drawn from. Who shows it
// shows which blind message became the ticket, and so who had that signed.
//
// Nobody else can show one that fits, not even who has the mint's private key. That
// finds a blinding factor between any ticket and any message that was signed; it does
// not find a seed that SHAKE256 draws that factor from.
type BlindSeed [32]byte

// String hides the seed.
func (BlindSeed) String() string { return "blind seed" }

// GoString hides it likewise.
func (BlindSeed) GoString() string { return "ticket.BlindSeed{…}" }

// BlindSeed returns the secret's, for a wallet to keep.
func (s Secret) BlindSeed() BlindSeed { return s.blind }

// OutputOf returns the output that became a token of a key, as its seed has it: the
// mint looks whether it has signed that.
func OutputOf(k *Key, t Token, seed BlindSeed) (Output, error) {
	if t.Key != k.id {
		return Output{}, cloudpal.E("blind a ticket", cloudpal.Invalid, errors.New("it is of another key"))
	}
	blinded, _, err := blind(k, t, seed)
	return Output{Key: k.id, Blinded: blinded}, err
}

// Finish makes a ticket of the mint's blind signature. It refuses one that is not by
// the key, with which the ticket would be worth nothing.
func (s Secret) Finish(signature []byte) (Ticket, error) {
	const op = "take a ticket"
	if len(signature) != BlindSize {
		return Ticket{}, cloudpal.E(op, cloudpal.Invalid, errors.New("the signature has another size"))
	}
	authenticator, err := s.of.client.Finalize(s.state, signature)
	if err != nil {
		return Ticket{}, cloudpal.E(op, cloudpal.Denied, errors.New("the mint's signature is not by the key it was asked for"))
	}
	t := Ticket{Token: s.token, key: s.key}
	t.Token.Authenticator = [BlindSize]byte(authenticator)
	return t, nil
}

// A Ticket is value: who has it can spend it, once.
type Ticket struct {
	Token Token
	key   ed25519.PrivateKey
}

// String hides what it is spent with.
func (t Ticket) String() string { return "ticket" }

// GoString hides it likewise.
func (t Ticket) GoString() string { return "ticket.Ticket{…}" }

// Serial returns what the ticket is known by once it is shown.
func (t Ticket) Serial() Serial { return Serial(t.Token.Nonce) }

// Public returns the ticket's public key.
func (t Ticket) Public() ed25519.PublicKey { return t.key.Public().(ed25519.PublicKey) }

// KeySeed returns the secret of the ticket's key, for a wallet to keep.
func (t Ticket) KeySeed() [32]byte { return [32]byte(t.key.Seed()) }

// Restore returns the ticket that has a token and a KeySeed.
func Restore(token Token, keySeed [32]byte) (Ticket, error) {
	t := Ticket{Token: token, key: ed25519.NewKeyFromSeed(keySeed[:])}
	if SerialOf(t.Public()) != Serial(token.Nonce) {
		return Ticket{}, cloudpal.E("read a ticket", cloudpal.Corrupt, errors.New("the secret is another ticket's"))
	}
	return t, nil
}
