package merkle_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
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

// A jsonNode is a node as vectors have it.
type jsonNode struct {
	Index, Size uint64
	Hash        text
}

func (n jsonNode) node() merkle.Node {
	return merkle.Node{Index: n.Index, Size: n.Size, Hash: merkle.Hash(n.Hash)}
}

// nodesOf never returns nil, so that lists can be compared.
func nodesOf(list []jsonNode) []merkle.Node {
	nodes := make([]merkle.Node, len(list))
	for i, n := range list {
		nodes[i] = n.node()
	}
	return nodes
}

// jsonProof is an answer as vectors have it.
type jsonProof struct {
	Request uint64
	Fork    uint64
	Block   *struct {
		Index uint64
		Value text
		Nodes []jsonNode
	}
	Hash *struct {
		Index uint64
		Nodes []jsonNode
	}
	Seek *struct {
		Bytes uint64
		Nodes []jsonNode
	}
	Upgrade *struct {
		Start, Length   uint64
		Nodes           []jsonNode
		AdditionalNodes []jsonNode
		Signature       text
	}
	Manifest *struct {
		Version, Quorum uint64
		Signers         []struct{ Namespace, PublicKey text }
	}
}

func (j jsonProof) proof() merkle.Proof {
	p := merkle.Proof{ID: j.Request, Fork: j.Fork}
	if b := j.Block; b != nil {
		p.Block = &merkle.BlockProof{Index: b.Index, Value: b.Value, Nodes: nodesOf(b.Nodes)}
	}
	if h := j.Hash; h != nil {
		p.Hash = &merkle.HashProof{Index: h.Index, Nodes: nodesOf(h.Nodes)}
	}
	if s := j.Seek; s != nil {
		p.Seek = &merkle.SeekProof{Bytes: s.Bytes, Nodes: nodesOf(s.Nodes)}
	}
	if u := j.Upgrade; u != nil {
		p.Upgrade = &merkle.UpgradeProof{
			Start: u.Start, Length: u.Length, Nodes: nodesOf(u.Nodes),
			Additional: nodesOf(u.AdditionalNodes), Signature: u.Signature,
		}
	}
	return p
}

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

// TestHashVectors compares with what hypercore-crypto 3.7.0 hashes.
func TestHashVectors(t *testing.T) {
	var v struct {
		LeafHash []struct {
			UTF8 string
			Hash text
		}
		ParentHash struct {
			Left, Right jsonNode
			Hash        text
		}
		TreeHash []struct {
			Roots []jsonNode
			Hash  text
		}
	}
	readVectors(t, "crypto.json", &v)
	if len(v.LeafHash) == 0 || len(v.TreeHash) == 0 {
		t.Fatal("no vectors")
	}
	for i, leaf := range v.LeafHash {
		want := merkle.Node{Index: 2 * uint64(i), Size: uint64(len(leaf.UTF8)), Hash: merkle.Hash(leaf.Hash)}
		if got := merkle.Leaf(uint64(i), []byte(leaf.UTF8)); got != want {
			t.Errorf("leaf of %q: got %v, want %v", leaf.UTF8, got, want)
		}
	}
	left, right := v.ParentHash.Left.node(), v.ParentHash.Right.node()
	want := merkle.Node{Index: 1, Size: left.Size + right.Size, Hash: merkle.Hash(v.ParentHash.Hash)}
	if a, b := merkle.Parent(left, right), merkle.Parent(right, left); a != want || b != want {
		t.Errorf("parent: got %v and %v, want %v", a, b, want)
	}
	for _, tree := range v.TreeHash {
		if got := merkle.TreeHash(nodesOf(tree.Roots)); got != merkle.Hash(tree.Hash) {
			t.Errorf("tree of %d roots: got %x, want %x", len(tree.Roots), got, tree.Hash)
		}
	}
}

