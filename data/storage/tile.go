package storage

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"

	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/merkle"
)

// A tile is a subtree of four levels, kept as one record: an append changes
// one or two records instead of a record per node, and the climb from a block
// to the root of a million reads five instead of twenty.
//
//	level 1             14 ─── the root of the tile, of depth 7
//	                 ╱      ╲     ... down to depth 4
//	level 0      7    ...    ─── the root, of depth 3
//	           3   11
//	          1 5 9 13
//	         0 2 4 6 ...         ─── leaves, of depth 0
//
// A tile is filed under its root's index, which no other tile has.
type tile struct {
	root   uint64
	have   uint16 // which of the slots are filled
	dirty  bool   // it has nodes that are not in the database yet
	sizes  [slots]uint64
	hashes [slots]merkle.Hash
}

const (
	levels = 4             // of nodes in a tile
	slots  = 1<<levels - 1 // nodes of a full tile
)

// place returns the tile of a node, and where in it the node is.
func place(node uint64) (root uint64, slot int) {
	level := flat.Depth(node) / levels * levels // depth of the tile's lowest nodes
	top := level + levels - 1
	return flat.Index(top, node>>(top+1)), int((node+1)>>level-1) & slots
}

// base returns the depth of a tile's lowest nodes.
func (t *tile) base() uint { return flat.Depth(t.root) - levels + 1 }

// node returns the index of the node in a slot.
func (t *tile) node(slot int) uint64 {
	first, _ := flat.Span(t.root)
	return first + uint64(slot+1)<<t.base() - 1
}

func (t *tile) get(slot int) (merkle.Node, bool) {
	if t.have>>slot&1 == 0 {
		return merkle.Node{}, false
	}
	return merkle.Node{Index: t.node(slot), Size: t.sizes[slot], Hash: t.hashes[slot]}, true
}

func (t *tile) set(slot int, n merkle.Node) {
	t.have |= 1 << slot
	t.sizes[slot] = n.Size
	t.hashes[slot] = n.Hash
	t.dirty = true
}

// trim removes the nodes that reach beyond a tree's length in blocks.
func (t *tile) trim(length uint64) {
	for slot := range slots {
		if _, last := flat.Span(t.node(slot)); last >= 2*length && t.have>>slot&1 == 1 {
			t.have &^= 1 << slot
			t.dirty = true
		}
	}
}

const nodeSize = 8 + len(merkle.Hash{})

func (t *tile) size() int { return 2 + nodeSize*bits.OnesCount16(t.have) }

// encode fills b, which is as long as size says.
func (t *tile) encode(b []byte) {
	binary.LittleEndian.PutUint16(b, t.have)
	b = b[2:]
	for have := t.have; have != 0; have &= have - 1 {
		slot := bits.TrailingZeros16(have)
		binary.LittleEndian.PutUint64(b, t.sizes[slot])
		copy(b[8:nodeSize], t.hashes[slot][:])
		b = b[nodeSize:]
	}
}

var errTile = errors.New("a tile of the tree has another length than its nodes")

// decode reads what encode wrote. It reads all of b or fails.
func (t *tile) decode(b []byte) error {
	if len(b) < 2 {
		return errTile
	}
	t.have = binary.LittleEndian.Uint16(b)
	if t.have>>slots != 0 || len(b) != t.size() {
		return errTile
	}
	b = b[2:]
	for have := t.have; have != 0; have &= have - 1 {
		slot := bits.TrailingZeros16(have)
		t.sizes[slot] = binary.LittleEndian.Uint64(b)
		copy(t.hashes[slot][:], b[8:nodeSize])
		b = b[nodeSize:]
	}
	return nil
}

// maxTiles is how many tiles of a core are kept in memory, 640 bytes each.
const maxTiles = 48

// tiles are the ones of a core that are in memory: those that changed, and some
// of those that were read.
type tiles struct {
	mu    sync.Mutex
	m     map[uint64]*tile
	last  *tile // the one that was used last
	dirty []*tile
	free  []*tile

	// While a truncation waits for its commit, the database still has the
	// nodes that it removes: what is read there is cut to so many blocks.
	cutting bool
	cut     uint64
}

// find returns a tile that is in memory, or nil.
func (ts *tiles) find(root uint64) *tile {
	if ts.last != nil && ts.last.root == root {
		return ts.last
	}
	t := ts.m[root]
	if t != nil {
		ts.last = t
	}
	return t
}

// add makes room for a tile, and returns it empty.
func (ts *tiles) add(root uint64) *tile {
	if ts.m == nil {
		ts.m = make(map[uint64]*tile)
	}
	if len(ts.m)-len(ts.dirty) >= maxTiles {
		ts.evict()
	}
	var t *tile
	if n := len(ts.free); n > 0 {
		t, ts.free = ts.free[n-1], ts.free[:n-1]
	} else {
		t = new(tile)
	}
	t.root, t.have, t.dirty = root, 0, false
	ts.m[root] = t
	ts.last = t
	return t
}

// evict forgets some tiles that are in the database as they are, whichever
// come first.
func (ts *tiles) evict() {
	left := maxTiles / 4
	for root, t := range ts.m {
		if t.dirty {
			continue
		}
		ts.forget(root, t)
		if left--; left == 0 {
			return
		}
	}
}

func (ts *tiles) forget(root uint64, t *tile) {
	delete(ts.m, root)
	if ts.last == t {
		ts.last = nil
	}
	if len(ts.free) < maxTiles {
		ts.free = append(ts.free, t)
	}
}

// mark notes that a tile changed.
func (ts *tiles) mark(t *tile) { ts.dirty = append(ts.dirty, t) }

// written says that all changes are in the database.
func (ts *tiles) written() {
	ts.cutting = false
	for _, t := range ts.dirty {
		t.dirty = false
	}
	ts.dirty = ts.dirty[:0]
	if len(ts.m) > maxTiles {
		for root, t := range ts.m {
			if len(ts.m) <= maxTiles/2 {
				break
			}
			ts.forget(root, t)
		}
	}
}

// drop forgets all changes.
func (ts *tiles) drop() {
	for _, t := range ts.dirty {
		ts.forget(t.root, t)
	}
	ts.dirty = ts.dirty[:0]
	if ts.cutting { // others were read with less than there is
		for root, t := range ts.m {
			ts.forget(root, t)
		}
		ts.cutting = false
	}
}
