package manifest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
)

// text is bytes that a vector has in hex.
type text []byte

func (b *text) UnmarshalText(s []byte) (err error) {
	*b, err = hex.DecodeString(string(s))
	return err
}

func (b text) sum() [32]byte { return [32]byte(b) }

func readVectors(t testing.TB, file string, into any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + file)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatal("cannot read the vectors:", err)
	}
}

// A jsonManifest is a manifest as vectors have it.
type jsonManifest struct {
	Version, Quorum uint64
	AllowPatch      bool
	Signers         []struct{ Namespace, PublicKey text }
	Prologue        *struct {
		Hash   text
		Length uint64
	}
	Linked   []text
	UserData *text
}

func (j jsonManifest) manifest() manifest.Manifest {
	m := manifest.Manifest{Version: j.Version, Quorum: j.Quorum, AllowPatch: j.AllowPatch}
	for _, s := range j.Signers {
		m.Signers = append(m.Signers, manifest.Signer{Namespace: s.Namespace.sum(), PublicKey: s.PublicKey.sum()})
	}
	if p := j.Prologue; p != nil {
		m.Prologue = &merkle.Prologue{Hash: p.Hash.sum(), Length: p.Length}
	}
	for _, key := range j.Linked {
		m.Linked = append(m.Linked, key.sum())
	}
	if j.UserData != nil {
		m.UserData = *j.UserData
	}
	return m
}

