package protomux

import (
	"errors"
	"slices"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
)

// The types of messages on channel 0, the control channel.
const (
	controlBatch  = 0
	controlOpen   = 1
	controlReject = 2
	controlClose  = 3
)

const (
	maxName      = 1 << 10  // of a protocol and of an id
	maxHandshake = 64 << 10 // what goes with an open
)

// An event is something that handlers are to be told, as soon as nobody else
// is being told anything.
type event struct {
	opened *remote
	closed *Channel
}

// tell has an event told: by who runs handlers now, else by a goroutine of its
// own. Before Run it waits for Run.
func (m *Mux) tell(e event) {
	m.ready = append(m.ready, e)
	if m.handling || !m.running {
		return
	}
	m.handling = true
	m.others.Go(func() {
		m.begin()
		m.finish()
	})
}

// begin is called before handlers are, finish afterwards: it also tells the
// events that came up meanwhile. So there is always somebody who will.
func (m *Mux) begin() {
	m.handler.Lock()
	m.mu.Lock()
	m.handling = true
	m.changedLocked()
	m.mu.Unlock()
}

func (m *Mux) finish() {
	defer m.handler.Unlock()
	m.mu.Lock()
	m.tellLocked()
	m.handling = false
	m.mu.Unlock()
}

// tellLocked tells all events there are.
func (m *Mux) tellLocked() {
	for len(m.ready) > 0 {
		events := m.ready
		m.ready = nil
		m.mu.Unlock()
		for _, e := range events {
			if err := m.tellOne(e); err != nil {
				m.Destroy(err)
			}
		}
		m.mu.Lock()
	}
}

func (m *Mux) tellOne(e event) error {
	if e.opened != nil {
		return m.open(e.opened, e.opened.handshake)
	}
	if onClose := e.closed.o.OnClose; onClose != nil {
		onClose(e.closed.reason)
	}
	return nil
}

// open tells a channel that the peer has it too, and what came for it.
func (m *Mux) open(r *remote, handshake []byte) error {
	c := r.channel
	if closed, _ := c.Closed(); closed || m.Err() != nil {
		return nil
	}
	if c.o.OnOpen != nil {
		if err := c.o.OnOpen(handshake); err != nil {
			return err
		}
	}
	told := false
	for {
		kept, ok := m.nextKept(r)
		if !ok {
			break
		}
		if err := c.message(kept.typ, kept.payload); err != nil {
			return err
		}
		told = true
	}
	if !told || c.o.OnBatch == nil {
		return nil
	}
	return c.o.OnBatch()
}

// nextKept takes a message that was kept for a channel. After the last, its
// messages are no longer kept.
func (m *Mux) nextKept(r *remote) (message, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(r.pending) == 0 || m.err != nil {
		r.told, r.pending, r.handshake = true, nil, nil
		m.release(r, r.size)
		return message{}, false
	}
	kept := r.pending[0]
	r.pending = r.pending[1:]
	m.release(r, keptCost+len(kept.payload))
	return kept, true
}

// message calls the channel's handler.
func (c *Channel) message(typ uint64, payload []byte) error {
	if c.o.OnMessage == nil {
		return nil
	}
	return c.o.OnMessage(typ, payload)
}

// closeAll closes every channel that is left, when the connection has ended.
func (m *Mux) closeAll() {
	m.begin()
	defer m.finish()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.linger != nil {
		m.linger.Stop()
	}
	for _, s := range m.local {
		if s.channel != nil {
			m.closeLocked(s.channel, m.err)
		}
	}
}

// broken is what a peer that breaks the protocol is left with.
func broken(text string) error {
	return cloudpal.E("protomux", cloudpal.Invalid, errors.New(text))
}

// receive handles what the peer has sent. The frame may be overwritten when it
// returns.
func (m *Mux) receive(frame []byte) error {
	m.begin()
	defer m.finish()
	d := compact.NewDecoder(frame)
	id, typ := d.Uint(), d.Uint()
	err := d.Err()
	switch {
	case err != nil:
	case id == 0 && typ == controlBatch:
		err = m.receiveBatch(&d)
	default:
		err = m.handle(id, typ, d.Rest())
	}
	if err == nil {
		err = m.batchEnded()
	}
	if errors.Is(err, ErrEnded) && m.isEnding() {
		return nil // it tried to send after Close, which goes on
	}
	if err != nil {
		m.Destroy(err) // before finish tells anybody of anything else
	}
	return err
}