// TestTreeVectors grows and truncates a tree as hypercore 11.37.1 has.
func TestTreeVectors(t *testing.T) {
	var v struct {
		Blocks []text
		States []struct {
			Label                    string
			Length, Fork, ByteLength uint64
			Roots                    []jsonNode
			TreeHash                 text
		}
		Nodes      []jsonNode
		ByteRanges []struct {
			Node      uint64
			ByteRange []*uint64
			Error     string
		}
	}
	readVectors(t, "merkle.json", &v)
	nodes := merkle.Nodes{}
	var b merkle.Batch
	var full merkle.Head // with all blocks
	for i, s := range v.States {
		switch {
		case i < len(v.Blocks):
			b.Append(v.Blocks[i])
			nodes.Add(b.Nodes()...)
			full = b.Head()
		case s.Label == "append forked-5, forked-6":
			b.Append([]byte("forked-5"))
			b.Append([]byte("forked-6"))
		default: // it truncates
			h, err := merkle.Truncate(nodes, b.Head(), s.Length, s.Fork)
			if err != nil {
				t.Fatal(s.Label, err)
			}
			b.Reset(h)
		}
		h := b.Head()
		if h.Length != s.Length || h.Fork != s.Fork || h.Bytes() != s.ByteLength || b.Bytes() != s.ByteLength {
			t.Errorf("%s: got length %d, fork %d, %d bytes, want %d, %d, %d", s.Label, h.Length, h.Fork, h.Bytes(), s.Length, s.Fork, s.ByteLength)
		}
		if !slices.Equal(h.Roots, nodesOf(s.Roots)) || h.Hash() != merkle.Hash(s.TreeHash) {
			t.Errorf("%s: got roots %v, want %v", s.Label, h.Roots, s.Roots)
		}
	}
	for _, n := range nodesOf(v.Nodes) {
		if nodes[n.Index] != n {
			t.Errorf("node %d: got %v, want %v", n.Index, nodes[n.Index], n)
		}
	}
	if len(v.States) < len(v.Blocks)+3 || len(v.Nodes) != len(nodes) || len(v.ByteRanges) == 0 {
		t.Fatalf("got %d states and %d nodes, and have %d nodes", len(v.States), len(v.Nodes), len(nodes))
	}
	for _, r := range v.ByteRanges {
		if len(r.ByteRange) == 2 && r.ByteRange[0] != nil {
			if got, err := merkle.Offset(nodes, full, r.Node); err != nil || got != *r.ByteRange[0] || nodes[r.Node].Size != *r.ByteRange[1] {
				t.Errorf("offset of node %d: got %d, %v, want %d", r.Node, got, err, *r.ByteRange[0])
			}
		}
	}
}

