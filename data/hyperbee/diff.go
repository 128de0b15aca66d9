package hyperbee

import (
	"bytes"
	"context"
	"iter"
	"strings"
)

// A Difference is a key that two versions do not have from the same block:
// Left is the version that was asked, Right the other. One that does not have
// the key at all has Seq 0. Values may well be equal.
type Difference struct {
	Left, Right Entry
}

func (d Difference) none() bool { return d.Left.Seq == 0 && d.Right.Seq == 0 }

// Diff goes through what differs between b and another version of it, in the
// order of keys; Reverse is ignored. It reads only what differs: what both
// versions share is passed over, however large.
func (b *Bee) Diff(ctx context.Context, other *Bee, r Range) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		left, release := b.pin()
		defer release()
		right, release := other.pin()
		defer release()
		low, high := b.bounds(r)
		d := differ{newWalker(&left, low, high), newWalker(&right, low, high)}
		err := d.open(ctx)
		for n := 0; err == nil && (r.Limit <= 0 || n < r.Limit); n++ {
			var pair Difference
			pair, err = d.next(ctx)
			if err != nil {
				break
			}
			if pair.none() || !yield(Difference{b.stripped(pair.Left), b.stripped(pair.Right)}, nil) {
				return
			}
		}
		if err != nil {
			yield(Difference{}, err)
		}
	}
}

// A differ walks two trees side by side.
type differ struct{ left, right *walker }

func (d *differ) open(ctx context.Context) error {
	if err := d.left.open(ctx); err != nil {
		return err
	}
	return d.right.open(ctx)
}

// next returns the next difference, or none at the end.
func (d *differ) next(ctx context.Context) (pair Difference, err error) {
	for pair.none() && err == nil {
		if err := ctx.Err(); err != nil {
			return pair, err
		}
		l, r := d.left.peek(), d.right.peek()
		switch {
		case l.page == nil && r.page == nil:
			return pair, nil
		case d.same(l, r):
			err = d.skip()
		case l.page == nil:
			pair, err = d.onlyRight(ctx, r)
		case r.page == nil:
			pair, err = d.onlyLeft(ctx, l)
		default:
			pair, err = d.both(ctx, l, r)
		}
	}
	return pair, err
}

// same reports whether both sides are about to read the same block: then all
// that is in it, and below it, is the same.
func (d *differ) same(l, r item) bool {
	return l.page != nil && r.page != nil && l.isKey == r.isKey && l.at() == r.at() &&
		d.left.view.fork == d.right.view.fork
}

func (d *differ) skip() error {
	if err := d.left.skip(); err != nil {
		return err
	}
	return d.right.skip()
}

func (d *differ) onlyLeft(ctx context.Context, l item) (pair Difference, err error) {
	if !l.isKey {
		return pair, d.left.step(ctx)
	}
	pair.Left, err = d.left.take(ctx)
	return pair, err
}

func (d *differ) onlyRight(ctx context.Context, r item) (pair Difference, err error) {
	if !r.isKey {
		return pair, d.right.step(ctx)
	}
	pair.Right, err = d.right.take(ctx)
	return pair, err
}

// both goes one step on the side that is behind: a key waits for a subtree
// that may hold it, and of two subtrees the one that ends first is opened.
func (d *differ) both(ctx context.Context, l, r item) (Difference, error) {
	c, err := d.compare(ctx)
	if err != nil {
		return Difference{}, err
	}
	switch {
	case l.isKey && !r.isKey:
		return d.onlyRight(ctx, r)
	case r.isKey && !l.isKey:
		return d.onlyLeft(ctx, l)
	case c < 0 && l.isKey, c > 0 && !l.isKey:
		return d.onlyLeft(ctx, l)
	case c != 0:
		return d.onlyRight(ctx, r)
	}
	pair, err := d.onlyLeft(ctx, l)
	if err != nil {
		return pair, err
	}
	right, err := d.onlyRight(ctx, r)
	pair.Right = right.Right
	if d.left.view.fork != d.right.view.fork && pair.Left.Seq == pair.Right.Seq && sameValue(pair.Left.Value, pair.Right.Value) {
		pair = Difference{} // from before the fork
	}
	return pair, err
}

