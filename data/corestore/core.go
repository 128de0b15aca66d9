package corestore

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/protocol"
)

// CoreOptions say which core, by one of Name, Key, DiscoveryKey, Manifest and
// KeyPair, and how to use it.
type CoreOptions struct {
	// Name is that of one of our cores, in the view's namespace. The first
	// time the core is made.
	Name string

	// Key is that of any core. One that is not stored is made, empty, to be
	// filled by peers.
	Key *manifest.Key

	// DiscoveryKey is that of a core that is stored.
	DiscoveryKey *[32]byte

	// Manifest is that of a core whose key is its hash, or that of Name.
	Manifest *manifest.Manifest

	// KeyPair signs what is appended. Alone it means the core that has the key
	// pair's default manifest. It is kept with the core, so that it need not
	// be given again.
	KeyPair *manifest.KeyPair

	// Encryption is for this session: it reads and writes blocks through it.
	// Nil takes them as they are.
	Encryption *hypercore.Encryption

	// Existing refuses, with NotExist, to make a core that is not stored.
	Existing bool
}

// Get returns a session of the core that has a name in this view's namespace,
// and makes the core the first time. It is ours, so it can be written.
func (s *Store) Get(name string) (*hypercore.Core, error) { return s.Core(CoreOptions{Name: name}) }

// GetKey returns a session of the core that has a key. One that was never seen
// is empty until a peer has it; one of ours can be written.
func (s *Store) GetKey(key manifest.Key) (*hypercore.Core, error) {
	return s.Core(CoreOptions{Key: &key})
}

// Core returns a session of a core. Close it when done.
func (s *Store) Core(o CoreOptions) (*hypercore.Core, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.working.Done()
	w, err := s.wanted(o)
	if err != nil {
		return nil, err
	}
	e, err := s.hold(w)
	if err != nil {
		return nil, err
	}
	defer s.release(e, 0)
	return s.session(e, o, w)
}

// A want is a core to be opened.
type want struct {
	discovery [32]byte
	key       *manifest.Key      // nil where only its discovery key is known
	manifest  *manifest.Manifest // nil where it is not known
	pair      *manifest.KeyPair  // nil where it is not ours, or its own record says
	origin    origin             // how pair is found again
	alias     string             // to be noted once the core is there; "" for none
	existing  bool
}

// wanted finds out which core is meant.
func (s *Store) wanted(o CoreOptions) (want, error) {
	if o.Name != "" {
		return s.named(o)
	}
	w := want{key: o.Key, manifest: o.Manifest, pair: o.KeyPair, existing: o.Existing}
	if w.pair != nil {
		seed := w.pair.Seed()
		w.origin = origin{seed: seed[:]}
	}
	if w.key == nil && w.manifest == nil && o.DiscoveryKey == nil && w.pair != nil {
		m := manifest.Default(w.pair.Public)
		w.manifest = &m
	}
	return w.located(o.DiscoveryKey)
}

// located finds out a core's discovery key.
func (w want) located(discovery *[32]byte) (want, error) {
	if w.key == nil && w.manifest != nil {
		key := w.manifest.Key()
		w.key = &key
	}
	switch {
	case w.key != nil:
		w.discovery = w.key.DiscoveryKey()
	case discovery != nil:
		w.discovery = *discovery
	default:
		return w, cloudpal.E("open a core", cloudpal.Invalid, errors.New("neither a name nor a key says which"))
	}
	return w, nil
}

// named is wanted for a name: what it was given to, else the core whose key
// pair is derived of it.
func (s *Store) named(o CoreOptions) (want, error) {
	found, ok, err := s.disk.Alias(s.namespace, o.Name)
	if err != nil {
		return want{}, err
	}
	if ok {
		return want{discovery: found, existing: true}, nil
	}
	pair := s.KeyPair(o.Name)
	if o.Manifest == nil {
		m := manifest.Default(pair.Public)
		o.Manifest = &m
	}
	w := want{
		manifest: o.Manifest, pair: &pair, alias: o.Name, existing: o.Existing,
		origin: origin{namespace: s.namespace, name: o.Name},
	}
	return w.located(nil)
}

// A session is what the store knows of one that it gave away.
type session struct {
	core  *hypercore.Core
	view  *Store
	entry *entry
}

// session makes a session on an open core.
func (s *Store) session(e *entry, o CoreOptions, w want) (*hypercore.Core, error) {
	pair := w.pair
	if pair == nil {
		pair = e.pair.Load()
	}
	out := &session{view: s, entry: e}
	core, err := hypercore.Open(s.disk, e.core.Key(), hypercore.Options{
		KeyPair: pair, Encryption: o.Encryption, OnClose: out.end,
	})
	if err != nil {
		return nil, err
	}
	out.core = core
	links, ok := s.note(out)
	if !ok {
		return nil, errors.Join(errClosed, core.Close())
	}
	if len(links) > 0 || e.quiet.Load() {
		s.wake(e, links)
	}
	return core, nil
}

// note keeps a session to be closed with the view, unless the view is. Of a core
// that had none it returns the connections that it is to take part in.
func (s *Store) note(o *session) (links []*link, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ended {
		return nil, false
	}
	s.sessions[o] = struct{}{}
	o.entry.users++
	if o.entry.sessions++; o.entry.sessions == 1 {
		links = slices.Collect(maps.Values(s.links))
	}
	return links, true
}

// wake has a core that somebody uses ask its peers for what it lacks.
func (s *shared) wake(e *entry, links []*link) {
	s.hush(e)
	for _, l := range links {
		s.offer(e, l)
	}
}

