package merkle

import (
	"fmt"
	"slices"

	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/flat"
)

// Verified is what a proof has shown.
type Verified struct {
	// Nodes are those that are not stored yet, or not with the right size:
	// store all of them, with the block, or none.
	Nodes []Node

	// Head is the head after it. Where Upgraded, it is longer than before, and
	// nothing of the proof is to be believed before its Signature is found to
	// be good for its Hash, Length and Fork. Else it is the head as it was.
	Head     Head
	Upgraded bool
}

// Verify checks a proof against the nodes that r has of the tree with head h. It
// needs no keys: see Verified for what is left to do. Manifest is not looked at.
//
// To check a whole tree, as that of another fork, give the head
// Head{Fork: p.Fork, Prologue: h.Prologue} and no nodes.
//
// The error is ErrStale, ErrProof or ErrChecksum, or r's.
func Verify(r Reader, h Head, p Proof) (Verified, error) {
	return VerifyLeaf(r, h, p, leafOf(p))
}

// leafOf returns the leaf of a proof's block, if it has one.
func leafOf(p Proof) Node {
	if p.Block == nil {
		return Node{}
	}
	return Leaf(p.Block.Index, p.Block.Value)
}

// VerifyLeaf is Verify of a proof whose block has that leaf, as Leaves has said: the
// block itself is not looked at.
func VerifyLeaf(r Reader, h Head, p Proof, leaf Node) (Verified, error) {
	if p.Fork != h.Fork {
		return Verified{}, fmt.Errorf("%w: fork %d, not %d", ErrStale, p.Fork, h.Fork)
	}
	v := verifier{out: Verified{Head: h}}
	top, err := v.tree(p, leaf)
	if err != nil {
		return Verified{}, err
	}
	if p.Upgrade != nil {
		if err := v.upgrade(h, p.Upgrade, &top); err != nil {
			return Verified{}, err
		}
	}
	if top != nil {
		if err := v.attach(r, h, top); err != nil {
			return Verified{}, err
		}
	}
	return v.out, nil
}

// A verifier checks one proof.
type verifier struct{ out Verified }

// A top is where the hashes of a path end: a node that is either stored, or one
// that the upgrade needs.
type top struct {
	Node
	computed bool // from those below it, so that its size is right if its hash is
}

// tree climbs the paths of a proof and returns where they end; nil where it has
// none.
func (v *verifier) tree(p Proof, leaf Node) (*top, error) {
	if p.Block != nil && p.Hash != nil {
		return nil, fmt.Errorf("%w: a block and a hash at once", ErrProof)
	}
	var side *top // where a seek's path joins that of the block or the hash
	if p.Seek != nil && len(p.Seek.Nodes) > 0 {
		var err error
		if side, err = v.climb(&top{Node: p.Seek.Nodes[0]}, p.Seek.Nodes[1:], nil); err != nil {
			return nil, err
		}
	}
	switch {
	case p.Block != nil:
		if p.Block.Index >= MaxLength {
			return nil, fmt.Errorf("%w: a block beyond the last", ErrProof)
		}
		return v.climb(&top{leaf, true}, p.Block.Nodes, side)
	case p.Hash != nil:
		if len(p.Hash.Nodes) == 0 || p.Hash.Nodes[0].Index != p.Hash.Index {
			return nil, fmt.Errorf("%w: it has no node %d", ErrProof, p.Hash.Index)
		}
		return v.climb(&top{Node: p.Hash.Nodes[0]}, p.Hash.Nodes[1:], side)
	}
	return side, nil
}

