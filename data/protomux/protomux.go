// Package protomux carries many channels over one connection of messages, as
// the JavaScript module protomux does, byte for byte. Its connections are
// usually secretstream's.
//
//	mux := protomux.New(conn)
//	ch, err := mux.Open(protomux.ChannelOptions{
//		Protocol: "chat",
//		OnMessage: func(typ uint64, payload []byte) error {
//			fmt.Printf("%s\n", payload)
//			return nil
//		},
//	})
//	...
//	go mux.Run(ctx)
//	err = ch.Send(0, []byte("hello"))
//
// A channel has a protocol's name and an id, which may be empty. It is there
// when both sides have opened it; until then what one side sends waits on the
// other, so nobody has to wait before sending. A side that is offered a channel
// which it has not opened calls what Pair has set for the protocol, and rejects
// the channel if that does not open it.
//
// All handlers of a Mux (OnOpen, OnMessage, OnClose, and those of Pair) are
// called one at a time. An error that one returns ends the connection, and
// the OnClose of every channel is told it.
//
// # Waiting
//
// Send copies its message into a queue that a goroutine of Run writes out, and
// waits while more than Limits.Queue bytes are in it. So a producer is as fast
// as its peer reads.
//
// Two peers that both wait for each other to read must not wait forever. A
// goroutine that only sends may always wait: it keeps nobody from reading. A
// handler, and whatever holds a lock that a handler wants, must not, because
// the next message is read only when the handler is done. So a Send that meets a
// full queue while any handler runs waits only as long as the queue moves:
// when nothing was written for a tenth of a second, it goes on, up to
// Limits.Backlog; and the same holds for the reading of the next message. If
// both sides stand still because each has more answers queued than the network
// holds, then both read on, what they read makes room, and both queues move
// again. If they move, however slowly, waiting is right, and nobody is cut off
// for being slow. Only when both sides owe each other more than Backlog, and
// what the network holds, would they wait for good; then the connection's own
// limit on a write ends it (secretstream: WriteTimeout). Memory is bounded in
// every case by Backlog and one message more each way.
//
// Reading also pauses while more than Limits.Unpaired bytes wait for hooks of
// PairLater to decide. They must do so in Limits.PairTimeout.
package protomux

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
)

// A Conn is what a Mux runs on: whole messages, in order, to and from one
// peer. secretstream.Conn is one.
//
// ReadMessage is called by one goroutine at a time, and what it returns is
// used until the next call only; it returns io.EOF when the peer ended the
// connection in order. WriteMessage is called by one goroutine at a time too;
// it may wait, and must not keep the slice. Close may be called at any time,
// also twice; it ends both. HandshakeHash, Initiator and RemoteKey are for the
// users of the Mux: they say who the peer is.
//
// A Conn may have more, which a Mux uses: QueueMessage and Flush, to write many
// messages at once; and CloseWrite, to end one direction.
type Conn interface {
	ReadMessage() ([]byte, error)
	WriteMessage(message []byte) error
	Close() error
	HandshakeHash() [64]byte
	Initiator() bool
	RemoteKey() [32]byte
}

// Why a channel was closed; OnClose is told.
var (
	// ErrClosed: the other side closed the channel.
	ErrClosed error = cloudpal.E("protomux", cloudpal.NotExist, errors.New("channel closed by the other side"))
	// ErrRejected: the other side does not know the channel's protocol and id.
	ErrRejected error = cloudpal.E("protomux", cloudpal.NotExist, errors.New("channel rejected by the other side"))
	// ErrEnded: the connection ended in order, by either side.
	ErrEnded error = cloudpal.E("protomux", cloudpal.NotExist, errors.New("connection ended"))
)

// Limits bound what a peer can make a Mux hold. Zero fields stand for the
// defaults.
type Limits struct {
	// Channels is the largest number of channels at a time that each side may
	// have opened. Default 65,536.
	Channels int
	// Unpaired is how many bytes of channels that PairLater has not decided on
	// are kept before reading pauses; each message and open counts 512 more.
	// Default 32 KiB, as the original's.
	Unpaired int
	// PairTimeout is how long PairLater may take. Default 30 s.
	PairTimeout time.Duration
	// Queue is how many bytes may wait to be written before Send waits. Default
	// 256 KiB.
	Queue int
	// Backlog is how many may wait when waiting could hold up the peer, too.
	// Default 4 MiB.
	Backlog int
}

func (l Limits) withDefaults() Limits {
	or := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	or(&l.Channels, 1<<16)
	or(&l.Unpaired, 32<<10)
	or(&l.Queue, 256<<10)
	or(&l.Backlog, 4<<20)
	if l.PairTimeout == 0 {
		l.PairTimeout = 30 * time.Second
	}
	return l
}

// linger is how long Close waits for the peer to have read everything.
const linger = 5 * time.Second

