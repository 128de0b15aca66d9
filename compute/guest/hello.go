package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
)

// A Hello is the first thing that a guest gets after a boot and after each
// resume, before any packet of others: the time, and randomness that the
// snapshot did not have. It is one UDP datagram to Port, repeated until the
// guest answers; each repetition has the time anew.
type Hello struct {
	Nonce [16]byte // the same in all repetitions of one hello; the answer has it too
	Time  time.Time
	Slept time.Duration // since the snapshot; 0 at a boot
	Seed  [32]byte
}

// Sizes of the datagrams in bytes.
const (
	HelloSize  = 4 + 16 + 8 + 8 + 32
	AnswerSize = 4 + 16
)

var (
	helloMagic  = []byte("cpH1")
	answerMagic = []byte("cpA1")
)

// Marshal returns the datagram.
func (h *Hello) Marshal() []byte {
	b := make([]byte, 0, HelloSize)
	b = append(b, helloMagic...)
	b = append(b, h.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Time.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Slept))
	return append(b, h.Seed[:]...)
}

var errHello = errors.New("not a hello")

// ParseHello reads the datagram.
func ParseHello(b []byte) (Hello, error) {
	var h Hello
	if len(b) != HelloSize || !bytes.Equal(b[:4], helloMagic) {
		return h, errHello
	}
	copy(h.Nonce[:], b[4:])
	h.Time = time.Unix(0, int64(binary.BigEndian.Uint64(b[20:])))
	h.Slept = time.Duration(binary.BigEndian.Uint64(b[28:]))
	copy(h.Seed[:], b[36:])
	return h, nil
}

// Answer returns the datagram that says that the hello was taken.
func (h *Hello) Answer() []byte {
	return append(bytes.Clone(answerMagic), h.Nonce[:]...)
}

// IsAnswer reports whether b answers h.
func (h *Hello) IsAnswer(b []byte) bool {
	return len(b) == AnswerSize && bytes.Equal(b[:4], answerMagic) && bytes.Equal(b[4:], h.Nonce[:])
}