// receiveBatch handles the items of a batch. When there are more than one, the
// answers of their handlers become a batch, too.
func (m *Mux) receiveBatch(d *compact.Decoder) error {
	corked := false
	defer func() {
		if corked {
			m.Uncork()
		}
	}()
	for id := d.Uint(); d.Len() > 0; {
		size := d.Uint()
		if size == 0 {
			id = d.Uint()
			continue
		}
		if size > uint64(d.Len()) {
			return compact.ErrShort
		}
		item := d.Take(int(size))
		if !corked && d.Len() > 0 {
			corked = true
			m.corkReplies()
		}
		if err := m.receiveItem(id, item); err != nil {
			return err
		}
	}
	if err := d.Err(); err != nil {
		return err
	}
	return m.batchEnded() // before the answers are sent
}

// batchEnded calls OnBatch of the channels that messages of the frame came for.
func (m *Mux) batchEnded() error {
	for i, c := range m.touched {
		m.touched[i] = nil
		c.touched = false
		if err := c.o.OnBatch(); err != nil {
			return err
		}
	}
	m.touched = m.touched[:0]
	return nil
}

func (m *Mux) corkReplies() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.corkLocked(true)
}

// receiveItem handles an item of a batch, and waits as between messages: one
// batch can be many.
func (m *Mux) receiveItem(id uint64, item []byte) error {
	d := compact.NewDecoder(item)
	typ := d.Uint()
	if err := d.Err(); err != nil {
		return err
	}
	if id == 0 && typ == controlBatch {
		return broken("a batch in a batch")
	}
	if err := m.handle(id, typ, d.Rest()); err != nil {
		return err
	}
	return m.breatheInBatch()
}

// breatheInBatch is breathe for who runs handlers. While it waits for channels
// to be decided on, others can: they may have to for that.
func (m *Mux) breatheInBatch() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unpaired > m.limits.Unpaired {
		m.tellLocked()
		m.handling = false
		m.handler.Unlock()
		m.waitPairedLocked()
		m.mu.Unlock()
		m.begin()
		m.mu.Lock()
	}
	m.waitQueueLocked(true)
	return m.err
}

// handle handles a message of a channel. Those for channels that are closed
// are ignored: they were under way.
func (m *Mux) handle(id, typ uint64, payload []byte) error {
	if id == 0 {
		return m.control(typ, payload)
	}
	m.mu.Lock()
	if id > uint64(len(m.remote)) || m.remote[id-1] == nil {
		m.mu.Unlock()
		return nil
	}
	r := m.remote[id-1]
	if !r.told {
		r.pending = append(r.pending, message{typ, append([]byte(nil), payload...)})
		m.keep(r, keptCost+len(payload))
		m.mu.Unlock()
		return nil
	}
	m.mu.Unlock()
	c := r.channel
	if c.o.OnBatch != nil && !c.touched {
		c.touched = true
		m.touched = append(m.touched, c)
	}
	return c.message(typ, payload)
}

// keep counts bytes that are kept.
func (m *Mux) keep(r *remote, size int) {
	r.size += size
	m.unpaired += size
}

// control handles a message of the control channel.
func (m *Mux) control(typ uint64, payload []byte) error {
	d := compact.NewDecoder(payload)
	switch typ {
	case controlOpen:
		return m.onOpen(&d)
	case controlReject:
		id := d.Uint()
		if d.Err() == nil {
			return m.onReject(id)
		}
	case controlClose:
		id := d.Uint()
		if d.Err() == nil {
			m.onClose(id)
		}
	}
	return d.Err()
}

