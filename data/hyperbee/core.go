package hyperbee

import (
	"context"
	"iter"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
)

// What only a *hypercore.Core can: stay as it is, and tell what is new. Over
// another Log, a version is good until the log is cut, and there is no Watch.

// freeze returns the bee's log as it is now.
func (b *Bee) freeze() (log Log, fork uint64, release func()) {
	core, ok := b.log.(*hypercore.Core)
	if !ok {
		return b.log, b.view().fork, func() {}
	}
	snapshot := core.Snapshot()
	return snapshot, snapshot.Fork(), func() { snapshot.Close() }
}

// pin begins an operation that is not to notice what happens to the log.
func (b *Bee) pin() (v view, release func()) {
	if b.version > 0 {
		return b.view(), func() {}
	}
	log, fork, release := b.freeze()
	return view{log: log, cache: b.tree.cache, fork: fork, version: max(1, log.Length())}, release
}

// changes yields once, and again whenever the log may have changed, until ctx
// ends. What happens from the call on is not missed.
func (b *Bee) changes(ctx context.Context) (iter.Seq[struct{}], error) {
	core, ok := b.log.(*hypercore.Core)
	if !ok || b.version > 0 {
		return nil, cloudpal.E("watch a log that does not change", cloudpal.Invalid, nil)
	}
	return core.States(ctx), nil
}
