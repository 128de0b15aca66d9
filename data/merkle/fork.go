package merkle

import (
	"fmt"

	"github.com/tradle/cloudpal/data/flat"
)

// A Fork is a tree that has parted from the one stored here: that of a log
// which its writer has truncated and written on. It finds how many blocks both
// have in common, so that these need not be fetched again. Common is right at
// any time, but may be fewer than there are: until Done, the answers to hash
// requests narrow it down.
//
//	for !f.Done() {
//		first, end, nodes := f.Want()
//		// ask for Hash{Index: 2 * one of the blocks from first to end, Nodes: nodes}
//		err := f.Narrow(old, answer)
//	}
type Fork struct {
	length uint64 // of the tree that is stored
	common uint64
	diff   *Node // the lowest node known to differ; nil where there is nothing to find
	nodes  []Node
}

// Part compares a whole tree, which was verified from an empty head, signature
// and all, with a stored one of length blocks. The error is old's.
func Part(old Reader, length uint64, v Verified) (*Fork, error) {
	f := &Fork{length: length, common: v.Head.Length}
	for _, root := range v.Head.Roots {
		same, err := stores(old, root)
		if err != nil {
			return nil, err
		}
		if !same {
			f.differ(root)
			return f, f.walk(old, v.Nodes)
		}
	}
	f.common = min(v.Head.Length, length)
	return f, nil
}

// stores reports whether a node is stored with the same hash.
func stores(old Reader, n Node) (bool, error) {
	stored, ok, err := old.Node(n.Index)
	return ok && stored.Hash == n.Hash, err
}

// differ notes a node that differs: the trees have in common what is left of it.
func (f *Fork) differ(n Node) {
	first, _ := flat.Span(n.Index)
	f.common = min(first/2, f.length)
	f.diff = &n
	if flat.Depth(n.Index) == 0 || first/2 >= f.length {
		f.diff = nil
	}
}

// walk goes down from the node that differs as long as nodes are known: where
// the left child is the same, it is the right one that differs.
func (f *Fork) walk(old Reader, nodes []Node) error {
	known := make(Nodes, len(nodes))
	known.Add(nodes...)
	for f.diff != nil {
		l, r, _ := flat.Children(f.diff.Index)
		left, ok := known[l]
		if !ok {
			return nil
		}
		same, err := stores(old, left)
		if err != nil {
			return err
		}
		next := left
		if same {
			if next, ok = known[r]; !ok {
				return nil
			}
		}
		f.differ(next)
	}
	return nil
}

// Common returns how many blocks the two trees surely have in common: keep those
// and their nodes, and no more.
func (f *Fork) Common() uint64 { return f.common }

// Done reports whether Common is all that they have in common.
func (f *Fork) Done() bool { return f.diff == nil }

// Want returns what to ask next, unless Done: the hash of the leaf of any one
// block from first up to end, with so many nodes. None of these blocks is beyond
// what is stored.
func (f *Fork) Want() (first, end, nodes uint64) {
	if f.diff == nil {
		return 0, 0, 0
	}
	from, last := flat.Span(f.diff.Index)
	return from / 2, min(last/2+1, f.length), uint64(flat.Depth(f.diff.Index))
}

// Narrow takes the answer to what Want said. It needs nothing of its fork but
// the node that differs. The errors are those of Verify; after one, another
// answer may be tried.
func (f *Fork) Narrow(old Reader, p Proof) error {
	if f.diff == nil {
		return nil
	}
	v := verifier{}
	t, err := v.tree(Proof{Hash: p.Hash, Block: p.Block}, leafOf(p))
	switch {
	case err != nil:
		return err
	case t == nil || t.Index != f.diff.Index:
		return fmt.Errorf("%w: it does not end at node %d", ErrProof, f.diff.Index)
	case t.Hash != f.diff.Hash:
		return fmt.Errorf("%w: at node %d", ErrChecksum, t.Index)
	case len(v.out.Nodes) == 0:
		return fmt.Errorf("%w: it has nothing below node %d", ErrProof, t.Index)
	}
	f.nodes = append(f.nodes, v.out.Nodes...)
	return f.walk(old, v.out.Nodes)
}

// Nodes returns the nodes that the answers have shown, to be stored with those
// of the new head.
func (f *Fork) Nodes() []Node { return f.nodes }
