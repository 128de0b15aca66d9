package ticket

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/tradle/cloudpal"
)

// The text of a Digest, a Serial, a KeyID and a CenterID is base64, as RFC 4648,
// section 4 has it: 44 characters, the same as a mint's API has for them. JSON of before
// they had a text has arrays of numbers, and is still read.

// MarshalText returns the digest's text.
func (d Digest) MarshalText() ([]byte, error) { return appendText(d), nil }

// UnmarshalText reads the digest's text.
func (d *Digest) UnmarshalText(text []byte) error { return readText(d[:], text) }

// UnmarshalJSON reads its text, or 32 numbers.
func (d *Digest) UnmarshalJSON(b []byte) error { return readJSON(d, (*[32]byte)(d), b) }

// MarshalText returns the serial's text.
func (s Serial) MarshalText() ([]byte, error) { return appendText(s), nil }

// UnmarshalText reads the serial's text.
func (s *Serial) UnmarshalText(text []byte) error { return readText(s[:], text) }

// UnmarshalJSON reads its text, or 32 numbers.
func (s *Serial) UnmarshalJSON(b []byte) error { return readJSON(s, (*[32]byte)(s), b) }

// MarshalText returns the ID's text.
func (id KeyID) MarshalText() ([]byte, error) { return appendText(id), nil }

// UnmarshalText reads the ID's text.
func (id *KeyID) UnmarshalText(text []byte) error { return readText(id[:], text) }

// UnmarshalJSON reads its text, or 32 numbers.
func (id *KeyID) UnmarshalJSON(b []byte) error { return readJSON(id, (*[32]byte)(id), b) }

// MarshalText returns the ID's text.
func (id CenterID) MarshalText() ([]byte, error) { return appendText(id), nil }

// UnmarshalText reads the ID's text.
func (id *CenterID) UnmarshalText(text []byte) error { return readText(id[:], text) }

// UnmarshalJSON reads its text, or 32 numbers.
func (id *CenterID) UnmarshalJSON(b []byte) error { return readJSON(id, (*[32]byte)(id), b) }

func appendText(b [32]byte) []byte { return base64.StdEncoding.AppendEncode(nil, b[:]) }

// readText reads all of text into b, or changes nothing.
func readText(b, text []byte) error {
	read, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil || len(read) != len(b) || len(text) != base64.StdEncoding.EncodedLen(len(b)) {
		return cloudpal.E("read a key or a digest", cloudpal.Invalid, errors.New("it has 44 characters of base64"))
	}
	copy(b, read)
	return nil
}

func readJSON(v interface{ UnmarshalText([]byte) error }, numbers *[32]byte, b []byte) error {
	if bytes.HasPrefix(b, []byte("[")) {
		return json.Unmarshal(b, numbers)
	}
	var text *string
	if err := json.Unmarshal(b, &text); err != nil || text == nil {
		return err
	}
	return v.UnmarshalText([]byte(*text))
}