// A Mux is one connection with its channels. Its methods may be called at any
// time from any goroutine, handlers among them.
type Mux struct {
	conn   Conn
	limits Limits

	handler sync.Mutex     // held while handlers run; taken before mu
	touched []*Channel     // whose OnBatch is to be called after this frame
	others  sync.WaitGroup // goroutines that run handlers beside Run

	mu       sync.Mutex
	changed  sync.Cond // the queue moved, a channel was paired, handlers run, or it ended
	waiting  int       // who waits for that
	running  bool      // Run has begun
	handling bool      // someone holds handler, and will run what is in ready
	ready    []event
	table
	outgoing
	ending    bool // Close was called, or the peer ended: write what is queued and go
	peerEnded bool
	linger    *time.Timer
	err       error         // why it ended
	done      chan struct{} // closed when it has
}

// New returns a Mux over conn, which is the Mux's from now on. Nothing is read
// or written before Run.
func New(conn Conn) *Mux { return NewLimited(conn, Limits{}) }

// NewLimited is New with limits.
func NewLimited(conn Conn, limits Limits) *Mux {
	m := &Mux{conn: conn, limits: limits.withDefaults(), done: make(chan struct{})}
	m.changed.L = &m.mu
	m.wake.L = &m.mu
	m.infos = map[name]*info{}
	m.hooks = map[name]hook{}
	return m
}

// Conn returns what the Mux runs on.
func (m *Mux) Conn() Conn { return m.conn }

// Run reads and writes until the connection ends, and closes it. It returns
// nil when it ended in order, else why it did not: what a handler returned,
// what the peer did wrong, or ctx's error. It can be called once.
//
// All handlers are called by Run or on its behalf, one at a time; when it
// returns, every channel's OnClose has been.
func (m *Mux) Run(ctx context.Context) error {
	if !m.start() {
		return cloudpal.E("protomux.Run", cloudpal.Invalid, errors.New("called twice"))
	}
	stop := context.AfterFunc(ctx, func() { m.Destroy(context.Cause(ctx)) })
	defer stop()
	var writer sync.WaitGroup
	writer.Go(m.write)
	err := m.read()
	if errors.Is(err, io.EOF) {
		m.close(true) // half closed, it may still read what is queued
		writer.Wait()
	}
	m.Destroy(err)
	writer.Wait()
	m.closeAll()
	m.others.Wait()
	if err = m.Err(); err == ErrEnded {
		return nil
	}
	return err
}

func (m *Mux) start() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := !m.running
	m.running = true
	return first
}

// read takes one message after the other.
func (m *Mux) read() error {
	m.begin()
	m.finish() // tells what happened before Run
	for {
		if err := m.breathe(); err != nil {
			return err
		}
		frame, err := m.conn.ReadMessage()
		if err != nil {
			return err
		}
		if len(frame) == 0 || m.isEnding() {
			continue
		}
		if err := m.receive(frame); err != nil {
			return err
		}
	}
}

func (m *Mux) isEnding() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ending
}

// breathe waits before the next message is read: see Waiting, above.
func (m *Mux) breathe() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waitPairedLocked()
	m.waitQueueLocked(true)
	return m.err
}

// Close sends what is queued, and what is corked, and ends the connection.
// Nothing can be sent after it. It does not wait: Run returns when it is done,
// after at most 5 s. Messages that still arrive are dropped.
func (m *Mux) Close() error {
	m.close(false)
	return nil
}

// close begins the end: ended tells whether the peer has, to whom it is no
// loss then what it does not read.
func (m *Mux) close(ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peerEnded = m.peerEnded || ended
	if m.ending || m.err != nil {
		return
	}
	m.sendBatchLocked()
	m.ending = true
	m.wake.Signal()
	m.linger = time.AfterFunc(linger, func() {
		m.Destroy(cloudpal.E("protomux.Close", cloudpal.Timeout, errors.New("the peer does not read")))
	})
}

// Destroy ends the connection at once; Run and all channels are told the
// reason, unless there was another before, or all was said already.
func (m *Mux) Destroy(reason error) {
	m.mu.Lock()
	if m.ending && !m.flushed && !m.peerEnded && errors.Is(reason, ErrEnded) {
		m.mu.Unlock()
		return // a handler that tried to send after Close; it ends as Close has it
	}
	if reason == nil || m.flushed || m.peerEnded {
		reason = ErrEnded
	}
	if m.err == nil {
		m.err = reason
		close(m.done)
	}
	m.wake.Signal()
	m.changed.Broadcast()
	m.mu.Unlock()
	m.conn.Close()
}

// Done returns a channel that is closed when the connection has ended.
func (m *Mux) Done() <-chan struct{} { return m.done }

// Err returns why the connection ended: nil while it has not, and ErrEnded
// when it did in order.
func (m *Mux) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}