// TestProofVectors makes the proofs that hypercore 11.37.1 makes, and verifies
// them as the asker.
func TestProofVectors(t *testing.T) {
	var v struct {
		Seed  text
		Cases []struct {
			Length  uint64
			Request struct {
				Block, Hash *struct{ Index, Nodes uint64 }
				Seek        *struct{ Bytes, Padding uint64 }
				Upgrade     *struct{ Start, Length uint64 }
			}
			Result jsonProof
			Data   text
		}
	}
	readVectors(t, "proofs.json", &v)
	if len(v.Cases) != 104 {
		t.Fatalf("got %d vectors, want 104", len(v.Cases))
	}
	pair := manifest.NewKeyPair([32]byte(v.Seed))
	m := manifest.Default(pair.Public)
	for _, c := range v.Cases {
		name := fmt.Sprintf("%d blocks, %s", c.Length, describe(c.Request))
		blocks := blocksNamed(c.Length)
		for i := range blocks { // of different sizes
			blocks[i] = append(blocks[i], "---"[:i%4]...)
		}
		w := write(t, 0, blocks)
		w.sign(t, m, pair)
		var req merkle.Request
		copyPart(&req.Block, c.Request.Block)
		copyPart(&req.Hash, c.Request.Hash)
		copyPart(&req.Seek, c.Request.Seek)
		copyPart(&req.Upgrade, c.Request.Upgrade)
		got, err := w.answer(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := c.Result.proof(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %s, want %s", name, describe(got), describe(want))
		}
		for _, list := range lists(&got) {
			if enc := merkle.AppendNodes(nil, *list); !bytes.Contains(c.Data, enc) {
				t.Errorf("%s: nodes are not encoded as %x", name, enc)
			}
		}
		checkAsAsker(t, name, w, req, got, m)
	}
}

// describe shows a request, with what its pointers point to.
func describe(req any) string {
	b, err := json.Marshal(req)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// copyPart sets a part of a request from a vector's; both have the same fields.
func copyPart[T, V any](dst **T, src *V) {
	if src != nil {
		v := reflect.ValueOf(*src).Convert(reflect.TypeFor[T]()).Interface().(T)
		*dst = &v
	}
}

// checkAsAsker verifies a proof as one who has just what the request says.
func checkAsAsker(t *testing.T, name string, w *writer, req merkle.Request, p merkle.Proof, m manifest.Manifest) {
	t.Helper()
	r := &mirror{nodes: merkle.Nodes{}, head: w.head}
	if req.Upgrade != nil {
		r.head = w.at(t, req.Upgrade.Start)
	}
	r.nodes.Add(r.head.Roots...)
	top, climbs := uint64(0), uint64(0)
	switch {
	case req.Block != nil:
		top, climbs = 2*req.Block.Index, req.Block.Nodes
	case req.Hash != nil:
		top, climbs = req.Hash.Index, req.Hash.Nodes
	}
	if top < 2*r.head.Length {
		r.nodes.Add(w.nodes[above(top, climbs)])
	}
	v, err := merkle.Verify(r.nodes, r.head, p)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	for _, n := range v.Nodes {
		if w.nodes[n.Index] != n {
			t.Errorf("%s: verified node %d is not the writer's", name, n.Index)
		}
	}
	if v.Upgraded != (req.Upgrade != nil) {
		t.Errorf("%s: upgraded is %v", name, v.Upgraded)
	}
	if v.Upgraded {
		if err := m.Verify(m.Key(), v.Head); err != nil || v.Head.Hash() != w.head.Hash() {
			t.Errorf("%s: got head %v, %v", name, v.Head, err)
		}
	}
}

// TestReplicationVectors verifies all that hypercore 11.37.1 has sent to readers
// that downloaded, jumped about, sought, and met forks.
func TestReplicationVectors(t *testing.T) {
	var v struct {
		Scenarios []struct {
			Name   string
			Frames []struct {
				From     string
				Messages []struct {
					Channel uint64
					Data    *jsonProof
				}
			}
		}
	}
	readVectors(t, "replication.json", &v)
	answers := 0
	for _, s := range v.Scenarios {
		mirrors := map[string]*mirror{}
		if s.Name == "offline-fork" { // the reader has synced ten blocks before
			w := write(t, 0, blocksNamed(10))
			mirrors["A1"] = &mirror{nodes: w.nodes, head: w.head}
		}
		for _, f := range s.Frames {
			for _, msg := range f.Messages {
				if msg.Data == nil {
					continue
				}
				who := fmt.Sprint(f.From, msg.Channel)
				if mirrors[who] == nil {
					mirrors[who] = &mirror{nodes: merkle.Nodes{}}
				}
				r := mirrors[who]
				if mf := msg.Data.Manifest; mf != nil {
					r.manifest = &manifest.Manifest{Version: mf.Version, Quorum: mf.Quorum}
					for _, s := range mf.Signers {
						r.manifest.Signers = append(r.manifest.Signers, manifest.Signer{Namespace: [32]byte(s.Namespace), PublicKey: [32]byte(s.PublicKey)})
					}
				}
				if err := r.receive(msg.Data.proof()); err != nil {
					t.Errorf("%s, request %d: %v", s.Name, msg.Data.Request, err)
				}
				answers++
			}
		}
		for who, r := range mirrors {
			if r.fork != nil && (!r.fork.Done() || r.fork.Common() != 5) {
				t.Errorf("%s, from %s: have found %d blocks in common, want 5", s.Name, who, r.fork.Common())
			}
		}
	}
	if answers < 25 {
		t.Fatalf("got %d answers in the vectors, want 25 at least", answers)
	}
}
