package hypercore_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// TestManifestFromAPeer has peers who send a manifest with something behind it,
// and one that has the core's key for its signer: no such thing is kept.
func TestManifestFromAPeer(t *testing.T) {
	pair := manifest.NewKeyPair([32]byte{7})
	m := manifest.Default(pair.Public)
	key := m.Key()
	store := storage.Memory()
	defer store.Close()
	reader, err := hypercore.Open(store, key, hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()

	forged := manifest.Default(key)
	if err := reader.ApplyManifest(forged.Append(nil)); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a manifest with the key for its signer: got %v, want %v", err, cloudpal.Denied)
	}
	if err := reader.ApplyManifest(append(m.Append(nil), "and more"...)); err != nil {
		t.Fatal(err)
	}
	p, err := reader.Prove(merkle.Request{Manifest: true})
	if err != nil || !bytes.Equal(p.Manifest, m.Append(nil)) {
		t.Errorf("got manifest %x, %v, want %x", p.Manifest, err, m.Append(nil))
	}
}
