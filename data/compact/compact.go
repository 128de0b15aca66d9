// Package compact reads and writes compact-encoding, the way in which
// hypercore's messages, manifests and signatures are written.
//
// Writing appends to a slice, as the append functions of the standard library
// do. Reading is by a Decoder, which remembers the first error, so that a
// message is read field by field and the error asked for once:
//
//	d := compact.NewDecoder(message)
//	index := d.Uint()
//	value := d.Buffer()
//	if err := d.Err(); err != nil {
//		return err
//	}
//
// Bytes come from strangers, so nothing is allocated for a length that a
// message only claims: Buffer is a part of the input, Count and Uint32Array
// take the largest number the caller can use, and all numbers are at most
// MaxUint, the largest integer that JavaScript can hold, which the other
// implementations refuse to pass. What is left after the last field is
// ignored, as the others do: later versions put new fields there.
//
//	uint     one byte up to fc; else fd, fe or ff, and 2, 4 or 8 bytes little endian
//	int      2n for n >= 0, else -2n-1; as a uint
//	bool     one byte; only 1 is true
//	buffer   a uint and so many bytes; one of no bytes also stands for none
//	string   a buffer of UTF-8
//	fixed32  32 bytes
//	array    a uint and so many items; for uint32array words of 4 bytes little endian
//	raw      all that is left
//
// The format has more types. Those that no message of hypercore has are left
// out.
package compact

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/tradle/cloudpal"
)

// MaxUint is the largest number that may be sent, 2^53-1.
const MaxUint = 1<<53 - 1

// What a Decoder finds wrong; all are cloudpal.Invalid.
var (
	ErrShort error = cloudpal.E("decode", cloudpal.Invalid, errors.New("it ends too early"))
	ErrLarge error = cloudpal.E("decode", cloudpal.Invalid, errors.New("a number is larger than allowed"))
)

// UintLen returns how many bytes AppendUint appends: 1, 3, 5 or 9.
func UintLen(n uint64) int {
	switch {
	case n <= 0xfc:
		return 1
	case n <= math.MaxUint16:
		return 3
	case n <= math.MaxUint32:
		return 5
	}
	return 9
}

// AppendUint appends a uint. One above MaxUint is written too, but no
// implementation reads it.
func AppendUint(b []byte, n uint64) []byte {
	switch {
	case n <= 0xfc:
		return append(b, byte(n))
	case n <= math.MaxUint16:
		return binary.LittleEndian.AppendUint16(append(b, 0xfd), uint16(n))
	case n <= math.MaxUint32:
		return binary.LittleEndian.AppendUint32(append(b, 0xfe), uint32(n))
	}
	return binary.LittleEndian.AppendUint64(append(b, 0xff), n)
}

// AppendInt appends an int, which must be from -2^52 to 2^52-1 to be read.
func AppendInt(b []byte, n int64) []byte {
	return AppendUint(b, uint64(n<<1)^uint64(n>>63))
}

// AppendBool appends a bool.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendBuffer appends a buffer. Nil and empty are the same bytes.
func AppendBuffer(b, v []byte) []byte {
	return append(AppendUint(b, uint64(len(v))), v...)
}

// AppendString appends a string.
func AppendString(b []byte, v string) []byte {
	return append(AppendUint(b, uint64(len(v))), v...)
}

// AppendUint32Array appends the number of words, and the words.
func AppendUint32Array(b []byte, words []uint32) []byte {
	b = AppendUint(b, uint64(len(words)))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// A Decoder reads a message from its start. After an error it is at its end,
// and every further read returns the zero value. The zero Decoder has an empty
// message. It may be copied: both copies read on from there.
type Decoder struct {
	rest []byte
	err  error
}

// NewDecoder returns a Decoder of b, which must not change while what was read
// is used.
func NewDecoder(b []byte) Decoder { return Decoder{rest: b} }

// Err returns the first error, or nil.
func (d *Decoder) Err() error { return d.err }

// Fail ends the reading with err, as a field that is not valid does. Only the
// first error is kept.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}

// Len returns how many bytes are left.
func (d *Decoder) Len() int { return len(d.rest) }

// Rest takes all that is left.
func (d *Decoder) Rest() []byte {
	rest := d.rest
	d.rest = nil
	return rest
}

// Take takes the next n bytes; they are a part of the input.
func (d *Decoder) Take(n int) []byte {
	if n < 0 || n > len(d.rest) {
		d.Fail(ErrShort)
		return nil
	}
	v := d.rest[:n:n]
	d.rest = d.rest[n:]
	return v
}

// Uint reads a uint, at most MaxUint. Longer forms than needed are accepted.
func (d *Decoder) Uint() uint64 {
	if len(d.rest) > 0 && d.rest[0] <= 0xfc {
		n := uint64(d.rest[0])
		d.rest = d.rest[1:]
		return n
	}
	return d.longUint()
}

// longUint reads a uint of more than one byte.
func (d *Decoder) longUint() uint64 {
	if len(d.rest) == 0 {
		d.Fail(ErrShort)
		return 0
	}
	size := 2 << (d.rest[0] - 0xfd)
	b := d.Take(1 + size)
	if b == nil {
		return 0
	}
	var word [8]byte
	copy(word[:], b[1:])
	n := binary.LittleEndian.Uint64(word[:])
	if n > MaxUint {
		d.Fail(ErrLarge)
		return 0
	}
	return n
}

// Int reads an int.
func (d *Decoder) Int() int64 {
	n := d.Uint()
	return int64(n>>1) ^ -int64(n&1)
}

// Bool reads a bool; every byte but 1 is false.
func (d *Decoder) Bool() bool {
	b := d.Take(1)
	return b != nil && b[0] == 1
}

// Buffer reads a buffer; it is a part of the input. One of no bytes is empty
// but not nil; whether it stands for none is the caller's to know.
func (d *Decoder) Buffer() []byte {
	n := d.Uint()
	if n > uint64(len(d.rest)) {
		d.Fail(ErrShort)
	}
	if d.err != nil {
		return nil
	}
	return d.Take(int(n))
}

// String reads a string. Whether it is valid UTF-8 is not checked.
func (d *Decoder) String() string { return string(d.Buffer()) }

// Fixed32 reads 32 bytes.
func (d *Decoder) Fixed32() (h [32]byte) {
	copy(h[:], d.Take(len(h)))
	return h
}

// Count reads how many items an array has: at most limit, and no more than can
// be in what is left when each has at least minSize bytes. So memory for the
// items is in proportion to the message.
func (d *Decoder) Count(limit, minSize int) int {
	n := d.Uint()
	switch {
	case n > uint64(max(limit, 0)):
		d.Fail(ErrLarge)
	case n > uint64(len(d.rest)/max(minSize, 1)):
		d.Fail(ErrShort)
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

// Uint32Array reads an array of at most limit words.
func (d *Decoder) Uint32Array(limit int) []uint32 {
	b := d.Take(4 * d.Count(limit, 4))
	words := make([]uint32, len(b)/4)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return words
}
