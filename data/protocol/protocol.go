// Package protocol replicates hypercores between peers, as the JavaScript
// hypercore does, byte for byte.
//
// Two peers that both know a core's key and have a connection (package
// secretstream over anything that carries bytes, package protomux over that)
// bring each other up to date: each tells what it has, asks for what it wants,
// and checks everything that it is sent against the core's key before it is
// stored. For one core over one connection that is one call:
//
//	err := protocol.Replicate(ctx, conn, core, protocol.Options{Full: true})
//
// Otherwise a core has one Replicator, which joins any number of connections:
//
//	r := protocol.NewReplicator(core, protocol.Options{})
//	defer r.Close()
//	r.Open(mux)
//	block, err := core.Get(ctx, 7) // asks the peers for it
//
// # What is fetched
//
// The length of the log is always brought up to date. Blocks are fetched when
// somebody reads them (Core.Get, Core.Seek, Core.Download), or all of them with
// Options.Full, as they come. Requests are spread over all peers that have a
// block; one that is slow to answer is asked of a second peer as well, and
// whoever is first counts.
//
// # What is believed
//
// Nothing. Every block is proved by hashes up to a tree that the core's writers
// have signed. A peer that sends what is wrong, more than it was asked for by
// numbers that have no end, or asks for what cannot be, loses its connection; the
// error, which Mux.Run returns, says why. What is remembered of one peer is
// bounded: see have.go and serve.go for the numbers.
//
// # How it is built
//
// A connection's read loop (Mux.Run) hands messages to a Peer. It never waits for
// the other side: what is to be sent is noted in an outbox as facts, and a pump, a
// goroutine that lives as long as there is something to send, encodes and sends
// it and answers the peer's requests. All blocks of one frame are verified and
// stored in one commit, on the read loop, so that a slow disk slows the sender.
package protocol

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/time/rate"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/protomux"
	"github.com/tradle/cloudpal/data/secretstream"
)

// Protocol is the name of the channels; alias is an older one of the same.
const (
	Protocol = "hypercore/alpha"
	alias    = "hypercore"
)

// Options say how a core is replicated. The zero Options fetch what is read,
// and serve what is here.
type Options struct {
	// Full fetches all blocks, those that are there and those that come.
	Full bool

	// NoUpload refuses all that peers ask for. NoDownload asks for nothing, not
	// even for the length. SetUpload and SetDownload change them later.
	NoUpload   bool
	NoDownload bool

	// UploadLimit and DownloadLimit bound the bytes of blocks per second. A
	// limiter may be shared by many replicators. Nil is no limit.
	UploadLimit   *rate.Limiter
	DownloadLimit *rate.Limiter

	// MaxInFlight is how many requests to one peer may be unanswered; 0 is 512.
	MaxInFlight int

	// OnPeer, where it is not nil, is told of each peer that has proved to know
	// the core's key. It must not wait.
	OnPeer func(*Peer)

	// OnGone, where it is not nil, is told of each peer that has gone, and why:
	// what protomux's OnClose says, so protomux.ErrRejected where the peer does
	// not have the core. It must not wait.
	OnGone func(*Peer, error)
}

func (o *Options) maxInFlight() int {
	if o.MaxInFlight > 0 {
		return o.MaxInFlight
	}
	return maxInFlight
}

// A Replicator replicates one core with all its peers. It is the core's Fetcher
// until it is closed. All methods may be used at the same time.
type Replicator struct {
	core     *hypercore.Core
	options  Options // NoUpload and NoDownload: see mu
	unwatch  func()
	noUpload atomic.Bool
	pumps    sync.WaitGroup
	stats    counters
	clock    *time.Timer

	mu         sync.Mutex
	closed     bool
	noDownload bool
	ticking    bool
	state      hypercore.State
	told       hypercore.State // what the peers were told of it
	whole      uint64          // the length at which peers were told that all is here
	peers      map[*Peer]struct{}
	muxes      map[*protomux.Mux]struct{}
	extensions map[string]*Extension

	lastID   uint64
	inflight map[uint64]*flight // blocks, by index
	upgrade  *flight
	manifest *flight
	applying int // forks that are being made ours
	storing  int // batches that are being stored

	blocks  map[uint64]*blockWant
	queue   []uint64 // of blocks: those not asked for yet
	ranges  []*rangeWant
	seeks   map[*seekWant]struct{}
	updates []chan struct{}
}

