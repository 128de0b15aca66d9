package protomux

import (
	"errors"
	"time"

	"github.com/tradle/cloudpal"
)

// Both sides number the channels they open themselves, from 1. A message says
// the sender's number, so each side has two tables: its own channels by its
// numbers, and the peer's by the peer's.
//
//	local[id-1]                          remote[id-1]
//	  channel   until it is closed         nil       free, or closed
//	  waiting   the peer has neither       unpaired  offered, not yet opened here
//	            opened nor rejected it     paired    what arrives goes to channel
//
// A local id is free again when its channel is closed and it is not waiting:
// before, the peer could still answer the old one.
type table struct {
	local  []slot
	free   []uint64 // ids in local that are free, the last to be used first
	remote []*remote
	infos  map[name]*info
	hooks  map[name]hook

	unpaired int // bytes kept for remotes that are not paired, or not yet told
}

// A name is what both sides know a channel by.
type name struct{ protocol, id string }

// An info is the state of a name, and of the aliases it was opened with. It is
// there while there is any.
type info struct {
	names    []name
	opened   int      // channels of ours
	pairing  int      // hooks that have not returned
	incoming []uint64 // remote ids that no channel of ours is paired with
	outgoing []uint64 // local ids that are waiting
}

type slot struct {
	channel *Channel
	waiting *info
}

// A remote is a channel that the peer has opened.
type remote struct {
	id        uint64
	info      *info
	channel   *Channel // nil while unpaired
	told      bool     // OnOpen was called: messages need not be kept
	handshake []byte
	pending   []message
	size      int // of what is kept, as counted in unpaired
}

type message struct {
	typ     uint64
	payload []byte
}

// keptCost is what a kept message counts beside its bytes, as in the original.
const keptCost = 512

// A hook is what is called for channels that we have not opened. Done is for
// those that decide later.
type hook func(id []byte, done func()) error

// ChannelOptions say what a channel is, and who hears of it.
type ChannelOptions struct {
	Protocol string
	Aliases  []string // other names of the protocol under which the peer may open it
	ID       []byte   // may be nil, which is the same as empty
	// Handshake goes with the open message. Nil and empty are the same.
	Handshake []byte
	// Shared allows more than one open channel of the same protocol and id.
	Shared bool

	// OnOpen is called when the peer has opened the channel too, before any
	// OnMessage. The handshake is the handler's only during the call.
	OnOpen func(handshake []byte) error
	// OnMessage is called for each message; payload is the handler's only
	// during the call, or until OnBatch returns, where there is one. It may Send.
	OnMessage func(typ uint64, payload []byte) error
	// OnBatch is called after the OnMessage of all messages of this channel that
	// came together: in one batch, or alone, or kept until the channel was
	// open. Their payloads, which are the handlers' until it returns, can so be
	// handled in one go without a copy.
	OnBatch func() error
	// OnClose is called once, last, with why: nil after Close, ErrClosed,
	// ErrRejected, ErrEnded, or what Run returns. A channel that was closed before
	// the peer opened it has an OnClose without an OnOpen.
	OnClose func(reason error)
}

// A Channel is one end of a channel.
type Channel struct {
	mux    *Mux
	o      ChannelOptions
	info   *info
	id     uint64 // ours
	remote uint64 // the peer's, or 0
	closed bool
	reason error

	touched bool // by messages of which OnBatch was not told; handler guards it
}

// Mux returns the channel's connection.
func (c *Channel) Mux() *Mux { return c.mux }

// Open opens a channel. Messages can be sent at once: the peer has them in
// order, after it has opened its side. It does not wait. One that is open
// already, here, is refused as cloudpal.Exist, unless it is Shared.
func (m *Mux) Open(o ChannelOptions) (*Channel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.mayOpenLocked(&o); err != nil {
		return nil, cloudpal.E("protomux.Open "+o.Protocol, "", err)
	}
	in := m.infoOf(o.Protocol, o.ID, o.Aliases)
	if in.opened > 0 && !o.Shared {
		return nil, cloudpal.E("protomux.Open "+o.Protocol, cloudpal.Exist, nil)
	}
	c := &Channel{mux: m, o: o, info: in}
	c.id = m.takeID()
	m.local[c.id-1].channel = c
	in.opened++
	if len(in.incoming) > 0 {
		m.pair(m.remote[in.incoming[0]-1], c)
		in.incoming = in.incoming[1:]
	} else {
		in.outgoing = append(in.outgoing, c.id)
		m.local[c.id-1].waiting = in
	}
	m.sendOpenLocked(c)
	c.o.Handshake = nil
	return c, nil
}

func (m *Mux) mayOpenLocked(o *ChannelOptions) error {
	switch {
	case m.err != nil:
		return m.err
	case m.ending:
		return ErrEnded
	case len(o.Protocol) > maxName || len(o.ID) > maxName || len(o.Handshake) > maxHandshake:
		return cloudpal.E("", cloudpal.Invalid, errors.New("a name, an id or a handshake that is too long"))
	case len(m.free) == 0 && len(m.local) >= m.limits.Channels:
		return cloudpal.E("", cloudpal.Exhausted, errors.New("too many channels"))
	}
	return nil
}

// pair joins a channel of the peer's with one of ours, of which handlers are to
// be told.
func (m *Mux) pair(r *remote, c *Channel) {
	r.channel, c.remote = c, r.id
	m.tell(event{opened: r})
}

func (m *Mux) takeID() uint64 {
	if n := len(m.free); n > 0 {
		id := m.free[n-1]
		m.free = m.free[:n-1]
		return id
	}
	m.local = append(m.local, slot{})
	return uint64(len(m.local))
}

