package hypertrie

import (
	"context"
	"iter"

	"github.com/tradle/cloudpal"
)

// Span is a part of a trie's history, by the numbers of blocks.
type Span struct {
	Since   uint64 // first block; 0 is the first there is
	Until   uint64 // block after the last; 0 is the trie's version
	Reverse bool   // from the newest to the oldest
	Live    bool   // go on with what is appended later, until ctx ends; not with Reverse or Until
}

// History goes through the blocks, oldest first, of hidden keys, too. A block
// that has deleted a key shows as the entry that was written again for it; one
// that has deleted the last key does not show.
func (t *Trie) History(ctx context.Context, s Span) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if s.Live && !s.Reverse && s.Until == 0 && t.version == 0 {
			t.live(ctx, s.Since, yield)
			return
		}
		v, release := t.pin()
		defer release()
		v.history(ctx, s, yield)
	}
}

// history goes through a span of one version. It reports whether yield wants
// more.
func (v *view) history(ctx context.Context, s Span, yield func(Entry, error) bool) bool {
	from, to := max(1, s.Since), v.version
	if s.Until > 0 {
		to = min(to, s.Until)
	}
	for from < to {
		seq := from
		if s.Reverse {
			to--
			seq = to
		} else {
			from++
		}
		n, err := v.node(ctx, seq)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(Entry{}, cloudpal.E("read the history", "", err))
			return false
		}
		if n != nil && !yield(n.entry(), nil) {
			return false
		}
	}
	return true
}

// live is history that goes on.
func (t *Trie) live(ctx context.Context, next uint64, yield func(Entry, error) bool) {
	changes, err := t.changes(ctx)
	if err != nil {
		yield(Entry{}, err)
		return
	}
	for range changes {
		v, release := t.pin()
		more := v.history(ctx, Span{Since: next}, yield)
		next = max(next, v.version)
		release()
		if !more {
			return
		}
	}
	if err := ctx.Err(); err != nil {
		yield(Entry{}, err)
	}
}
