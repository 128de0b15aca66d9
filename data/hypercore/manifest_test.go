package hypercore_test

import (
	"errors"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
)

// readerOf returns an empty reader of a log.
func readerOf(t *testing.T, w *hypercore.Core) *hypercore.Core {
	t.Helper()
	r, err := hypercore.Open(newStore(t), w.Key(), hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// download has a reader take all of a log.
func download(t *testing.T, w, r *hypercore.Core) {
	t.Helper()
	fetch(t, w, r, merkle.Request{Manifest: true, Upgrade: &merkle.UpgradeRequest{Start: r.Length(), Length: w.Length() - r.Length()}})
	for i := range w.Length() {
		missing, err := r.Missing(i)
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, w, r, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
	}
}

// TestStatic makes a log that is what its manifest says, and never changes.
func TestStatic(t *testing.T) {
	was := create(t, newStore(t), hypercore.Options{})
	appendAll(t, was, "a", "b", "c")
	m := manifest.Static(merkle.Prologue{Hash: was.TreeHash(), Length: 3})
	c := create(t, newStore(t), hypercore.Options{Manifest: &m})
	if c.Key() != m.Key() || c.Writable() {
		t.Errorf("key %v, writable %v", c.Key(), c.Writable())
	}
	anything := []byte("nobody looks at it")
	for name, blocks := range map[string][]string{"others": {"a", "b", "C"}, "fewer": {"a", "b"}, "more": {"a", "b", "c", "d"}} {
		if _, err := c.AppendSigned(anything, raw(blocks)...); !errors.Is(err, cloudpal.Denied) || c.Length() != 0 {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Denied)
		}
	}
	if _, err := c.AppendSigned(anything, raw([]string{"a", "b", "c"})...); err != nil {
		t.Fatal(err)
	}
	_, appending := c.Append([]byte("d"))
	for name, err := range map[string]error{"append": appending, "truncate": c.Truncate(1), "cut to nothing": c.Truncate(0)} {
		if !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) != "the core is static: nobody can change it" {
			t.Errorf("%s: got %v with the hint %q", name, err, cloudpal.HintOf(err))
		}
	}
	r := readerOf(t, c)
	download(t, c, r)
	wantBlocks(t, r, "a", "b", "c")
	audited(t, r, 3)
	if r.Writable() {
		t.Error("a reader of a static log can write it")
	}
}

func raw(blocks []string) (raw [][]byte) {
	for _, b := range blocks {
		raw = append(raw, []byte(b))
	}
	return raw
}

// TestPrologue makes a log whose first blocks its manifest names: its writer
// cannot begin it in another way, nor cut these, and goes on after them.
func TestPrologue(t *testing.T) {
	was := create(t, newStore(t), hypercore.Options{})
	appendAll(t, was, "a", "b", "c")
	pair := manifest.NewKeyPair([32]byte{1})
	m := manifest.Default(pair.Public)
	m.Prologue = &merkle.Prologue{Hash: was.TreeHash(), Length: 3}
	c := create(t, newStore(t), hypercore.Options{Manifest: &m, KeyPair: &pair})
	for name, blocks := range map[string][]string{"others": {"a", "b", "C"}, "fewer": {"a", "b"}} {
		if _, err := c.Append(raw(blocks)...); !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) == "" || c.Length() != 0 {
			t.Errorf("%s: got %v, want %v and a hint", name, err, cloudpal.Denied)
		}
	}
	if _, err := c.Append(raw([]string{"a", "b", "c"})...); err != nil {
		t.Fatal(err)
	}
	appendAll(t, c, "d", "e")
	r := readerOf(t, c) // one that asks for less than the prologue gets that whole
	fetch(t, c, r, merkle.Request{Manifest: true, Upgrade: &merkle.UpgradeRequest{Length: 2}})
	if got := r.Length(); got != 5 {
		t.Errorf("a reader's length: got %d, want 5", got)
	}
	if err := c.Truncate(2); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("cutting the prologue: got %v, want %v", err, cloudpal.Denied)
	}
	if err := c.Truncate(4); err != nil {
		t.Error(err)
	}
	wantBlocks(t, c, "a", "b", "c", "d")
}

