package hypertrie

import (
	"context"
	"iter"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
)

// What only a *hypercore.Core can: stay as it is, and tell what is new. Over
// another Log, a version is good until the log is cut, and nothing is watched.

// freeze returns the trie's log as it is now.
func (t *Trie) freeze() (log Log, fork uint64, release func()) {
	core, ok := t.log.(*hypercore.Core)
	if !ok {
		return t.log, t.view().fork, nil
	}
	snapshot := core.Snapshot()
	return snapshot, snapshot.Fork(), func() { snapshot.Close() }
}

// pin begins an operation that is not to notice what happens to the log.
func (t *Trie) pin() (v view, release func()) {
	if t.version > 0 {
		return t.view(), func() {}
	}
	s := t.Snapshot()
	return s.view(), s.Close
}

// changes yields once, and again whenever the log may have changed, until ctx
// ends. What happens from the call on is not missed.
func (t *Trie) changes(ctx context.Context) (iter.Seq[struct{}], error) {
	core, ok := t.log.(*hypercore.Core)
	if !ok || t.version > 0 {
		return nil, cloudpal.E("watch a trie", cloudpal.Invalid, nil)
	}
	return core.States(ctx), nil
}

// Watch yields the trie's version whenever a key below a prefix, or the prefix
// itself, has been set or deleted since the last time, until ctx ends. Changes
// that come faster than they are taken come as one: Diff tells what they are. A
// log that was cut counts as changed, and so may a neighbour that was deleted.
func (t *Trie) Watch(ctx context.Context, prefix string) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		changes, err := t.changes(ctx)
		if err != nil {
			yield(0, err)
			return
		}
		var last state
		first := true
		for range changes {
			now, version, err := t.look(ctx, prefix)
			if err != nil {
				yield(0, cloudpal.E("watch a trie", "", err))
				return
			}
			if !first && now != last && !yield(version, nil) {
				return
			}
			first, last = false, now
		}
		if err := ctx.Err(); err != nil {
			yield(0, err)
		}
	}
}

// state is what a prefix looks like: every change below it writes the block that
// stands for it anew.
type state struct{ seq, fork uint64 }

// look returns what a prefix looks like now, and the version of that.
func (t *Trie) look(ctx context.Context, prefix string) (state, uint64, error) {
	v, release := t.pin()
	defer release()
	n, err := v.get(ctx, prefix, true)
	return state{entryOf(n).Seq, v.fork}, v.version, err
}
