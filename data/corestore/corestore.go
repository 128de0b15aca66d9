// Package corestore keeps many hypercores in one folder, makes the key pairs of
// those that have a name, and replicates all of them over one connection. It
// does what the JavaScript corestore 7 does: for the same primary key, the same
// names give the same cores.
//
//	store, err := corestore.Open("data", corestore.Options{})
//	notes, err := store.Get("notes")        // ours: made the first time, the same ever after
//	theirs, err := store.GetKey(key)        // somebody else's, by its key
//	go store.Replicate(ctx, conn, corestore.ReplicateOptions{Initiator: true})
//	block, err := theirs.Get(ctx, 0)        // fetched from whoever is connected
//
// # Names
//
// A named core's key pair is derived from the store's primary key, the
// namespace and the name, so a program needs to remember no keys, and a person
// who has a backup of the primary key can write all their cores again. A part
// of a program takes a Namespace, within which its names clash with nobody's.
// The primary key is made when the store is, and kept beside the database, in a
// folder that only its owner may read.
//
// # Sessions
//
// Get and GetKey return a session: each caller closes its own, all share the
// one core behind them. A core that nobody has a session of, and that no peer
// reads, is closed a moment later. Closing a Store that Namespace or Session
// returned closes the sessions that were opened through it, and only those.
//
// # Replication
//
// Replicate runs one connection. All cores that are open take part in it, those
// that are opened later join it, and one that is stored but closed is opened
// when the peer asks for it. A peer has to know a core's key to read it: what
// is sent before it has proved that it does are discovery keys, of which the
// key cannot be made.
//
// Who knows a core's key can read it and give it on for ever, so a key is as
// secret as what is in the core. ReplicateOptions.Allow narrows what one
// connection may have.
//
// # What is on disk
//
// All cores share one log and one Pebble database; see package
// storage. What is appended is in the database at once and on disk after Sync;
// one Sync serves all cores and everybody who waits for one. Opening a store
// reads nothing of its cores.
package corestore

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/time/rate"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/protomux"
	"github.com/tradle/cloudpal/data/storage"
)

// Options tune a Store. The zero value is what most programs want.
type Options struct {
	// PrimaryKey is what named cores' key pairs are derived from. Nil takes
	// the store's own, which is made at random in a new store. A store that
	// has another one is not opened.
	PrimaryKey *PrimaryKey

	// Existing refuses, with NotExist, to make a store where there is none.
	Existing bool

	// FS is the file system that the folder is on. Nil is the machine's own;
	// vfs.NewMem() keeps the store in memory.
	FS vfs.FS

	// Linger is how long a core stays open that nobody uses any more. 0 means
	// 8 s; negative, that it is closed at once.
	Linger time.Duration

	// UploadLimit and DownloadLimit bound the bytes per second of all blocks
	// that are sent and fetched. Nil is no limit.
	UploadLimit, DownloadLimit *rate.Limiter

	// Storage tunes the database. Its FS is the one above.
	Storage storage.Options
}

// defaultLinger is what the JavaScript corestore takes: four rounds of 2 s.
const defaultLinger = 8 * time.Second

// A core that a peer asked for stays open for a moment at least, in which both
// sides open their channel for it.
const (
	grace      = 2 * time.Second
	shortGrace = 100 * time.Millisecond // where Linger says at once
)

// A Store is one view of a folder of cores: with a namespace of its own, and
// its own sessions. All methods may be used at the same time.
type Store struct {
	*shared
	namespace Namespace
	top       bool // closing it closes the folder
	closed    bool // guarded by shared.mu
}

// shared is what all views of a folder have in common.
type shared struct {
	disk             *storage.Store
	primary          PrimaryKey
	linger           time.Duration
	grace            time.Duration
	upload, download *rate.Limiter

	noting sync.Mutex // held to write down what a core is

	mu        sync.Mutex
	cores     map[[32]byte]*entry     // that are open, or being opened or closed, by discovery key
	sessions  map[*session]struct{}   // of all views
	links     map[*protomux.Mux]*link // the connections
	idle      map[*entry]time.Time    // cores without users, and until when they stay
	sweep     *time.Timer             // set while any core is idle
	suspended bool
	ended     bool
	working   sync.WaitGroup // whoever uses the database, but for open cores
}

