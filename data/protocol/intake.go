package protocol

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/merkle"
)

// maxStrikes is how many proofs of a peer may end at nodes that are not here. It
// happens to honest ones when we clear blocks while their answers are on the way.
const maxStrikes = 16

// maxIntake is how many answers are stored in one commit, and maxHeld how many
// bytes of one peer's answers wait for others.
const (
	maxIntake = 1024
	maxHeld   = 32 << 20
)

// onData reads an answer. Its bytes are those of the frame, and stored before the
// frame ends.
func (p *Peer) onData(b []byte) error {
	in := &p.batch
	if in.used == maxIntake {
		if err := p.onBatch(); err != nil {
			return err
		}
	}
	a := in.next()
	slab, err := a.decode(b, in.slab)
	in.slab = slab
	if err != nil {
		return p.fault("data", err)
	}
	return nil
}

// onBatch stores all answers of a frame.
func (p *Peer) onBatch() error {
	in := &p.batch
	if in.used == 0 {
		return nil
	}
	defer in.reset()
	forks, err := p.sort()
	if err != nil {
		return err
	}
	if len(in.proofs) > 0 {
		in.results = slices.Grow(in.results[:0], len(in.proofs))[:len(in.proofs)]
		if err := p.r.core.ApplyBatch(in.proofs, in.results); err != nil {
			return cloudpal.E("protocol: store what the peer sent", "", err)
		}
		if err := p.settle(); err != nil {
			return err
		}
	}
	for _, a := range forks {
		if err := p.onFork(a); err != nil {
			return err
		}
	}
	return nil
}

// sort finds the request of each answer. What nobody asked for, or not any more,
// is ignored; what comes too early is copied and held.
func (p *Peer) sort() (forks []*answer, err error) {
	in := &p.batch
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	for _, a := range in.answers[:in.used] {
		f := p.flights[a.proof.ID]
		if f == nil || f.held != nil || f.arriving {
			continue
		}
		if err := f.match(&a.proof); err != nil {
			return nil, p.fault("data", err)
		}
		switch {
		case f.forking != nil:
			forks = append(forks, a)
		case f.needs != nil && !f.needs.done && !f.needs.arriving:
			p.hold(f, a)
		default:
			p.take(f, &a.proof)
		}
	}
	if len(in.proofs) > 0 {
		p.r.storing++
	}
	return forks, nil
}

// hold keeps an answer that came too early, as far as there is room.
func (p *Peer) hold(f *flight, a *answer) {
	size := a.size()
	if p.holding+size > maxHeld {
		p.r.drop(f)
		return
	}
	f.held = a.clone()
	p.holding += size
}

// take puts an answer into the batch to be stored, and those held for it.
func (p *Peer) take(f *flight, proof *merkle.Proof) {
	f.arriving = true
	p.batch.proofs = append(p.batch.proofs, *proof)
	p.batch.flights = append(p.batch.flights, f)
	if p.holding == 0 {
		return
	}
	for _, g := range p.flights {
		if g.needs == f && g.held != nil && !g.arriving {
			held := g.held
			g.held = nil
			p.holding -= held.size()
			p.take(g, &held.proof)
		}
	}
}

// match reports what is wrong with an answer to f: what was not asked for.
func (f *flight) match(p *merkle.Proof) error {
	switch {
	case p.Fork != f.fork:
		return fmt.Errorf("fork %d was asked, not %d", f.fork, p.Fork)
	case p.Block != nil && (!f.has(partBlock) || p.Block.Index != f.block.Index):
		return fmt.Errorf("block %d was not asked for", p.Block.Index)
	case p.Hash != nil && (!f.has(partHash) || p.Hash.Index != f.hash.Index):
		return fmt.Errorf("node %d was not asked for", p.Hash.Index)
	case p.Seek != nil && (!f.has(partSeek) || p.Seek.Bytes != f.seek.Bytes):
		return errors.New("a seek was not asked for")
	case p.Upgrade != nil && !f.has(partUpgrade):
		return errors.New("an upgrade was not asked for")
	}
	return nil
}

// settle takes what has become of a batch, and asks for more.
func (p *Peer) settle() error {
	r, in := p.r, &p.batch
	r.mu.Lock()
	defer r.mu.Unlock()
	r.storing--
	r.refresh()
	now := r.now()
	flights := in.flights
	in.flights = nil
	for i, f := range flights {
		if b := in.proofs[i].Block; b != nil && in.results[i].New {
			r.stats.down(len(b.Value))
			r.spend(len(b.Value))
		}
		if f.done {
			continue // cancelled while it was stored
		}
		f.arriving = false
		if err := p.landed(f, &in.results[i], now); err != nil {
			return err
		}
	}
	in.flights = flights[:0]
	r.settled()
	return nil
}

// settled tells what has changed since it was told last, which may be long before
// the last refresh, and asks for more.
func (r *Replicator) settled() {
	before := r.told
	r.told = r.state
	if r.state.Length != before.Length || r.state.Fork != before.Fork || r.state.HasManifest != before.HasManifest {
		for p := range r.peers {
			p.judge()
		}
		r.syncAll()
	}
	r.tellWhole()
	r.settleRanges()
	r.settleSeeks()
	r.refill()
	r.settleUpdates()
}

