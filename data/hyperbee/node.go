package hyperbee

import (
	"context"
	"slices"
	"strings"
)

// A node is a tree node that a batch has loaded to change it. Node and child
// mirror the original's objects one to one, since what it writes depends on
// which of them it shares: see Batch.pack.
type node struct {
	keys     []key
	children []*child // none in a leaf
	changed  bool
	was      place // where it was loaded from; seq 0 for a new one

	keyRoom [maxKeys + 1]key // what keys begins with, to allocate once
	kin     *kin
}

// kin is the same for children, which most nodes do not have: own are those
// that the node was loaded with.
type kin struct {
	room [maxKeys + 2]*child
	own  [maxKeys + 1]child
}

// A key's name is "" until it is first compared with.
type key struct {
	seq  uint64
	name string
}

// A child says where a tree node stands, and has it once it is loaded. seq 0
// is a node that was merged into another.
type child struct {
	seq  uint64
	off  uint32
	node *node
}

// A herd has the nodes of a batch. Those of one that is done serve the next.
type herd struct {
	all  []*node
	used int
}

func (h *herd) node() *node {
	if h.used == len(h.all) {
		h.all = append(h.all, new(node))
	}
	n := h.all[h.used]
	h.used++
	n.keys = n.keyRoom[:0]
	return n
}

const herdSize = 4096 // nodes kept for the next batch: 1.5 MB

// free takes back all nodes.
func (h *herd) free() {
	for _, n := range h.all[:h.used] {
		k := n.kin
		if k != nil {
			*k = kin{}
		}
		*n = node{kin: k}
	}
	if len(h.all) > herdSize {
		h.all = append([]*node(nil), h.all[:herdSize]...)
	}
	h.used = 0
}

// kids makes room for n's children: nodes that have none need none.
func (n *node) kids() *kin {
	if n.kin == nil {
		n.kin = new(kin)
	}
	return n.kin
}

// thaw makes a node of a page.
func (h *herd) thaw(p *page) *node {
	n := h.node()
	n.was = p.at
	known := p.texts.Load()
	for i, seq := range p.keys[:p.n] {
		k := key{seq: seq}
		if known != nil {
			k.name = known.at(i)
		}
		n.keys = append(n.keys, k)
	}
	if p.leaf() {
		return n
	}
	k := n.kids()
	n.children = k.room[:len(p.kids)]
	for i, at := range p.kids {
		k.own[i] = child{seq: at.seq, off: at.off}
		n.children[i] = &k.own[i]
	}
	return n
}

// freeze makes a page of a node that is in the log now.
func (n *node) freeze(at place) *page {
	p := makePage(at, len(n.keys), len(n.children))
	size := 0
	for _, k := range n.keys {
		size += len(k.name)
	}
	var all strings.Builder
	all.Grow(size)
	for i, k := range n.keys {
		all.WriteString(k.name)
		p.keys[i], p.first.ends[i] = k.seq, uint32(all.Len())
	}
	p.first.all = all.String()
	p.texts.Store(&p.first)
	for i, c := range n.children {
		p.kids[i] = place{c.seq, c.off}
	}
	return p
}

func (n *node) len() int         { return len(n.keys) }
func (n *node) leaf() bool       { return len(n.children) == 0 }
func (n *node) seq(i int) uint64 { return n.keys[i].seq }

func (n *node) text(ctx context.Context, v *view, i int) (string, error) {
	k := &n.keys[i]
	if k.name != "" {
		return k.name, nil
	}
	b, err := v.block(ctx, k.seq)
	if err != nil {
		return "", err
	}
	k.name = string(b.key)
	return k.name, nil
}

// down is for readers: what is not loaded stays so.
func (n *node) down(ctx context.Context, v *view, i int) (branch, error) {
	c := n.children[i]
	if c.node != nil {
		return c.node, nil
	}
	p, err := v.page(ctx, place{c.seq, c.off})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// load returns child i, to be changed.
func (n *node) load(ctx context.Context, v *view, i int) (*node, error) {
	c := n.children[i]
	if c.node != nil {
		return c.node, nil
	}
	p, err := v.page(ctx, place{c.seq, c.off})
	if err != nil {
		return nil, err
	}
	c.node = v.batch.herd.thaw(p)
	return c.node, nil
}

// insert adds k before key i, and right, where it is not nil, after child i.
func (n *node) insert(i int, k key, right *node) {
	n.keys = slices.Insert(n.keys, i, k)
	if right != nil {
		n.children = slices.Insert(n.children, i+1, &child{node: right})
	}
	n.changed = true
}

// split moves the upper half of a node that has one key too many to a new one.
// The key between them goes to the parent.
func (n *node) split(h *herd) (median key, right *node) {
	right = h.node()
	half := len(n.keys) / 2
	median = n.keys[half]
	right.keys = append(right.keys, n.keys[half+1:]...)
	n.keys = cut(n.keys, half)
	if !n.leaf() {
		right.children = append(right.kids().room[:0], n.children[half+1:]...)
		n.children = cut(n.children, half+1)
	}
	n.changed, right.changed = true, true
	return median, right
}

// cut shortens s and lets go of what it held.
func cut[T any](s []T, n int) []T {
	clear(s[n:])
	return s[:n]
}

// remove takes key i out, and the child after it where there is one.
func (n *node) remove(i int) {
	n.keys = slices.Delete(n.keys, i, i+1)
	if !n.leaf() {
		n.children[i+1].seq = 0
		n.children = slices.Delete(n.children, i+1, i+2)
	}
	n.changed = true
}

// merge appends median and all of right.
func (n *node) merge(median key, right *node) {
	n.keys = append(append(n.keys, median), right.keys...)
	n.children = append(n.children, right.children...)
	n.changed = true
}

// at returns which child of n holds want.
func (n *node) at(want *node) int {
	return slices.IndexFunc(n.children, func(c *child) bool { return c.node == want })
}
