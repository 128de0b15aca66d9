package secretstream

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"

	//lint:ignore SA1019 libsodium's secretstream pads its MAC in its own way, which no AEAD does
	"golang.org/x/crypto/poly1305"
)

const (
	blockSize  = 64 // a block of ChaCha20, and what secretstream encrypts a tag in
	tagSize    = 16
	headerSize = 24
	overhead   = 1 + tagSize // what a message grows by
	tagRekey   = 2           // set in a tag: change keys after this message
)

// errCipher is all that is said of a message that was not encrypted for us.
var errCipher = errors.New("a message does not decrypt: it was damaged, or forged")

// A stream is one direction of libsodium's
// crypto_secretstream_xchacha20poly1305.
//
// A message's key stream is ChaCha20 (IETF) under key and nonce: block 0 gives
// the key of the MAC, block 1 encrypts the tag, followed by 63 zeros, and the
// message is encrypted from block 2 on. That is just what the AEAD
// ChaCha20-Poly1305 does to tag || zeros || message, so its Seal, which is in
// assembly where ChaCha20 alone is not, is our ChaCha20. Its MAC is the right
// one, too, for every message whose length is a multiple of 8: the AEAD pads
// what it authenticates to a multiple of 16 bytes, and libsodium, by a slip
// that is now the format, pads by length mod 16 instead, which is the same for
// remainders of 0 and 8. All others take a second pass with their own MAC.
type stream struct {
	aead  cipher.AEAD
	key   [32]byte
	nonce [12]byte // a counter from 1, 4 bytes little endian, and 8 that each message changes
}

// init starts a stream of a key and its header.
func (s *stream) init(key [32]byte, header []byte) {
	sub, err := chacha20.HChaCha20(key[:], header[:16])
	if err != nil {
		panic(err) // both lengths are right
	}
	copy(s.key[:], sub)
	copy(s.nonce[4:], header[16:headerSize])
	s.restart()
}

// restart makes the key that is now in s the one in use.
func (s *stream) restart() {
	aead, err := chacha20poly1305.New(s.key[:])
	if err != nil {
		panic(err)
	}
	s.aead = aead
	binary.LittleEndian.PutUint32(s.nonce[:4], 1)
}

// seal encrypts a message in place. The box is a block's room, the message,
// and a tag's room. What is to be sent is the box without its first 63 bytes.
func (s *stream) seal(box []byte) {
	body := box[:len(box)-tagSize]
	clear(body[:blockSize])
	s.aead.Seal(body[:0], s.nonce[:], body, nil)
	mac := box[len(body):]
	if len(body)%8 != 0 {
		var first [2 * blockSize]byte
		s.firstBlocks(&first, blockSize)
		sum(mac, body, &first)
	}
	box[blockSize-1] = box[0]
	s.next(mac, 0)
}

// open decrypts a message in place: it is where seal had it. The box is a
// block's room, of which the last byte is the first that was received, and the
// rest that was received. The room is overwritten.
func (s *stream) open(box []byte) (message []byte, err error) {
	body := box[:len(box)-tagSize]
	var mac [tagSize]byte
	copy(mac[:], box[len(body):])
	var first [2 * blockSize]byte
	s.firstBlocks(&first, 2*blockSize)
	box[0] = box[blockSize-1]
	copy(box[1:blockSize], first[blockSize+1:])
	if len(body)%8 == 0 {
		_, err = s.aead.Open(box[:0], s.nonce[:], box, nil)
	} else {
		err = s.openOdd(body, &mac, &first)
	}
	if err != nil {
		return nil, errCipher
	}
	s.next(mac[:], box[0])
	return body[blockSize:], nil
}

// openOdd is open for the lengths at which the AEAD's MAC is not libsodium's.
func (s *stream) openOdd(body []byte, mac *[tagSize]byte, first *[2 * blockSize]byte) error {
	var want [tagSize]byte
	sum(want[:], body, first)
	if !equal(want[:], mac[:]) {
		return errCipher
	}
	s.aead.Seal(body[:0], s.nonce[:], body, nil)
	return nil
}

// firstBlocks computes the first n bytes of the key stream.
func (s *stream) firstBlocks(blocks *[2 * blockSize]byte, n int) {
	c, err := chacha20.NewUnauthenticatedCipher(s.key[:], s.nonce[:])
	if err != nil {
		panic(err)
	}
	c.XORKeyStream(blocks[:n], blocks[:n])
}

// sum computes the MAC of an encrypted block and message, with no additional
// data, by the key stream's first block.
func sum(mac, body []byte, first *[2 * blockSize]byte) {
	var end [15 + 16]byte
	pad := len(body) % 16
	binary.LittleEndian.PutUint64(end[pad+8:], uint64(len(body)))
	m := poly1305.New((*[32]byte)(first[:32]))
	m.Write(body)
	m.Write(end[:pad+16])
	m.Sum(mac[:0])
}

// next moves on to the next message.
func (s *stream) next(mac []byte, tag byte) {
	for i, b := range mac[:8] {
		s.nonce[4+i] ^= b
	}
	count := binary.LittleEndian.Uint32(s.nonce[:4]) + 1
	binary.LittleEndian.PutUint32(s.nonce[:4], count)
	if count == 0 || tag&tagRekey != 0 {
		s.rekey()
	}
}

// rekey encrypts key and nonce with themselves.
func (s *stream) rekey() {
	var b [40]byte
	copy(b[:], s.key[:])
	copy(b[32:], s.nonce[4:])
	c, err := chacha20.NewUnauthenticatedCipher(s.key[:], s.nonce[:])
	if err != nil {
		panic(err)
	}
	c.XORKeyStream(b[:], b[:])
	copy(s.key[:], b[:])
	copy(s.nonce[4:], b[32:])
	s.restart()
}
