package hyperbee

import (
	"bytes"
	"context"
	"iter"
)

// An Operation is a change: what one block did. The Entry of a deletion has no
// value. What put none within a batch can pass for a deletion: the format does
// not tell them apart.
type Operation struct {
	Entry
	Deleted bool
}

// Span is a part of a bee's history, by the numbers of blocks.
type Span struct {
	Since   uint64 // first block; 0 is the first there is
	Until   uint64 // block after the last; 0 is the bee's version
	Reverse bool   // from the newest to the oldest
	Live    bool   // go on with what is appended later, until ctx ends or Until is there; not with Reverse
	Limit   int    // of operations; 0 is none
}

// History goes through the changes themselves, oldest first. In a Sub, only
// its own are told.
func (b *Bee) History(ctx context.Context, s Span) iter.Seq2[Operation, error] {
	return func(yield func(Operation, error) bool) {
		if s.Live && !s.Reverse {
			b.live(ctx, s, yield)
			return
		}
		v, release := b.pin()
		defer release()
		b.history(ctx, &v, s, yield)
	}
}

// history goes through the span of one version. It reports whether yield wants
// more.
func (b *Bee) history(ctx context.Context, v *view, s Span, yield func(Operation, error) bool) bool {
	from, to := max(1, s.Since), v.version
	if s.Until > 0 {
		to = min(to, s.Until)
	}
	n := 0
	for ; from < to; n++ {
		seq := from
		if s.Reverse {
			to--
			seq = to
		} else {
			from++
		}
		o, mine, err := b.operation(ctx, v, seq)
		if err != nil {
			yield(Operation{}, err)
			return false
		}
		if !mine {
			n--
			continue
		}
		if !yield(o, nil) || n+1 == s.Limit {
			return false
		}
	}
	return true
}

// operation reads what the block at seq did; mine is whether to a key of b.
func (b *Bee) operation(ctx context.Context, v *view, seq uint64) (o Operation, mine bool, err error) {
	if err := ctx.Err(); err != nil {
		return o, false, err
	}
	bl, err := v.block(ctx, seq)
	if err != nil || !bytes.HasPrefix(bl.key, b.prefix) {
		return o, false, err
	}
	e := b.stripped(Entry{seq, bl.key, bl.value})
	return Operation{e, bl.deleted(seq)}, true, nil
}

// live is history that goes on.
func (b *Bee) live(ctx context.Context, s Span, yield func(Operation, error) bool) {
	next := max(1, s.Since)
	count := 0
	counted := func(o Operation, err error) bool {
		count++
		return yield(o, err)
	}
	changes, err := b.changes(ctx)
	if err != nil {
		yield(Operation{}, err)
		return
	}
	for range changes {
		v, release := b.pin()
		rest := s
		rest.Since = next
		if s.Limit > 0 {
			rest.Limit = s.Limit - count
		}
		more := b.history(ctx, &v, rest, counted)
		next = max(next, v.version)
		release()
		if !more || (s.Until > 0 && next >= s.Until) {
			return
		}
	}
	if err := ctx.Err(); err != nil {
		yield(Operation{}, err)
	}
}
