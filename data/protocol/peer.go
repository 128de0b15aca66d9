package protocol

import (
	"errors"
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/protomux"
)

// A Peer is the other end of one core's channel on one connection.
//
//	(open) -> opened -> synced -> closed
//
// Its fields are guarded by the replicator's mu; those of the read loop are
// used there only.
type Peer struct {
	r   *Replicator
	mux *protomux.Mux
	ch  *protomux.Channel

	// What the peer has said.
	opened bool
	synced bool
	closed bool
	failed bool      // the pump could not send
	late   bool      // it answers nothing
	seeks  bool      // it answers seeks
	remote syncState // its latest sync
	acked  uint64    // the length that it knows us to have; 0 while forks differ
	have   have

	// canUpgrade: what the peer has can be proved to be ours, so that its
	// answers fit our tree, and ours its.
	canUpgrade bool

	// refused: an upgrade or a manifest was, and is not asked for again before
	// the next sync.
	refused bool

	// What is asked of it.
	flights  map[uint64]*flight
	frontier frontier
	cursors  map[*rangeWant]uint64
	window   float64 // how many requests may be in flight
	latency  float64 // of its answers, seconds
	heard    int64   // when it last answered, ns
	wanted   wants
	fork     *reorg // the change to its fork, if that is higher than ours

	out     outbox
	queue   serveQueue
	pumping bool
	gone    chan struct{} // closed with the peer

	// The read loop's.
	batch    intake
	holding  int    // bytes of answers that came too early
	strikes  int    // proofs that ended nowhere
	lastName string // of the extension message before

	// The pump's.
	mail  mail
	proof merkle.Proof
}

// RemoteKey returns the public key that the peer has proved to have.
func (p *Peer) RemoteKey() [32]byte { return p.mux.Conn().RemoteKey() }

// Mux returns the connection that the peer is on.
func (p *Peer) Mux() *protomux.Mux { return p.mux }

// Remote returns what the peer says it has: fork, length, and how many blocks
// from the first.
func (p *Peer) Remote() (fork, length, contiguous uint64) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	return p.remote.fork, p.remote.length, min(p.have.contiguous(), p.remote.length)
}

// onOpen checks that the peer knows the core's key, and introduces ourselves.
func (p *Peer) onOpen(b []byte) error {
	h, err := decodeHandshake(b)
	if err != nil {
		return p.fault("its handshake", err)
	}
	if h.capability != capability(p.mux.Conn().HandshakeHash(), !p.mux.Conn().Initiator(), p.r.core.Key()) {
		return cloudpal.E("protocol.open", cloudpal.Denied, errors.New("the peer does not know the core's key"))
	}
	p.introduce(h)
	if tell := p.r.options.OnPeer; tell != nil {
		tell(p)
	}
	return nil
}

// introduce tells the peer what we are, and what is here from the first block on.
func (p *Peer) introduce(h handshake) {
	r := p.r
	r.mu.Lock()
	defer r.mu.Unlock()
	p.opened, p.seeks = true, h.seeks
	r.refresh()
	p.out.sync = true
	if n := r.contiguous(); n > 0 {
		p.out.announce(0, n)
	}
	r.wake(p)
}

