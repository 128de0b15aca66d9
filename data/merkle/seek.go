package merkle

import (
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/flat"
)

// A Position is where a byte is, as far as the nodes that are here tell: in one
// of the blocks from Start up to End. Where that is one block, Offset bytes of
// it come before. Start equal to End is the end of the log.
type Position struct {
	Start, End uint64
	Offset     uint64 // from the start of block Start
}

// Found reports whether the block is known.
func (p Position) Found() bool { return p.End <= p.Start+1 }

// Seek finds the block that has the byte at an offset from the start of the log;
// of each block padding bytes do not count. It reads nothing but nodes, and
// where some are not here it says between which blocks to go on: ask a peer for
// the hash of one of them together with the same seek. An offset of all bytes of
// the log is its end; beyond that the error is cloudpal.NotExist. It is
// ErrRequest where there is more padding than bytes, or else r's.
func Seek(r Reader, h Head, bytes, padding uint64) (Position, error) {
	if bytes == 0 {
		return Position{End: min(1, h.Length)}, nil
	}
	for _, root := range h.Roots {
		size, err := unpadded(root, padding)
		if err != nil {
			return Position{}, err
		}
		if bytes < size {
			return seekTree(r, root.Index, bytes, padding)
		}
		bytes -= size
	}
	if bytes > 0 {
		return Position{}, cloudpal.E("seek", cloudpal.NotExist, nil)
	}
	return Position{Start: h.Length, End: h.Length}, nil
}

// seekTree goes down from a node that has the byte, to a leaf or to where no
// node tells left from right.
func seekTree(r Reader, i, bytes, padding uint64) (Position, error) {
	for {
		left, right, ok := flat.Children(i)
		if !ok {
			return Position{i / 2, i/2 + 1, bytes}, nil
		}
		n, known, err := r.Node(left)
		if err != nil {
			return Position{}, err
		}
		if !known {
			first, last := flat.Span(i)
			return Position{first / 2, last/2 + 1, bytes}, nil
		}
		size, err := unpadded(n, padding)
		switch {
		case err != nil:
			return Position{}, err
		case bytes < size:
			i = left
		default:
			i, bytes = right, bytes-size
		}
	}
}

// unpadded returns the bytes below a node that count.
func unpadded(n Node, padding uint64) (uint64, error) {
	leaves := flat.Count(n.Index)
	if padding > n.Size/leaves {
		return 0, fmt.Errorf("%w: blocks without room for %d bytes of padding", ErrRequest, padding)
	}
	return n.Size - padding*leaves, nil
}

// Offset returns how many bytes come before a node, which need not be stored
// itself. The error is ErrRequest for a node that is not in the tree,
// cloudpal.NotExist where one that tells is not stored here, or r's.
func Offset(r Reader, h Head, index uint64) (bytes uint64, err error) {
	first, last := flat.Span(index)
	if index >= 2*h.Length || last >= 2*h.Length {
		return 0, fmt.Errorf("%w: node %d of %d blocks", ErrRequest, index, h.Length)
	}
	for _, root := range h.Roots {
		if flat.Contains(root.Index, first) {
			below, err := offsetBelow(r, root.Index, first)
			return bytes + below, err
		}
		bytes += root.Size
	}
	return 0, fmt.Errorf("%w: the roots are not those of %d blocks", ErrRequest, h.Length)
}

// offsetBelow returns how many bytes below node i come before a leaf.
func offsetBelow(r Reader, i, leaf uint64) (bytes uint64, err error) {
	for {
		left, right, ok := flat.Children(i)
		switch {
		case !ok:
			return bytes, nil
		case leaf < i:
			i = left
		default:
			n, err := need(r, left)
			if err != nil {
				return 0, err
			}
			i, bytes = right, bytes+n.Size
		}
		if first, _ := flat.Span(i); first == leaf {
			return bytes, nil
		}
	}
}

// seekRoots finds the node that tells most about a seek in the first end blocks;
// nil where they have not so many bytes.
func (p *prover) seekRoots(end uint64) (*uint64, error) {
	bytes := p.seek.Bytes
	var indexes [64]uint64
	for _, i := range flat.AppendFullRoots(indexes[:0], end) {
		n, err := need(p.r, i)
		if err != nil {
			return nil, err
		}
		size, err := unpadded(n, p.seek.Padding)
		if err != nil {
			return nil, err
		}
		switch {
		case bytes == size:
			return &i, nil
		case bytes < size:
			found, err := p.descend(i, bytes)
			return &found, err
		}
		bytes -= size
	}
	return nil, nil
}

// seekBelow finds the node that tells most about a seek below top.
func (p *prover) seekBelow(top uint64) (uint64, error) {
	offset, err := Offset(p.r, p.h, top)
	if err != nil {
		return 0, err
	}
	n, err := need(p.r, top)
	if err != nil {
		return 0, err
	}
	size, err := unpadded(n, p.seek.Padding)
	if err != nil {
		return 0, err
	}
	first, _ := flat.Span(top)
	if before := first / 2; before > 0 {
		if p.seek.Padding > offset/before {
			return 0, fmt.Errorf("%w: blocks without room for %d bytes of padding", ErrRequest, p.seek.Padding)
		}
		offset -= p.seek.Padding * before
	}
	bytes := p.seek.Bytes
	if bytes < offset || bytes-offset >= size && bytes != offset {
		return 0, fmt.Errorf("%w: byte %d is not below node %d", ErrRequest, bytes, top)
	}
	return p.descend(top, bytes-offset)
}

// descend goes down from node i, which has the byte, as long as the next node is
// stored. It stops early where the byte is the end of a node.
func (p *prover) descend(i, bytes uint64) (uint64, error) {
	if bytes == 0 {
		return i, nil
	}
	for {
		left, right, ok := flat.Children(i)
		if !ok {
			return i, nil
		}
		n, known, err := p.r.Node(left)
		if err != nil || !known {
			return i, err
		}
		size, err := unpadded(n, p.seek.Padding)
		switch {
		case err != nil:
			return i, err
		case bytes == size:
			return left, nil
		case bytes < size:
			i = left
			continue
		}
		if _, known, err := p.r.Node(right); err != nil || !known {
			return i, err
		}
		i, bytes = right, bytes-size
	}
}