// TestManifestVectors encodes manifests as hypercore 11.37.1 does.
func TestManifestVectors(t *testing.T) {
	var v struct {
		CompatExample struct{ PublicKey, Key, DiscoveryKey text }
		Cases         []struct {
			Name                       string
			Manifest                   jsonManifest
			Encoded, Key, DiscoveryKey text
		}
	}
	readVectors(t, "manifest.json", &v)
	if len(v.Cases) < 10 {
		t.Fatalf("got %d vectors, want 10", len(v.Cases))
	}
	for _, c := range v.Cases {
		m := c.Manifest.manifest()
		if got := m.Append(nil); !bytes.Equal(got, c.Encoded) {
			t.Errorf("%s: got %x, want %x", c.Name, got, c.Encoded)
		}
		if got := m.Key(); got != c.Key.sum() || got.DiscoveryKey() != c.DiscoveryKey.sum() {
			t.Errorf("%s: got key %x, want %x", c.Name, got[:], c.Key)
		}
		back, err := manifest.Decode(c.Encoded)
		if err != nil || !reflect.DeepEqual(normal(back), normal(m)) {
			t.Errorf("%s: got %+v, %v, want %+v", c.Name, back, err, m)
		}
		if err := m.Check(); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		for n := range len(c.Encoded) {
			if _, err := manifest.Decode(c.Encoded[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are a manifest, too", c.Name, n, len(c.Encoded))
			}
		}
	}
	single := v.Cases[0].Manifest.manifest()
	if got := manifest.Default(single.Signers[0].PublicKey); !reflect.DeepEqual(got, single) {
		t.Errorf("default: got %+v, want %+v", got, single)
	}
	compat := manifest.Key(v.CompatExample.Key.sum())
	if !manifest.Default(v.CompatExample.PublicKey.sum()).Compat(compat) || compat.DiscoveryKey() != v.CompatExample.DiscoveryKey.sum() {
		t.Error("the compat core is none")
	}
}

// normal makes an empty list of signers none.
func normal(m manifest.Manifest) manifest.Manifest {
	if len(m.Signers) == 0 {
		m.Signers = nil
	}
	return m
}

func TestCryptoVectors(t *testing.T) {
	var v struct {
		Namespaces map[string][]text
		KeyPairs   []struct{ Seed, PublicKey, SecretKey, DiscoveryKey text }
		IDs        []struct {
			Key text
			Z32 string
		}
		Sign struct{ Seed, Message, Signature text }
	}
	readVectors(t, "crypto.json", &v)
	if len(v.Namespaces) == 0 || len(v.KeyPairs) == 0 || len(v.IDs) == 0 {
		t.Fatal("no vectors")
	}
	for name, values := range v.Namespaces {
		for i, want := range values {
			if got := manifest.Namespace(name, byte(i)); got != want.sum() {
				t.Errorf("namespace %s %d: got %x, want %x", name, i, got, want)
			}
		}
	}
	own := v.Namespaces["hypercore"]
	for i, got := range map[int][32]byte{1: manifest.ReplicateInitiator, 2: manifest.ReplicateResponder, 4: manifest.DefaultNamespace, 5: manifest.DefaultEncryption} {
		if got != own[i].sum() {
			t.Errorf("namespace %d of hypercore: got %x, want %x", i, got, own[i])
		}
	}
	for _, k := range v.KeyPairs {
		pair := manifest.NewKeyPair(k.Seed.sum())
		seed := pair.Seed()
		if pair.Public != k.PublicKey.sum() || !bytes.Equal(append(seed[:], pair.Public[:]...), k.SecretKey) {
			t.Errorf("key pair of %x: got %x, want %x", k.Seed, pair.Public, k.PublicKey)
		}
		if got := manifest.Key(pair.Public).DiscoveryKey(); got != k.DiscoveryKey.sum() {
			t.Errorf("discovery key: got %x, want %x", got, k.DiscoveryKey)
		}
	}
	if s := v.Sign; !manifest.VerifyEd25519(manifest.NewKeyPair(s.Seed.sum()).Public, s.Message, s.Signature) {
		t.Error("the signature is not good")
	}
	for _, id := range v.IDs {
		key, err := manifest.ParseKey(id.Z32)
		if err != nil || key != id.Key.sum() || key.String() != id.Z32 {
			t.Errorf("key %s: got %s, %v", id.Z32, key, err)
		}
	}
}

// TestStateVectors signs every state of a log as hypercore 11.37.1 does.
func TestStateVectors(t *testing.T) {
	type roots []struct {
		Index, Size uint64
		Hash        text
	}
	var v struct {
		Seed, Key text
		States    []struct {
			Label               string
			Length, Fork        uint64
			Roots               roots
			Signable, Signature text
		}
		Compat struct{ Key, Signable, Signature text }
	}
	readVectors(t, "merkle.json", &v)
	pair := manifest.NewKeyPair(v.Seed.sum())
	m, key := manifest.Default(pair.Public), manifest.Key(v.Key.sum())
	if len(v.States) == 0 || m.Key() != key {
		t.Fatalf("got key %s, want %s", m.Key(), key)
	}
	for _, s := range v.States {
		h := merkle.Head{Length: s.Length, Fork: s.Fork}
		for _, r := range s.Roots {
			h.Roots = append(h.Roots, merkle.Node{Index: r.Index, Size: r.Size, Hash: r.Hash.sum()})
		}
		if got := m.Signable(key, 0, h); !bytes.Equal(got, s.Signable) {
			t.Errorf("%s: got signable %x, want %x", s.Label, got, s.Signable)
		}
		signature, err := m.Sign(key, pair, h)
		if err != nil || !bytes.Equal(signature, s.Signature) {
			t.Errorf("%s: got signature %x, %v, want %x", s.Label, signature, err, s.Signature)
		}
		h.Signature = s.Signature
		if err := m.Verify(key, h); err != nil {
			t.Errorf("%s: %v", s.Label, err)
		}
	}
	two, compat := headOf(2, 0, -1), manifest.Key(v.Compat.Key.sum())
	signature, err := m.Sign(compat, pair, two)
	if err != nil || !bytes.Equal(signature, v.Compat.Signature) || !bytes.Equal(m.Signable(compat, 0, two), v.Compat.Signable) {
		t.Errorf("compat: got signature %x, %v, want %x", signature, err, v.Compat.Signature)
	}
}

// TestMultisigVectors joins the signatures that hypercore 11.37.1 has joined.
func TestMultisigVectors(t *testing.T) {
	type vector struct {
		ManifestKey  text
		Lengths      []uint64
		CommonLength uint64
		Inputs       []struct {
			Signer    uint64
			Signature text
			Patch     uint64
		}
		Multisig, SignableAtCommonLength text
		Verifies                         bool
	}
	var v map[string]json.RawMessage
	readVectors(t, "multisig.json", &v)
	for _, name := range []string{"same", "patched"} {
		var c vector
		if err := json.Unmarshal(v[name], &c); err != nil {
			t.Fatal(err)
		}
		m := manifest.New(signer(1), signer(2), signer(3))
		m.AllowPatch = name == "patched"
		key := m.Key()
		if key != c.ManifestKey.sum() || !c.Verifies {
			t.Fatalf("%s: got key %s, want %x", name, key, c.ManifestKey)
		}
		if got := manifest.CommonLength(c.Lengths, m.Quorum); got != c.CommonLength {
			t.Errorf("%s: got length %d in common, want %d", name, got, c.CommonLength)
		}
		h := headOf(c.CommonLength, 0, -1)
		if got := m.Signable(key, 0, h); !bytes.Equal(got, c.SignableAtCommonLength) {
			t.Errorf("%s: got signable %x, want %x", name, got, c.SignableAtCommonLength)
		}
		var partials []manifest.Partial
		for i, in := range c.Inputs {
			p := partial(t, m, int(in.Signer), c.Lengths[i], c.CommonLength)
			if !bytes.Equal(p.Signature[:], in.Signature) || p.Patch != in.Patch {
				t.Errorf("%s: signer %d: got %x, patch %d, want %x, patch %d", name, in.Signer, p.Signature, p.Patch, in.Signature, in.Patch)
			}
			partials = append(partials, p)
		}
		signature, err := m.Assemble(partials...)
		if err != nil || !bytes.Equal(signature, c.Multisig) {
			t.Errorf("%s: got %x, %v, want %x", name, signature, err, c.Multisig)
		}
		h.Signature = c.Multisig
		if err := m.Verify(key, h); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVerifierVectors checks that we take and refuse what hypercore 11.37.1
// does, on manifests of all versions, odd signatures among them.
func TestVerifierVectors(t *testing.T) {
	var v struct {
		Cases []struct {
			Name                     string
			Manifest, Key, Signature text
			Compat, Good             bool
			Length, Fork             uint64
			Change                   int
		}
		Odd []struct {
			Name                          string
			PublicKey, Message, Signature text
			Good                          bool
		}
		Lengths []struct {
			Lengths        []uint64
			Quorum, Length uint64
		}
	}
	readVectors(t, "verifier.json", &v)
	if len(v.Cases) != 255 || len(v.Odd) != 103 || len(v.Lengths) != 8 {
		t.Fatalf("got %d, %d and %d vectors", len(v.Cases), len(v.Odd), len(v.Lengths))
	}
	for _, c := range v.Cases {
		m, err := manifest.Decode(c.Manifest)
		key := manifest.Key(c.Key.sum())
		if err != nil || (m.Belongs(key) == nil) == c.Compat || m.Compat(key) != c.Compat {
			t.Errorf("%s: got manifest %+v, %v, which is not that of the core", c.Name, m, err)
			continue
		}
		h := headOf(c.Length, c.Fork, c.Change)
		h.Signature = c.Signature
		if err := m.Verify(key, h); (err == nil) != c.Good {
			t.Errorf("%s: got %v, want good %v", c.Name, err, c.Good)
		}
	}
	for _, c := range v.Odd {
		if got := manifest.VerifyEd25519(c.PublicKey.sum(), c.Message, c.Signature); got != c.Good {
			t.Errorf("%s: got %v, want %v", c.Name, got, c.Good)
		}
	}
	for _, c := range v.Lengths {
		if got := manifest.CommonLength(c.Lengths, c.Quorum); got != c.Length {
			t.Errorf("%d of %v: got %d, want %d", c.Quorum, c.Lengths, got, c.Length)
		}
	}
}
