package blake2b8

import (
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

var hasLanes = cpu.X86.HasAVX512F

// blockSize is how many bytes of a message are compressed at a time.
const blockSize = 128

// maxBlocks is how many are compressed without a break, since a goroutine cannot be
// stopped meanwhile: 64 KiB of each lane take about 0.15 ms.
const maxBlocks = 512

// iv is what the state begins with (RFC 7693, section 2.6).
var iv = [8]uint64{
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
}

// parameters are of sums of 32 bytes, without a key (RFC 7693, section 2.5).
const parameters = 0x01010020

// A state is that of all lanes: of each word, eight.
type state [len(iv)][lanes]uint64

// compress compresses so many blocks of each lane, at least one, that follow each
// other from data on (RFC 7693, section 3.2). With the first, so many bytes of the
// message are hashed. last is all ones for the last of the message, which comes by
// itself.
//
//go:noescape
func compress(s *state, data *[lanes]*byte, blocks, hashed, last uint64)

// sumLanes is Sum256 of 1 to 8 messages. Lanes without a message do what the first
// does.
func sumLanes(sums [][32]byte, head []byte, messages [][]byte) {
	var (
		s    state
		edge [lanes][blockSize]byte // the first blocks, or the last
		data [lanes]*byte
		of   [lanes][]byte
	)
	for lane := range lanes {
		of[lane] = messages[0]
		if lane < len(messages) {
			of[lane] = messages[lane]
		}
		for i, word := range iv {
			s[i][lane] = word
		}
		s[0][lane] ^= parameters
	}
	size, done := len(head)+len(messages[0]), 0
	if size > blockSize {
		for lane := range lanes {
			n := copy(edge[lane][:], head)
			of[lane] = of[lane][copy(edge[lane][n:], of[lane]):]
			data[lane] = &edge[lane][0]
		}
		head, done = nil, blockSize
		compress(&s, &data, 1, blockSize, 0)
	}
	for whole := (size - done - 1) / blockSize; whole > 0; {
		n := min(whole, maxBlocks)
		for lane := range lanes {
			data[lane] = &of[lane][0]
			of[lane] = of[lane][n*blockSize:]
		}
		compress(&s, &data, uint64(n), uint64(done+blockSize), 0)
		done += n * blockSize
		whole -= n
	}
	for lane := range lanes {
		n := copy(edge[lane][:], head)
		n += copy(edge[lane][n:], of[lane])
		clear(edge[lane][n:])
		data[lane] = &edge[lane][0]
	}
	compress(&s, &data, 1, uint64(size), ^uint64(0))
	for lane := range sums {
		for i := range len(sums[lane]) / 8 {
			binary.LittleEndian.PutUint64(sums[lane][8*i:], s[i][lane])
		}
	}
}