// NewReplicator returns a Replicator of a core, and makes it the core's Fetcher.
// The core must stay open until the Replicator is closed.
func NewReplicator(core *hypercore.Core, o Options) *Replicator {
	r := &Replicator{
		core: core, options: o, noDownload: o.NoDownload,
		peers: map[*Peer]struct{}{}, muxes: map[*protomux.Mux]struct{}{},
		extensions: map[string]*Extension{}, inflight: map[uint64]*flight{},
		blocks: map[uint64]*blockWant{}, seeks: map[*seekWant]struct{}{},
	}
	r.noUpload.Store(o.NoUpload)
	r.clock = time.AfterFunc(time.Hour, r.tick)
	r.clock.Stop()
	if o.Full {
		r.ranges = append(r.ranges, &rangeWant{end: ^uint64(0), waiting: 1, done: make(chan struct{})})
	}
	r.refresh()
	r.told = r.state
	r.unwatch = core.Watch(r.onEvent)
	core.SetFetcher(r)
	return r
}

// Core returns what is replicated.
func (r *Replicator) Core() *hypercore.Core { return r.core }

// Open offers the core on a connection, and answers when the peer does. The
// connection need not run yet. A second Open on the same one does nothing.
func (r *Replicator) Open(m *protomux.Mux) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return cloudpal.E("protocol.open", cloudpal.Invalid, errors.New("the replicator is closed"))
	}
	_, known := r.muxes[m]
	r.muxes[m] = struct{}{}
	r.mu.Unlock()
	if known {
		return nil
	}
	id := r.core.DiscoveryKey()
	hook := func([]byte) error { return r.open(m) }
	m.PairID(Protocol, id[:], hook)
	m.PairID(alias, id[:], hook)
	return r.open(m)
}

// open opens a channel.
func (r *Replicator) open(m *protomux.Mux) error {
	id := r.core.DiscoveryKey()
	p := &Peer{
		r: r, mux: m, flights: map[uint64]*flight{}, frontier: frontier{}, cursors: map[*rangeWant]uint64{},
		window: startInFlight, canUpgrade: true, gone: make(chan struct{}),
	}
	hello := handshake{seeks: true, capability: capability(m.Conn().HandshakeHash(), m.Conn().Initiator(), r.core.Key())}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.peers[p] = struct{}{}
	r.mu.Unlock()
	ch, err := m.Open(protomux.ChannelOptions{
		Protocol: Protocol, Aliases: []string{alias}, ID: id[:], Handshake: hello.append(nil),
		OnOpen: p.onOpen, OnMessage: p.onMessage, OnBatch: p.onBatch, OnClose: p.onClose,
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.peers, p)
		if errors.Is(err, cloudpal.Exist) {
			return nil
		}
		return cloudpal.E("protocol.open", "", err)
	}
	p.ch = ch
	r.wake(p)
	return nil
}

// Pair makes a connection ask hook for a replicator when the peer opens the
// channel of a core for which Open was not called. A nil replicator means that
// the core is not known here; an error ends the connection.
func Pair(m *protomux.Mux, hook func(discoveryKey [32]byte) (*Replicator, error)) {
	answer := func(id []byte) error {
		if len(id) != 32 {
			return nil
		}
		r, err := hook([32]byte(id))
		if err != nil || r == nil {
			return err
		}
		return r.Open(m)
	}
	m.Pair(Protocol, answer)
	m.Pair(alias, answer)
}

// Close leaves all connections, which stay open, and ends all fetching.
func (r *Replicator) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.clock.Stop()
	peers := make([]*Peer, 0, len(r.peers))
	for p := range r.peers {
		peers = append(peers, p)
	}
	id := r.core.DiscoveryKey()
	for m := range r.muxes {
		m.Unpair(Protocol, id[:])
		m.Unpair(alias, id[:])
	}
	r.mu.Unlock()
	r.core.SetFetcher(nil)
	r.unwatch()
	for _, p := range peers {
		p.ch.Close()
	}
	r.pumps.Wait()
	return nil
}