// Open opens the store in a folder, and makes it where there is none. One
// process at a time may have it open; the second gets an error of kind Busy.
func Open(dir string, o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if err := checkFolder(o.FS, dir, o.Existing); err != nil {
		return nil, err
	}
	o.Storage.FS = o.FS
	disk, err := storage.Open(dir, o.Storage)
	if err != nil {
		return nil, err
	}
	fresh, err := isEmpty(disk)
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	primary, err := loadPrimaryKey(o.FS, dir, o.PrimaryKey, fresh)
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return newStore(disk, primary, o), nil
}

// Memory returns an empty store that is kept in memory.
func Memory() *Store {
	s, err := Open("", Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err) // memory neither fills nor fails
	}
	return s
}

func newStore(disk *storage.Store, primary PrimaryKey, o Options) *Store {
	if o.Linger == 0 {
		o.Linger = defaultLinger
	}
	wait := grace
	if o.Linger < 0 {
		wait = shortGrace
	}
	s := &shared{
		disk: disk, primary: primary, linger: o.Linger, grace: wait, upload: o.UploadLimit, download: o.DownloadLimit,
		cores:    map[[32]byte]*entry{},
		sessions: map[*session]struct{}{},
		links:    map[*protomux.Mux]*link{},
		idle:     map[*entry]time.Time{},
	}
	return &Store{shared: s, top: true}
}

// Namespace returns a view of the store whose names are apart from those of s:
// the same name is another core there. Namespaces nest.
func (s *Store) Namespace(name string) *Store { return s.view(s.namespace.Below(name)) }

// Session returns another view of the store with the same names.
func (s *Store) Session() *Store { return s.view(s.namespace) }

func (s *Store) view(n Namespace) *Store {
	return &Store{shared: s.shared, namespace: n}
}

// PrimaryKey returns the secret that the store's key pairs come of, for a
// backup.
func (s *Store) PrimaryKey() PrimaryKey { return s.primary }

// KeyPair returns the key pair of a name in this view's namespace, which
// belongs to the store's owner alone. It is also that of the core which Get
// makes.
func (s *Store) KeyPair(name string) manifest.KeyPair {
	return s.primary.KeyPair(s.namespace, name)
}

// Sync returns when all that was acknowledged before, of all cores, is on disk.
func (s *Store) Sync() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.working.Done()
	return s.disk.Sync()
}

// enter keeps the database open until working.Done.
func (s *shared) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errClosed
	}
	s.working.Add(1)
	return nil
}

// Close closes all sessions that were opened through s. That of the Store which
// Open returned ends all connections, and closes all other views, all cores and
// the database.
func (s *Store) Close() error {
	open, first := s.shut()
	if !first {
		return nil
	}
	var errs []error
	for _, o := range open {
		errs = append(errs, o.core.Close())
	}
	if s.top {
		errs = append(errs, s.shared.close())
	}
	return errors.Join(errs...)
}

// shut refuses further sessions and returns those that are open.
func (s *Store) shut() (open []*session, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	s.closed = true
	s.ended = s.ended || s.top
	for o := range s.sessions {
		if s.top || o.view == s {
			open = append(open, o)
		}
	}
	return open, true
}

// close ends what all views share.
func (s *shared) close() error {
	s.endLinks(errClosed)
	s.working.Wait()
	s.mu.Lock()
	if s.sweep != nil {
		s.sweep.Stop()
	}
	open := slices.Collect(maps.Values(s.cores))
	s.mu.Unlock()
	var errs []error
	for _, e := range open {
		errs = append(errs, e.close())
	}
	return errors.Join(append(errs, s.disk.Close())...)
}

// Suspend ends all connections, refuses new ones until Resume, and brings
// everything to disk: the process can then be frozen, or killed, at any moment.
// Cores stay open and can be read and written.
func (s *Store) Suspend() error {
	s.mu.Lock()
	s.suspended = true
	s.mu.Unlock()
	for _, l := range s.endLinks(errSuspended) {
		<-l.ended
	}
	return s.Sync()
}

// Resume allows connections again.
func (s *Store) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspended = false
}

// endLinks ends all connections and returns them.
func (s *shared) endLinks(why error) []*link {
	s.mu.Lock()
	links := slices.Collect(maps.Values(s.links))
	s.mu.Unlock()
	for _, l := range links {
		l.mux.Destroy(why)
	}
	return links
}

var (
	errClosed    = cloudpal.E("use the store", cloudpal.Invalid, errors.New("it is closed"))
	errSuspended = cloudpal.E("replicate", cloudpal.Busy, errors.New("the store is suspended"))
)