// climb hashes from n upwards, by the siblings of path and one that was climbed
// to before, and notes all nodes below the last, which it returns in n. Every
// step doubles what is below, so that there are few before an index is too
// large.
func (v *verifier) climb(n *top, path []Node, side *top) (*top, error) {
	if err := checkNode(n.Node); err != nil {
		return nil, err
	}
	v.out.Nodes = slices.Grow(v.out.Nodes, 2*min(len(path), 64))
	for len(path) > 0 || side != nil {
		var sibling Node
		switch want := flat.Sibling(n.Index); {
		case side != nil && side.Index == want:
			sibling, side = side.Node, nil
		case len(path) == 0:
			return nil, fmt.Errorf("%w: it ends before node %d", ErrProof, want)
		case path[0].Index != want:
			return nil, fmt.Errorf("%w: node %d, not %d", ErrProof, path[0].Index, want)
		default:
			sibling, path = path[0], path[1:]
		}
		if err := checkNode(sibling); err != nil {
			return nil, err
		}
		v.out.Nodes = append(v.out.Nodes, n.Node, sibling)
		n.Node, n.computed = Parent(n.Node, sibling), true
		if err := checkNode(n.Node); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// checkNode refuses numbers that JavaScript cannot hold. So sums of two sizes
// do not overflow.
func checkNode(n Node) error {
	if n.Index > compact.MaxUint || n.Size > compact.MaxUint {
		return fmt.Errorf("%w: a number is too large", ErrProof)
	}
	return nil
}

// attach compares a top with the node that is stored. A hash binds the size of
// what is below it, so a stored size that differs from a computed one is wrong,
// and is put right.
func (v *verifier) attach(r Reader, h Head, t *top) error {
	stored, ok, err := r.Node(t.Index)
	switch {
	case err != nil:
		return err
	case !ok || t.Index >= 2*h.Length:
		return fmt.Errorf("%w: it ends at node %d, which is not known here", ErrProof, t.Index)
	case stored.Hash != t.Hash, stored.Size != t.Size && !t.computed:
		return fmt.Errorf("%w: at node %d", ErrChecksum, t.Index)
	case stored.Size != t.Size:
		v.out.Nodes = append(v.out.Nodes, t.Node)
	}
	return nil
}

// upgrade grows the tree. It takes the top where that is one of the nodes to grow
// by, and then leaves nil.
func (v *verifier) upgrade(h Head, u *UpgradeProof, t **top) error {
	if err := checkUpgrade(h, u); err != nil {
		return err
	}
	var b Batch
	b.Reset(h)
	g := grower{&b, u.Nodes, t}
	if err := g.grow(u.Start + u.Length); err != nil {
		return err
	}
	if p := h.Prologue; p != nil && u.Start < p.Length && b.Hash() != p.Hash {
		return fmt.Errorf("%w: not the prologue's", ErrChecksum)
	}
	g.nodes = u.Additional
	if err := g.grow(lengthOf(u)); err != nil {
		return err
	}
	v.out.Nodes = append(v.out.Nodes, b.Nodes()...)
	v.out.Head = b.head
	v.out.Head.Signature = u.Signature
	v.out.Upgraded = true
	return nil
}

// checkUpgrade checks the numbers of an upgrade.
func checkUpgrade(h Head, u *UpgradeProof) error {
	switch {
	case u.Start != h.Length:
		return fmt.Errorf("%w: from block %d, not %d", ErrStale, u.Start, h.Length)
	case u.Length == 0 || u.Start > MaxLength || u.Length > MaxLength-u.Start:
		return fmt.Errorf("%w: too few or too many blocks", ErrProof)
	case h.Prologue != nil && u.Start < h.Prologue.Length && u.Length != h.Prologue.Length-u.Start:
		return fmt.Errorf("%w: not all of the prologue", ErrProof)
	}
	return nil
}

// lengthOf returns the length that an upgrade reaches, which its last additional
// node tells.
func lengthOf(u *UpgradeProof) uint64 {
	if len(u.Additional) == 0 {
		return u.Start + u.Length
	}
	_, last := flat.Span(u.Additional[len(u.Additional)-1].Index)
	return min(last/2+1, MaxLength)
}

// A grower takes the nodes of an upgrade in the only order that there is.
type grower struct {
	*Batch
	nodes []Node
	top   **top
}

// grow takes the nodes to a length, and all that there are.
func (g *grower) grow(length uint64) error {
	var indexes [128]uint64
	for _, want := range AppendUpgrade(indexes[:0], g.Length(), length) {
		n, err := g.take(want)
		if err == nil {
			err = g.AppendNode(n)
		}
		if err != nil {
			return err
		}
	}
	if len(g.nodes) > 0 {
		return fmt.Errorf("%w: node %d is not needed", ErrProof, g.nodes[0].Index)
	}
	return nil
}

// take returns the next node.
func (g *grower) take(want uint64) (Node, error) {
	if t := *g.top; t != nil && t.Index == want {
		*g.top = nil
		return t.Node, nil
	}
	if len(g.nodes) == 0 {
		return Node{}, fmt.Errorf("%w: it ends before node %d", ErrProof, want)
	}
	n := g.nodes[0]
	if n.Index != want {
		return Node{}, fmt.Errorf("%w: node %d, not %d", ErrProof, n.Index, want)
	}
	g.nodes = g.nodes[1:]
	return n, nil
}

// Missing returns how many nodes a request for a block must say are missing
// here: those from its leaf upwards, up to the first that r has. It is 0 for a
// block that is not in a tree of length blocks, since that comes with an
// upgrade. The error is r's.
func Missing(r Reader, block, length uint64) (nodes uint64, err error) {
	if block >= length {
		return 0, nil
	}
	for i := 2 * block; !flat.Contains(i, 2*length); i = flat.Parent(i) {
		_, ok, err := r.Node(i)
		if err != nil || ok {
			return nodes, err
		}
		nodes++
	}
	return nodes, nil
}
