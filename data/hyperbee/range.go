package hyperbee

import (
	"bytes"
	"context"
	"iter"

	"github.com/tradle/cloudpal"
)

// A Range is a part of the keys. A bound that is nil is none; where both GT and
// GTE, or both LT and LTE, are set, the one without E counts.
type Range struct {
	GT, GTE []byte
	LT, LTE []byte
	Reverse bool // from the last key to the first
	Limit   int  // of entries; 0 is none
}

// Prefix is the range of all keys that begin with p.
func Prefix(p []byte) Range {
	r := Range{GTE: p}
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			r.LT = bytes.Clone(p[:i+1])
			r.LT[i]++
			break
		}
	}
	return r
}

// A bound is one end of a range; key is nil for none.
type bound struct {
	key  []byte
	incl bool
}

func (r Range) low() bound {
	if r.GT != nil {
		return bound{r.GT, false}
	}
	return bound{r.GTE, true}
}

func (r Range) high() bound {
	if r.LT != nil {
		return bound{r.LT, false}
	}
	return bound{r.LTE, true}
}

// bounds are the ends of r, as keys of the tree. Those of a sub are closed.
func (b *Bee) bounds(r Range) (low, high bound) {
	low, high = r.low(), r.high()
	if len(b.prefix) == 0 {
		return low, high
	}
	if low.key != nil {
		low.key = b.fullKey(low.key)
	} else {
		low = bound{b.fullKey([]byte{0}), false}
	}
	if high.key != nil {
		high.key = b.fullKey(high.key)
	} else {
		high = bound{Prefix(b.prefix).LT, false}
	}
	return low, high
}

// Range goes through the entries of a part of the keys, in order. It reads one
// version, whatever is written meanwhile. An error ends it.
func (b *Bee) Range(ctx context.Context, r Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		v, release := b.pin()
		defer release()
		b.walk(ctx, &v, r, yield)
	}
}

// Peek returns the first entry of a range, or cloudpal.NotExist.
func (b *Bee) Peek(ctx context.Context, r Range) (Entry, error) {
	return peek(b.Range(ctx, r))
}

func peek(entries iter.Seq2[Entry, error]) (Entry, error) {
	for e, err := range entries {
		return e, err
	}
	return Entry{}, cloudpal.NotExist
}

func (b *Bee) walk(ctx context.Context, v *view, r Range, yield func(Entry, error) bool) {
	low, high := b.bounds(r)
	c := cursor{view: v, reverse: r.Reverse, start: low, end: high}
	if r.Reverse {
		c.start, c.end = high, low
	}
	v.asker = b.asker(question{version: v.version, isRange: true, low: low, high: high, limit: uint64(max(0, r.Limit)), reverse: r.Reverse}, &c)
	err := c.seek(ctx)
	c.sought = true
	for n := 0; err == nil && (r.Limit <= 0 || n < r.Limit); n++ {
		var e Entry
		e, err = c.next(ctx)
		if err == nil && (e.Seq == 0 || !yield(b.stripped(e), nil)) {
			return
		}
	}
	if err != nil {
		yield(Entry{}, err)
	}
}

// A cursor walks over a tree in the order of its keys, or the other way.
type cursor struct {
	view       *view
	reverse    bool
	start, end bound
	stack      []frame
	last       []byte // the key before, nil at first
	sought     bool
}

// A frame is a tree node and what is next in it: 2i is child i, 2i+1 is key i.
type frame struct {
	node branch
	pos  int
}

// seek goes to the range's start.
func (c *cursor) seek(ctx context.Context) error {
	c.stack = make([]frame, 0, 8)
	n, err := c.view.root(ctx)
	if err != nil || n == nil {
		return err
	}
	if c.start.key == nil {
		return c.push(n)
	}
	for {
		i, found, err := search(ctx, c.view, n, string(c.start.key))
		if err != nil {
			return err
		}
		if err := c.push(n); err != nil {
			return err
		}
		c.stack[len(c.stack)-1].pos = c.first(i, found)
		if found || n.leaf() {
			return nil
		}
		if n, err = n.down(ctx, c.view, i); err != nil {
			return err
		}
	}
}

// first is where to begin in a node in which the start is found at i, or lies
// in child i, which is visited before.
func (c *cursor) first(i int, found bool) int {
	switch {
	case found && c.start.incl:
		return 2*i + 1
	case found && c.reverse:
		return 2 * i
	case found:
		return 2*i + 2
	case c.reverse:
		return 2*i - 1
	}
	return 2*i + 1
}

func (c *cursor) push(n branch) error {
	if len(c.stack) == maxDepth {
		return errDeep
	}
	f := frame{node: n}
	if c.reverse {
		f.pos = 2 * n.len()
	}
	c.stack = append(c.stack, f)
	return nil
}

// next returns the next entry, or one with Seq 0 at the end.
func (c *cursor) next(ctx context.Context) (Entry, error) {
	for len(c.stack) > 0 {
		top := &c.stack[len(c.stack)-1]
		pos := top.pos
		if pos < 0 || pos > 2*top.node.len() {
			c.stack = c.stack[:len(c.stack)-1]
			continue
		}
		top.pos = c.step(pos)
		if pos%2 == 1 {
			return c.at(ctx, top.node.seq(pos/2))
		}
		if top.node.leaf() {
			continue
		}
		n, err := top.node.down(ctx, c.view, pos/2)
		if err != nil {
			return Entry{}, err
		}
		if err := c.push(n); err != nil {
			return Entry{}, err
		}
	}
	return Entry{}, nil
}

func (c *cursor) step(pos int) int {
	if c.reverse {
		return pos - 1
	}
	return pos + 1
}

// at reads the entry at seq, unless it is past the end.
func (c *cursor) at(ctx context.Context, seq uint64) (Entry, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, err
	}
	e, err := c.view.entry(ctx, seq)
	if err != nil {
		return Entry{}, err
	}
	if c.last != nil && c.order(c.last, e.Key) >= 0 {
		return Entry{}, errOrder
	}
	c.last = e.Key
	if c.end.key != nil {
		if o := c.order(e.Key, c.end.key); o > 0 || (o == 0 && !c.end.incl) {
			c.stack = nil
			return Entry{}, nil
		}
	}
	return e, nil
}

// order compares two keys in the cursor's direction.
func (c *cursor) order(a, b []byte) int {
	if c.reverse {
		a, b = b, a
	}
	return bytes.Compare(a, b)
}

var errOrder = cloudpal.E("walk tree: keys out of order", cloudpal.Corrupt, nil)
