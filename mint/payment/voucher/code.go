package voucher

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"unicode"

	"github.com/tradle/cloudpal"
)

// A Code is what a voucher is worth its money by: 128 random bits. Printed, it is
// seven groups of four letters and digits, of which the last two check the others:
//
//	7KQ2-M0XR-9D4T-WB5N-ZH81-C3EV-J6PA
//
// All errors of one or two characters are noticed, so that to take a character for
// another or two in the wrong order is no other code; and of one character it is
// known in which group.
type Code [16]byte

const (
	// Crockford's base 32: without I, L and O, which look like others, and U.
	alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

	dataSize  = 26 // of 5 bits: 130, of which the first two are zero
	checkSize = 2
	codeSize  = dataSize + checkSize
	groupSize = 4
)

// maxText bounds what is read as a code, in bytes.
const maxText = 200

// NewCode makes a code.
func NewCode() (c Code) {
	rand.Read(c[:])
	return c
}

// String hides the code.
func (Code) String() string { return "voucher code" }

// GoString hides it likewise.
func (Code) GoString() string { return "voucher.Code{…}" }

// hash is what is kept of a code. It has too many bits for anybody to find it by
// trying.
func (c Code) hash() []byte {
	sum := sha256.Sum256(append([]byte("cloudpal voucher v1"), c[:]...))
	return sum[:]
}

// Print returns the code as it is printed: a secret.
func (c Code) Print() string {
	n := new(big.Int).SetBytes(c[:])
	var symbols [codeSize]byte
	for i := dataSize - 1; i >= 0; i-- {
		symbols[i] = byte(n.Uint64() & 31)
		n.Rsh(n, 5)
	}
	check(&symbols)
	var b strings.Builder
	for i, s := range symbols {
		if i > 0 && i%groupSize == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(alphabet[s])
	}
	return b.String()
}

// Parse reads a code as people type it: in upper or lower case, with or without
// hyphens and spaces, O for 0, and I or L for 1. Its errors say what is wrong with
// what was typed, and nothing of what it was.
func Parse(text string) (c Code, err error) {
	symbols, err := read(text)
	if err != nil {
		return c, mistyped(err)
	}
	if at, ok := locate(&symbols); !ok {
		if at < 0 {
			return c, mistyped(errors.New("there is more than one mistake in it"))
		}
		return c, mistyped(fmt.Errorf("there is a mistake in group %d", at/groupSize+1))
	}
	n := new(big.Int)
	for _, s := range symbols[:dataSize] {
		n.Lsh(n, 5).Or(n, big.NewInt(int64(s)))
	}
	if n.BitLen() > 8*len(c) {
		return c, mistyped(errors.New("its first group is none"))
	}
	n.FillBytes(c[:])
	return c, nil
}

func mistyped(err error) error {
	return cloudpal.E("read a voucher's code", cloudpal.Invalid, err).
		WithHint("the code is mistyped: " + err.Error() + "; it looks like 7KQ2-M0XR-9D4T-WB5N-ZH81-C3EV-J6PA")
}

// read reads characters, whatever stands between them.
func read(text string) (symbols [codeSize]byte, err error) {
	if len(text) > maxText {
		return symbols, errors.New("it is too long")
	}
	n := 0
	for _, r := range text {
		if unicode.IsSpace(r) || unicode.Is(unicode.Dash, r) || r == '_' || r == '.' {
			continue
		}
		s := strings.IndexRune(alphabet, folded(r))
		if s < 0 {
			return symbols, fmt.Errorf("in group %d stands what no code has", n/groupSize+1)
		}
		if n < codeSize {
			symbols[n] = byte(s)
		}
		n++
	}
	if n != codeSize {
		return symbols, fmt.Errorf("it has %d characters, not %d", n, codeSize)
	}
	return symbols, nil
}

func folded(r rune) rune {
	switch r = unicode.ToUpper(r); r {
	case 'O':
		return '0'
	case 'I', 'L':
		return '1'
	}
	return r
}

// The check is a Reed-Solomon code over the field of 32 elements, of x^5 + x^2 + 1:
// the polynomial of all characters has the roots a and a^2. Its distance is 3.

// exp has the powers of a, and log what they are the powers of.
var exp, log = func() (exp [31]byte, log [32]int) {
	x := 1
	for i := range exp {
		exp[i], log[x] = byte(x), i
		if x <<= 1; x&32 != 0 {
			x ^= 0b100101
		}
	}
	return exp, log
}()

func times(x, y byte) byte {
	if x == 0 || y == 0 {
		return 0
	}
	return exp[(log[x]+log[y])%31]
}

// at is the value of the polynomial, whose first character is of the highest power,
// at the i-th power of a.
func at(symbols *[codeSize]byte, i int) (y byte) {
	for _, s := range symbols {
		y = times(y, exp[i]) ^ s
	}
	return y
}

// check sets the last two characters. With them as zero, the values at a and a^2 are
// what they have to add: c1*a + c0 and c1*a^2 + c0.
func check(symbols *[codeSize]byte) {
	symbols[dataSize], symbols[dataSize+1] = 0, 0
	s1, s2 := at(symbols, 1), at(symbols, 2)
	sum := exp[1] ^ exp[2]
	c1 := times(s1^s2, exp[(31-log[sum])%31])
	symbols[dataSize], symbols[dataSize+1] = c1, s1^times(c1, exp[1])
}

// locate reports whether the characters check, and else where the one wrong
// character is; -1 where there are more.
func locate(symbols *[codeSize]byte) (where int, ok bool) {
	s1, s2 := at(symbols, 1), at(symbols, 2)
	if s1 == 0 && s2 == 0 {
		return 0, true
	}
	if s1 == 0 || s2 == 0 {
		return -1, false
	}
	if power := (log[s2] - log[s1] + 31) % 31; power < codeSize {
		return codeSize - 1 - power, false
	}
	return -1, false
}
