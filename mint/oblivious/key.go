package oblivious

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// The one suite that is used: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM.
const (
	kemID  = 0x0020
	kdfID  = 0x0001
	aeadID = 0x0001

	keySize = 32 // of a public key
)

func kem() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// A Config is a public key of a gateway (RFC 9458, section 3.1).
type Config struct {
	ID     byte
	Public hpke.PublicKey
}

// append appends the config, behind its length as lists have it (section 3.2).
func (c Config) append(b []byte) []byte {
	k := []byte{c.ID}
	k = binary.BigEndian.AppendUint16(k, kemID)
	k = append(k, c.Public.Bytes()...)
	k = binary.BigEndian.AppendUint16(k, 4)
	k = binary.BigEndian.AppendUint16(k, kdfID)
	k = binary.BigEndian.AppendUint16(k, aeadID)
	b = binary.BigEndian.AppendUint16(b, uint16(len(k)))
	return append(b, k...)
}

// parseConfigs reads a list, and returns those of the suite.
func parseConfigs(b []byte) (list []Config, err error) {
	for len(b) > 0 {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil, errKeys
		}
		n := int(binary.BigEndian.Uint16(b))
		c, ok, err := parseConfig(b[2 : 2+n])
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, c)
		}
		b = b[2+n:]
	}
	return list, nil
}

var errKeys = cloudpal.E("", cloudpal.Invalid, errors.New("they are no keys of Oblivious HTTP"))

// parseConfig reads one. It is not ok where it is of another suite.
func parseConfig(b []byte) (c Config, ok bool, err error) {
	if len(b) < 3 {
		return c, false, errKeys
	}
	if binary.BigEndian.Uint16(b[1:]) != kemID {
		return c, false, nil
	}
	if len(b) < 3+keySize+2 {
		return c, false, errKeys
	}
	c.ID = b[0]
	if c.Public, err = kem().NewPublicKey(b[3 : 3+keySize]); err != nil {
		return c, false, errKeys
	}
	suites := b[3+keySize:]
	if n := int(binary.BigEndian.Uint16(suites)); n == 0 || n%4 != 0 || n != len(suites)-2 {
		return c, false, errKeys
	}
	for s := suites[2:]; len(s) > 0; s = s[4:] {
		if binary.BigEndian.Uint16(s) == kdfID && binary.BigEndian.Uint16(s[2:]) == aeadID {
			return c, true, nil
		}
	}
	return c, false, nil
}

// Keys are what wallets seal for, the same for all of them, signed by the mint's
// receipt key.
type Keys struct {
	Configs   []byte       `json:"configs"` // as RFC 9458, section 3.2 has them, the newest first
	Expires   time.Time    `json:"expires"`
	Epoch     ticket.Epoch `json:"epoch"` // whose manifest has the receipt key
	Signature []byte       `json:"signature"`
}

// maxKeys bounds Keys in JSON, in bytes.
const maxKeys = 4 << 10

// Text is what the mint signs of them.
func (k Keys) Text() []byte {
	b := []byte("cloudpal oblivious keys v1")
	b = binary.BigEndian.AppendUint64(b, uint64(k.Expires.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(k.Epoch))
	return append(b, k.Configs...)
}

// parseKeys reads keys, and checks nothing but their form.
func parseKeys(b []byte) (k Keys, err error) {
	if len(b) > maxKeys || json.Unmarshal(b, &k) != nil {
		return k, errKeys
	}
	if _, err := parseConfigs(k.Configs); err != nil {
		return k, err
	}
	return k, nil
}

// best returns what to seal for now, by the receipt key of their epoch.
func (k Keys) best(receipt ed25519.PublicKey, now time.Time) (c Config, err error) {
	if len(receipt) != ed25519.PublicKeySize || !ed25519.Verify(receipt, k.Text(), k.Signature) {
		return c, cloudpal.E("", cloudpal.Denied, errors.New("the mint did not sign them")).WithHint("use another relay: this one may be reading")
	}
	if !now.Before(k.Expires) || k.Expires.Sub(now) > 2*keyLife {
		return c, cloudpal.E("", cloudpal.Denied, errors.New("they are of another time")).WithHint("check this device's clock, or use another relay")
	}
	list, err := parseConfigs(k.Configs)
	if err != nil {
		return c, err
	}
	if len(list) == 0 {
		return c, cloudpal.E("", cloudpal.Missing, errors.New("there is none for a cipher that is known here"))
	}
	return list[0], nil
}
