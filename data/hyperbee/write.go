package hyperbee

import (
	"bytes"
	"context"
	"slices"
)

// A step is a node on the way down, and which of its children, or keys, is
// next.
type step struct {
	node *node
	i    int
}

// put sets key. Nodes on the way are marked before it is
// clear that anything changes, as in the original: where swap refuses, the
// batch's next change writes them, too.
func (b *Batch) put(ctx context.Context, name string, value []byte, swap Swap) (bool, error) {
	root, err := b.loadRoot(ctx)
	if err != nil {
		return false, err
	}
	if root == nil {
		root = b.herd.node()
	}
	var room [maxDepth]step
	path := room[:0]
	target := key{b.next(), name}
	for n := root; ; {
		if !n.leaf() {
			n.changed = true
		}
		i, found, err := search(ctx, &b.view, n, name)
		if err != nil {
			return false, err
		}
		if found {
			return b.replace(ctx, root, step{n, i}, name, value, swap)
		}
		if n.leaf() {
			n.insert(i, target, nil)
			root = b.grow(root, n, path)
			b.append(root, name, value)
			return true, nil
		}
		if len(path) == maxDepth {
			return false, errDeep
		}
		path = append(path, step{n, i})
		if n, err = n.load(ctx, &b.view, i); err != nil {
			return false, err
		}
	}
}

// replace sets a key that is there.
func (b *Batch) replace(ctx context.Context, root *node, at step, name string, value []byte, swap Swap) (bool, error) {
	skipEqual := b.bee.tree.skipEqual
	if swap != nil || skipEqual {
		prev, err := b.view.entry(ctx, at.node.keys[at.i].seq)
		if err != nil {
			return false, err
		}
		if swap != nil && !b.ask(swap, prev, Entry{b.next(), []byte(name), value}) {
			return false, nil
		}
		if skipEqual && sameValue(prev.Value, value) {
			return false, nil
		}
	}
	at.node.keys[at.i] = key{b.next(), name}
	at.node.changed = true
	b.append(root, name, value)
	return true, nil
}

func (b *Batch) ask(swap Swap, prev, next Entry) bool {
	return swap(b.bee.stripped(prev), b.bee.stripped(next))
}

