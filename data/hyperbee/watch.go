package hyperbee

import (
	"context"
	"errors"
	"iter"

	"github.com/tradle/cloudpal"
)

// A Change is two versions that differ in what is watched: the one before and
// the one now. Both are closed when the watcher asks for the next.
type Change struct {
	Previous, Current *Bee
}

// Watch yields whenever something in a range of keys has changed, until ctx
// ends. Changes that come faster than they are taken come as one: Diff tells
// what they are. A log that was cut counts as changed.
func (b *Bee) Watch(ctx context.Context, r Range) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		changes, err := b.changes(ctx)
		if err != nil {
			yield(Change{}, err)
			return
		}
		previous := b.Snapshot()
		defer func() { previous.Close() }()
		for range changes {
			current := b.Snapshot()
			changed, err := differs(ctx, current, previous, r)
			if err != nil {
				current.Close()
				yield(Change{}, err)
				return
			}
			if changed && !yield(Change{previous, current}, nil) {
				current.Close()
				return
			}
			previous.Close()
			previous = current
		}
		if err := ctx.Err(); err != nil {
			yield(Change{}, err)
		}
	}
}

func differs(ctx context.Context, current, previous *Bee, r Range) (bool, error) {
	if current.fork != previous.fork {
		return true, nil
	}
	if current.version == previous.version {
		return false, nil
	}
	for _, err := range current.Diff(ctx, previous, r) {
		return err == nil, err
	}
	return false, nil
}

// WatchKey yields a key's entry now, and whenever another block has set it,
// until ctx ends. A key that is not there is an Entry with Seq 0.
func (b *Bee) WatchKey(ctx context.Context, key []byte) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		changes, err := b.changes(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		var last Entry
		var fork uint64
		first := true
		for range changes {
			now := b.log.Fork()
			e, err := b.Get(ctx, key)
			if err != nil && !errors.Is(err, cloudpal.NotExist) {
				yield(Entry{}, err)
				return
			}
			if (first || e.Seq != last.Seq || now != fork) && !yield(e, nil) {
				return
			}
			last, fork, first = e, now, false
		}
		if err := ctx.Err(); err != nil {
			yield(Entry{}, err)
		}
	}
}
