package guest

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Hello is the first thing that a guest gets after a boot and after each
// resume, before any packet of others: the time, and randomness that the
// snapshot did not have. It is left in the guest's mailbox, or sent as a UDP
// datagram to Port, repeated until the guest answers; each repetition has the
// time anew.
type Hello struct {
	Nonce [16]byte // the same in all repetitions of one hello; the answer has it too
	Time  time.Time
	Slept time.Duration // since the snapshot; 0 at a boot
	Seed  [32]byte
	// Reason says why it was woken, in at most MaxReason bytes that CleanReason
	// would not change.
	Reason string
}

// MaxReason is how long the reason of a wake can be, in bytes.
const MaxReason = 96

// Sizes of the datagrams in bytes.
const (
	HelloSize  = 4 + 16 + 8 + 8 + 32 + MaxReason
	AnswerSize = 4 + 16
)

var (
	helloMagic  = []byte("cpH2")
	answerMagic = []byte("cpA1")
)

// NewHello returns one that nobody else has, for a guest that slept so long and
// was woken for that reason.
func NewHello(slept time.Duration, reason string) *Hello {
	h := &Hello{Time: time.Now(), Slept: slept, Reason: CleanReason(reason)}
	rand.Read(h.Nonce[:])
	rand.Read(h.Seed[:])
	return h
}

// Marshal returns the datagram.
func (h *Hello) Marshal() []byte {
	b := make([]byte, 0, HelloSize)
	b = append(b, helloMagic...)
	b = append(b, h.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Time.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Slept))
	b = append(b, h.Seed[:]...)
	return append(b, append([]byte(h.Reason), make([]byte, MaxReason-len(h.Reason))...)...)
}

// CleanReason makes a reason fit a hello.
func CleanReason(s string) string { return CleanText(s, MaxReason) }

// CleanText makes a text UTF-8 without control characters, cut to most bytes.
func CleanText(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	for len(s) > most {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
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
	text := string(bytes.TrimRight(b[68:], "\x00"))
	if CleanReason(text) != text {
		return Hello{}, errHello
	}
	h.Reason = text
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
