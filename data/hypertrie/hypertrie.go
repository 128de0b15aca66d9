// Package hypertrie is a map from paths to values in an append-only log, block
// for block the one that the JavaScript hypertrie 5 writes.
//
// Each change is one block of the log: a node with the key, the value and a
// trie, which says where the other keys are as seen from this one. A key's way
// through the trie is a hash of each part of its path, two bits at a time; so
// keys with the same first parts lie together, and Get, in a log of a million
// keys, reads about ten blocks. For keys in the order of their bytes there is
// package hyperbee, whose log is read by more programs; this package is for
// logs that are hypertries already, and for trees of names.
//
//	trie := hypertrie.New(core, hypertrie.Options{})
//	err := trie.Put(ctx, "people/ann", []byte("12"))
//	entry, err := trie.Get(ctx, "people/ann")   // cloudpal.NotExist when it is not there
//	for entry, err := range trie.List(ctx, "people", hypertrie.List{}) { ... }
//
// # Keys
//
// A key is a path of parts with slashes between them, in UTF-8. Slashes at its
// start and its end make no difference. A prefix is a whole number of parts:
// "peo" is none of "people/ann". The empty key cannot be set, since the original
// takes its block for an emptied trie.
//
// A trie has a second, hidden set of keys, which no list of the first one
// shows: see Hidden. An Entry also has flags, whose meaning is the user's.
//
// # Versions
//
// A version is the length of the log at that time; 1 is the empty trie, whose
// log has only a header. Checkout reads an old one, Snapshot keeps the present
// one, Diff compares two, History lists the blocks, and Watch waits for new
// ones. To delete a key is to write the nearest other key again, without it: so
// a Diff shows that one as changed, too, and History shows no deletions.
//
// # What is compatible
//
// Logs. Over a hypercore of today, hypertrie 5.1.3 runs as it did over those of
// its time, when its log is wrapped to have callbacks; what it writes is read
// here, and the blocks written here are those that it would write, to the
// byte, which the tests compare over thousands of random operations; but where
// hashes collide, its order of those that do depends on what it read first.
// Four things differ, where the original loses data: it cannot delete a key
// whose hash collides with another's; after a batch that deletes the last key
// and goes on, its readers fail; it writes keys with a slash at the end as
// such, where they hide the key without; and of several slashes at the start it
// writes all but one, and loses another at each reading.
//
// Not here: the extension by which readers ask a peer to look keys up for them,
// and the replication protocol of hypercore 9, which hypertrie came with; who
// has such a log must bring its blocks into a hypercore of today first. The
// option to find keys by another hash is for tests only.
//
// # Blocks from strangers
//
// A log is signed, but not checked for sense. A node may only refer to blocks
// before it, at places where its hash belongs; all else is cloudpal.Corrupt. So
// every operation ends, in a time that the log's length bounds.
package hypertrie

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/tradle/cloudpal"
)

// A Log is what a trie stands on: *hypercore.Core, or whatever else keeps
// blocks in order. It must be safe for concurrent use. Get's slice belongs to
// the caller; it may wait for a block that has to come from elsewhere, until
// ctx ends. Append copies its blocks, appends all or none, and returns the new
// length. Fork changes, upwards, when the log was cut and may have other blocks
// at the old numbers.
type Log interface {
	Length() uint64
	Fork() uint64
	Get(ctx context.Context, index uint64) ([]byte, error)
	Append(blocks ...[]byte) (length uint64, err error)
}

// Options are how to open a trie. The zero value is good.
type Options struct {
	// Header is that of a trie that is new. Its Type is filled in.
	Header Header
	// CacheNodes bounds how many nodes are kept in memory, of this trie and of
	// all that are made of it; 0 is 4096.
	CacheNodes int
}

const defaultCache = 4096

// MaxKey is how long a key can be, in bytes.
const MaxKey = 1 << 16

// A Trie is one version of a map, or its newest one. It is safe for concurrent
// use; writers wait for each other.
type Trie struct {
	shared  *shared
	log     Log    // shared.log, or a snapshot of it
	version uint64 // 0 is whatever is the newest
	fork    uint64 // of a fixed version
	hidden  uint64 // flagHidden, or 0
	close   func()
}

// shared is what a trie has in common with those made of it.
type shared struct {
	log    Log
	header Header
	cache  *cache
	lock   chan struct{} // full while somebody writes
	hash   func(part string) [8]byte
}

// An Entry is a key with its value, and the number of the block that set it.
// The header is block 0, so an Entry whose Seq is 0 is none. A Value of nil is
// none, one that is empty is empty. Slices are not to be changed.
type Entry struct {
	Seq   uint64
	Key   string
	Value []byte
	Flags uint64 // up to MaxFlags
}

