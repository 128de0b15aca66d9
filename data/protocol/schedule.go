package protocol

import (
	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/merkle"
)

// How many requests may be in flight to one peer. The window starts in between,
// grows with every answer that comes soon, and shrinks with those that are late:
// then they queue at the peer, where other peers cannot answer them.
const (
	minInFlight      = 48
	maxInFlight      = 512
	startInFlight    = 128
	maxBytesInFlight = 8 << 20
	growBelow        = 0.5 // seconds
	shrinkAbove      = 2.0
)

// A flight is a request that a peer has not answered.
type flight struct {
	request
	peer *Peer
	sent int64 // ns
	done bool

	// needs is the request whose answer brings the node that this one's proof
	// ends at; nil where it is stored. An answer that is here before that is
	// held, as a copy.
	needs  *flight
	brings []uint64 // nodes, in the peer's frontier
	held   *answer

	arriving bool // its answer is being stored

	twin    *flight // a second request for the same block, to another peer
	seeking *seekWant
	forking *reorg
}

// about returns the block that a peer must have to answer, if there is one.
func (f *flight) about() (block uint64, ok bool) {
	switch {
	case f.has(partBlock):
		return f.block.Index, true
	case f.has(partHash):
		return f.hash.Index / 2, true
	}
	return 0, false
}

// A blockWant is a block that somebody waits for.
type blockWant struct {
	index   uint64
	waiting int
	queued  bool // in the replicator's queue: no request is in flight
	done    chan struct{}
}

// A rangeWant is blocks that are to be downloaded.
type rangeWant struct {
	start, end uint64 // all below start are here; no end is ^0
	waiting    int
	done       chan struct{}
}

// A seekWant is a byte whose block somebody waits for.
type seekWant struct {
	bytes, padding uint64
	flight         *flight
	done           chan struct{}
	err            error
}

// fill sends a peer as many requests as it may have in flight. What somebody
// waits for goes first.
func (r *Replicator) fill(p *Peer) {
	if !p.ready() || !r.downloading() || r.applying > 0 {
		return
	}
	now := r.now()
	r.fillManifest(p, now)
	r.fillFork(p, now)
	r.fillUpgrade(p, now)
	if p.remote.fork == r.state.Fork && p.answerable() && r.within() {
		r.fillSeeks(p, now)
		r.fillBlocks(p, now)
		r.fillRanges(p, now)
	}
	r.wake(p)
}

// refill fills all peers.
func (r *Replicator) refill() {
	for p := range r.peers {
		r.fill(p)
	}
}

// launch sends a request.
func (r *Replicator) launch(p *Peer, q request, now int64) *flight {
	r.lastID++
	q.id = r.lastID
	f := &flight{request: q, peer: p, sent: now}
	if len(p.flights) == 0 {
		p.heard = now
	}
	p.flights[q.id] = f
	p.out.requests = append(p.out.requests, f)
	r.startClock()
	return f
}

// fillManifest asks for the manifest of a log that is still empty; else it comes
// with the first upgrade.
func (r *Replicator) fillManifest(p *Peer, now int64) {
	if r.state.HasManifest || r.manifest != nil || p.refused || !p.remote.hasManifest || p.remote.length > 0 {
		return
	}
	r.manifest = r.launch(p, request{parts: partManifest, fork: p.remote.fork}, now)
}

// fillUpgrade asks for a longer tree, from one peer at a time. A block that is
// waited for and is new comes with it.
func (r *Replicator) fillUpgrade(p *Peer, now int64) {
	length := r.state.Length
	switch {
	case r.upgrade != nil || p.refused || p.remote.fork != r.state.Fork:
		return
	case !p.remote.canUpgrade || p.remote.length <= length || p.acked != length:
		return
	}
	q := request{parts: partUpgrade, fork: p.remote.fork}
	q.upgrade = merkle.UpgradeRequest{Start: length, Length: p.remote.length - length}
	if !r.state.HasManifest && p.remote.hasManifest {
		q.parts |= partManifest
	}
	b := r.newBlock(p)
	s := r.newSeek(p)
	switch {
	case b != nil:
		q.parts |= partBlock
		q.block.Index = b.index
	case s != nil:
		q.parts |= partSeek
		q.seek = merkle.SeekRequest{Bytes: s.bytes, Padding: s.padding}
	}
	f := r.launch(p, q, now)
	r.upgrade = f
	if b != nil {
		b.queued = false
		r.inflight[b.index] = f
	} else if s != nil {
		s.flight, f.seeking = f, s
	}
}

// newBlock returns a block that is waited for and that an upgrade brings.
func (r *Replicator) newBlock(p *Peer) *blockWant {
	for _, i := range r.queue {
		b := r.blocks[i]
		if b != nil && b.queued && i >= r.state.Length && i < p.remote.length && p.have.has(i) {
			return b
		}
	}
	return nil
}

// newSeek returns a seek for a byte that an upgrade brings.
func (r *Replicator) newSeek(p *Peer) *seekWant {
	if !p.seeks {
		return nil
	}
	for s := range r.seeks {
		if s.flight == nil && s.bytes >= r.state.Bytes-min(r.state.Bytes, s.padding*r.state.Length) {
			return s
		}
	}
	return nil
}

// fillSeeks asks for hashes that tell where a byte is.
func (r *Replicator) fillSeeks(p *Peer, now int64) {
	for s := range r.seeks {
		if s.flight == nil && p.room() {
			r.fillSeek(p, s, now)
		}
	}
}

