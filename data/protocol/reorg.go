package protocol

import (
	"github.com/tradle/cloudpal/data/merkle"
)

// A reorg is the change to a higher fork of one peer, which a writer makes by
// truncating.
//
//	asked for the whole tree -> verified: what differs is narrowed down by
//	hashes -> applied
type reorg struct {
	fork   uint64
	from   uint64 // the fork of ours that the tree was compared with
	flight *flight
	head   *merkle.Verified // nil until the tree is verified
	part   *merkle.Fork
}

// fillFork asks a peer on a higher fork for what is still to be known of it. Each
// peer's is its own matter: one that only says that it has a fork holds nobody up.
func (r *Replicator) fillFork(p *Peer, now int64) {
	if p.remote.fork <= r.state.Fork || p.remote.length == 0 || p.refused {
		return
	}
	if p.fork != nil && p.fork.fork != p.remote.fork {
		if p.fork.flight != nil {
			r.cancel(p.fork.flight)
		}
		p.fork = nil
	}
	if p.fork == nil {
		p.fork = &reorg{fork: p.remote.fork}
	}
	f := p.fork
	if f.flight != nil || f.head != nil && f.part.Done() {
		return
	}
	q := request{fork: f.fork}
	if f.head == nil {
		q.parts = partUpgrade
		q.upgrade.Length = p.remote.length
		if !r.state.HasManifest && p.remote.hasManifest {
			q.parts |= partManifest
		}
	} else {
		first, end, nodes := f.part.Want()
		block, ok := p.have.next(first, min(end, p.remote.length))
		if !ok {
			p.want(first)
			return
		}
		q.parts = partHash
		q.hash = merkle.NodeRequest{Index: 2 * block, Nodes: nodes}
	}
	f.flight = r.launch(p, q, now)
	f.flight.forking = f
}

// advance takes an answer about a fork. It is called without mu, on the read loop
// of the peer that was asked.
func (r *Replicator) advance(f *reorg, p *merkle.Proof) error {
	if f.head == nil {
		return r.verifyFork(f, p)
	}
	return f.part.Narrow(r.core, *p)
}

// verifyFork checks a whole tree, signature and all, and compares it with ours.
func (r *Replicator) verifyFork(f *reorg, p *merkle.Proof) error {
	if p.Manifest != nil {
		if err := r.core.ApplyManifest(p.Manifest); err != nil {
			return err
		}
	}
	head := merkle.Head{Fork: p.Fork}
	if m, ok := r.core.Manifest(); ok {
		head.Prologue = m.Prologue
	}
	v, err := merkle.Verify(merkle.Nodes{}, head, *p)
	if err != nil {
		return err
	}
	if err := r.core.VerifyHead(v.Head); err != nil {
		return err
	}
	f.from = r.core.Fork() // before the length and the nodes are read
	part, err := merkle.Part(r.core, r.core.Length(), v)
	if err != nil {
		return err
	}
	v.Head.Signature = append([]byte(nil), v.Head.Signature...)
	f.head, f.part = &v, part
	return nil
}

// apply makes a fork ours. It is merkle.ErrStale where ours has changed since the
// two were compared.
func (r *Replicator) apply(f *reorg) error {
	nodes := append(f.head.Nodes, f.part.Nodes()...)
	return r.core.Reorg(f.head.Head, nodes, f.part.Common(), f.from)
}
