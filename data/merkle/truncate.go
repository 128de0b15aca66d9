package merkle

import "github.com/tradle/cloudpal/data/flat"

// Roots reads the roots of the first length blocks. The error is
// cloudpal.NotExist where one is not stored, or r's.
func Roots(r Reader, length uint64) ([]Node, error) {
	var indexes [64]uint64
	roots := make([]Node, 0, 8)
	for _, i := range flat.AppendFullRoots(indexes[:0], length) {
		n, err := need(r, i)
		if err != nil {
			return nil, err
		}
		roots = append(roots, n)
	}
	return roots, nil
}

// Truncate returns the head of the first length blocks of a tree under a new
// fork, unsigned: it must be signed also where length is 0. The error is
// ErrRequest where there are fewer blocks, or that of Roots.
func Truncate(r Reader, h Head, length, fork uint64) (Head, error) {
	if length > h.Length {
		return Head{}, ErrRequest
	}
	roots, err := Roots(r, length)
	return Head{Fork: fork, Length: length, Roots: roots, Prologue: h.Prologue}, err
}

// AppendSevered appends the nodes left of block length that a tree truncated
// from old to length blocks no longer has, since they have blocks on both
// sides. A store deletes them together with all nodes from 2*length on.
func AppendSevered(dst []uint64, length, old uint64) []uint64 {
	if length == 0 || length >= old {
		return dst
	}
	for i := 2*length - 2; ; i = flat.Parent(i) {
		_, last := flat.Span(i)
		if last >= 2*old { // neither it nor what is above was in the tree
			return dst
		}
		if last >= 2*length && i < 2*length {
			dst = append(dst, i)
		}
	}
}
