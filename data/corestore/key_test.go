package corestore

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
)

// vectors are what the JavaScript corestore made; see testdata.
type vectors struct {
	PrimaryKey string
	Cores      []struct {
		NamespacePath                             []string
		Name, Namespace, PublicKey, SecretKeySeed string
		CoreKey, DiscoveryKey                     string
	}
	Staticify struct {
		SrcKey, StaticKey string
		Blocks            []string
	}
}

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/corestore.json")
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vectors) primary(t *testing.T) *PrimaryKey {
	t.Helper()
	b, err := hex.DecodeString(v.PrimaryKey)
	if err != nil || len(b) != 32 {
		t.Fatal(err, len(b))
	}
	return (*PrimaryKey)(b)
}

// The same primary key, namespaces and names give the cores that the JavaScript
// corestore has.
func TestKeysAreThoseOfTheOriginal(t *testing.T) {
	v := readVectors(t)
	s := open(t, Options{PrimaryKey: v.primary(t)})
	for _, want := range v.Cores {
		view := s
		for _, name := range want.NamespacePath {
			view = view.Namespace(name)
		}
		pair, core := view.KeyPair(want.Name), get(t, view, want.Name)
		seed, key, discovery := pair.Seed(), core.Key(), core.DiscoveryKey()
		for what, have := range map[string][2]string{
			"namespace":     {hex.EncodeToString(view.namespace[:]), want.Namespace},
			"public key":    {hex.EncodeToString(pair.Public[:]), want.PublicKey},
			"seed":          {hex.EncodeToString(seed[:]), want.SecretKeySeed},
			"core key":      {hex.EncodeToString(key[:]), want.CoreKey},
			"discovery key": {hex.EncodeToString(discovery[:]), want.DiscoveryKey},
		} {
			if have[0] != have[1] {
				t.Errorf("%s of %q in %q: got %s, want %s", what, want.Name, want.NamespacePath, have[0], have[1])
			}
		}
	}
}

// A store makes a key of its own, which only its owner may read, and keeps it.
func TestPrimaryKeyIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	first := openDir(t, dir, Options{})
	key, core := first.PrimaryKey(), get(t, first, "a").Key()
	closeStore(t, first)

	info, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 32 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	again := openDir(t, dir, Options{})
	if again.PrimaryKey() != key || get(t, again, "a").Key() != core {
		t.Error("a store that is opened again has other keys")
	}
}

// A key that is lost is not replaced: the cores would be lost with it, unseen.
func TestLostPrimaryKeyIsNotReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openDir(t, dir, Options{})
	get(t, s, "a")
	closeStore(t, s)
	kept, _ := os.ReadFile(filepath.Join(dir, keyFile))
	for name, harm := range map[string]func(path string) error{
		"gone":      os.Remove,
		"cut short": func(path string) error { return os.Truncate(path, 31) },
		"too long":  func(path string) error { return os.WriteFile(path, append(kept, 'x'), 0o600) },
	} {
		if err := os.WriteFile(filepath.Join(dir, keyFile), kept, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := harm(filepath.Join(dir, keyFile)); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, Options{})
		kind := cloudpal.KindOf(err)
		if kind != cloudpal.Missing && kind != cloudpal.Corrupt || cloudpal.HintOf(err) == "" {
			t.Errorf("%s: got %v (hint %q)", name, err, cloudpal.HintOf(err))
		}
	}
}

func TestAnotherPrimaryKeyIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := openDir(t, "store", Options{FS: fs, PrimaryKey: &PrimaryKey{1}})
	closeStore(t, s)
	if _, err := Open("store", Options{FS: fs, PrimaryKey: &PrimaryKey{2}}); cloudpal.KindOf(err) != cloudpal.Exist {
		t.Errorf("got %v, want Exist", err)
	}
	openDir(t, "store", Options{FS: fs, PrimaryKey: &PrimaryKey{1}})
}

// A key is not shown, however it is printed.
func TestPrimaryKeyIsNotShown(t *testing.T) {
	k := PrimaryKey{0xab, 0xcd}
	text := fmt.Sprintf("%v %s %+v %#v %v", k, k, k, k, struct{ K PrimaryKey }{k})
	if strings.Contains(text, "171") || strings.Contains(text, "abcd") || strings.Contains(text, "0xab") {
		t.Errorf("it shows: %s", text)
	}
}

// A folder with other things in it is left alone.
func TestForeignFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Options{})
	if cloudpal.KindOf(err) != cloudpal.Exist || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want Exist with a hint", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("it left %v", entries)
	}
}

func TestExistingMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if _, err := Open(dir, Options{Existing: true}); cloudpal.KindOf(err) != cloudpal.NotExist {
		t.Errorf("got %v, want NotExist", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is there: %v", err)
	}
}

// One process has a store; the second is told so.
func TestSecondOpenIsBusy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	openDir(t, dir, Options{})
	if _, err := Open(dir, Options{}); cloudpal.KindOf(err) != cloudpal.Busy || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v (hint %q), want Busy", err, cloudpal.HintOf(err))
	}
}