func (r *Replicator) fillSeek(p *Peer, s *seekWant, now int64) {
	start, end, found := r.locate(s)
	if found || start >= r.state.Length {
		return
	}
	block, ok := p.have.next(start, min(end, p.remote.length))
	if !ok {
		p.want(start)
		return
	}
	q := request{parts: partHash, fork: p.remote.fork}
	q.hash = merkle.NodeRequest{Index: 2 * block, Nodes: uint64(flat.Depth(start + end - 1))}
	if p.seeks {
		q.parts |= partSeek
		q.seek = merkle.SeekRequest{Bytes: s.bytes, Padding: s.padding}
	}
	f := r.launch(p, q, now)
	s.flight, f.seeking = f, s
}

// fillBlocks asks for the blocks that somebody waits for.
func (r *Replicator) fillBlocks(p *Peer, now int64) {
	kept := r.queue[:0]
	for at, i := range r.queue {
		if !p.room() {
			kept = append(kept, r.queue[at:]...)
			break
		}
		b := r.blocks[i]
		if b == nil || !b.queued {
			continue
		}
		if i < min(r.state.Length, p.remote.length) {
			if p.have.has(i) {
				b.queued = false
				r.ask(p, i, now)
				continue
			}
			p.want(i)
		}
		kept = append(kept, i)
	}
	r.queue = kept
}

// fillRanges asks for blocks of the ranges, each from where it was left.
func (r *Replicator) fillRanges(p *Peer, now int64) {
	for _, want := range r.ranges {
		if !p.room() {
			return
		}
		r.fillRange(p, want, now)
	}
}

func (r *Replicator) fillRange(p *Peer, want *rangeWant, now int64) {
	end := min(want.end, r.state.Length, p.remote.length)
	at := max(p.cursors[want], want.start)
	for p.room() && r.within() {
		i, ok := r.nextBlock(p, at, end)
		if !ok {
			at = end
			break
		}
		r.ask(p, i, now)
		at = i + 1
	}
	p.cursors[want] = at
	if at == end {
		r.wantMissing(p, want.start, end)
	}
}

// nextBlock returns the first block in [at, end) that the peer has, and that is
// neither here nor on its way.
func (r *Replicator) nextBlock(p *Peer, at, end uint64) (uint64, bool) {
	for at < end {
		i, ok := r.core.NextMissing(at, end)
		if !ok {
			return 0, false
		}
		at = i
		if r.inflight[i] != nil {
			at++
			continue
		}
		if i, ok = p.have.next(at, end); !ok {
			return 0, false
		}
		if i == at {
			return i, true
		}
		at = i
	}
	return 0, false
}

// ask sends a request for a block below our length.
func (r *Replicator) ask(p *Peer, block uint64, now int64) {
	q := request{parts: partBlock, fork: p.remote.fork}
	q.block.Index = block
	if b := r.blocks[block]; b != nil {
		q.priority = 1
		b.queued = false
	}
	top, nodes, ok := p.frontier.lift(block)
	if !ok {
		nodes = r.missing(block)
	}
	q.block.Nodes = nodes
	f := r.launch(p, q, now)
	if ok {
		f.needs = p.frontier[top]
		delete(p.frontier, top)
	}
	p.frontier.grow(block, nodes, f)
	r.inflight[block] = f
}

// drop ends a request without an answer: its block is free to be asked for
// again, and so are those whose proofs were to end at what it was to bring.
func (r *Replicator) drop(f *flight) {
	if f.done {
		return
	}
	r.land(f)
	f.peer.frontier.lost(f)
	if f.has(partBlock) {
		r.release(f.block.Index)
	}
	for _, g := range f.peer.flights {
		if g.needs == f {
			r.cancel(g)
		}
	}
}

// cancel drops a request, and tells the peer.
func (r *Replicator) cancel(f *flight) {
	if f.done {
		return
	}
	f.peer.out.cancel(f)
	r.drop(f)
	r.wake(f.peer)
}

// land takes a request out of all lists, answered or not.
func (r *Replicator) land(f *flight) {
	f.done = true
	delete(f.peer.flights, f.id)
	if f.held != nil {
		f.peer.holding -= f.held.size()
	}
	if f.has(partBlock) && r.inflight[f.block.Index] == f {
		delete(r.inflight, f.block.Index)
		if f.twin != nil && !f.twin.done {
			r.inflight[f.block.Index] = f.twin
		}
	}
	if f.twin != nil {
		f.twin.twin = nil
	}
	if f.seeking != nil && f.seeking.flight == f {
		f.seeking.flight = nil
	}
	if f.forking != nil && f.forking.flight == f {
		f.forking.flight = nil
	}
	if r.upgrade == f {
		r.upgrade = nil
	}
	if r.manifest == f {
		r.manifest = nil
	}
}

// release lets a block be asked for again.
func (r *Replicator) release(block uint64) {
	if r.inflight[block] != nil {
		return
	}
	if b := r.blocks[block]; b != nil && !b.queued {
		b.queued = true
		r.queue = append(r.queue, block)
	}
	for p := range r.peers {
		p.rewind(block)
	}
}

// blockSize returns how many bytes a block has, as far as is known.
func (r *Replicator) blockSize() float64 {
	if r.state.Length == 0 {
		return 1 << 16
	}
	return float64(r.state.Bytes) / float64(r.state.Length)
}
