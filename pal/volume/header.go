package volume

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

const (
	headerSize    = 4096 // of it, the first 84 bytes are used
	saltSize      = 32
	cipherKeySize = 64 // AES-256-XTS has two keys

	headerVersion = 1
)

var magic = []byte("CloudPal volume\n")

// A header begins a volume:
//
//	16 bytes  "CloudPal volume\n"
//	 4 bytes  version, 1, big endian: aes-xts-plain64, sectors of 4096 bytes, data from 1 MiB
//	32 bytes  random salt
//	32 bytes  HMAC-SHA256 of the bytes before
//	          and zeros up to 4096 bytes
//
// The keys of the MAC and of the cipher are HKDF-SHA256 of the disk key, with
// the salt, and macInfo and cipherInfo as info.
type header struct {
	salt [saltSize]byte
	mac  [sha256.Size]byte
}

const (
	macInfo    = "CloudPal volume v1 header"
	cipherInfo = "CloudPal volume v1 aes-xts-plain64"
)

var errHeader = errors.New("it is no header of a volume of this version")

func makeHeader(key []byte, salt [saltSize]byte) header {
	h := header{salt: salt}
	h.mac = h.sign(key)
	return h
}

// parseHeader reads the bytes of a header. Whether it is genuine, only who has
// the key can tell.
func parseHeader(b []byte) (h header, err error) {
	body := len(magic) + 4 + saltSize
	if len(b) != headerSize || string(b[:len(magic)]) != string(magic) ||
		binary.BigEndian.Uint32(b[len(magic):]) != headerVersion || !isZero(b[body+len(h.mac):]) {
		return h, errHeader
	}
	copy(h.salt[:], b[len(magic)+4:])
	copy(h.mac[:], b[body:])
	return h, nil
}

// signed are the bytes that the MAC is of.
func (h header) signed() []byte {
	b := binary.BigEndian.AppendUint32(append([]byte(nil), magic...), headerVersion)
	return append(b, h.salt[:]...)
}

func (h header) bytes() []byte {
	b := append(h.signed(), h.mac[:]...)
	return append(b, make([]byte, headerSize-len(b))...)
}

// opens reports whether the key is this volume's.
func (h header) opens(key []byte) bool {
	mac := h.sign(key)
	return hmac.Equal(mac[:], h.mac[:])
}

func (h header) sign(key []byte) [sha256.Size]byte {
	k := h.derive(key, macInfo, sha256.Size)
	defer clear(k)
	m := hmac.New(sha256.New, k)
	m.Write(h.signed())
	return [sha256.Size]byte(m.Sum(nil))
}

// cipherKey returns the key of the volume's cipher.
func (h header) cipherKey(key []byte) []byte { return h.derive(key, cipherInfo, cipherKeySize) }

func (h header) derive(key []byte, info string, size int) []byte {
	k, err := hkdf.Key(sha256.New, key, h.salt[:], info, size)
	if err != nil {
		panic(err) // the sizes are constants
	}
	return k
}
