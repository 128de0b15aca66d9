package protocol

import "github.com/tradle/cloudpal/data/flat"

// A frontier is what of the tree a peer's answers bring: the siblings on the
// ways up from blocks that were asked for. A block asked for below one of them
// needs proof only up to there. So neighbours, asked for in a row, cost two
// hashes each and not the height of the tree, although the answers are still on
// their way.
//
// A node's value is the request that brings it, or nil once it is stored. A node
// is in the frontier until something below it is asked for, which brings lower
// ones.
type frontier map[uint64]*flight

// maxFrontier bounds a frontier that is never asked below of, as by one who reads
// here and there; what it forgets costs longer proofs, not wrong ones.
const maxFrontier = 4096

// lift returns the first node on the way up from a block that is in the frontier,
// and how many are below it.
func (f frontier) lift(block uint64) (top, nodes uint64, ok bool) {
	if len(f) == 0 {
		return 0, 0, false
	}
	top = 2 * block
	for nodes < 53 {
		if _, ok := f[top]; ok {
			return top, nodes, true
		}
		top = flat.Parent(top)
		nodes++
	}
	return 0, 0, false
}

// grow puts in the siblings on the way up from a block over so many nodes, which
// a request brings.
func (f frontier) grow(block, nodes uint64, by *flight) {
	if len(f) > maxFrontier {
		f.prune()
	}
	for i := 2 * block; nodes > 0; nodes-- {
		sibling := flat.Sibling(i)
		f[sibling] = by
		by.brings = append(by.brings, sibling)
		i = flat.Parent(i)
	}
}

// stored notes that what a request brings is here.
func (f frontier) stored(by *flight) {
	for _, i := range by.brings {
		if at, ok := f[i]; ok && at == by {
			f[i] = nil
		}
	}
}

// lost forgets what a request would have brought.
func (f frontier) lost(by *flight) {
	for _, i := range by.brings {
		if f[i] == by {
			delete(f, i)
		}
	}
}

// prune forgets what is stored.
func (f frontier) prune() {
	for i, by := range f {
		if by == nil {
			delete(f, i)
		}
	}
}
