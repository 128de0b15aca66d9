// Package blake2b8 is BLAKE2b-256 (RFC 7693) of up to eight messages at a time,
// which are of one length and begin alike, as the blocks of an append and of a
// file do for the most part.
//
// A processor with AVX-512 has registers of eight words of BLAKE2b, and instructions
// that do the same to all: it hashes eight messages in less than half of the time
// that it takes for one after the other. On others the messages are hashed by
// golang.org/x/crypto/blake2b, to the same sums.
package blake2b8

import (
	"hash"
	"sync"

	"golang.org/x/crypto/blake2b"
)

// lanes is how many messages are hashed at a time, and fewest from how many on
// that is faster than one after the other.
const (
	lanes  = 8
	fewest = 3
)

// maxHead is how long what all messages begin with may be.
const maxHead = 64

// Sum256 sets each of sums to the hash of head, of at most 64 bytes, and a message.
// There are as many sums as messages, and the messages are equally long. It hardly
// ever allocates.
func Sum256(sums [][32]byte, head []byte, messages [][]byte) {
	if len(head) > maxHead {
		panic("blake2b8: the head is too long")
	}
	for hasLanes && len(messages) >= fewest {
		n := min(len(messages), lanes)
		sumLanes(sums[:n], head, messages[:n])
		sums, messages = sums[n:], messages[n:]
	}
	if len(messages) > 0 {
		sumEach(sums, head, messages)
	}
}

// A hasher hashes one message after the other. What it gives to its state must not
// be on a stack.
type hasher struct {
	state hash.Hash
	head  [maxHead]byte
	sum   [32]byte
}

var hashers = sync.Pool{New: func() any {
	state, err := blake2b.New256(nil)
	if err != nil {
		panic(err) // only a key that is too long fails
	}
	return &hasher{state: state}
}}

func sumEach(sums [][32]byte, head []byte, messages [][]byte) {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	n := copy(h.head[:], head)
	for i, m := range messages {
		h.state.Reset()
		h.state.Write(h.head[:n])
		h.state.Write(m)
		h.state.Sum(h.sum[:0])
		sums[i] = h.sum
	}
}
