// Package storage keeps many hypercores in one log and one Pebble database.
//
// A Store is a folder with both. The log has the blocks, each written once, and
// beside them what each commit changes in the database, whose write-ahead log it
// is: one sync of one file serves whoever waits for one. The database finds
// things; opening a store costs the same whether it holds one core or ten
// thousand: nothing is scanned, and a core is read when it is asked for.
//
// What is kept of a core is found under its number (8 bytes, big endian), a
// kind (1 byte) and an index (8 bytes, big endian):
//
//	i  identity: key, manifest, and a key pair's seed where one is kept
//	h  head: fork, length, bytes, contiguous length, signature
//	l  where in the log 64 blocks are, as hashed and sent (encrypted, where the core is)
//	b  a block of less than 512 bytes, itself
//	t  a tile: up to fifteen nodes of the Merkle tree, four levels of it
//	p  a page: 4,096 bits that say which blocks beyond the contiguous ones are here
//	u  user data, by name
//
// Number 0 is the store's own: its format, the next number, the number of
// every discovery key, aliases, what a program keeps for all its cores, where in
// the log the last commit ends, and how many bytes of each segment of the log
// are still needed.
//
// All changes go through a Batch. A batch is applied whole or not at all, also
// by a process that is killed or a machine that loses power; Commit returns
// when all in this process see it, and Sync when it is on disk, with all that
// was committed before. What the database had in memory only is taken from the
// log when the store is opened, up to the first commit that is not whole; the log
// is brought to disk before the database writes a table, so that the database
// never knows of blocks that a loss of power has taken.
//
// Blocks that are removed, by a clear or a truncation, give their room back when
// a segment of the log has no other, or when more than half of the log is not
// needed: then what is needed moves. A View keeps what it may read.
//
// A store of format 1, which had all blocks in tables, opens as it is and becomes
// one of format 2: its blocks stay where they are.
//
// A disk that is full or fails makes the store refuse further changes with a
// clear error, while what can be read stays readable. Nothing is damaged: the
// store opens again, once the disk has room, with all that was synced.
//
// What this package writes is its own and may differ from what the JavaScript
// hypercore-storage does; what peers see is decided in package hypercore.
package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
)

// Options tune a Store. The zero value is what most programs want.
type Options struct {
	// FS is the file system that the folder is on. Nil is the machine's own;
	// vfs.NewMem() keeps the store in memory.
	FS vfs.FS

	// Cache is how many bytes of the database are kept in memory, buffers of
	// recent changes included, beside what the operating system caches. 0
	// means 64 MiB; memory is used as it is needed.
	Cache int64

	// Buffer is how many bytes of recent changes are held in memory before
	// they are sorted to disk; up to four times as much may be in use. 0 means
	// 4 MiB.
	Buffer uint64

	// ReadOnly opens a store that exists and changes nothing on disk.
	ReadOnly bool
}

// A Store is a database of cores. All methods may be used at the same time.
type Store struct {
	db      *pebble.DB
	reader  pebble.Reader // the database, and what the log has beyond it
	overlay *pebble.Batch // that, in a store for reading only; nil where there is none
	log     log
	places  placeCache
	fs      vfs.FS
	lock    io.Closer
	dir     string
	ro      bool

	large int // batches above this are not copied into a buffer

	// commits lets one batch into Pebble at a time: if the disk fails under
	// it, those that wait are told, instead of being left waiting inside.
	commits sync.Mutex

	failure  atomic.Pointer[error] // why nothing is written any more
	refusing chan struct{}         // closed with it
	flow     flow

	// Of who commits, as the database is.
	placing placing
	live    map[uint32]int64 // bytes of each segment of the log that are needed
	current uint32           // the segment of the last commit

	mu     sync.Mutex
	next   uint64              // the number of the next core
	shared map[[32]byte]*share // what is in use, by discovery key
	views  map[*View]struct{}  // that hold a snapshot of the database
	closed bool

	// Of who reclaims room in the log.
	sorted    chan struct{} // told when the database has made tables
	closing   chan struct{} // closed by Close
	reclaimed chan struct{} // closed when nothing is reclaimed any more; nil where nothing ever is
	reclaims  sync.Mutex
	stuck     map[uint32]bool // segments that cannot be emptied, for a block of them cannot be read
	buf       []byte          // for blocks

	readers gate // of the database
	writers gate // of the folder
}

// Open opens the store in a folder, and makes it where there is none. One
// process at a time may have it open: the second gets Busy.
func Open(dir string, o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	s := &Store{fs: o.FS, dir: dir, ro: o.ReadOnly, shared: map[[32]byte]*share{}, views: map[*View]struct{}{}}
	s.flow.change.L = &s.flow.mu
	s.placing.s = s
	s.places.m = map[placesKey][]byte{}
	s.sorted, s.closing = make(chan struct{}, 1), make(chan struct{})
	s.stuck = map[uint32]bool{}
	s.refusing = make(chan struct{})
	s.readers.idle, s.writers.idle = make(chan struct{}, 1), make(chan struct{}, 1)
	if err := s.open(o); err != nil {
		return nil, cloudpal.E("open the store "+dir, kindOf(err), err).WithHint(hintOf(err))
	}
	return s, nil
}

// Memory returns an empty store that is kept in memory.
func Memory() *Store {
	s, err := Open("", Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err) // memory neither fills nor fails
	}
	return s
}

