package seal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
)

const magic = "CloudPal nap v1\n"

const (
	saltSize   = 32
	headerSize = len(magic) + saltSize + 8
)

// A header begins a sealed nap, in the clear.
type header [headerSize]byte

func newHeader(size int64) (h header) {
	copy(h[:], magic)
	rand.Read(h.salt())
	binary.BigEndian.PutUint64(h[len(magic)+saltSize:], uint64(size))
	return h
}

func (h *header) salt() []byte { return h[len(magic) : len(magic)+saltSize] }

func (h *header) size() uint64 { return binary.BigEndian.Uint64(h[len(magic)+saltSize:]) }

func (h *header) check() error {
	if string(h[:len(magic)]) != magic {
		return errors.New("not a sealed nap of this version")
	}
	if h.size() > MaxMemory {
		return errors.New("its header claims more than 64 GiB of memory")
	}
	return nil
}
