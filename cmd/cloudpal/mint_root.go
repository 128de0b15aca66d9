package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/scrypt"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/term"

	"github.com/tradle/cloudpal"
)

// A rootKey is the file of a mint's root key: who has it can make keys that wallets
// believe. It is plain, in a mint of one's own or on a medium that is taken away, or
// sealed with a passphrase.
type rootKey struct {
	Plain  string `json:"plain,omitempty"` // as note.GenerateKey writes it
	Salt   []byte `json:"salt,omitempty"`
	Cost   int    `json:"cost,omitempty"` // scrypt's N
	Sealed []byte `json:"sealed,omitempty"`
}

// What scrypt costs: 128 MiB, and most of a second.
const (
	rootN, rootR, rootP = 1 << 17, 8, 1
	maxRootN            = 1 << 20
)

// sealRoot seals a root key with a passphrase; an empty one leaves it plain.
func sealRoot(secret string, passphrase []byte) (rootKey, error) {
	if len(passphrase) == 0 {
		return rootKey{Plain: secret}, nil
	}
	k := rootKey{Salt: make([]byte, 16), Cost: rootN}
	rand.Read(k.Salt)
	aead, err := k.aead(passphrase)
	if err != nil {
		return rootKey{}, err
	}
	// The key is of this salt alone, so that there is one nonce.
	k.Sealed = aead.Seal(nil, make([]byte, chacha20poly1305.NonceSize), []byte(secret), []byte("cloudpal mint root v1"))
	return k, nil
}

func (k rootKey) aead(passphrase []byte) (interface {
	Seal(dst, nonce, plaintext, additional []byte) []byte
	Open(dst, nonce, ciphertext, additional []byte) ([]byte, error)
}, error) {
	key, err := scrypt.Key(passphrase, k.Salt, k.Cost, rootR, rootP, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.New(key)
}

// open returns the root key.
func (k rootKey) open(passphrase []byte) (note.Signer, error) {
	const op = "open the mint's root key"
	secret := k.Plain
	if secret == "" {
		if k.Cost < 2 || k.Cost > maxRootN {
			return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("its cost is none"))
		}
		aead, err := k.aead(passphrase)
		if err != nil {
			return nil, cloudpal.E(op, cloudpal.Corrupt, err)
		}
		plain, err := aead.Open(nil, make([]byte, chacha20poly1305.NonceSize), k.Sealed, []byte("cloudpal mint root v1"))
		if err != nil {
			return nil, cloudpal.E(op, cloudpal.Denied, errors.New("the passphrase is another")).WithHint("try it again; without it the mint can publish no more keys")
		}
		secret = string(plain)
	}
	s, err := note.NewSigner(secret)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("it is no key"))
	}
	return s, nil
}

// readRoot reads a root key's file: the folder's, or another.
func (f mintFolder) readRoot(path string) (k rootKey, err error) {
	var data []byte
	if path == "" {
		if data, err = f.read("root.key"); errors.Is(err, cloudpal.NotExist) {
			return k, cloudpal.E("read the mint's root key", cloudpal.NotExist, nil).WithHint("it is where you took it: give it as --root FILE")
		}
	} else if data, err = os.ReadFile(path); err != nil {
		err = cloudpal.E("read the mint's root key", "", err)
	}
	if err != nil {
		return k, err
	}
	if err := decodeStrictly(data, &k); err != nil {
		return k, cloudpal.E("read the mint's root key", cloudpal.Corrupt, errors.New("the file has no root key"))
	}
	return k, nil
}

// openRoot returns the root key, for which it may ask for the passphrase.
func (c *cli) openRoot(f mintFolder, path string) (note.Signer, error) {
	k, err := f.readRoot(path)
	if err != nil {
		return nil, err
	}
	var passphrase []byte
	if k.Plain == "" {
		if passphrase, err = c.readPassphrase("passphrase of the mint's root key: "); err != nil {
			return nil, err
		}
	}
	return k.open(passphrase)
}

// newPassphrase asks for one, twice where a person types it.
func (c *cli) newPassphrase() ([]byte, error) {
	const op = "read a passphrase"
	first, err := c.readPassphrase("passphrase for the mint's root key: ")
	if err != nil {
		return nil, err
	}
	if _, typed := terminal(c.in); typed {
		again, err := c.readPassphrase("the same again: ")
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(first, again) {
			return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("they are not the same"))
		}
	}
	if len(first) < 8 {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it has fewer than 8 characters")).
			WithHint("type it, or write it to the command's standard input; --root FILE takes the key away instead, --own leaves it plain in a mint of your own")
	}
	return first, nil
}

// readPassphrase reads a line from the terminal, unseen, or from standard input.
func (c *cli) readPassphrase(prompt string) ([]byte, error) {
	if t, ok := terminal(c.in); ok {
		fmt.Fprint(c.err, prompt)
		defer fmt.Fprintln(c.err)
		return term.ReadPassword(int(t.Fd()))
	}
	line, err := bufio.NewReader(io.LimitReader(c.in, 1<<10)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, cloudpal.E("read a passphrase", "", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func decodeStrictly(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}
