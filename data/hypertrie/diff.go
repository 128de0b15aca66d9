package hypertrie

import (
	"context"
	"iter"

	"github.com/tradle/cloudpal"
)

// A Difference is a key that is not set by the same block in two versions.
// Where one has not the key, its entry has Seq 0.
type Difference struct {
	Key         string
	Left, Right Entry
}

// Diff goes through the keys below a prefix that differ between t, on the left,
// and another version of it. It skips all that both have from the same blocks,
// so it takes time in proportion to what differs. A key that was written again
// as the neighbour of one that was deleted differs, though its value does not.
func (t *Trie) Diff(ctx context.Context, other *Trie, prefix string) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		left, release := t.pin()
		defer release()
		right, release := other.pin()
		defer release()
		d := differ{left: left, right: right, yield: func(d Difference) bool { return yield(d, nil) }}
		if _, err := d.open(ctx, prefix); err != nil {
			yield(Difference{}, cloudpal.E("compare versions", "", err))
		}
	}
}

type differ struct {
	left, right view
	yield       func(Difference) bool
}

func (d *differ) open(ctx context.Context, prefix string) (bool, error) {
	want, err := d.left.want(prefix, true)
	if err != nil {
		return false, err
	}
	left, err := d.left.get(ctx, prefix, true)
	if err != nil {
		return false, err
	}
	right, err := d.right.get(ctx, prefix, true)
	if err != nil {
		return false, err
	}
	return d.walk(ctx, left, right, want.length()-1)
}

// walk compares what two nodes stand for, which share the path before step i;
// one of them may be nil. It reports whether yield wants more.
func (d *differ) walk(ctx context.Context, left, right *node, i int) (bool, error) {
	if left == right || left != nil && right != nil && left.seq == right.seq && d.left.fork == d.right.fork {
		return true, nil
	}
	i = min(d.parting(left, i), d.parting(right, i), d.apart(left, right, i))
	if done(left, i) && done(right, i) {
		return d.emit(left, right), nil
	}
	for _, v := range forward {
		ls, err := d.left.branchesOf(ctx, left, i, v)
		if err != nil {
			return false, err
		}
		rs, err := d.right.branchesOf(ctx, right, i, v)
		if err != nil {
			return false, err
		}
		if more, err := d.match(ctx, ls, rs, i); !more || err != nil {
			return false, err
		}
	}
	return true, nil
}

// match compares the nodes of both sides that stand for the same keys, and those
// that only one side has.
func (d *differ) match(ctx context.Context, ls, rs []*node, i int) (bool, error) {
	for _, l := range ls {
		var same *node
		for at, r := range rs {
			if !parts(l, r, i) {
				same, rs[at] = r, rs[len(rs)-1]
				rs = rs[:len(rs)-1]
				break
			}
		}
		if more, err := d.walk(ctx, l, same, i+1); !more || err != nil {
			return false, err
		}
	}
	for _, r := range rs {
		if more, err := d.walk(ctx, nil, r, i+1); !more || err != nil {
			return false, err
		}
	}
	return true, nil
}

// parting returns the first step from i on at which a node stands for others,
// too; of none, a step after all.
func (d *differ) parting(n *node, i int) int {
	if n == nil {
		return 1 << 62
	}
	return n.parting(i)
}

// apart returns the first step from i on at which two nodes part.
func (d *differ) apart(left, right *node, i int) int {
	if left == nil || right == nil {
		return 1 << 62
	}
	for ; i < left.length() && i < right.length(); i++ {
		if parts(left, right, i) {
			break
		}
	}
	return i
}

// done reports whether a node stands for no key but its own.
func done(n *node, i int) bool { return n == nil || i >= n.length() }

func (d *differ) emit(left, right *node) bool {
	out := Difference{Left: entryOf(left), Right: entryOf(right)}
	if out.Key = out.Left.Key; left == nil {
		out.Key = out.Right.Key
	}
	return d.yield(out)
}

// branchesOf is branches, where n may be nil.
func (v *view) branchesOf(ctx context.Context, n *node, i, value int) ([]*node, error) {
	if n == nil {
		return nil, nil
	}
	return v.branches(ctx, n, i, value)
}
