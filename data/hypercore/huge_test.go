package hypercore_test

import (
	"testing"

	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
)

// huge returns a writer whose log has more than 2^33 blocks and 2^50 bytes, of
// which none is here: somebody else has them.
func huge(t *testing.T, secret *hypercore.Encryption) (c *hypercore.Core, length uint64) {
	t.Helper()
	pair := manifest.NewKeyPair([32]byte{8})
	m := manifest.Default(pair.Public)
	c, err := hypercore.Create(newStore(t), hypercore.Options{KeyPair: &pair, Manifest: &m, Encryption: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	const blocks = 1<<33 + 1<<20 + 3
	h := merkle.Head{Fork: 1, Length: blocks}
	for i, root := range flat.AppendFullRoots(nil, blocks) {
		h.Roots = append(h.Roots, merkle.Node{Index: root, Size: 1 << (50 - i), Hash: merkle.Hash{byte(i)}})
	}
	if h.Signature, err = m.Sign(c.Key(), pair, h); err != nil {
		t.Fatal(err)
	}
	if err := c.Reorg(h, h.Roots, 0, 0); err != nil {
		t.Fatal(err)
	}
	return c, blocks
}

// TestHugeLog writes, reads, seeks, clears, proves and truncates where neither
// lengths nor bytes fit into 32 bits, nor into the 53 of JavaScript's bytes.
func TestHugeLog(t *testing.T) {
	for name, secret := range map[string]*hypercore.Encryption{"plain": nil, "encrypted": {Key: [32]byte{1}}} {
		t.Run(name, func(t *testing.T) {
			w, start := huge(t, secret)
			bytes := w.ByteLength()
			appendAll(t, w, "one", "two", "three", "four", "five")
			if got := w.Length(); got != start+5 {
				t.Fatalf("length: got %d, want %d", got, start+5)
			}
			if got := w.ByteLength(); got != bytes+3+3+5+4+4 {
				t.Errorf("bytes: got %d, want %d", got, bytes+19)
			}
			if got, err := w.Local(start + 2); err != nil || string(got) != "three" {
				t.Errorf("block %d: got %q, %v", start+2, got, err)
			}
			if w.Has(start-1) || !w.HasAll(start, start+5) || w.Has(start+5) || w.Contiguous() != 0 {
				t.Error("the bitfield is another")
			}
			if i, off, err := w.Seek(t.Context(), bytes+8); err != nil || i != start+2 || off != 2 {
				t.Errorf("seek: got block %d, offset %d (%v), want %d, 2", i, off, err, start+2)
			}
			if first, ok := w.NextPresent(0, w.Length()); !ok || first != start {
				t.Errorf("the first block here: got %d, want %d", first, start)
			}
			if info := w.Info(); info.Blocks != 5 {
				t.Errorf("blocks here: got %d, want 5", info.Blocks)
			}
			audited(t, w, 5)
			follows(t, w, start, secret)
			if err := w.Clear(start+1, start+2); err != nil || w.Has(start+1) || !w.Has(start+2) {
				t.Errorf("clear: %v", err)
			}
			old := w.Snapshot()
			defer old.Close()
			if err := w.Truncate(start + 2); err != nil {
				t.Fatal(err)
			}
			appendAll(t, w, "THREE")
			for c, want := range map[*hypercore.Core]string{w: "THREE", old: "three"} {
				if got, err := c.Local(start + 2); err != nil || string(got) != want {
					t.Errorf("after a truncation: got %q, %v, want %q", got, err, want)
				}
			}
			audited(t, w, 2)
		})
	}
}

// follows has a reader take the last blocks, and find a byte.
func follows(t *testing.T, w *hypercore.Core, start uint64, secret *hypercore.Encryption) {
	t.Helper()
	r, err := hypercore.Open(newStore(t), w.Key(), hypercore.Options{Encryption: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := w.Prove(merkle.Request{Fork: 1, Manifest: true, Upgrade: &merkle.UpgradeRequest{Length: w.Length()}})
	if err != nil {
		t.Fatal(err)
	}
	m, _ := w.Manifest()
	if err := r.ApplyManifest(m.Append(nil)); err != nil {
		t.Fatal(err)
	}
	v, err := merkle.Verify(merkle.Nodes{}, merkle.Head{Fork: 1}, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Reorg(v.Head, v.Nodes, 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, i := range []uint64{start + 4, start + 1} {
		missing, err := r.Missing(i)
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, w, r, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
		want, _ := w.Local(i)
		if got, err := r.Local(i); err != nil || string(got) != string(want) {
			t.Errorf("block %d: got %q, %v, want %q", i, got, err, want)
		}
	}
	words := make([]uint32, 2)
	r.Bitfield(start&^31, words)
	if got, want := uint64(words[0])|uint64(words[1])<<32, uint64(1<<4|1<<1)<<(start&31); got != want {
		t.Errorf("bits: got %b, want %b", got, want)
	}
	audited(t, r, 2)
}

func audited(t *testing.T, c *hypercore.Core, blocks uint64) {
	t.Helper()
	if a, err := c.Audit(t.Context(), nil); err != nil || !a.Good() || a.Blocks != blocks {
		t.Errorf("audit: %d blocks, %q, %v; want %d", a.Blocks, a.Faults, err, blocks)
	}
}