func (s *Store) open(o Options) (err error) {
	if !o.ReadOnly {
		if err := makeFolder(s.fs, s.dir); err != nil {
			return err
		}
	}
	if s.lock, err = s.fs.Lock(s.fs.PathJoin(s.dir, "LOCK")); err != nil {
		return locked{err}
	}
	defer func() {
		if err != nil {
			s.leave()
		}
	}()
	if err := s.guard(func() (err error) {
		s.db, err = pebble.Open(s.dir, s.options(o))
		return err
	}); err != nil {
		return err
	}
	s.reader = s.db
	s.flow.start(s.db, uint64(2*s.large))
	for _, step := range []func() error{s.failed, s.replay, s.readLive, s.begin} {
		if err = step(); err != nil {
			return err
		}
	}
	if !s.ro {
		s.reclaimed = make(chan struct{})
		go s.reclaiming()
		s.wakeReclaim()
	}
	return nil
}

// leave closes the database, or leaves it where that cannot be, and gives the
// folder free. The caller holds commits, or is alone.
func (s *Store) leave() (err error) {
	if s.db != nil {
		s.sort()
		s.finish()
		if err = s.failed(); err == nil {
			s.refuse(ErrClosed)
			err = s.guard(s.close)
		}
	}
	s.writers.shut()
	return errors.Join(err, s.log.shut(), s.lock.Close())
}

// close closes the database.
func (s *Store) close() error {
	if s.overlay != nil {
		s.overlay.Close()
	}
	return s.db.Close()
}

// finish notes in the log that all is on disk.
func (s *Store) finish() {
	if s.ro || s.failed() != nil {
		return
	}
	if err := s.log.finish(); err != nil {
		s.refuse(err)
	}
}

// format is the version of what is written; a store with a later one is left
// alone.
const format = 2

// inTables is the format of a store whose blocks are all in tables: that of one of
// today of which all are small.
const inTables = 1

// begin reads the store's own records, and writes them in a new store.
func (s *Store) begin() error {
	version, found, err := s.number(formatKey())
	if err != nil {
		return err
	}
	if found && version != format && version != inTables {
		return cloudpal.E("read the format", cloudpal.Invalid, fmt.Errorf("the store has format %d, not %d", version, format)).
			WithHint("use the program that wrote it, or a later one")
	}
	if !found {
		s.next = 1
		if s.ro {
			return nil
		}
		// Who made the folder may have been cut off before its name was on disk.
		if err := syncParent(s.fs, s.dir); err != nil {
			return err
		}
		return s.setFormat()
	}
	next, found, err := s.number(nextKey())
	if !found {
		next = 1
	}
	s.next = next
	if err == nil && version == inTables && !s.ro {
		err = s.setFormat()
	}
	return err
}

func (s *Store) setFormat() error {
	b := s.Begin()
	defer b.Close()
	b.set(formatKey(), appendNumber(nil, format))
	if err := b.Commit(); err != nil {
		return err
	}
	return s.Sync()
}

// Sync returns when all that was committed before is on disk. Those who wait
// at the same time share one sync.
func (s *Store) Sync() error {
	if s.ro {
		return nil
	}
	wait, err := s.startSync()
	if err == nil {
		err = wait()
	}
	if err != nil {
		return s.fail("sync", err)
	}
	return nil
}

// Close syncs and closes the store. All that is still open fails from then on,
// with ErrClosed. Close waits for reads that are under way, so it must not be
// called by the body of a loop over Cores or Aliases.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()

	close(s.closing)
	if s.reclaimed != nil {
		<-s.reclaimed
	}
	err := s.Sync()
	s.readers.shut()
	s.dropViews()
	s.commits.Lock()
	defer s.commits.Unlock()
	return errors.Join(err, s.leave())
}

// sort brings to tables what the log alone has, unless that is little: whoever
// opens the store next would have to do so first.
func (s *Store) sort() {
	if s.ro || s.failed() != nil {
		return
	}
	if d, err := s.durable(); err == nil && s.log.end < max(d.end, positionOf(1, segmentHeadSize))+little {
		return
	}
	var done <-chan struct{}
	if err := s.guard(func() (err error) { done, err = s.db.AsyncFlush(); return err }); err != nil {
		s.refuse(err)
		return
	}
	select {
	case <-done:
	case <-s.refusing:
	}
}

// little is how many bytes are read from the log in no time.
const little = 64 << 10

// ErrClosed is why nothing is read or written any more after Close.
var ErrClosed = errors.New("the store is closed")

// locked says that a folder's lock is held.
type locked struct{ error }

func (l locked) Unwrap() error { return l.error }

// kindOf sorts what a disk or Pebble may say.
func kindOf(err error) cloudpal.Kind {
	var l locked
	switch {
	case cloudpal.KindOf(err) != cloudpal.Other:
		return cloudpal.KindOf(err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return cloudpal.NoSpace
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return cloudpal.Denied
	case errors.Is(err, os.ErrNotExist), errors.Is(err, pebble.ErrDBDoesNotExist):
		return cloudpal.NotExist
	case errors.As(err, &l):
		return cloudpal.Busy
	case pebble.IsCorruptionError(err):
		return cloudpal.Corrupt
	}
	return cloudpal.Other
}

// hintOf returns what a person can do about it.
func hintOf(err error) string {
	if hint := cloudpal.HintOf(err); hint != "" {
		return hint
	}
	switch kindOf(err) {
	case cloudpal.Busy:
		return "another process has the store open; stop it, or ask it"
	case cloudpal.NoSpace:
		return "make room on the disk, then open the store again; what was synced is there"
	case cloudpal.Denied:
		return "check who owns the folder and whether it can be written"
	case cloudpal.Corrupt:
		return "the disk returned other bytes than were written; restore the store from a peer or a backup"
	}
	if errors.Is(err, ErrClosed) {
		return ""
	}
	return "the disk failed; check it, then open the store again; what was synced is there"
}