// infoOf returns the info of a name, which it makes where there is none. The
// aliases are set to it as far as they are of nothing else; where the peer has
// offered the channel by an alias, it is that offer's.
func (m *Mux) infoOf(protocol string, id []byte, aliases []string) *info {
	in := m.infos[name{protocol, string(id)}]
	for _, a := range aliases {
		if offered := m.infos[name{a, string(id)}]; in == nil && offered != nil && offered.opened == 0 && len(offered.outgoing) == 0 {
			in = offered
		}
	}
	if in == nil {
		in = &info{}
	}
	for _, p := range append([]string{protocol}, aliases...) {
		n := name{p, string(id)}
		if m.infos[n] == nil {
			m.infos[n] = in
			in.names = append(in.names, n)
		}
	}
	return in
}

// forget drops an info that has no state.
func (m *Mux) forget(in *info) {
	if in.opened > 0 || in.pairing > 0 || len(in.incoming) > 0 || len(in.outgoing) > 0 {
		return
	}
	for _, n := range in.names {
		if m.infos[n] == in {
			delete(m.infos, n)
		}
	}
	in.names = nil
}

// Opened reports whether a channel of ours is open.
func (m *Mux) Opened(protocol string, id []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.infos[name{protocol, string(id)}]
	return in != nil && in.opened > 0
}

// Close closes the channel. The peer is told, after what was sent before, and
// so is OnClose. Closing twice is the same as once.
func (c *Channel) Close() error {
	m := c.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.closed {
		return nil
	}
	m.sendControlLocked(controlClose, c.id)
	m.closeLocked(c, nil)
	return nil
}

// Closed reports whether the channel is closed, and why, as OnClose is told.
func (c *Channel) Closed() (closed bool, reason error) {
	c.mux.mu.Lock()
	defer c.mux.mu.Unlock()
	return c.closed, c.reason
}

// closeLocked closes our end of a channel.
func (m *Mux) closeLocked(c *Channel, reason error) {
	c.closed, c.reason = true, reason
	c.info.opened--
	if c.remote > 0 {
		m.dropRemote(c.remote)
		c.remote = 0
	}
	s := &m.local[c.id-1]
	s.channel = nil
	if s.waiting == nil {
		m.free = append(m.free, c.id)
	}
	m.forget(c.info)
	m.tell(event{closed: c})
}

// dropRemote frees a remote id, and what is kept for it.
func (m *Mux) dropRemote(id uint64) {
	r := m.remote[id-1]
	m.remote[id-1], r.pending = nil, nil
	m.release(r, r.size)
}

// release gives back bytes that were kept.
func (m *Mux) release(r *remote, size int) {
	r.size -= size
	m.unpaired -= size
	m.changedLocked()
}

// Pair sets what is called when the peer opens a channel of the protocol that
// is not open here: if hook opens it, all is well, else it is rejected. An
// error of hook ends the connection, except one of kind cloudpal.Exist, as
// Open has when the peer opens a channel a second time: that one is rejected.
// The id is the hook's only during the call. A nil hook is as Unpair.
func (m *Mux) Pair(protocol string, hook func(id []byte) error) {
	m.PairID(protocol, nil, hook)
}

// PairID is as Pair, for one id; it goes before Pair.
func (m *Mux) PairID(protocol string, id []byte, hook func(id []byte) error) {
	if hook == nil {
		m.Unpair(protocol, id)
		return
	}
	m.setHook(protocol, id, func(id []byte, done func()) error {
		defer done()
		return hook(id)
	})
}

// PairLater is as Pair for a hook that cannot decide at once, and must not
// keep other messages waiting. When it has opened the channel, or not, it calls
// done; Limits.PairTimeout later, that is done for it.
func (m *Mux) PairLater(protocol string, hook func(id []byte, done func()) error) {
	m.setHook(protocol, nil, hook)
}

func (m *Mux) setHook(protocol string, id []byte, h hook) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hooks[name{protocol, string(id)}] = h
}

// Unpair removes what Pair or PairLater (with a nil id) or PairID has set.
func (m *Mux) Unpair(protocol string, id []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.hooks, name{protocol, string(id)})
}

// hookOf returns what decides on a channel that is offered, or nil.
func (m *Mux) hookOf(protocol, id string) hook {
	if h := m.hooks[name{protocol, id}]; h != nil {
		return h
	}
	return m.hooks[name{protocol, ""}]
}

// ask has a hook decide on a channel that is offered. Called by handlers'
// goroutine, without mu.
func (m *Mux) ask(h hook, in *info, id []byte) error {
	done := onceFunc(func() { m.decided(in) })
	late := time.AfterFunc(m.limits.PairTimeout, done)
	err := h(id, func() { late.Stop(); done() })
	if errors.Is(err, cloudpal.Exist) {
		err = nil
		done()
	}
	return err
}

// onceFunc is sync.OnceFunc without its memory of panics.
func onceFunc(f func()) func() {
	called := make(chan struct{}, 1)
	return func() {
		select {
		case called <- struct{}{}:
			f()
		default:
		}
	}
}

// decided is called after each hook: what is offered of the name and was not
// opened is rejected, after the last.
func (m *Mux) decided(in *info) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if in.pairing--; in.pairing > 0 {
		return
	}
	for _, id := range in.incoming {
		m.dropRemote(id)
		m.sendControlLocked(controlReject, id)
	}
	in.incoming = nil
	m.forget(in)
}