// compare compares where the sides' items end.
func (d *differ) compare(ctx context.Context) (int, error) {
	l, lends, err := d.left.upper(ctx)
	if err != nil {
		return 0, err
	}
	r, rends, err := d.right.upper(ctx)
	switch {
	case err != nil:
		return 0, err
	case !lends && !rends:
		return 0, nil
	case !lends:
		return 1, nil
	case !rends:
		return -1, nil
	}
	return strings.Compare(l, r), nil
}

// A walker is one side of a diff: a walk that can be told to pass over a
// subtree.
//
// A stranger's tree could have one node as a child many times over, and so be
// of endless size: floor, the last key that was passed and whose text is known,
// finds it out at the second visit.
type walker struct {
	view      *view
	low, high bound
	seeking   bool // low lies in or after what comes next
	stack     []stop
	floor     string // "" for none
}

// A stop is a tree node and what is next in it, as in a frame.
type stop struct {
	page *page
	pos  int
}

// An item is child i or key i of a tree node; no page is the end.
type item struct {
	page  *page
	i     int
	isKey bool
}

func (i item) at() place {
	if i.isKey {
		return place{i.page.keys[i.i], 0}
	}
	return i.page.kids[i.i]
}

func newWalker(v *view, low, high bound) *walker {
	return &walker{view: v, low: low, high: high, seeking: low.key != nil}
}

func (w *walker) open(ctx context.Context) error {
	if w.view.version < 2 {
		return nil
	}
	p, err := w.view.page(ctx, place{w.view.version - 1, 0})
	if err != nil {
		return err
	}
	return w.push(ctx, p)
}

func (w *walker) push(ctx context.Context, p *page) error {
	if len(w.stack) == maxDepth {
		return errDeep
	}
	pos := 0
	if w.seeking {
		i, found, err := search(ctx, w.view, p, string(w.low.key))
		if err != nil {
			return err
		}
		pos = 2 * i
		if found {
			pos++
		}
		if found && !w.low.incl {
			pos++
		}
		w.seeking = !found && !p.leaf()
	}
	w.stack = append(w.stack, stop{p, pos})
	return nil
}

// peek returns what is next.
func (w *walker) peek() item {
	for len(w.stack) > 0 {
		top := &w.stack[len(w.stack)-1]
		if top.pos%2 == 0 && top.page.leaf() {
			top.pos++
		}
		if isKey := top.pos%2 == 1; top.pos <= 2*top.page.n && (!isKey || top.pos/2 < top.page.n) {
			return item{top.page, top.pos / 2, isKey}
		}
		w.stack = w.stack[:len(w.stack)-1]
	}
	return item{}
}

// upper returns the key that is next, or the one after the subtree that is: ok
// is false where that goes on to the end of the tree.
func (w *walker) upper(ctx context.Context) (text string, ok bool, err error) {
	for i := len(w.stack) - 1; i >= 0; i-- {
		s := &w.stack[i]
		if k := s.pos / 2; k < s.page.n {
			text, err := s.page.text(ctx, w.view, k)
			if err == nil && w.floor != "" && text <= w.floor {
				err = errOrder
			}
			return text, true, err
		}
	}
	return "", false, nil
}

// skip passes over what is next.
func (w *walker) skip() error {
	next := w.peek()
	w.stack[len(w.stack)-1].pos++
	w.seeking = false
	if !next.isKey {
		return nil
	}
	return w.pass(next.page.known(next.i))
}

// pass notes a key that was passed, "" for one whose text is not known.
func (w *walker) pass(text string) error {
	if text == "" {
		return nil
	}
	if w.floor != "" && text <= w.floor {
		return errOrder
	}
	w.floor = text
	return nil
}

// step goes into the subtree that is next.
func (w *walker) step(ctx context.Context) error {
	next := w.peek()
	p, err := w.view.page(ctx, next.at())
	if err != nil {
		return err
	}
	w.stack[len(w.stack)-1].pos++
	return w.push(ctx, p)
}

// take reads the key that is next: none where it is past the range.
func (w *walker) take(ctx context.Context) (Entry, error) {
	next := w.peek()
	w.stack[len(w.stack)-1].pos++
	w.seeking = false
	e, err := w.view.entry(ctx, next.page.keys[next.i])
	if err != nil {
		return e, err
	}
	if err := w.pass(string(e.Key)); err != nil {
		return e, err
	}
	if w.high.key != nil {
		if c := bytes.Compare(e.Key, w.high.key); c > 0 || (c == 0 && !w.high.incl) {
			w.stack = nil
			return Entry{}, nil
		}
	}
	return e, nil
}
