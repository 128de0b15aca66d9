package corestore

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/manifest"
)

// A PrimaryKey is the secret that the key pairs of all named cores of a store
// are derived from. Who has it can write all of them; who loses it, none.
type PrimaryKey [32]byte

// String hides the key, so that no log has it.
func (PrimaryKey) String() string { return "[secret]" }

// LogValue hides the key likewise.
func (PrimaryKey) LogValue() slog.Value { return slog.StringValue("[secret]") }

// GoString hides the key likewise.
func (PrimaryKey) GoString() string { return "[secret]" }

// Equal compares in constant time.
func (k PrimaryKey) Equal(other PrimaryKey) bool {
	return subtle.ConstantTimeCompare(k[:], other[:]) == 1
}

// KeyPair derives the key pair of a name in a namespace (SPEC 15). It is the
// one that the JavaScript corestore derives.
func (k PrimaryKey) KeyPair(namespace Namespace, name string) manifest.KeyPair {
	h, err := blake2b.New256(k[:])
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	h.Write(derivation[:])
	h.Write(namespace[:])
	io.WriteString(h, name)
	return manifest.NewKeyPair([32]byte(h.Sum(nil)))
}

// derivation sets these seeds apart from whatever else a primary key may be
// used for (SPEC 2, 15).
var derivation = manifest.Namespace("corestore", 0)

// A Namespace keeps the names of one part of a program apart from those of
// others. The zero Namespace is the store's own.
type Namespace [32]byte

// Below returns the namespace that has a name within n.
func (n Namespace) Below(name string) Namespace {
	return blake2b.Sum256(append(n[:], name...))
}

// keyFile is where a store's primary key is, beside the database.
const keyFile = "primary-key"

// loadPrimaryKey returns the key of the store in dir, and makes it where
// there is none: the one that is wanted, or a random one. Fresh says that the
// store was never used, so that there may be none.
func loadPrimaryKey(fs vfs.FS, dir string, want *PrimaryKey, fresh bool) (PrimaryKey, error) {
	path := fs.PathJoin(dir, keyFile)
	found, err := readPrimaryKey(fs, path)
	switch {
	case errors.Is(err, os.ErrNotExist) && fresh:
		return makePrimaryKey(fs, dir, want)
	case errors.Is(err, os.ErrNotExist):
		return PrimaryKey{}, cloudpal.E("read the primary key", cloudpal.Missing, errors.New("the store has cores and no file "+keyFile)).
			WithHint("bring " + path + " back from a backup: without it no named core can be written")
	case err != nil:
		return PrimaryKey{}, err
	case want != nil && !want.Equal(found):
		return PrimaryKey{}, cloudpal.E("open the store", cloudpal.Exist, errors.New("another corestore is stored here")).
			WithHint("take another folder, or leave the primary key out to use this store's own")
	}
	return found, nil
}

func readPrimaryKey(fs vfs.FS, path string) (k PrimaryKey, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return k, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(len(k))+1))
	if err != nil {
		return k, cloudpal.E("read the primary key", cloudpal.Other, err)
	}
	if len(data) != len(k) {
		return k, cloudpal.E("read the primary key", cloudpal.Corrupt, errors.New("it is not 32 bytes long")).
			WithHint("bring " + path + " back from a backup")
	}
	return PrimaryKey(data), nil
}

// makePrimaryKey puts a key in place whole or not at all, and on disk: cores
// whose key pairs come of it may be known elsewhere a moment later.
func makePrimaryKey(fs vfs.FS, dir string, want *PrimaryKey) (k PrimaryKey, err error) {
	if want != nil {
		k = *want
	} else if _, err := rand.Read(k[:]); err != nil {
		return k, err
	}
	temp := fs.PathJoin(dir, keyFile+".new")
	if err := writeSecret(fs, temp, k[:]); err != nil {
		return k, cloudpal.E("write the primary key", "", err)
	}
	if err := fs.Rename(temp, fs.PathJoin(dir, keyFile)); err != nil {
		return k, cloudpal.E("write the primary key", "", err)
	}
	if err := syncDir(fs, dir); err != nil {
		return k, cloudpal.E("write the primary key", "", err)
	}
	return k, nil
}

// writeSecret writes a file that only its owner may read, and brings it to
// the disk. A file system in memory has no owners.
func writeSecret(fs vfs.FS, path string, data []byte) error {
	f, err := createSecret(fs, path)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(data)) // a vfs.File may change what it is given
	return errors.Join(err, f.Sync(), f.Close())
}

type secretFile interface {
	io.WriteCloser
	Sync() error
}

func createSecret(fs vfs.FS, path string) (secretFile, error) {
	if fs != vfs.Default {
		return fs.Create(path, vfs.WriteCategoryUnspecified)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
