package hypertrie

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/tradle/cloudpal"
)

// List says how to go through the keys below a prefix. The zero value is: all,
// and the prefix itself if it is a key.
type List struct {
	// Shallow has one entry for each part that comes after the prefix, as a
	// folder's list has: it may be that of a key further below.
	Shallow bool
	Below   bool // not the prefix itself
	Reverse bool
}

// The orders in which values of a step are gone through.
var (
	forward  = [values]int{terminal, 0, 1, 2, 3}
	backward = [values]int{3, 2, 1, 0, terminal}
)

// List goes through the keys below a prefix, in the order of their hashes: that
// of the original, and always the same. The prefix "" has all keys. What is
// written meanwhile is not seen.
func (t *Trie) List(ctx context.Context, prefix string, o List) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		v, release := t.pin()
		defer release()
		l, n, err := v.list(ctx, prefix, o)
		if err == nil && n != nil {
			_, err = l.walk(ctx, n, l.start, func(n *node) bool { return yield(n.entry(), nil) })
		}
		if err != nil {
			yield(Entry{}, cloudpal.E("list keys", "", err))
		}
	}
}

// A lister goes through the nodes below a prefix.
type lister struct {
	view
	order      [values]int
	start, end int // steps
	below      bool
}

// list begins one, at a node that has the prefix; nil where there is none.
func (v *view) list(ctx context.Context, prefix string, o List) (*lister, *node, error) {
	want, err := v.want(prefix, true)
	if err != nil {
		return nil, nil, err
	}
	n, err := v.get(ctx, prefix, true)
	l := &lister{view: *v, order: forward, start: want.length() - 1, end: 1 << 62, below: o.Below}
	if o.Reverse {
		l.order = backward
	}
	if o.Shallow {
		l.end = l.start + 32
	}
	return l, n, err
}

// walk yields all nodes that share with n the path before step i. It reports
// whether yield wants more.
func (l *lister) walk(ctx context.Context, n *node, i int, yield func(*node) bool) (bool, error) {
	end := min(n.length(), l.end)
	if l.below && i == l.start && n.path(i) == terminal && n.parting(i) > i {
		return true, nil // it is the prefix itself, and nothing is below it
	}
	if i = min(n.parting(i), end); i >= end {
		return yield(n), nil
	}
	for _, v := range l.order {
		if v == terminal && l.below && i == l.start {
			continue
		}
		next, err := l.branches(ctx, n, i, v)
		if err != nil {
			return false, err
		}
		for _, m := range next {
			if more, err := l.walk(ctx, m, i+1, yield); !more || err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// branches returns the nodes that stand for what has value v at step i: several
// where hashes collide.
func (v *view) branches(ctx context.Context, n *node, i, value int) (next []*node, err error) {
	if n.path(i) == value {
		next = append(next, n)
	}
	seqs := n.bucket(i)
	for at := value; at < len(seqs); at += values {
		if seqs[at] == 0 {
			continue
		}
		m, err := v.follow(ctx, n, i, value, seqs[at])
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		if slices.ContainsFunc(next, func(o *node) bool { return !ends(i) || !o.collides(m, i) }) {
			return nil, corrupt("two nodes stand for the same keys")
		}
		next = append(next, m)
	}
	slices.SortFunc(next, func(a, b *node) int { return cmp.Compare(a.key, b.key) })
	return next, nil
}
