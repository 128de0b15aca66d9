package hypercore

import (
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/salsa20"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/manifest"
)

// Encryption is how blocks are encrypted: with XSalsa20, under a key that is
// made from Key and the core's own key, so that one Key serves many cores. A
// peer that has only the core's key can store, check and pass on the blocks.
//
// The cipher hides, it does not authenticate: that the blocks are the writer's
// is what the tree and its signature say.
type Encryption struct {
	Key [32]byte

	// Block says that Key is the block key itself, of this one core.
	Block bool
}

// String hides the key, so that no log has it.
func (Encryption) String() string { return "[secret]" }

// GoString hides the key likewise.
func (Encryption) GoString() string { return "[secret]" }

// paddingSize is how much longer a block is as it is stored (SPEC 6).
const paddingSize = 8

// defaultEncryption is the sixth value of the namespace "hypercore" (SPEC 2).
var defaultEncryption = func() [32]byte {
	word := blake2b.Sum256([]byte("hypercore"))
	return blake2b.Sum256(append(word[:], 5))
}()

// A cipher encrypts the blocks of one core.
type cipher struct {
	block    [32]byte
	blinding [32]byte
}

func newCipher(e Encryption, key manifest.Key, compat bool) *cipher {
	c := &cipher{block: blockKey(e, key, compat)}
	c.blinding = blake2b.Sum256(c.block[:])
	return c
}

func blockKey(e Encryption, key manifest.Key, compat bool) [32]byte {
	switch {
	case e.Block:
		return e.Key
	case compat:
		h, err := blake2b.New256(key[:])
		if err != nil {
			panic(err) // 32 bytes are a key
		}
		h.Write(e.Key[:])
		return [32]byte(h.Sum(nil))
	}
	return blake2b.Sum256(append(append(defaultEncryption[:len(defaultEncryption):len(defaultEncryption)], key[:]...), e.Key[:]...))
}

// seal fills dst, which is paddingSize longer than block, with the block as it
// is stored. The padding holds the fork, so that a block that takes the place
// of another after a truncation is not encrypted with the same stream.
func (c *cipher) seal(dst []byte, index, fork uint64, block []byte) {
	var nonce [24]byte
	var number [8]byte
	binary.LittleEndian.PutUint64(nonce[:], index)
	binary.LittleEndian.PutUint64(number[:], fork)
	salsa20.XORKeyStream(dst[:paddingSize], number[:], nonce[:], &c.blinding)
	copy(nonce[8:], dst[:paddingSize])
	salsa20.XORKeyStream(dst[paddingSize:], block, nonce[:], &c.block)
}

// open decrypts a stored block in its place and returns it.
func (c *cipher) open(index uint64, stored []byte) ([]byte, error) {
	if len(stored) < paddingSize {
		return nil, cloudpal.E("decrypt a block", cloudpal.Invalid, errors.New("it is too short to be encrypted")).
			WithHint("the core may not be encrypted: open it without a key")
	}
	var nonce [24]byte
	binary.LittleEndian.PutUint64(nonce[:], index)
	copy(nonce[8:], stored[:paddingSize])
	block := stored[paddingSize:]
	salsa20.XORKeyStream(block, block, nonce[:], &c.block)
	return block, nil
}
