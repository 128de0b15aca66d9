package protocol

import (
	"context"
	"errors"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/merkle"
)

// Fetch returns when a block is here.
func (r *Replicator) Fetch(ctx context.Context, index uint64) error {
	r.mu.Lock()
	b := r.blocks[index]
	if b == nil {
		if r.core.Has(index) {
			r.mu.Unlock()
			return nil
		}
		b = &blockWant{index: index, done: make(chan struct{})}
		r.blocks[index] = b
		if r.inflight[index] == nil {
			b.queued = true
			r.queue = append(r.queue, index)
		}
		r.refill()
	}
	b.waiting++
	r.mu.Unlock()

	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.waiting--; b.waiting == 0 && r.blocks[index] == b {
		delete(r.blocks, index)
		r.abandon(index)
	}
	return cloudpal.E("fetch", cloudpal.Timeout, ctx.Err())
}

// abandon cancels the request for a block that nobody waits for any more.
func (r *Replicator) abandon(index uint64) {
	f := r.inflight[index]
	if f == nil || f.has(partUpgrade) {
		return
	}
	for _, want := range r.ranges {
		if want.start <= index && index < want.end {
			return
		}
	}
	for _, g := range f.peer.flights {
		if g.needs == f {
			return // it brings what others end at
		}
	}
	twin := f.twin
	r.cancel(f)
	if twin != nil {
		r.cancel(twin)
	}
	r.refill()
}

// Download returns when all blocks from start up to end are here. With no end,
// ^0, it goes on until ctx ends.
func (r *Replicator) Download(ctx context.Context, start, end uint64) error {
	want := &rangeWant{start: start, end: end, done: make(chan struct{})}
	r.mu.Lock()
	r.ranges = append(r.ranges, want)
	r.settleRanges()
	r.refill()
	r.mu.Unlock()

	select {
	case <-want.done:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropRange(want)
	return cloudpal.E("download", cloudpal.Timeout, ctx.Err())
}

func (r *Replicator) dropRange(want *rangeWant) {
	for i, other := range r.ranges {
		if other == want {
			r.ranges = append(r.ranges[:i], r.ranges[i+1:]...)
			break
		}
	}
	for p := range r.peers {
		delete(p.cursors, want)
	}
}

// settleRanges ends the downloads of which all is here.
func (r *Replicator) settleRanges() {
	for i := 0; i < len(r.ranges); {
		want := r.ranges[i]
		end := min(want.end, max(r.state.Length, want.start))
		next, missing := r.core.NextMissing(want.start, end)
		if !missing {
			next = end
		}
		want.start = next
		if want.start < want.end {
			i++
			continue
		}
		close(want.done)
		r.dropRange(want)
	}
}

// Seek returns when the block is known that has a byte, of which padding bytes of
// each block do not count. It is NotExist where the log has not so many bytes.
func (r *Replicator) Seek(ctx context.Context, bytes, padding uint64) error {
	s := &seekWant{bytes: bytes, padding: padding, done: make(chan struct{})}
	r.mu.Lock()
	r.seeks[s] = struct{}{}
	r.settleSeeks()
	r.refill()
	r.settleUpdates()
	r.mu.Unlock()

	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seeks, s)
	if s.flight != nil && !s.flight.has(partUpgrade) {
		r.cancel(s.flight)
	}
	return cloudpal.E("seek", cloudpal.Timeout, ctx.Err())
}

// locate returns between which blocks a byte is, as far as is known here.
func (r *Replicator) locate(s *seekWant) (start, end uint64, found bool) {
	at, err := merkle.Seek(r.core, r.core.Head(), s.bytes, s.padding)
	if errors.Is(err, cloudpal.NotExist) {
		return r.state.Length, r.state.Length, false
	}
	if err != nil {
		s.err = err
		return 0, 0, true
	}
	return at.Start, at.End, at.Found()
}

// settleSeeks ends the seeks whose block is known.
func (r *Replicator) settleSeeks() {
	for s := range r.seeks {
		if s.flight != nil {
			continue
		}
		if _, _, found := r.locate(s); found {
			delete(r.seeks, s)
			close(s.done)
		}
	}
}

// Update returns when the log is as long as that of the peers, as far as they
// have said, or at once where there are none.
func (r *Replicator) Update(ctx context.Context) error {
	done := make(chan struct{})
	r.mu.Lock()
	r.updates = append(r.updates, done)
	r.refill()
	r.settleUpdates()
	r.mu.Unlock()

	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.updates {
		if other == done {
			r.updates = append(r.updates[:i], r.updates[i+1:]...)
			break
		}
	}
	return cloudpal.E("update", cloudpal.Timeout, ctx.Err())
}

// settleUpdates ends the waiting for a longer log when no peer has one, and with
// it the seeks beyond the end.
func (r *Replicator) settleUpdates() {
	if len(r.updates) == 0 && len(r.seeks) == 0 || !r.upToDate() {
		return
	}
	for _, done := range r.updates {
		close(done)
	}
	r.updates = nil
	for s := range r.seeks {
		if start, _, found := r.locate(s); !found && start >= r.state.Length && s.flight == nil {
			s.err = cloudpal.E("seek", cloudpal.NotExist, nil)
			delete(r.seeks, s)
			close(s.done)
		}
	}
}

// upToDate reports whether no peer has, or may have, a longer log that it can
// prove.
func (r *Replicator) upToDate() bool {
	if r.upgrade != nil || r.applying > 0 {
		return false
	}
	if !r.downloading() {
		return true
	}
	for p := range r.peers {
		switch {
		case !p.opened || !p.synced:
			return false
		case p.refused || !p.remote.uploading || p.remote.length == 0:
		case p.remote.fork > r.state.Fork:
			return false
		case p.remote.fork == r.state.Fork && p.remote.length > r.state.Length && (p.remote.canUpgrade || p.acked != r.state.Length):
			return false
		}
	}
	return true
}
