package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
)

// A Key seals naps. It is never written to a file, and no verb of fmt shows
// it.
type Key struct {
	secret [keySize]byte
}

const keySize = 32

// NewKey returns a random key that lives as long as the process.
func NewKey() *Key {
	k := new(Key)
	rand.Read(k.secret[:]) // cannot fail: crypto/rand ends the process instead
	return k
}

// Format hides the key from every verb of fmt.
func (Key) Format(s fmt.State, _ rune) { io.WriteString(s, "(nap key)") }

// aead returns the cipher of the one file with header h and the label.
func (k *Key) aead(h header, label string) (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, k.secret[:], h.salt(), string(h[:])+label, keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	clear(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