// onOpen handles the opening of a channel by the peer.
func (m *Mux) onOpen(d *compact.Decoder) error {
	id, protocol, key, handshake := d.Uint(), d.Buffer(), d.Buffer(), d.Rest()
	if err := d.Err(); err != nil {
		return err
	}
	if len(protocol) > maxName || len(key) > maxName || len(handshake) > maxHandshake {
		return broken("an open message that is too long")
	}
	m.mu.Lock()
	if id == 0 {
		m.sendControlLocked(controlReject, 0)
		m.mu.Unlock()
		return nil
	}
	if err := m.mayUseLocked(id); err != nil {
		m.mu.Unlock()
		return err
	}
	if in := m.infos[name{string(protocol), string(key)}]; in != nil && len(in.outgoing) > 0 {
		r := m.pairWaitingLocked(in, id)
		m.mu.Unlock()
		if r == nil {
			return nil
		}
		return m.open(r, handshake)
	}
	h := m.hookOf(string(protocol), string(key))
	if h == nil {
		m.sendControlLocked(controlReject, id)
		m.mu.Unlock()
		return nil
	}
	in := m.offeredLocked(id, string(protocol), key, handshake)
	m.mu.Unlock()
	if err := m.ask(h, in, key); err != nil {
		return err
	}
	m.mu.Lock()
	m.tellLocked()
	m.mu.Unlock()
	return nil
}

// mayUseLocked checks the id of a channel that the peer opens: it must be free,
// and at most one higher than any before.
func (m *Mux) mayUseLocked(id uint64) error {
	switch {
	case id > uint64(m.limits.Channels):
		return broken("too many channels")
	case id == uint64(len(m.remote))+1:
		m.remote = append(m.remote, nil)
	case id > uint64(len(m.remote)) || m.remote[id-1] != nil:
		return broken("a channel opened with an id that is not free")
	}
	return nil
}

// pairWaitingLocked pairs a channel that the peer has opened with the one of
// ours that has waited longest. It returns nil when that one is closed again:
// the peer learns so from our close message, and our id is free now.
func (m *Mux) pairWaitingLocked(in *info, id uint64) *remote {
	local := in.outgoing[0]
	in.outgoing = in.outgoing[1:]
	s := &m.local[local-1]
	s.waiting = nil
	if s.channel == nil {
		m.free = append(m.free, local)
		m.forget(in)
		return nil
	}
	r := &remote{id: id, info: in, channel: s.channel}
	m.remote[id-1] = r
	s.channel.remote = id
	return r
}

// offeredLocked notes a channel that a hook decides on.
func (m *Mux) offeredLocked(id uint64, protocol string, key, handshake []byte) *info {
	in := m.infoOf(protocol, key, nil)
	r := &remote{id: id, info: in, handshake: append([]byte(nil), handshake...)}
	m.remote[id-1] = r
	m.keep(r, keptCost+len(protocol)+len(key)+len(handshake))
	in.incoming = append(in.incoming, id)
	in.pairing++
	return in
}

// onReject handles the rejection of a channel of ours.
func (m *Mux) onReject(id uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == 0 || id > uint64(len(m.local)) || m.local[id-1].waiting == nil {
		return broken("a rejection of no channel")
	}
	s := &m.local[id-1]
	in := s.waiting
	s.waiting = nil
	in.outgoing = remove(in.outgoing, id)
	if s.channel != nil {
		m.closeLocked(s.channel, ErrRejected)
		return nil
	}
	m.free = append(m.free, id)
	m.forget(in)
	return nil
}

// onClose handles the closing of a channel by the peer. One that it has opened
// and we have not is rejected as well, since only then its id is free there.
func (m *Mux) onClose(id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == 0 || id > uint64(len(m.remote)) || m.remote[id-1] == nil {
		return
	}
	r := m.remote[id-1]
	if r.channel != nil {
		m.closeLocked(r.channel, ErrClosed)
		return
	}
	r.info.incoming = remove(r.info.incoming, id)
	m.dropRemote(id)
	m.sendControlLocked(controlReject, id)
}

// remove returns ids without one of them.
func remove(ids []uint64, id uint64) []uint64 {
	return slices.DeleteFunc(ids, func(i uint64) bool { return i == id })
}
