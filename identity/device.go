package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
)

// The indexes that devices may have. A device's index is the last byte of its
// addresses on the overlay; 1 is the core.
const (
	CoreIndex  = 1
	FirstIndex = 2
	LastIndex  = 250
)

// A Device is what a List says about one.
type Device struct {
	Name      string
	ID        DeviceID     // set by the List: it follows from the keys
	Index     uint8        // FirstIndex to LastIndex; 0 in List.Add means that the list chooses
	Sign      SignKey      // what it signs with; zero where it signs nothing: a phone with the WireGuard app
	WireGuard WireGuardKey // its WireGuard's public key
	Admin     bool         // it may change the list
	Added     time.Time    // in UTC, whole seconds, by the signer's clock: to show, not to rely on
}

// A DeviceID names a device for good: it is a hash of the device's public
// keys. Its text is "cd" and 26 letters and digits.
type DeviceID [16]byte

const deviceIDPrefix = "cd"

// String returns the DeviceID's text.
func (id DeviceID) String() string { return deviceIDPrefix + encodeID(id[:]) }

// MarshalText returns the DeviceID's text.
func (id DeviceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseDeviceID.
func (id *DeviceID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseDeviceID(string(text))
	return err
}

// ParseDeviceID reads a DeviceID's text. The error is cloudpal.Invalid.
func ParseDeviceID(text string) (id DeviceID, err error) {
	return id, decodeID("device's id", deviceIDPrefix, text, id[:])
}

// deviceID is the first 16 bytes of a SHA-256: nobody gains by two devices with
// one id, since whoever can make them is an admin.
func deviceID(sign SignKey, wireGuard WireGuardKey) DeviceID {
	b := append([]byte("CloudPal device id v1\n"), sign[:]...)
	sum := sha256.Sum256(append(b, wireGuard[:]...))
	return DeviceID(sum[:len(DeviceID{})])
}

// A WireGuardKey is a public key of WireGuard. Its text is standard base64, as
// wg writes it.
type WireGuardKey [wireGuardSize]byte

// IsZero reports whether there is no key.
func (k WireGuardKey) IsZero() bool { return k == WireGuardKey{} }

// String returns the key's text.
func (k WireGuardKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MarshalText returns the key's text.
func (k WireGuardKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the key's text. The error is cloudpal.Invalid.
func (k *WireGuardKey) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(k) {
		return cloudpal.E("WireGuard key", cloudpal.Invalid, nil)
	}
	copy(k[:], b)
	return nil
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	reserved = []string{"pal", "core", "localhost"}
)

// CheckName tells whether a device may have this name: 1 to 32 lower-case
// letters, digits and dashes, no dash at either end, and not a name that the
// pal's network has itself. The error is cloudpal.Invalid.
func CheckName(name string) error {
	op := fmt.Sprintf("device name %.40q", name)
	if slices.Contains(reserved, name) {
		return cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it is reserved")).WithHint("choose another name")
	}
	if !nameForm.MatchString(name) {
		return cloudpal.E(op, cloudpal.Invalid, nil).
			WithHint("a name is 1 to 32 lower-case letters, digits and dashes, with no dash at either end")
	}
	return nil
}

// A DeviceKey is what a device keeps to itself: the keys that it signs and
// speaks WireGuard with.
type DeviceKey struct{ secret[deviceKey] }

type deviceKey struct {
	sign      ed25519.PrivateKey
	wireGuard [wireGuardSize]byte
}

const deviceKeyVersion = 1

// NewDeviceKey makes the keys of a new device.
func NewDeviceKey() DeviceKey {
	var b [ed25519.SeedSize + wireGuardSize]byte
	defer clear(b[:])
	rand.Read(b[:])
	return deviceKeyFrom(b[:])
}

func deviceKeyFrom(b []byte) DeviceKey {
	k := &deviceKey{
		sign:      ed25519.NewKeyFromSeed(b[:ed25519.SeedSize]),
		wireGuard: [wireGuardSize]byte(b[ed25519.SeedSize:]),
	}
	clamp(k.wireGuard[:])
	return DeviceKey{hide(k)}
}

// Device returns the device that has these keys, to be added to a List.
func (k DeviceKey) Device(name string, admin bool) Device {
	return Device{Name: name, ID: k.ID(), Sign: k.SignKey(), WireGuard: k.WireGuardKey(), Admin: admin}
}

// ID returns the device's ID.
func (k DeviceKey) ID() DeviceID { return deviceID(k.SignKey(), k.WireGuardKey()) }

// SignKey returns the key that the device's signatures are checked with.
func (k DeviceKey) SignKey() SignKey { return SignKey(k.get().sign.Public().(ed25519.PublicKey)) }

func (k DeviceKey) sign(purpose string, message []byte) []byte {
	return sign(k.get().sign, purpose, message)
}

// WireGuard returns the device's WireGuard private key, 32 bytes, clamped: the
// secret's own memory, not to be changed.
func (k DeviceKey) WireGuard() []byte { return k.get().wireGuard[:] }

// WireGuardKey returns the public key of the device's WireGuard.
func (k DeviceKey) WireGuardKey() WireGuardKey { return publicOf(k.WireGuard()) }

// Wipe overwrites the keys, in all their copies.
func (k DeviceKey) Wipe() {
	clear(k.get().sign)
	clear(k.get().wireGuard[:])
}

// MarshalBinary returns a version byte and 64 bytes: keep them as the secrets
// they are.
func (k DeviceKey) MarshalBinary() ([]byte, error) {
	if k.IsZero() {
		return nil, cloudpal.E("write a device's keys", cloudpal.Invalid, fmt.Errorf("there are none"))
	}
	b := append([]byte{deviceKeyVersion}, k.get().sign.Seed()...)
	return append(b, k.get().wireGuard[:]...), nil
}

// UnmarshalBinary reads what MarshalBinary made. The error is
// cloudpal.Invalid.
func (k *DeviceKey) UnmarshalBinary(data []byte) error {
	if len(data) != 1+ed25519.SeedSize+wireGuardSize || data[0] != deviceKeyVersion {
		return cloudpal.E("read a device's keys", cloudpal.Invalid, nil)
	}
	*k = deviceKeyFrom(data[1:])
	return nil
}
