package hypercore

import (
	"sync"
	"sync/atomic"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// A snapshot is a log as it was. Taking one costs nothing: only a truncation of
// what it has makes it hold on to the blocks that go.
type snapshot struct {
	head merkle.Head

	// common is how many blocks the log still has as they were.
	common atomic.Uint64

	mu   sync.RWMutex
	view *storage.View // where the others are; nil where there are none
}

// Snapshot opens a session on the log as it is now: its length does not change,
// and its blocks stay readable after a truncation, as far as they were here.
// What is cleared is gone for snapshots, too.
func (c *Core) Snapshot() *Core {
	l := c.log
	s := &snapshot{}
	if c.snap != nil {
		s = c.snap.copy()
	} else {
		l.mu.Lock()
		s.head = l.head
		s.common.Store(l.head.Length)
		l.snaps[s] = struct{}{}
		l.mu.Unlock()
	}
	if c.snap != nil {
		l.mu.Lock()
		l.snaps[s] = struct{}{}
		l.mu.Unlock()
	}
	return c.share(SessionOptions{}, s)
}

func (s *snapshot) copy() *snapshot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := &snapshot{head: s.head, view: s.view}
	t.common.Store(s.common.Load())
	if t.view != nil {
		t.view.Hold()
	}
	return t
}

// SessionOptions say how a session differs from the one that it comes from.
type SessionOptions struct {
	// Encryption, where it is not nil, is that of the new session.
	Encryption *Encryption

	// Stored gives the new session blocks as they are stored, encrypted where
	// the core is.
	Stored bool

	// KeyPair, where it is not nil, is what the new session signs with.
	KeyPair *manifest.KeyPair

	// ReadOnly makes a session that cannot append.
	ReadOnly bool

	// OnClose is called once, when the new session is closed.
	OnClose func()
}

// Session opens another session on the same core. It must be closed, too.
func (c *Core) Session(o SessionOptions) *Core {
	if c.snap == nil {
		return c.share(o, nil)
	}
	s := c.snap.copy()
	c.log.mu.Lock()
	c.log.snaps[s] = struct{}{}
	c.log.mu.Unlock()
	return c.share(o, s)
}

func (c *Core) share(o SessionOptions, s *snapshot) *Core {
	_, release, err := c.log.store.Share(c.log.discovery, func() (any, error) { return c.log, nil })
	if err != nil {
		panic(err) // nothing was built that could fail
	}
	n := &Core{log: c.log, pair: c.pair, cipher: c.cipher, snap: s, release: release}
	n.options = c.options
	n.options.OnClose = o.OnClose
	if o.KeyPair != nil {
		n.pair = o.KeyPair
	}
	if o.ReadOnly {
		n.pair = nil
	}
	if o.Encryption != nil {
		n.cipher = newCipher(*o.Encryption, c.log.key, c.log.compat)
	}
	if o.Stored {
		n.cipher = nil
	}
	return n
}

// dropSnapshot lets go of what a snapshot holds.
func (l *log) dropSnapshot(s *snapshot) {
	l.mu.Lock()
	delete(l.snaps, s)
	l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != nil {
		s.view.Close()
		s.view = nil
	}
}

// pinSnapshots lets the snapshots that have more than common blocks hold on to
// the store as it is now, before these go. Where a truncation then does not come
// to pass, what they hold stays right: it is only not needed.
func (l *log) pinSnapshots(common uint64) {
	var view *storage.View
	for s := range l.snaps {
		if s.common.Load() <= common {
			continue
		}
		if view == nil {
			view = l.core.View()
		}
		s.pin(view, common)
	}
	if view != nil {
		view.Close() // each snapshot holds it by itself
	}
}

func (s *snapshot) pin(view *storage.View, common uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		s.view = view.Hold()
		s.common.Store(common)
		return
	}
	// Blocks from the old common on are in the old view; those before that in
	// the new one, and also in the old, since they have not changed between.
	s.common.Store(common)
}

// appendStored appends a block as it was.
func (s *snapshot) appendStored(l *log, dst []byte, index uint64) ([]byte, error) {
	if index >= s.head.Length {
		return dst, cloudpal.NotExist
	}
	n := len(dst)
	if index < s.common.Load() {
		out, err := l.core.AppendBlock(dst, index)
		// A truncation lowers common before it changes blocks, so what was read
		// while common was still above is what it was.
		if index < s.common.Load() {
			return out, err
		}
		dst = out[:n]
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.view == nil {
		return dst, cloudpal.NotExist
	}
	return s.view.AppendBlock(dst, index)
}

// A snapReader reads the nodes of a snapshot's tree.
type snapReader struct {
	log  *log
	snap *snapshot
}

func (r snapReader) Node(index uint64) (merkle.Node, bool, error) {
	r.snap.mu.RLock()
	view := r.snap.view
	if view != nil {
		defer r.snap.mu.RUnlock()
		return view.Node(index)
	}
	r.snap.mu.RUnlock()
	r.log.mu.RLock()
	defer r.log.mu.RUnlock()
	return r.log.core.Node(index)
}