func sameValue(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// grow splits the nodes that have become too large, from n, a leaf, up along
// path, and returns the root.
func (b *Batch) grow(root, n *node, path []step) *node {
	for len(n.keys) > maxKeys {
		median, right := n.split(&b.herd)
		if len(path) == 0 {
			root = b.herd.node()
			root.keys = append(root.keys, median)
			root.children = append(root.kids().room[:0], &child{node: n}, &child{node: right})
			root.changed = true
			return root
		}
		up := path[len(path)-1]
		path = path[:len(path)-1]
		up.node.insert(up.i, median, right)
		n = up.node
	}
	return root
}

// delete removes a key.
func (b *Batch) delete(ctx context.Context, name string, swap Swap) (bool, error) {
	n, err := b.loadRoot(ctx)
	if err != nil || n == nil {
		return false, err
	}
	var room [maxDepth]*node
	stack := room[:0]
	for {
		stack = append(stack, n)
		i, found, err := search(ctx, &b.view, n, name)
		if err != nil {
			return false, err
		}
		if found {
			if ok, err := b.mayDelete(ctx, n.keys[i].seq, name, swap); err != nil || !ok {
				return false, err
			}
			return true, b.remove(ctx, stack, i, name)
		}
		if n.leaf() {
			return false, nil
		}
		if len(stack) == maxDepth {
			return false, errDeep
		}
		if n, err = n.load(ctx, &b.view, i); err != nil {
			return false, err
		}
	}
}

func (b *Batch) mayDelete(ctx context.Context, seq uint64, name string, swap Swap) (bool, error) {
	if swap == nil {
		return true, nil
	}
	prev, err := b.view.entry(ctx, seq)
	if err != nil {
		return false, err
	}
	return b.ask(swap, prev, Entry{Seq: b.next(), Key: []byte(name)}), nil
}

// remove takes key i out of the stack's last node. A failure half way leaves
// no tree, and the batch broken.
func (b *Batch) remove(ctx context.Context, stack []*node, i int, name string) error {
	n := stack[len(stack)-1]
	var err error
	if n.leaf() {
		n.remove(i)
	} else if stack, err = b.fillFromLeaf(ctx, n, i, stack); err != nil {
		return err
	}
	for _, n := range stack {
		n.changed = true
	}
	root, err := b.rebalance(ctx, stack)
	if err != nil {
		b.broken = err
		return err
	}
	b.append(root, name, nil)
	return nil
}

// fillFromLeaf puts in the place of key i of n its neighbour from the leaf on
// that side which has more keys.
func (b *Batch) fillFromLeaf(ctx context.Context, n *node, i int, stack []*node) ([]*node, error) {
	var leftRoom, rightRoom [maxDepth]*node
	left, err := b.spine(ctx, n, i, leftRoom[:0], len(stack), (*node).lastChild)
	if err != nil {
		return nil, err
	}
	right, err := b.spine(ctx, n, i+1, rightRoom[:0], len(stack), (*node).firstChild)
	if err != nil {
		return nil, err
	}
	if l, r := left[len(left)-1], right[len(right)-1]; len(l.keys) < len(r.keys) {
		n.keys[i] = r.keys[0]
		r.keys = slices.Delete(r.keys, 0, 1)
		return append(stack, right...), nil
	} else if len(l.keys) > 0 {
		n.keys[i] = l.keys[len(l.keys)-1]
		l.keys = cut(l.keys, len(l.keys)-1)
		return append(stack, left...), nil
	}
	return nil, errNode // both empty: not a tree that anyone has built
}

func (n *node) firstChild() int { return 0 }
func (n *node) lastChild() int  { return len(n.children) - 1 }

// spine loads child i of n and, from there, the outermost child on one side
// down to a leaf.
func (b *Batch) spine(ctx context.Context, n *node, i int, into []*node, depth int, side func(*node) int) ([]*node, error) {
	for {
		next, err := n.load(ctx, &b.view, i)
		if err != nil {
			return nil, err
		}
		into = append(into, next)
		if next.leaf() {
			return into, nil
		}
		if depth+len(into) >= maxDepth {
			return nil, errDeep
		}
		n, i = next, side(next)
	}
}

// rebalance fills the nodes along the stack that have become too small, from a
// neighbour or by merging with one, and returns the root.
func (b *Batch) rebalance(ctx context.Context, stack []*node) (*node, error) {
	root := stack[0]
	for len(stack) > 1 {
		n, parent := stack[len(stack)-1], stack[len(stack)-2]
		stack = stack[:len(stack)-1]
		if len(n.keys) >= minKeys {
			return root, nil
		}
		i := parent.at(n)
		left, right, err := b.siblings(ctx, parent, i, n.leaf())
		if err != nil {
			return nil, err
		}
		switch {
		case left != nil && len(left.keys) > minKeys:
			borrowLeft(parent, i, left, n)
			return root, nil
		case right != nil && len(right.keys) > minKeys:
			borrowRight(parent, i, n, right)
			return root, nil
		case left != nil:
			mergeAt(parent, i-1, left, n)
		case right != nil:
			mergeAt(parent, i, n, right)
		}
	}
	if len(root.keys) == 0 && !root.leaf() {
		return root.load(ctx, &b.view, 0)
	}
	return root, nil
}

// siblings loads the children of parent beside child i. Only a stranger's tree
// can be of uneven depth.
func (b *Batch) siblings(ctx context.Context, parent *node, i int, leaf bool) (left, right *node, err error) {
	if i > 0 {
		if left, err = parent.load(ctx, &b.view, i-1); err != nil {
			return nil, nil, err
		}
	}
	if i < len(parent.children)-1 {
		if right, err = parent.load(ctx, &b.view, i+1); err != nil {
			return nil, nil, err
		}
	}
	if (left != nil && left.leaf() != leaf) || (right != nil && right.leaf() != leaf) {
		return nil, nil, errNode
	}
	return left, right, nil
}

func borrowLeft(parent *node, i int, left, n *node) {
	left.changed = true
	n.keys = slices.Insert(n.keys, 0, parent.keys[i-1])
	if last := len(left.children) - 1; last >= 0 {
		n.children = slices.Insert(n.children, 0, left.children[last])
		left.children = cut(left.children, last)
	}
	last := len(left.keys) - 1
	parent.keys[i-1] = left.keys[last]
	left.keys = cut(left.keys, last)
}

func borrowRight(parent *node, i int, n, right *node) {
	right.changed = true
	n.keys = append(n.keys, parent.keys[i])
	if !right.leaf() {
		n.children = append(n.children, right.children[0])
		right.children = slices.Delete(right.children, 0, 1)
	}
	parent.keys[i] = right.keys[0]
	right.keys = slices.Delete(right.keys, 0, 1)
}

// mergeAt moves key i of parent and all of right, the child after it, to left.
func mergeAt(parent *node, i int, left, right *node) {
	left.merge(parent.keys[i], right)
	parent.remove(i)
}
