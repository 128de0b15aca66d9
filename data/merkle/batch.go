package merkle

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/flat"
)

// A Batch grows a tree in memory. It keeps its memory when it is Reset, so that
// one that is used again does not allocate. The zero Batch grows an empty log.
// It is for one goroutine, and not to be copied.
type Batch struct {
	head  Head // its Roots are the batch's own
	bytes uint64
	nodes []Node

	parents *parents // made when there are some at a time
}

// Reset starts again from a head, which is copied and so not changed.
func (b *Batch) Reset(h Head) {
	roots := append(b.head.Roots[:0], h.Roots...)
	b.head = h
	b.head.Roots = roots
	b.head.Signature = nil
	b.bytes = h.Bytes()
	b.nodes = b.nodes[:0]
}

// Append grows the tree by blocks, which are hashed and not kept. Those of one
// length that follow each other are hashed together, which is faster.
func (b *Batch) Append(blocks ...[]byte) {
	var nodes [atOnce]Node
	for len(blocks) > 0 {
		n := alike(blocks)
		leaves(nodes[:n], blocks[:n])
		for i := range n {
			nodes[i].Index = 2 * (b.head.Length + uint64(i))
			b.bytes += nodes[i].Size
		}
		b.head.Length += uint64(n)
		b.grow(nodes[:n])
		blocks = blocks[n:]
	}
}

// grow adds leaves that follow each other, and joins siblings level by level. It
// writes to leaves.
func (b *Batch) grow(leaves []Node) {
	var (
		pairs [atOnce / 2][2]Node
		alone [8]Node // one of a level, at most
		left  = alone[:0]
	)
	for level := leaves; len(level) > 0; {
		b.nodes = append(b.nodes, level...)
		joined := 0
		if flat.Offset(level[0].Index)&1 == 1 {
			last := len(b.head.Roots) - 1
			pairs[0] = [2]Node{b.head.Roots[last], level[0]}
			b.head.Roots, level, joined = b.head.Roots[:last], level[1:], 1
		}
		for ; len(level) > 1; level = level[2:] {
			pairs[joined] = [2]Node{level[0], level[1]}
			joined++
		}
		left = append(left, level...)
		level = leaves[:joined]
		b.join(level, pairs[:joined])
	}
	for i := len(left) - 1; i >= 0; i-- {
		b.head.Roots = append(b.head.Roots, left[i])
	}
}

// join sets nodes to those above pairs of siblings.
func (b *Batch) join(nodes []Node, pairs [][2]Node) {
	if len(pairs) <= 2 {
		for i, p := range pairs {
			nodes[i] = Parent(p[0], p[1])
		}
		return
	}
	if b.parents == nil {
		b.parents = new(parents)
	}
	b.parents.of(nodes, pairs)
}

// AppendNode grows the tree by all blocks below a node. The error is ErrProof
// where the node does not start at the first block that is not in the tree, or
// where the tree would have more blocks or bytes than can be counted.
func (b *Batch) AppendNode(n Node) error {
	first, _ := flat.Span(n.Index)
	switch {
	case first != 2*b.head.Length || n.Index > compact.MaxUint:
		return fmt.Errorf("%w: node %d does not follow on %d blocks", ErrProof, n.Index, b.head.Length)
	case flat.Count(n.Index) > MaxLength-b.head.Length || n.Size > compact.MaxUint-b.bytes:
		return fmt.Errorf("%w: the tree is too large", ErrProof)
	}
	b.push(n)
	return nil
}

// push adds a root, and joins roots as long as the last two are siblings.
func (b *Batch) push(n Node) {
	b.head.Length += flat.Count(n.Index)
	b.bytes += n.Size
	b.nodes = append(b.nodes, n)
	roots := b.head.Roots
	for len(roots) > 0 && roots[len(roots)-1].Index == flat.Sibling(n.Index) {
		n = Parent(roots[len(roots)-1], n)
		roots = roots[:len(roots)-1]
		b.nodes = append(b.nodes, n)
	}
	b.head.Roots = append(roots, n)
}

// Nodes returns the nodes that were made since Reset, in the order in which
// they were: all that a store must be given. They are valid until the next
// Reset.
func (b *Batch) Nodes() []Node { return b.nodes }

// Length returns the number of blocks.
func (b *Batch) Length() uint64 { return b.head.Length }

// Bytes returns the bytes of all blocks.
func (b *Batch) Bytes() uint64 { return b.bytes }

// Hash returns the tree hash, which is what is signed.
func (b *Batch) Hash() Hash { return TreeHash(b.head.Roots) }

// Head returns the head as it is now, without a signature. It stays as it is
// when the batch goes on.
func (b *Batch) Head() Head {
	h := b.head
	h.Roots = slices.Clone(h.Roots)
	return h
}

// AppendUpgrade appends the nodes that turn the roots of start blocks into
// those of end blocks, in the order in which a tree is grown by them: the right
// siblings on the way up from the last block, and then the roots right of
// that. It appends none where end is not above start.
func AppendUpgrade(dst []uint64, start, end uint64) []uint64 {
	for start < end {
		fits := bits.Len64(end-start) - 1
		depth := uint(min(fits, bits.TrailingZeros64(start)))
		dst = append(dst, flat.Index(depth, start>>depth))
		start += 1 << depth
	}
	return dst
}
