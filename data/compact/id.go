package compact

import (
	"encoding/base32"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/tradle/cloudpal"
)

// z32 is z-base-32, whose letters are hard to confuse.
var z32 = base32.NewEncoding("ybndrfg8ejkmcpqxot1uwisza345h769").WithPadding(base32.NoPadding)

// z32Len is the length of 32 bytes in z-base-32.
const z32Len = 52

// Z32 writes bytes in z-base-32, as ids are shown to people: 52 characters for
// 32 bytes.
func Z32(b []byte) string { return z32.EncodeToString(b) }

// ParseID reads the id of a core as people have it: 52 characters of
// z-base-32, 64 of hex, or a link pear://ID, whose path is not looked at. The
// error is cloudpal.Invalid and does not show the id, since who knows it can
// read the core.
func ParseID(s string) (id [32]byte, err error) {
	if link, ok := strings.CutPrefix(s, "pear://"); ok {
		s, _, _ = strings.Cut(link, "/")
	}
	var b []byte
	switch len(s) {
	case z32Len:
		b, err = z32.DecodeString(s)
		if err == nil && Z32(b) != s { // bits after the last byte, or line breaks
			err = errors.New("it has another spelling")
		}
	case hex.EncodedLen(len(id)):
		b, err = hex.DecodeString(s)
	default:
		err = errors.New("it has another length")
	}
	if err != nil {
		return id, cloudpal.E("read an id", cloudpal.Invalid, errors.New("it is no id")).
			WithHint("An id has 52 letters and digits, as others show it.")
	}
	return [32]byte(b), nil
}
