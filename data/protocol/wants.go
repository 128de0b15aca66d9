package protocol

// wantBlocks is how many blocks one want asks about: as many as the others do,
// who answer with bits for these or with a prefix.
const wantBlocks = 1 << 21

// maxWants is how many wants a peer remembers for us.
const maxWants = 512

// wants are the batches of wantBlocks that a peer was asked about, and of which
// it tells what is new.
type wants struct {
	asked map[uint64]bool
	order []uint64 // from the oldest
}

// want asks the peer which blocks it has around one, unless it was asked before.
func (p *Peer) want(block uint64) {
	batch := block / wantBlocks
	if p.wanted.asked[batch] || block < p.have.prefix {
		return
	}
	if p.wanted.asked == nil {
		p.wanted.asked = map[uint64]bool{}
	}
	if len(p.wanted.order) == maxWants {
		old := p.wanted.order[0]
		p.wanted.order = p.wanted.order[1:]
		delete(p.wanted.asked, old)
		p.out.unwants = append(p.out.unwants, old)
	}
	p.wanted.asked[batch] = true
	p.wanted.order = append(p.wanted.order, batch)
	p.out.wants = append(p.out.wants, batch)
}

// wantMissing asks the peer about all of [start, end) that is neither here nor
// known to be there.
func (r *Replicator) wantMissing(p *Peer, start, end uint64) {
	for at := max(start, p.have.prefix); at < end; at = (at/wantBlocks + 1) * wantBlocks {
		i, ok := r.core.NextMissing(at, end)
		if !ok || len(p.out.wants) >= maxWants {
			return
		}
		p.want(i)
		at = i
	}
}
