package center

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tradle/cloudpal"
)

const (
	pemType = "PRIVATE KEY" // PKCS #8 (RFC 5208)
	keyName = "key.pem"     // the center's, in its directory
)

// maxKeyFile bounds a key's file in bytes.
const maxKeyFile = 4 << 10

// ReadKey returns the key by which the center of a directory is known. Who has it can
// pass for the center; pals and their data it does not open.
func ReadKey(dir string) (ed25519.PrivateKey, error) {
	key, err := readKey(filepath.Join(dir, keyName))
	if err != nil {
		return nil, cloudpal.E("read the center's key", "", err)
	}
	return key, nil
}

// loadKey reads a key, and makes one where there is no file.
func loadKey(path string) (ed25519.PrivateKey, error) {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	return key, err
}

func readKey(path string) (ed25519.PrivateKey, error) {
	data, err := readSmall(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	damaged := cloudpal.E(path, cloudpal.Corrupt, errors.New("it has no Ed25519 key")).
		WithHint("put it back from a backup: with a new key this is another center to all of its customers")
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemType {
		return nil, damaged
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, damaged
	}
	return key, nil
}

func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}))
}

// readSmall reads a file of at most so many bytes.
func readSmall(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, cloudpal.E(path, cloudpal.Corrupt, errors.New("it is no file of this center"))
	}
	return os.ReadFile(path)
}
