package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// A thing is a core, bee or drive of the person's store, in use.
type thing struct {
	kind   kind
	ref    string // what the person called it
	store  *corestore.Store
	core   *hypercore.Core // a drive's is the one that has its names
	secret *[32]byte       // what it is encrypted with, or nil
	fresh  bool            // the store did not have it before
}

// What is kept beside a thing's core, in this store only.
const (
	kindRecord   = "cloudpal/kind"
	nameRecord   = "cloudpal/name"
	secretRecord = "cloudpal/encryption-key"
)

// names returns the view of the store that has the kind's names.
func (k kind) names(s *corestore.Store) *corestore.Store { return s.Namespace(string(k)) }

// checkName keeps names apart from keys and folders.
func checkName(name string) error {
	switch _, err := manifest.ParseKey(name); {
	case err == nil:
		return usage{fmt.Errorf("%.80q looks like a key: take another name", name)}
	case name == "" || len(name) > 100 || name[0] == '.' || name[0] == '-' || strings.ContainsFunc(name, isOdd):
		return usage{fmt.Errorf("%.80q is no name: use up to 100 letters, digits, dots, dashes and underscores", name)}
	}
	return nil
}

func isOdd(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`/\:*?"<>|`, r) }

// folderName is the name of the drive that is made of a folder: its path.
func folderName(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return abs, nil
}

// isFolder reports whether a person means a folder: it looks like a path, or is
// one and no name.
func isFolder(ref string) bool {
	if ref == "." || ref == ".." || strings.ContainsRune(ref, filepath.Separator) || strings.ContainsRune(ref, '/') {
		return true
	}
	info, err := os.Stat(ref)
	return err == nil && info.IsDir()
}

// find returns what a person calls by its name, its key, or, where it is a
// drive, its folder.
func (c *cli) find(k kind, s *corestore.Store, ref string) (*thing, error) {
	key, found, err := k.lookup(s, ref)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, k.notFound(s, ref)
	}
	t, err := open(k, s, key)
	if err != nil {
		return nil, err
	}
	t.ref = ref
	return t, t.check()
}

// notFound says that there is nothing of the kind, and what there is.
func (k kind) notFound(s *corestore.Store, ref string) error {
	e := cloudpal.E(k.text("find the KIND ")+ref, cloudpal.NotExist, nil)
	if _, err := manifest.ParseKey(ref); err == nil {
		return e.WithHint(k.text("fetch it from who has it: cloudpal KIND sync KEY --from HOST:PORT"))
	}
	for _, other := range []kind{coreKind, beeKind, driveKind} {
		if _, found, err := other.lookup(s, ref); err == nil && found {
			e.Err = fmt.Errorf("it is a %s", other)
			return e.WithHint(fmt.Sprintf("cloudpal %s --help shows what can be done with it", other))
		}
	}
	return e.WithHint(k.text("cloudpal KIND ls shows those of this store; cloudpal KIND create NAME makes one"))
}

// lookup finds the key of what a person means.
func (k kind) lookup(s *corestore.Store, ref string) (key manifest.Key, found bool, err error) {
	if key, err := manifest.ParseKey(ref); err == nil {
		c, err := s.Core(corestore.CoreOptions{Key: &key, Existing: true})
		if errors.Is(err, cloudpal.NotExist) {
			return key, false, nil
		}
		if err != nil {
			return key, false, err
		}
		return key, true, c.Close()
	}
	key, found, err = k.names(s).Lookup(ref)
	if err != nil || found || k != driveKind || !isFolder(ref) {
		return key, found, err
	}
	name, err := folderName(ref)
	if err != nil {
		return key, false, err
	}
	return k.names(s).Lookup(name)
}

// open opens a thing by its key, and makes its core where it is not stored.
func open(k kind, s *corestore.Store, key manifest.Key) (*thing, error) {
	plain, err := s.GetKey(key)
	if err != nil {
		return nil, err
	}
	t := &thing{kind: k, ref: key.String(), store: s, core: plain}
	record, err := plain.UserData(secretRecord)
	if err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	if len(record) == 32 {
		return t, t.decrypt([32]byte(record))
	}
	return t, nil
}

// decrypt has the thing be read and written under an encryption key.
func (t *thing) decrypt(secret [32]byte) error {
	key := t.core.Key()
	c, err := t.store.Core(corestore.CoreOptions{Key: &key, Encryption: &hypercore.Encryption{Key: secret}})
	if err != nil {
		return err
	}
	old := t.core
	t.core, t.secret = c, &secret
	return old.Close()
}

// note keeps what the thing is.
func (t *thing) note(record string, v []byte) error {
	if old, err := t.core.UserData(record); err != nil || string(old) == string(v) {
		return err
	}
	return t.core.SetUserData(record, v)
}

// check refuses a thing of another kind.
func (t *thing) check() error {
	is, err := kindOf(t.core)
	if err != nil || is == "" || is == t.kind || t.kind == coreKind {
		return err
	}
	return cloudpal.E(t.kind.text("use ")+t.ref+t.kind.text(" as a KIND"), cloudpal.Invalid, fmt.Errorf("it is a %s", is)).
		WithHint(fmt.Sprintf("cloudpal %s --help shows what can be done with it", is))
}

func kindOf(c *hypercore.Core) (kind, error) {
	record, err := c.UserData(kindRecord)
	return kind(record), err
}

func (t *thing) close() error { return t.core.Close() }

// whole refuses what is here only in part: reading it would wait for peers.
func (t *thing) whole() error {
	if n := t.core.Length(); !t.core.HasAll(0, n) || n == 0 && !t.core.Writable() {
		return t.partly("only a part of it is here")
	}
	return nil
}

func (t *thing) partly(what string) error {
	return cloudpal.E("read "+t.ref, cloudpal.NotExist, errors.New(what)).
		WithHint(t.kind.text("fetch the rest from who has it: cloudpal KIND sync ") + t.core.Key().String() + " --from HOST:PORT")
}

// writable refuses what is somebody else's.
func (t *thing) writable() error {
	if t.core.Writable() {
		return nil
	}
	return cloudpal.E("change "+t.ref, cloudpal.Denied, errors.New("it was made by another store")).
		WithHint("only the store that made it can change it; make one of your own with: " + t.kind.text("cloudpal KIND create NAME"))
}