// landed takes the result of one answer.
func (p *Peer) landed(f *flight, result *hypercore.Applied, now int64) error {
	r := p.r
	p.answered(f, now)
	if result.Err != nil {
		return p.rejected(f, result.Err)
	}
	r.land(f)
	p.frontier.stored(f)
	if f.has(partBlock) {
		if !result.HasBlock {
			r.release(f.block.Index) // it sent the rest, and not the block
			return nil
		}
		if f.twin != nil {
			r.cancel(f.twin)
		}
	}
	if f.has(partUpgrade) && !result.Upgraded {
		p.refused = true
	}
	return nil
}

// rejected decides about a proof that does not fit. Where we have moved on since
// it was asked for, it is nobody's fault.
func (p *Peer) rejected(f *flight, err error) error {
	switch {
	case errors.Is(err, merkle.ErrStale):
	case !errors.Is(err, merkle.ErrProof):
		return p.fault("data", err)
	default:
		if p.strikes++; p.strikes > maxStrikes {
			return p.fault("data", err)
		}
	}
	p.frontier.prune()
	p.r.drop(f)
	return nil
}

// arrived wakes who waits for blocks, and tells the peers that do not have them.
func (r *Replicator) arrived(start, end uint64) {
	if uint64(len(r.blocks)) < end-start {
		for i, b := range r.blocks {
			if start <= i && i < end {
				r.resolve(b)
			}
		}
	} else {
		for i := start; i < end; i++ {
			if b := r.blocks[i]; b != nil {
				r.resolve(b)
			}
		}
	}
	for p := range r.peers {
		if p.opened && !(end == start+1 && p.have.has(start)) {
			p.out.announce(start, end)
			r.wake(p)
		}
	}
}

func (r *Replicator) resolve(b *blockWant) {
	delete(r.blocks, b.index)
	close(b.done)
}

// tellWhole tells all peers once that all blocks are here.
func (r *Replicator) tellWhole() {
	n := r.state.Length
	if n == 0 || r.state.Contiguous != n || r.whole == n {
		return
	}
	r.whole = n
	for p := range r.peers {
		if p.opened {
			p.out.announce(0, n)
			r.wake(p)
		}
	}
}

// onFork takes an answer about another fork.
func (p *Peer) onFork(a *answer) error {
	r := p.r
	r.mu.Lock()
	f, fork := p.flights[a.proof.ID], p.fork
	if f == nil || fork == nil || f.forking != fork {
		r.mu.Unlock()
		return nil // we have moved on meanwhile
	}
	p.answered(f, r.now())
	r.land(f)
	r.mu.Unlock()

	if err := r.advance(fork, &a.proof); err != nil {
		if errors.Is(err, merkle.ErrStale) {
			return nil
		}
		return p.fault("data of another fork", err)
	}
	return r.finishFork(p, fork)
}

// finishFork makes a fork ours, or asks for what is still to be known of it.
func (r *Replicator) finishFork(p *Peer, fork *reorg) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.fork != fork {
		return nil
	}
	if !fork.part.Done() {
		r.fill(p)
		return nil
	}
	r.applying++
	r.mu.Unlock()
	err := r.apply(fork)
	r.mu.Lock()
	r.applying--
	p.fork = nil
	r.refresh()
	r.settled()
	if errors.Is(err, merkle.ErrStale) {
		return nil // settled has asked again
	}
	if err != nil && r.state.Fork < fork.fork {
		return cloudpal.E("protocol: change to another fork", "", err)
	}
	return nil
}

// onEvent takes what has changed in the core, by whomever.
func (r *Replicator) onEvent(e hypercore.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	switch e.Kind {
	case hypercore.Appended, hypercore.Downloaded:
		r.arrived(e.Start, e.End)
	case hypercore.Truncated:
		r.truncated(e.Start, e.End)
	case hypercore.Cleared:
		r.withdraw(e.Start, e.End)
	}
	if r.storing > 0 && e.Kind.Has(hypercore.Downloaded|hypercore.Upgraded) {
		return // whoever stores does the rest
	}
	r.refresh()
	r.settled()
}

// truncated ends all requests, which were about another tree, and tells the peers.
func (r *Replicator) truncated(start, end uint64) {
	for p := range r.peers {
		for _, f := range p.flights {
			r.cancel(f)
		}
		clear(p.frontier)
		p.fork = nil
	}
	for _, want := range r.ranges {
		want.start = min(want.start, start)
	}
	r.withdraw(start, end)
}

// withdraw tells the peers that blocks are gone, and lets them be asked for
// again.
func (r *Replicator) withdraw(start, end uint64) {
	r.whole = 0
	for p := range r.peers {
		if p.opened {
			p.out.withdraw(start, end)
			r.wake(p)
		}
		p.rewind(start)
		p.frontier.prune() // of what was stored, some is not any more
		p.strikes = 0
	}
	for _, want := range r.ranges {
		if want.end == ^uint64(0) {
			want.start = min(want.start, start)
		}
	}
}