// MaxFlags is the largest value that flags can have. The original has room for
// so many.
const MaxFlags = 1<<23 - 1

// New returns the trie in log. Nothing is read or written yet.
func New(log Log, o Options) *Trie {
	if o.CacheNodes == 0 {
		o.CacheNodes = defaultCache
	}
	return &Trie{log: log, shared: &shared{
		log: log, header: o.Header, cache: newCache(o.CacheNodes), lock: make(chan struct{}, 1), hash: hash,
	}}
}

// Hidden returns the trie's hidden keys. They are a part of it: a lock, a
// version and the history are of both.
func (t *Trie) Hidden() *Trie {
	h := *t
	h.hidden, h.close = flagHidden, nil
	return &h
}

// Header reads the trie's first block. It waits for a log that is still empty.
func (t *Trie) Header(ctx context.Context) (Header, error) {
	raw, err := t.log.Get(ctx, 0)
	if err != nil {
		return Header{}, cloudpal.E("read the header", "", err)
	}
	return decodeHeader(raw)
}

// Version is the log's length at this version, at least 1.
func (t *Trie) Version() uint64 {
	if t.version > 0 {
		return t.version
	}
	return max(1, t.log.Length())
}

// Get returns a key's entry, or cloudpal.NotExist.
func (t *Trie) Get(ctx context.Context, key string) (Entry, error) {
	for {
		v := t.view()
		n, err := v.get(ctx, key, false)
		switch {
		case t.version == 0 && t.log.Fork() != v.fork && ctx.Err() == nil:
			continue // the log was cut while we read
		case err != nil:
			return Entry{}, cloudpal.E("get a key", "", err)
		case n == nil:
			return Entry{}, cloudpal.E("get a key", cloudpal.NotExist, nil)
		}
		return n.entry(), nil
	}
}

// Put sets a key. A nil value is "none", which is still an entry; an empty one
// is empty.
func (t *Trie) Put(ctx context.Context, key string, value []byte) error {
	_, err := t.PutIf(ctx, Entry{Key: key, Value: value}, nil)
	return err
}

// A Swap decides on a change, given the entry as it is and as it would be. One
// that there is not has Seq 0.
type Swap func(prev, next Entry) bool

// PutIf sets a key, with its value and flags, where swap agrees; nil always
// does. It reports whether something was written.
func (t *Trie) PutIf(ctx context.Context, e Entry, swap Swap) (bool, error) {
	b := t.Batch()
	defer b.Close()
	done, err := b.PutIf(ctx, e, swap)
	if err != nil || !done {
		return false, err
	}
	return true, b.Flush()
}

// Delete removes a key. One that is not there is no error, and writes nothing.
func (t *Trie) Delete(ctx context.Context, key string) error {
	_, err := t.DeleteIf(ctx, key, nil)
	return err
}

// DeleteIf is Delete where swap agrees; next has the key only. It reports
// whether it deleted something.
func (t *Trie) DeleteIf(ctx context.Context, key string, swap Swap) (bool, error) {
	b := t.Batch()
	defer b.Close()
	done, err := b.DeleteIf(ctx, key, swap)
	if err != nil || !done {
		return false, err
	}
	return true, b.Flush()
}

// Checkout returns the trie as it was at a version; 0 and 1 are the empty one.
// It stays as it is when the log is cut and written anew, where the log has
// snapshots. A version that the log has not reached yet is waited for by those
// who read. Close it.
func (t *Trie) Checkout(version uint64) *Trie {
	old := &Trie{shared: t.shared, hidden: t.hidden, version: max(1, version)}
	if version > t.log.Length() {
		old.log, old.fork = t.log, t.log.Fork()
		return old
	}
	old.log, old.fork, old.close = t.freeze()
	return old
}

// Snapshot returns the trie as it is now. Close it.
func (t *Trie) Snapshot() *Trie {
	now := &Trie{shared: t.shared, hidden: t.hidden, version: t.version}
	now.log, now.fork, now.close = t.freeze()
	if t.version == 0 {
		now.version = max(1, now.log.Length())
	}
	return now
}

// Close releases a checkout or a snapshot. It does nothing to the log of
// another trie.
func (t *Trie) Close() {
	if t.close != nil {
		t.close()
	}
}

// normal returns a key as it is written, or cloudpal.Invalid.
func normal(key string) (string, error) {
	key = strings.Trim(key, "/")
	var trouble string
	switch {
	case key == "":
		trouble = "it is empty"
	case len(key) > MaxKey:
		trouble = "it is too long"
	case !utf8.ValidString(key):
		trouble = "it is not UTF-8"
	default:
		return key, nil
	}
	return "", cloudpal.E("use a key", cloudpal.Invalid, errors.New(trouble))
}