// onMessage handles one message on the read loop. Data is only collected: all of
// one frame is stored together, in onBatch.
func (p *Peer) onMessage(typ uint64, b []byte) error {
	switch typ {
	case typeData:
		return p.onData(b)
	case typeRequest:
		return p.onRequest(b)
	case typeExtension:
		return p.onExtension(b)
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	err := p.onControl(typ, b)
	p.r.wake(p)
	return err
}

// onControl handles the messages that change what is known of the peer. Unknown
// types are ignored.
func (p *Peer) onControl(typ uint64, b []byte) error {
	switch typ {
	case typeSync:
		s, err := decodeSync(b)
		if err != nil {
			return p.fault("a sync", err)
		}
		p.onSync(s)
	case typeRange:
		s, err := decodeSpan(b)
		if err == nil {
			err = p.onSpan(s)
		}
		if err != nil {
			return p.fault("a range", err)
		}
	case typeBitfield:
		f, err := decodeBitfield(b)
		if err == nil {
			err = p.onBitfield(f)
		}
		if err != nil {
			return p.fault("a bitfield", err)
		}
	case typeNoData:
		n, err := decodeRefusal(b)
		if err != nil {
			return p.fault("a refusal", err)
		}
		return p.onRefusal(n)
	case typeCancel:
		id, err := decodeCancel(b)
		if err != nil {
			return p.fault("a cancel", err)
		}
		p.queue.cancel(id)
	case typeWant:
		w, err := decodeWant(b)
		if err != nil {
			return p.fault("a want", err)
		}
		return p.onWant(w)
	case typeUnwant: // all news are told to all who do not have them
	}
	return nil
}

// fault is the error that ends a peer's connection: what it sent, and what is
// wrong with it.
func (p *Peer) fault(what string, err error) error {
	return cloudpal.E("protocol: the peer sent "+what, cloudpal.Invalid, err)
}

// onSync takes what the peer is, and answers with a sync where that tells it
// something: that is how it learns that we know its length.
func (p *Peer) onSync(s syncState) {
	r := p.r
	r.refresh()
	changed := s.length != p.remote.length || s.fork != p.remote.fork
	p.synced, p.refused, p.remote = true, false, s
	p.acked = 0
	if s.fork == r.state.Fork {
		p.acked = s.remoteLength
	}
	if changed || !p.canUpgrade {
		p.judge()
	}
	if !s.downloading && !r.downloading() {
		p.out.close = true
		return
	}
	if s.fork == r.state.Fork && r.state.Length > s.length {
		p.out.sync = true
	}
	r.fill(p)
	r.settleUpdates()
}

// judge sets whether we can prove our tree to the peer.
func (p *Peer) judge() {
	s := &p.r.state
	switch {
	case p.remote.fork != s.Fork:
		p.canUpgrade = false
	case p.remote.length == 0:
		p.canUpgrade = true
	default:
		p.canUpgrade = p.remote.length < s.Length && p.r.core.HasRoots(p.remote.length)
	}
}

// answerable reports whether requests for blocks that our tree has are answered
// by the peer: they are proved up to nodes that we hold, and its tree must have
// these.
func (p *Peer) answerable() bool {
	return p.remote.length >= p.r.state.Length || p.canUpgrade
}

func (p *Peer) onSpan(s span) error {
	if s.drop {
		return p.have.remove(s.start, s.start+s.length)
	}
	if err := p.have.add(s.start, s.start+s.length); err != nil {
		return err
	}
	p.rewind(s.start)
	p.r.fill(p)
	return nil
}

func (p *Peer) onBitfield(f bitfield) error {
	if err := p.have.overwrite(f.start, f.words); err != nil {
		return err
	}
	p.rewind(f.start)
	p.r.fill(p)
	return nil
}

// onWant notes a question to be answered. A peer that asks more than an honest
// one could is dropped.
func (p *Peer) onWant(w want) error {
	if w.length > 32*maxWords {
		return nil // as the others do
	}
	if len(p.out.questions) >= maxQuestions {
		return p.fault("a want", fmt.Errorf("more than %d are not answered yet", maxQuestions))
	}
	p.out.questions = append(p.out.questions, w)
	return nil
}

// onRefusal gives a request to others. What the peer does not have is not asked
// of it again, until it says that it has it.
func (p *Peer) onRefusal(n refusal) error {
	f := p.flights[n.id]
	if f == nil {
		return nil
	}
	r := p.r
	now := r.now()
	p.answered(f, now)
	if block, ok := f.about(); ok {
		if err := p.have.remove(block, block+1); err != nil {
			return p.fault("a refusal", err)
		}
	} else {
		p.refused = true
	}
	r.drop(f)
	r.refill()
	r.settleUpdates()
	return nil
}

// onRequest queues a request, which the pump answers.
func (p *Peer) onRequest(b []byte) error {
	q, err := decodeRequest(b)
	if err != nil {
		return p.fault("a request", err)
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if err := p.queue.push(q); err != nil {
		return p.fault("a request", err)
	}
	p.r.wake(p)
	return nil
}

// onExtension hands an application's message on.
func (p *Peer) onExtension(b []byte) error {
	e, err := decodeExtension(b)
	if err != nil {
		return p.fault("an extension message", err)
	}
	if len(e.name) > 0 {
		p.lastName = string(e.name)
	}
	p.r.mu.Lock()
	x := p.r.extensions[p.lastName]
	p.r.mu.Unlock()
	if x != nil {
		x.handle(p, e.message)
	}
	return nil
}

// onClose ends the peer: what was asked of it is asked of others. Where the peer
// thought that there is nothing to do any more, and there is, it is opened again.
func (p *Peer) onClose(reason error) {
	r := p.r
	r.mu.Lock()
	again := p.opened && errors.Is(reason, protomux.ErrClosed) && !r.closed && r.downloading() &&
		!p.remote.downloading && p.remote.uploading
	p.closed = true
	close(p.gone)
	r.forget(p)
	r.refill()
	r.settleUpdates()
	r.mu.Unlock()
	if again {
		r.open(p.mux) // an error is that of a connection that has ended
	} else if r.options.OnGone != nil {
		if p.late {
			reason = errLate
		}
		r.options.OnGone(p, reason)
	}
}

// errLate is why the channel of a peer is closed that leaves requests unanswered.
var errLate error = cloudpal.E("protocol: wait for the peer", cloudpal.Timeout, errors.New("it answers nothing"))

// forget takes a peer out of all lists.
func (r *Replicator) forget(p *Peer) {
	delete(r.peers, p)
	for _, f := range p.flights {
		r.drop(f)
	}
	p.flights = map[uint64]*flight{}
}

// room reports whether another request may be sent to the peer.
func (p *Peer) room() bool {
	n := len(p.flights)
	if n >= int(p.window) {
		return false
	}
	return n < minInFlight/4 || float64(n+1)*p.r.blockSize() <= maxBytesInFlight
}

// ready reports whether the peer answers requests at all.
func (p *Peer) ready() bool {
	return p.opened && p.synced && !p.closed && p.remote.uploading
}

// rewind lets the peer's cursors go back to a block, which it can give now.
func (p *Peer) rewind(block uint64) {
	for want, at := range p.cursors {
		if at > block {
			p.cursors[want] = block
		}
	}
}

// answered notes how long an answer took, and lets the window grow as long as
// that is not because of the requests that were in flight.
func (p *Peer) answered(f *flight, now int64) {
	took := float64(now-f.sent) / 1e9
	p.latency += (took - p.latency) / 8
	p.heard = now
	switch {
	case took < growBelow:
		p.window = min(p.window+1, float64(p.r.options.maxInFlight()))
	case took > shrinkAbove:
		p.window = max(p.window*0.98, minInFlight)
	}
}

// An intake collects the answers of one frame.
type intake struct {
	answers []*answer // of which the first used are
	used    int
	slab    []merkle.Node
	proofs  []merkle.Proof
	flights []*flight
	results []hypercore.Applied
}

// next returns room for an answer.
func (in *intake) next() *answer {
	if in.used == len(in.answers) {
		in.answers = append(in.answers, new(answer))
	}
	in.used++
	return in.answers[in.used-1]
}

func (in *intake) reset() {
	in.used = 0
	if in.slab = in.slab[:0]; cap(in.slab) > 1<<16 {
		in.slab = nil
	}
	clear(in.proofs)
	in.proofs = in.proofs[:0]
	clear(in.flights)
	in.flights = in.flights[:0]
}
