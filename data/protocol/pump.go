package protocol

import (
	"errors"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/merkle"
)

// How much is answered at once: so many requests, or so many bytes.
const (
	answersAtOnce = 128
	bytesAtOnce   = 256 << 10
)

// wake starts the peer's pump if there is something to send. The caller holds mu.
func (r *Replicator) wake(p *Peer) {
	if p.pumping || !p.opened || p.closed || p.failed || p.ch == nil || p.out.empty() && len(p.queue.live) == 0 {
		return
	}
	p.pumping = true
	r.pumps.Go(p.pump)
}

// pump sends what is to be sent until there is nothing more. It is the only one
// who sends to the peer, and waits when the peer does not read; the read loop
// never does.
func (p *Peer) pump() {
	r := p.r
	var work []request
	for {
		r.mu.Lock()
		if p.mail.batch == nil {
			p.mail.batch = p.ch.Batch()
		}
		questions := p.out.take(&p.mail, r.syncFor(p), r.contiguous())
		work = p.queue.take(work[:0], answersAtOnce)
		closing := p.out.close
		if p.closed || p.failed || p.mail.batch.Len() == 0 && len(questions) == 0 && len(work) == 0 && !closing {
			p.pumping = false
			r.mu.Unlock()
			return
		}
		p.out.close = false
		r.mu.Unlock()
		if err := p.deliver(questions, work); err != nil {
			p.fail(err)
		}
		if closing {
			p.ch.Close()
		}
	}
}

// fail ends the connection for what went wrong in sending. A channel that has
// closed meanwhile is no trouble.
func (p *Peer) fail(err error) {
	p.r.mu.Lock()
	closed := p.closed || p.failed
	p.failed = true
	p.r.mu.Unlock()
	if !closed {
		p.mux.Destroy(err)
	}
}

// deliver sends what is encoded, and the answers.
func (p *Peer) deliver(questions []want, work []request) error {
	if err := p.mail.batch.Send(); err != nil {
		return err
	}
	for _, w := range questions {
		p.answerWant(w)
		if err := p.mail.batch.Send(); err != nil {
			return err
		}
	}
	if len(work) == 0 {
		return nil
	}
	prover := p.r.core.Prover()
	defer prover.Close()
	for i := range work {
		if err := p.serve(prover, &work[i]); err != nil {
			return err
		}
		if p.mail.batch.Len() >= bytesAtOnce {
			if err := p.mail.batch.Send(); err != nil {
				return err
			}
		}
	}
	return p.mail.batch.Send()
}

// syncFor is what the peer is told of us. The caller holds mu.
func (r *Replicator) syncFor(p *Peer) syncState {
	s := syncState{
		fork: r.state.Fork, length: r.state.Length,
		canUpgrade: p.canUpgrade, uploading: r.uploads(), downloading: r.downloading(),
		hasManifest: r.state.HasManifest && !r.state.Compat,
	}
	if p.remote.fork == s.fork {
		s.remoteLength = p.remote.length
	} else {
		s.canUpgrade = false
	}
	return s
}

// serve encodes the answer to a request.
func (p *Peer) serve(with *hypercore.Prover, q *request) error {
	if p.r.uploads() {
		proof := &p.proof
		err := with.Prove(q.tree(), proof)
		if err == nil && answers(proof) {
			proof.ID = q.id
			p.mail.data(proof)
			if proof.Block == nil {
				return nil
			}
			p.r.stats.up(len(proof.Block.Value))
			return p.paid(len(proof.Block.Value))
		}
		if errors.Is(err, cloudpal.Invalid) {
			p.mail.add(typeNoData, refusal{q.id, invalidRequest}.append(p.mail.open()))
			if err := p.queue.refused(); err != nil {
				return p.fault("requests", err)
			}
			return nil
		}
		if err != nil && !errors.Is(err, cloudpal.NotExist) {
			return err
		}
	}
	p.mail.add(typeNoData, refusal{q.id, notAvailable}.append(p.mail.open()))
	return nil
}

// answers reports whether there is anything in a proof.
func answers(p *merkle.Proof) bool {
	return p.Block != nil || p.Hash != nil || p.Seek != nil || p.Upgrade != nil || p.Manifest != nil
}

// paid waits until the upload limit allows what was just encoded, having sent
// what was before.
func (p *Peer) paid(bytes int) error {
	limit := p.r.options.UploadLimit
	if limit == nil {
		return nil
	}
	delay := reserve(limit, bytes)
	if delay == 0 {
		return nil
	}
	if err := p.mail.batch.Send(); err != nil {
		return err
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.gone:
	}
	return nil
}

// answerWant encodes what of an interval is here: the prefix, if that says it,
// else bits.
func (p *Peer) answerWant(w want) {
	core := p.r.core
	s := core.State()
	contiguous := min(s.Contiguous, s.Length)
	switch {
	case w.start+w.length <= contiguous || contiguous == s.Length || w.any && w.start < contiguous:
		if contiguous > 0 {
			p.mail.add(typeRange, span{length: contiguous}.append(p.mail.open()))
		}
		return
	case w.start >= s.Length:
		return
	}
	start := w.start &^ 31
	words := make([]uint32, (min(w.start+w.length, s.Length)-start+31)/32)
	core.Bitfield(start, words)
	for len(words) > 0 && words[len(words)-1] == 0 {
		words = words[:len(words)-1]
	}
	switch {
	case len(words) == 0:
	case w.any:
		if first, ok := core.NextPresent(w.start, w.start+w.length); ok {
			p.mail.add(typeRange, span{start: first, length: 1}.append(p.mail.open()))
		}
	default:
		p.mail.add(typeBitfield, appendBitfield(p.mail.open(), start, words))
	}
}
