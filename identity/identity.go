// Package identity is who a person is to their pal, without anybody's server
// having a say in it.
//
// A person is an Ed25519 key, the Root, that comes from 24 words, the Phrase.
// The root names the person's devices in a List: a log that is signed, chained
// and only ever grows. Whoever holds the root's ID can check a list; nobody
// can add a device to it but the root and the devices that are named in it as
// admins. The pal's own Secrets come from the phrase, too. They travel to a
// core that has just booted in an Unlock, which is sealed to that core and
// signed by a device.
//
// Secret values (Phrase, Root, Secrets, DeviceKey, UnlockKey) are handles:
// copies share one memory, which fmt, log/slog and encoding/json do not show,
// and == does not compile on them. Wipe overwrites that memory. What it cannot
// reach are copies that were made of it on the way: by a caller, in registers
// and stacks, inside crypto libraries, in swapped pages or in the snapshot of
// a virtual machine.
//
// All formats are in docs/formats.md.
package identity

import (
	"crypto/ed25519"
	"encoding/base32"
	"slices"
	"strings"

	"github.com/tradle/cloudpal"
)

// An ID names a person: it is the Ed25519 public key of their root. Its text is
// "cp" and 52 letters and digits.
type ID [ed25519.PublicKeySize]byte

const idPrefix = "cp"

// String returns the ID's text.
func (id ID) String() string { return idPrefix + encodeID(id[:]) }

// MarshalText returns the ID's text.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// ParseID reads an ID's text. The error is cloudpal.Invalid.
func ParseID(text string) (id ID, err error) {
	return id, decodeID("person's id", idPrefix, text, id[:])
}

// A SignKey is the Ed25519 public key of who signs: a root, or a device.
type SignKey [ed25519.PublicKeySize]byte

// IsZero reports whether there is no key.
func (k SignKey) IsZero() bool { return k == SignKey{} }

// A Signer signs what goes into lists and unlocks. It is a Root or a
// DeviceKey.
type Signer interface {
	SignKey() SignKey
	sign(purpose string, message []byte) []byte
}

// What is signed begins with its purpose, so that no signature for one can be
// taken for another.
const (
	purposeEntry  = "CloudPal device list v1\n"
	purposeUnlock = "CloudPal unlock v1\n"
)

func sign(key ed25519.PrivateKey, purpose string, message []byte) []byte {
	b := slices.Concat([]byte(purpose), message)
	defer clear(b) // it may be an unlock, with the pal's secrets
	return ed25519.Sign(key, b)
}

func verify(by SignKey, purpose string, message, signature []byte) bool {
	b := slices.Concat([]byte(purpose), message)
	defer clear(b)
	return ed25519.Verify(by[:], b, signature)
}

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

func encodeID(b []byte) string { return strings.ToLower(encoding.EncodeToString(b)) }

// decodeID takes only the one spelling that encodeID makes.
func decodeID(what, prefix, text string, into []byte) error {
	digits, ok := strings.CutPrefix(text, prefix)
	if !ok || len(digits) != encoding.EncodedLen(len(into)) {
		return cloudpal.E(what, cloudpal.Invalid, nil)
	}
	b, err := encoding.DecodeString(strings.ToUpper(digits))
	if err != nil || encodeID(b) != digits {
		return cloudpal.E(what, cloudpal.Invalid, nil)
	}
	copy(into, b)
	return nil
}
