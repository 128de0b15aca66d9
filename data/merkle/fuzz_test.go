package merkle_test

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/merkle"
)

// A chooser makes proofs and requests of any bytes, with numbers that no honest
// peer sends and no decoder lets through.
type chooser struct{ rest []byte }

func (c *chooser) byte() byte {
	if len(c.rest) == 0 {
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

// number returns a small number, one near a power of two, or any.
func (c *chooser) number() uint64 {
	switch b := c.byte(); {
	case b < 200:
		return uint64(b)
	case b < 250:
		return uint64(1)<<(c.byte()%64) - uint64(b%3)
	case b < 253:
		return math.MaxUint64 - uint64(c.byte())
	}
	var word [8]byte
	for i := range word {
		word[i] = c.byte()
	}
	return binary.LittleEndian.Uint64(word[:])
}

// nodes returns nodes of the tree, or others.
func (c *chooser) nodes(tree merkle.Nodes) []merkle.Node {
	list := make([]merkle.Node, c.byte()%70)
	for i := range list {
		index := c.number()
		n, ok := tree[index]
		if !ok || c.byte() == 255 {
			n = merkle.Node{Index: index, Size: c.number(), Hash: merkle.Hash{c.byte()}}
		}
		list[i] = n
	}
	return list
}

func (c *chooser) proof(tree merkle.Nodes) (p merkle.Proof) {
	parts := c.byte()
	if parts&1 != 0 {
		p.Block = &merkle.BlockProof{Index: c.number(), Nodes: c.nodes(tree)}
		p.Block.Value = blocksNamed(13)[p.Block.Index%13]
	}
	if parts&2 != 0 {
		p.Hash = &merkle.HashProof{Index: c.number(), Nodes: c.nodes(tree)}
	}
	if parts&4 != 0 {
		p.Seek = &merkle.SeekProof{Bytes: c.number(), Nodes: c.nodes(tree)}
	}
	if parts&8 != 0 {
		p.Upgrade = &merkle.UpgradeProof{Start: c.number(), Length: c.number(), Nodes: c.nodes(tree), Additional: c.nodes(tree)}
	}
	return p
}

// FuzzProofVerify verifies any proofs: it does not panic, makes few nodes, and
// those that it finds good without a signature have the hashes of the tree.
func FuzzProofVerify(f *testing.F) {
	f.Add([]byte{1, 5, 1, 8}, byte(5))
	f.Add([]byte{8, 5, 8, 3, 10, 13, 19, 1, 24}, byte(5))
	f.Add([]byte{2, 3, 2, 3, 11}, byte(13))
	f.Add([]byte{9, 5, 1, 8, 240, 63, 240, 52, 2, 250, 1, 255, 255}, byte(0))
	w := write(f, 0, blocksNamed(13))
	f.Fuzz(func(t *testing.T, in []byte, length byte) {
		h := w.at(t, uint64(length)%14)
		stored := merkle.Nodes{}
		for i, n := range w.nodes {
			if i < 2*h.Length && (i%3 != 0 || i == 0) {
				stored[i] = n
			}
		}
		stored.Add(h.Roots...)
		c := chooser{in}
		v, err := merkle.Verify(stored, h, c.proof(w.nodes))
		if err != nil {
			if !errors.Is(err, cloudpal.Invalid) {
				t.Errorf("got %v, want %v", err, cloudpal.Invalid)
			}
			return
		}
		if len(v.Nodes) > 4*130+2 || v.Head.Length > merkle.MaxLength {
			t.Errorf("got %d nodes, and %d blocks", len(v.Nodes), v.Head.Length)
		}
		for _, n := range v.Nodes {
			if want, ok := w.nodes[n.Index]; !v.Upgraded && (!ok || want.Hash != n.Hash) {
				t.Errorf("node %d is not the tree's, and good", n.Index)
			}
		}
	})
}

// FuzzProve answers any requests: it does not panic, and what it answers is
// short and not too large to verify.
func FuzzProve(f *testing.F) {
	f.Add([]byte{1, 5, 2})
	f.Add([]byte{14, 4, 250, 1, 20, 8, 0, 13})
	f.Add([]byte{12, 20, 0, 5, 8})
	w := write(f, 0, blocksNamed(13))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := chooser{in}
		parts := c.byte()
		var req merkle.Request
		if parts&1 != 0 {
			req.Block = &merkle.NodeRequest{Index: c.number(), Nodes: c.number()}
		}
		if parts&2 != 0 {
			req.Hash = &merkle.NodeRequest{Index: c.number(), Nodes: c.number()}
		}
		if parts&4 != 0 {
			req.Seek = &merkle.SeekRequest{Bytes: c.number(), Padding: c.number()}
		}
		if parts&8 != 0 {
			req.Upgrade = &merkle.UpgradeRequest{Start: c.number(), Length: c.number()}
		}
		p, err := w.answer(req)
		if err != nil {
			if !errors.Is(err, merkle.ErrRequest) {
				t.Errorf("got %v, want %v", err, merkle.ErrRequest)
			}
			return
		}
		h := w.head
		if req.Upgrade != nil {
			h = w.at(t, req.Upgrade.Start)
		}
		if _, err := merkle.Verify(w.nodes, h, p); err != nil {
			t.Errorf("%s: the answer is not good: %v", describe(req), err)
		}
	})
}
