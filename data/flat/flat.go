// Package flat does arithmetic on flat trees: binary trees whose nodes are
// numbered so that a tree can grow to the right and no node ever gets another
// number.
//
//	3               the root of four blocks
//	1       5
//	0   2   4   6   the leaves: block n is node 2n
//
// A node of depth d is the n-th of its depth, from 0; n is its offset. A tree
// over a number of blocks that is no power of two has several roots: the
// greedy split of the blocks, from the left, into powers of two. Five blocks
// have the roots 3 and 8.
//
// Everything here is exact for indexes below 1<<62, which is more than the
// 1<<53 that hypercore's other implementations can count to, and nothing here
// panics above. Nothing but AppendFullRoots allocates.
package flat

import "math/bits"

// Index returns the node that is the offset-th of its depth, both from 0.
func Index(depth uint, offset uint64) uint64 { return (2*offset+1)<<depth - 1 }

// Depth returns how far a node is above its leaves; 0 is a leaf.
func Depth(i uint64) uint { return uint(bits.TrailingZeros64(^i)) }

// Offset returns how many nodes of the same depth are left of a node.
func Offset(i uint64) uint64 { return i >> (Depth(i) + 1) }

// Parent returns the node above.
func Parent(i uint64) uint64 {
	d := Depth(i)
	return Index(d+1, i>>(d+2))
}

// Sibling returns the other child of the same parent.
func Sibling(i uint64) uint64 { return i ^ 2<<Depth(i) }

// IsRight reports whether a node is the right one of its parent's children.
func IsRight(i uint64) bool { return Offset(i)&1 == 1 }

// Children returns the two nodes below; ok is false for a leaf, which has none.
func Children(i uint64) (left, right uint64, ok bool) {
	d := Depth(i)
	if d == 0 {
		return 0, 0, false
	}
	half := uint64(1) << (d - 1)
	return i - half, i + half, true
}

// Span returns the first and the last leaf below a node, as node indexes; all
// nodes below it are between them. A leaf is both.
func Span(i uint64) (first, last uint64) {
	below := Count(i) - 1
	return i - below, i + below
}

// Count returns how many leaves are below a node; for a leaf 1.
func Count(i uint64) uint64 { return 1 << Depth(i) }

// Contains reports whether node j is node i or below it.
func Contains(i, j uint64) bool {
	first, last := Span(i)
	return first <= j && j <= last
}

// AppendFullRoots appends the roots of a tree over length blocks, from left to
// right. There are as many as length has bits set, so at most 64.
func AppendFullRoots(dst []uint64, length uint64) []uint64 {
	var blocks uint64 // left of the next root
	for length > 0 {
		depth := uint(bits.Len64(length)) - 1
		size := uint64(1) << depth
		dst = append(dst, 2*blocks+size-1)
		blocks += size
		length -= size
	}
	return dst
}
