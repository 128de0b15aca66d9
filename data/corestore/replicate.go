package corestore

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/protocol"
	"github.com/tradle/cloudpal/data/protomux"
	"github.com/tradle/cloudpal/data/secretstream"
)

// ReplicateOptions tune one connection.
type ReplicateOptions struct {
	// Initiator is set on the side that made the connection.
	Initiator bool

	// Key is who we are to the peer. Nil is a fresh key, which says nothing.
	Key ed25519.PrivateKey

	// Remote is the only peer to talk to. Nil is whoever is there: what they
	// can read hangs on the cores' keys they know, not on who they are.
	Remote *[32]byte

	// Allow, where it is not nil, is asked which cores take part in this
	// connection. It is called by several goroutines.
	Allow func(manifest.Key) bool

	// OnPeer, where it is not nil, is called once the peer is known.
	OnPeer func(remote [32]byte)

	// OnCore, where it is not nil, is told with a nil error of each core that
	// the peer takes part in, once it has proved that it knows the key; and of
	// each that it takes part in no more, with the reason. That is
	// protomux.ErrRejected where the peer does not have a core that is open
	// here. It must not wait.
	OnCore func(core manifest.Key, ended error)

	// HandshakeTimeout is how long a stranger may take to say who they are; 0
	// is 10 s.
	HandshakeTimeout time.Duration

	// ReadTimeout ends a connection on which nothing comes, not even a sign of
	// life, of which there is one each 5 s; 0 is 30 s.
	ReadTimeout time.Duration
}

// defaultReadTimeout is six signs of life.
const defaultReadTimeout = 30 * time.Second

// A link is one connection.
type link struct {
	mux   *protomux.Mux
	allow func(manifest.Key) bool
	tell  func(core manifest.Key, ended error) // or nil
	ended chan struct{}                        // closed once Replicate is done with it
}

// Replicate runs one connection, which is the Store's from now on, and returns
// when it has ended: nil when it did in order, ctx's error when ctx ended it,
// else why. It takes the connection as it comes from the network, and encrypts
// it as @hyperswarm/secret-stream does.
//
// All connections of a Store share what they know: a block is asked for once,
// of one of the peers that have it.
func (s *Store) Replicate(ctx context.Context, conn io.ReadWriteCloser, o ReplicateOptions) error {
	if o.ReadTimeout == 0 {
		o.ReadTimeout = defaultReadTimeout
	}
	stream, err := secretstream.Handshake(ctx, conn, secretstream.Config{
		Initiator: o.Initiator, Key: o.Key, Remote: o.Remote,
		HandshakeTimeout: o.HandshakeTimeout, ReadTimeout: o.ReadTimeout,
	})
	if err != nil {
		return cloudpal.E("shake hands with a peer", "", err)
	}
	if o.OnPeer != nil {
		o.OnPeer(stream.RemoteKey())
	}
	l := &link{mux: protomux.New(stream), allow: o.Allow, tell: o.OnCore, ended: make(chan struct{})}
	open, err := s.join(l)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	defer s.leave(l)
	protocol.Pair(l.mux, func(discovery [32]byte) (*protocol.Replicator, error) { return s.asked(l, discovery) })
	l.mux.Cork()
	for _, e := range open {
		s.offer(e, l)
	}
	l.mux.Uncork()
	return l.mux.Run(ctx)
}

// join notes a connection, and returns the cores that it begins with.
func (s *shared) join(l *link) (open []*entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return nil, errClosed
	case s.suspended:
		return nil, errSuspended
	}
	s.links[l.mux] = l
	s.working.Add(1)
	for _, e := range s.cores {
		if e.sessions > 0 {
			open = append(open, e)
		}
	}
	return open, nil
}

func (s *shared) leave(l *link) {
	s.mu.Lock()
	delete(s.links, l.mux)
	s.mu.Unlock()
	close(l.ended)
	s.working.Done()
}

// offer has a core that is open take part in a connection.
func (s *shared) offer(e *entry, l *link) {
	<-e.ready
	if e.err == nil && l.allows(e.core) {
		e.peers.Open(l.mux) // an error is that of a core, or a connection, that is being closed
	}
}

// tell tells a connection's OnCore of a core.
func (s *shared) tell(p *protocol.Peer, core manifest.Key, ended error) {
	s.mu.Lock()
	l := s.links[p.Mux()]
	s.mu.Unlock()
	if l != nil && l.tell != nil {
		l.tell(core, ended)
	}
}

func (l *link) allows(c *hypercore.Core) bool { return l.allow == nil || l.allow(c.Key()) }

// asked opens a core that a peer wants. One that is not stored, or not to be had
// over this connection, is as good as none: the peer is not told which.
func (s *shared) asked(l *link, discovery [32]byte) (*protocol.Replicator, error) {
	if l.allow != nil {
		if key, err := s.keyOf(discovery); err != nil || !l.allow(key) {
			return nil, quiet(err)
		}
	}
	e, err := s.hold(want{discovery: discovery, existing: true})
	if err != nil {
		return nil, quiet(err)
	}
	defer s.release(e, s.grace)
	return e.peers, e.peers.Open(l.mux)
}

// quiet takes out the errors that are not the connection's end.
func quiet(err error) error {
	if errors.Is(err, cloudpal.NotExist) || errors.Is(err, errClosed) {
		return nil
	}
	return err
}

// Replicator returns what replicates a core that is open, for its peers, its
// extensions, and to turn one direction off. It is the store's: do not close it.
func (s *Store) Replicator(c *hypercore.Core) (r *protocol.Replicator, ok bool) {
	s.mu.Lock()
	e := s.cores[c.DiscoveryKey()]
	s.mu.Unlock()
	if e == nil {
		return nil, false
	}
	<-e.ready
	return e.peers, e.err == nil && e.peers != nil
}