// TestCompat makes a log as they were before manifests: its key is its signer's,
// and a reader is told of no manifest.
func TestCompat(t *testing.T) {
	pair := manifest.NewKeyPair([32]byte{2})
	store := newStore(t)
	c := create(t, store, hypercore.Options{KeyPair: &pair, Compat: true})
	appendAll(t, c, "a", "b")
	if c.Key() != manifest.Key(pair.Public) || !c.Compat() || len(c.Signature()) != 64 {
		t.Errorf("key %v, compat %v, a signature of %d bytes", c.Key(), c.Compat(), len(c.Signature()))
	}
	p, err := c.Prove(merkle.Request{Manifest: true, Upgrade: &merkle.UpgradeRequest{Length: 2}})
	if err != nil || p.Manifest != nil {
		t.Errorf("a peer is told of the manifest %x (%v)", p.Manifest, err)
	}
	there := newStore(t)
	r, err := hypercore.Open(there, c.Key(), hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Compat() {
		t.Error("a reader knows that it is compat before it can")
	}
	download(t, c, r)
	wantBlocks(t, r, "a", "b")
	r.Close()
	if r, err = hypercore.Open(there, c.Key(), hypercore.Options{}); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if m, ok := r.Manifest(); !r.Compat() || !ok || len(m.Signers) != 1 {
		t.Errorf("opened again: compat %v, manifest %v", r.Compat(), m)
	}
	// With the key pair it is a writer's.
	w := r.Session(hypercore.SessionOptions{KeyPair: &pair})
	defer w.Close()
	appendAll(t, w, "c")
	audited(t, r, 3)
}

// TestQuorum has two of three signers sign: fewer, the same twice, others, or
// those of another head are not enough, for the log or its readers.
func TestQuorum(t *testing.T) {
	pairs := make([]manifest.KeyPair, 4)
	var signers []manifest.Signer
	for i := range pairs {
		pairs[i] = manifest.NewKeyPair([32]byte{byte(i), 9})
		if i < 3 {
			signers = append(signers, manifest.Signer{PublicKey: pairs[i].Public})
		}
	}
	m := manifest.New(signers...)
	c := create(t, newStore(t), hypercore.Options{Manifest: &m, KeyPair: &pairs[0]})
	if c.Writable() {
		t.Error("one of three can write")
	}
	if _, err := c.Append([]byte("alone")); !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) == "" {
		t.Errorf("append by one: got %v, want %v and a hint", err, cloudpal.Denied)
	}
	sign := func(h merkle.Head, who ...int) []byte {
		t.Helper()
		var parts []manifest.Partial
		for _, i := range who {
			p, err := m.Partial(c.Key(), pairs[i], h)
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, p)
		}
		signature, err := m.Assemble(parts...)
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	draft, err := c.Draft([]byte("agreed"))
	if err != nil {
		t.Fatal(err)
	}
	good := sign(draft, 0, 2)
	other, err := c.Draft([]byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]byte{
		"of another head": sign(other, 0, 2),
		"cut":             good[:len(good)-3],
		"one twice":       append(append([]byte{2}, good[1:67]...), append(append([]byte(nil), good[1:67]...), 0)...),
		"one changed":     append(append([]byte(nil), good[:40]...), append([]byte{good[40] ^ 1}, good[41:]...)...),
	}
	for name, signature := range bad {
		if _, err := c.AppendSigned(signature, []byte("agreed")); !errors.Is(err, cloudpal.Denied) && !errors.Is(err, cloudpal.Invalid) || c.Length() != 0 {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := c.AppendSigned(good, []byte("agreed")); err != nil {
		t.Fatal(err)
	}
	r := readerOf(t, c)
	p, err := c.Prove(merkle.Request{Manifest: true, Upgrade: &merkle.UpgradeRequest{Length: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for name, signature := range bad {
		forged := *p.Upgrade
		forged.Signature = signature
		if _, err := r.Apply(merkle.Proof{Manifest: p.Manifest, Upgrade: &forged}); err == nil || r.Length() != 0 {
			t.Errorf("a reader takes a signature that is %s", name)
		}
	}
	download(t, c, r)
	wantBlocks(t, r, "agreed")

	// And truncated together.
	cut, err := c.DraftTruncate(0, 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.TruncateSigned(sign(other, 0, 1), 0, 5); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("truncated under another signature: %v", err)
	}
	if err := c.TruncateSigned(sign(cut, 1, 2), 0, 5); err != nil || c.Length() != 0 || c.Fork() != 5 {
		t.Errorf("truncate: %v", err)
	}
}