// hush turns the asking off or on, as nobody or somebody uses the core.
func (s *shared) hush(e *entry) {
	e.hushing.Lock()
	defer e.hushing.Unlock()
	s.mu.Lock()
	quiet := e.sessions == 0
	s.mu.Unlock()
	if e.quiet.Swap(quiet) != quiet {
		e.peers.SetDownload(!quiet)
	}
}

// end is called when a session is closed.
func (o *session) end() {
	s := o.view.shared
	s.mu.Lock()
	_, noted := s.sessions[o]
	if noted {
		delete(s.sessions, o)
		o.entry.sessions--
	}
	s.mu.Unlock()
	if noted {
		s.release(o.entry, 0)
	}
}

// An entry is a core that is open, or being opened or closed.
type entry struct {
	discovery [32]byte
	ready     chan struct{} // closed once core and peers, or err, are there
	core      *hypercore.Core
	peers     *protocol.Replicator
	err       error
	pair      atomic.Pointer[manifest.KeyPair] // that the store has for it, or nil

	hushing sync.Mutex
	quiet   atomic.Bool // peers are asked for nothing

	// What shared.mu guards.
	users    int           // who needs it open: sessions, and whoever opens it
	sessions int           // of these, those that were given away
	gone     chan struct{} // made when closing begins, closed when it ends
}

// hold returns an open core, and opens it where it is not, for the caller to
// release.
func (s *shared) hold(w want) (*entry, error) {
	e, first, err := s.take(w.discovery)
	if err != nil {
		return nil, err
	}
	if first {
		e.err = s.start(e, w)
		close(e.ready)
	}
	<-e.ready
	if e.err != nil {
		s.forget(e)
		return nil, e.err
	}
	if err := s.complete(e, w); err != nil {
		s.release(e, 0)
		return nil, err
	}
	return e, nil
}

// take returns the entry of a core with one user more. First says that the
// caller is to open it.
func (s *shared) take(discovery [32]byte) (e *entry, first bool, err error) {
	for {
		s.mu.Lock()
		if s.ended {
			s.mu.Unlock()
			return nil, false, errClosed
		}
		e = s.cores[discovery]
		if e == nil || e.gone == nil {
			break
		}
		s.mu.Unlock()
		<-e.gone
	}
	defer s.mu.Unlock()
	if e == nil {
		e, first = &entry{discovery: discovery, ready: make(chan struct{})}, true
		s.cores[discovery] = e
	}
	e.users++
	delete(s.idle, e)
	return e, first, nil
}

// forget is release for a core that could not be opened.
func (s *shared) forget(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.users--; s.cores[e.discovery] == e {
		delete(s.cores, e.discovery)
	}
}

// release says that one user less has the core. The last leaves it open a
// while, at least the grace: whoever looks for it next may be near.
func (s *shared) release(e *entry, grace time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.users--; e.users > 0 || s.ended {
		return
	}
	wait := max(s.linger, grace, 0)
	s.idle[e] = time.Now().Add(wait)
	if s.sweep == nil {
		s.sweep = time.AfterFunc(wait, s.closeIdle)
	}
}

// start opens a core, and makes it where it is not stored and may be made.
func (s *shared) start(e *entry, w want) (err error) {
	e.core, err = hypercore.OpenStored(s.disk, w.discovery, hypercore.Options{})
	if errors.Is(err, cloudpal.NotExist) && !w.existing && w.key != nil {
		e.core, err = s.make(w)
	}
	if err != nil {
		return err
	}
	pair, err := s.pairOf(e.core)
	if err != nil {
		return errors.Join(err, e.core.Close())
	}
	e.pair.Store(pair)
	e.quiet.Store(true)
	key := e.core.Key()
	e.peers = protocol.NewReplicator(e.core, protocol.Options{
		NoDownload: true, UploadLimit: s.upload, DownloadLimit: s.download,
		OnPeer: func(p *protocol.Peer) { s.tell(p, key, nil) },
		OnGone: func(p *protocol.Peer, why error) { s.tell(p, key, why) },
	})
	return nil
}

func (s *shared) make(w want) (*hypercore.Core, error) {
	if w.manifest == nil {
		return hypercore.Open(s.disk, *w.key, hypercore.Options{})
	}
	return hypercore.Create(s.disk, hypercore.Options{Manifest: w.manifest, KeyPair: w.pair})
}

// closeIdle closes the cores that nobody has used for a while, and that no peer
// reads.
func (s *shared) closeIdle() {
	for _, e := range s.due() {
		s.hush(e) // the peer, where it has no questions either, then leaves
		if !s.retire(e) {
			continue
		}
		e.close()
		s.bury(e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweep = nil; len(s.idle) > 0 && !s.ended {
		s.sweep = time.AfterFunc(max(s.linger/2, sweepPause), s.closeIdle)
	}
}

// sweepPause is how often cores that nobody uses are looked at, at most.
const sweepPause = 50 * time.Millisecond

// due returns the cores whose time has come.
func (s *shared) due() (due []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for e, when := range s.idle {
		if !now.Before(when) {
			due = append(due, e)
		}
	}
	return due
}

// retire takes a core out of use that is still idle, until bury.
func (s *shared) retire(e *entry) bool {
	peers := e.peers.Peers()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, idle := s.idle[e]; !idle || len(peers) > 0 || s.ended {
		return false
	}
	delete(s.idle, e)
	e.gone = make(chan struct{})
	s.working.Add(1)
	return true
}

// close closes a core that has no users, or is to have none any more.
func (e *entry) close() error {
	<-e.ready
	if e.err != nil {
		return nil
	}
	return errors.Join(e.peers.Close(), e.core.Close())
}
