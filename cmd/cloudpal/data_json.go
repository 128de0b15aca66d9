package main

import (
	"encoding/hex"
	"encoding/json"
	"unicode/utf8"
)

// printLine writes v as JSON on one line: results that have no end come so.
func (c *cli) printLine(v any) error {
	enc := json.NewEncoder(screenOf(c.out))
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// textOrHex returns bytes as text where they are, else as hexadecimal digits.
func textOrHex(b []byte) (text, digits *string) {
	if utf8.Valid(b) {
		s := string(b)
		return &s, nil
	}
	s := hex.EncodeToString(b)
	return nil, &s
}

// legible returns bytes for a person to read: as text where they are.
func legible(b []byte) string {
	if utf8.Valid(b) {
		return plain(string(b))
	}
	return "0x" + hex.EncodeToString(b)
}