// Peers returns who is connected and has proved to know the key.
func (r *Replicator) Peers() []*Peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	var open []*Peer
	for p := range r.peers {
		if p.opened {
			open = append(open, p)
		}
	}
	return open
}

// SetUpload turns the answering of requests on or off.
func (r *Replicator) SetUpload(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noUpload.Store(!on)
	r.syncAll()
}

// SetDownload turns the asking on or off. What is in flight still arrives.
func (r *Replicator) SetDownload(on bool) {
	r.mu.Lock()
	r.noDownload = !on
	r.syncAll()
	r.refill()
	var closed []*protomux.Mux
	if on {
		closed = r.unopened()
	}
	r.mu.Unlock()
	for _, m := range closed {
		r.open(m) // an error is that of a connection that has ended
	}
}

// unopened returns the connections whose channel was closed when neither side
// had anything to ask.
func (r *Replicator) unopened() (closed []*protomux.Mux) {
	open := map[*protomux.Mux]bool{}
	for p := range r.peers {
		open[p.mux] = true
	}
	for m := range r.muxes {
		if !open[m] {
			closed = append(closed, m)
		}
	}
	return closed
}

func (r *Replicator) uploads() bool { return !r.noUpload.Load() }

func (r *Replicator) downloading() bool { return !r.noDownload }

// now is the time in nanoseconds.
func (r *Replicator) now() int64 { return time.Now().UnixNano() }

// refresh reads where the core stands.
func (r *Replicator) refresh() { r.state = r.core.State() }

// contiguous is how many blocks from the first are here.
func (r *Replicator) contiguous() uint64 { return min(r.state.Contiguous, r.state.Length) }

// syncAll tells all peers what we are.
func (r *Replicator) syncAll() {
	for p := range r.peers {
		p.out.sync = true
		r.wake(p)
	}
}

// missing returns how many nodes are not here on the way up from a block. A
// database that cannot be read will say so when the answer is stored.
func (r *Replicator) missing(block uint64) uint64 {
	n, err := r.core.Missing(block)
	if err != nil {
		return 0
	}
	return n
}

// within reports whether the download limit allows another request.
func (r *Replicator) within() bool {
	l := r.options.DownloadLimit
	return l == nil || l.Tokens() > 0
}

// spend takes bytes that have arrived from the download limit.
func (r *Replicator) spend(bytes int) {
	if l := r.options.DownloadLimit; l != nil {
		reserve(l, bytes)
	}
}

// capability proves to the peer of a connection that its sender knows the key.
func capability(handshakeHash [64]byte, initiator bool, key manifest.Key) (sum [32]byte) {
	role := byte(2)
	if initiator {
		role = 1
	}
	h, err := blake2b.New256(handshakeHash[:])
	if err != nil {
		panic(err) // only a key of more than 64 bytes fails
	}
	ns := manifest.Namespace("hypercore", role)
	h.Write(ns[:])
	h.Write(key[:])
	h.Sum(sum[:0])
	return sum
}

// reserve takes n bytes from a limit, and returns how long to wait for them.
func reserve(l *rate.Limiter, n int) (delay time.Duration) {
	for n > 0 {
		step := min(n, max(l.Burst(), 1))
		res := l.ReserveN(time.Now(), step)
		if !res.OK() {
			return delay
		}
		delay = res.Delay()
		n -= step
	}
	return delay
}

// Replicate replicates one core over a connection, which it encrypts and closes,
// until the connection or ctx ends. Initiator is who begins the handshake: one
// side must, and the other not. It returns nil when the peer ended the
// connection in order.
func Replicate(ctx context.Context, conn io.ReadWriteCloser, initiator bool, core *hypercore.Core, o Options) error {
	s, err := secretstream.Handshake(ctx, conn, secretstream.Config{Initiator: initiator})
	if err != nil {
		return cloudpal.E("replicate", "", err)
	}
	m := protomux.New(s)
	r := NewReplicator(core, o)
	defer r.Close()
	if err := r.Open(m); err != nil {
		m.Close()
		return cloudpal.E("replicate", "", err)
	}
	if err := m.Run(ctx); err != nil {
		return cloudpal.E("replicate", "", err)
	}
	return nil
}
