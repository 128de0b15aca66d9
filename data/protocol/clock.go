package protocol

import "time"

// When requests that are not answered are asked of others as well, and when a
// peer that answers nothing is given up.
const (
	tickEvery  = 100 * time.Millisecond
	hedgeAfter = 500 * time.Millisecond // at least; and three times what the other peer takes
	hedgeMost  = 64                     // at once
	deadAfter  = 5 * time.Minute
)

// startClock makes tick run while requests are in flight. The caller holds mu.
func (r *Replicator) startClock() {
	if !r.ticking && !r.closed {
		r.ticking = true
		r.clock.Reset(tickEvery)
	}
}

// tick looks after what takes long.
func (r *Replicator) tick() {
	r.mu.Lock()
	r.ticking = false
	now := r.now()
	var dead []*Peer
	busy := r.options.DownloadLimit != nil && (len(r.blocks) > 0 || len(r.ranges) > 0)
	for p := range r.peers {
		if len(p.flights) == 0 {
			continue
		}
		busy = true
		silent := time.Duration(now - p.heard)
		if silent > deadAfter {
			p.late = true
			dead = append(dead, p)
		}
	}
	if len(r.peers) > 1 {
		for p := range r.peers {
			r.hedge(p, now)
		}
	}
	if r.options.DownloadLimit != nil {
		r.refill()
	}
	if busy {
		r.startClock()
	}
	r.mu.Unlock()
	for _, p := range dead {
		p.ch.Close()
	}
}

// hedge asks a peer that has nothing else to do for what another is slow with.
func (r *Replicator) hedge(p *Peer, now int64) {
	if !p.ready() || !r.downloading() || p.remote.fork != r.state.Fork || !p.answerable() || len(p.flights) >= minInFlight {
		return
	}
	after := max(hedgeAfter, time.Duration(3*p.latency*1e9))
	asked := 0
	for q := range r.peers {
		if q == p || len(q.flights) == 0 {
			continue
		}
		for _, f := range q.flights {
			if asked == hedgeMost {
				return
			}
			if time.Duration(now-f.sent) > after && r.second(p, f, now) {
				asked++
			}
		}
	}
}

// second asks p for what f asks another peer for, if it can.
func (r *Replicator) second(p *Peer, f *flight, now int64) bool {
	switch {
	case f.has(partUpgrade) && f == r.upgrade:
		r.upgrade = nil // whichever is first; the other will be stale
		r.fillUpgrade(p, now)
		if r.upgrade == nil {
			r.upgrade = f
			return false
		}
		r.wake(p)
		return true
	case !f.has(partBlock) || f.twin != nil || f.arriving || f.held != nil || !p.have.has(f.block.Index) || f.block.Index >= min(r.state.Length, p.remote.length):
		return false
	}
	q := request{parts: partBlock, fork: p.remote.fork, priority: f.priority}
	q.block.Index = f.block.Index
	q.block.Nodes = r.missing(f.block.Index)
	g := r.launch(p, q, now)
	f.twin, g.twin = g, f
	r.wake(p)
	return true
}
