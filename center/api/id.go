package api

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strings"

	"github.com/tradle/cloudpal"
)

// An ID names a pal at its center: 24 characters of a-z and 2-7, chosen at
// random, 120 bits. It says nothing of whose the pal is.
type ID string

var idCoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const idBytes = 15

// NewID returns a new ID.
func NewID() ID {
	b := make([]byte, idBytes)
	rand.Read(b)
	return ID(idCoding.EncodeToString(b))
}

// ParseID returns s as an ID. The error is cloudpal.Invalid and does not have
// s in it.
func ParseID(s string) (ID, error) {
	// The decoder skips line ends, and what is left over.
	b, err := idCoding.DecodeString(s)
	if err != nil || len(b) != idBytes || len(s) != idCoding.EncodedLen(idBytes) || strings.ContainsAny(s, "\r\n") {
		return "", cloudpal.E("read a pal's id", cloudpal.Invalid, errors.New("it has 24 characters, a-z and 2-7"))
	}
	return ID(s), nil
}
