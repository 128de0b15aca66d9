// Package hyperbee is a sorted map in an append-only log: a B-tree of which
// every version can still be read, byte for byte the one that the JavaScript
// hyperbee 2 writes.
//
// Each change is one block of the log. The block has the key and the value,
// and the tree nodes on the way to them as they are after the change; all that
// did not change is referred to by number. So the newest block has the root of
// the newest tree, the block before it the root of the tree before, and a
// reader who has nothing needs a handful of blocks to find a key in a million.
//
//	bee := hyperbee.New(core, hyperbee.Options{})
//	err := bee.Put(ctx, []byte("ann"), []byte("12"))
//	entry, err := bee.Get(ctx, []byte("ann"))   // cloudpal.NotExist when it is not there
//	for entry, err := range bee.Range(ctx, hyperbee.Range{GTE: []byte("a"), LT: []byte("b")}) { ... }
//
// Keys are bytes, in the order of bytes.Compare, and so are values. Map puts
// types over them, with the encodings of the original: text, JSON, numbers that
// sort. Sub makes a bee of the keys below a name.
//
// # Versions
//
// A version is the length of the log at that time; 1 is the empty bee, whose
// log has only a header. Checkout reads an old one, Snapshot keeps the present
// one, Diff compares two, History lists the changes themselves, and Watch waits
// for new ones. A batch is one step of the log, and the versions inside it are
// none: to read one is an error, or gives a part of the tree.
//
// # Blocks from strangers
//
// A bee is often somebody else's, and its log signed but not checked for sense.
// Whatever stands in a block, an operation ends: with an answer, or with an
// error of kind cloudpal.Corrupt. A tree that leads in circles, or lists its
// keys out of order, is found by walking it.
//
// # Not as in the original
//
// Get does not ask peers for news by itself (call the log's Update), and a
// history or a checkout of a Sub has only the keys of that Sub. A nil value is
// JavaScript's null. The hints by which peers tell each other which blocks an
// operation will need are sent and answered after ShareHints only, where the
// original always does; of a Diff nobody hints, as there. There is no
// clearUnlinked, which frees the room of blocks that only old versions have: a
// core's Clear forgets any block, here.
package hyperbee

import (
	"bytes"
	"context"
	"sync/atomic"

	"github.com/tradle/cloudpal"
)

// A Log is what a bee stands on: *hypercore.Core, or whatever else keeps
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

// Options are how to open a bee. The zero value is good.
type Options struct {
	// Metadata goes into the header of a bee that is new.
	Metadata *Metadata
	// SkipEqual writes nothing where a key has the value already, as the
	// original does with alwaysDuplicate: false.
	SkipEqual bool
	// ReadOnly refuses changes.
	ReadOnly bool
	// CacheBytes bounds the memory for tree nodes, of this bee and of all that
	// are made of it; 0 is 16 MiB.
	CacheBytes int64
}

const defaultCache = 16 << 20

// A Bee is one version of a sorted map, or its newest one. It is safe for
// concurrent use; writers wait for each other.
type Bee struct {
	tree    *tree
	log     Log    // tree.log, or a snapshot of it
	version uint64 // 0 is whatever is the newest
	fork    uint64 // of a fixed version
	prefix  []byte // of a sub's keys
	close   func()
}

// A tree is what a bee shares with those made of it.
type tree struct {
	log       Log
	cache     *cache
	metadata  *Metadata
	skipEqual bool
	readOnly  bool
	lock      chan struct{} // full while somebody writes
	hints     atomic.Pointer[hints]

	room // of the writer
}

// An Entry is a key with its value, and the number of the block that set it.
// The header is block 0, so an Entry whose Seq is 0 is none. The value of an
// entry without one is nil. The slices stay good, and are not to be changed.
type Entry struct {
	Seq   uint64
	Key   []byte
	Value []byte
}

// New returns the bee in log. Nothing is read or written yet.
func New(log Log, o Options) *Bee {
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCache
	}
	return &Bee{log: log, tree: &tree{
		log:       log,
		cache:     newCache(o.CacheBytes),
		metadata:  o.Metadata,
		skipEqual: o.SkipEqual,
		readOnly:  o.ReadOnly,
		lock:      make(chan struct{}, 1),
	}}
}

// Header reads the bee's first block. It waits for a log that is still empty.
func (b *Bee) Header(ctx context.Context) (Header, error) {
	raw, err := b.log.Get(ctx, 0)
	if err != nil {
		return Header{}, cloudpal.E("read header", "", err)
	}
	return decodeHeader(raw)
}

// Version is the log's length at this version, at least 1.
func (b *Bee) Version() uint64 {
	if b.version > 0 {
		return b.version
	}
	return max(1, b.log.Length())
}

// view begins an operation.
func (b *Bee) view() view {
	v := view{log: b.log, cache: b.tree.cache, fork: b.fork, version: b.version}
	if b.version == 0 {
		v.fork = b.log.Fork()
		v.version = max(1, b.log.Length())
		v.live = true
	}
	return v
}

// Get returns a key's entry, or cloudpal.NotExist.
func (b *Bee) Get(ctx context.Context, key []byte) (Entry, error) {
	for {
		v := b.view()
		full := b.fullKey(key)
		v.asker = b.asker(question{version: v.version, key: full}, nil)
		e, err := v.get(ctx, string(full))
		if b.version == 0 && b.log.Fork() != v.fork && ctx.Err() == nil {
			continue // the log was cut while we read
		}
		return b.strip(e, err)
	}
}

// BySeq returns the entry that the block at seq set. That of a deletion has no
// value.
func (b *Bee) BySeq(ctx context.Context, seq uint64) (Entry, error) {
	v := b.view()
	if seq == 0 || seq >= v.version {
		return Entry{}, cloudpal.NotExist
	}
	e, err := v.entry(ctx, seq)
	if err == nil && !bytes.HasPrefix(e.Key, b.prefix) {
		return Entry{}, cloudpal.NotExist
	}
	return b.strip(e, err)
}

// Put sets a key. A nil value is "none", which is still an entry; an empty one
// is empty.
func (b *Bee) Put(ctx context.Context, key, value []byte) error {
	_, err := b.PutIf(ctx, key, value, nil)
	return err
}

// PutIf is Put where swap agrees. A key without a value is set unasked. It
// reports whether something was written.
func (b *Bee) PutIf(ctx context.Context, key, value []byte, swap Swap) (bool, error) {
	batch := Batch{bee: b}
	defer batch.Close()
	if err := batch.Lock(ctx); err != nil {
		return false, err
	}
	done, err := batch.put(ctx, b.ownKey(key), value, swap)
	if err != nil {
		return false, err
	}
	return done, batch.Flush()
}

// Delete removes a key. One that is not there is no error, and writes nothing.
func (b *Bee) Delete(ctx context.Context, key []byte) error {
	_, err := b.DeleteIf(ctx, key, nil)
	return err
}

// DeleteIf is Delete where swap agrees; next has no value. It reports whether
// it deleted something.
func (b *Bee) DeleteIf(ctx context.Context, key []byte, swap Swap) (bool, error) {
	batch := Batch{bee: b}
	defer batch.Close()
	if err := batch.Lock(ctx); err != nil {
		return false, err
	}
	done, err := batch.delete(ctx, b.ownKey(key), swap)
	if err != nil {
		return false, err
	}
	return done, batch.Flush()
}

func (b *Bee) lock(ctx context.Context) error {
	if b.tree.readOnly || b.version > 0 {
		return errReadOnly
	}
	select {
	case b.tree.lock <- struct{}{}:
		return nil
	default:
	}
	select {
	case b.tree.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errReadOnly = cloudpal.E("write to a bee that is read-only or an old version", cloudpal.Denied, nil)

func (b *Bee) unlock() { <-b.tree.lock }

// Checkout returns the bee as it was at a version; 0 and 1 are the empty one.
// It stays as it is when the log is cut and written anew, where the log has
// snapshots. A version that the log has not reached yet is waited for by those
// who read. Close it.
func (b *Bee) Checkout(version uint64) *Bee {
	old := &Bee{tree: b.tree, prefix: b.prefix, version: max(1, version)}
	if version > b.log.Length() {
		old.log, old.fork = b.log, b.view().fork
		return old
	}
	old.log, old.fork, old.close = b.freeze()
	return old
}

// Snapshot returns the bee as it is now. Close it.
func (b *Bee) Snapshot() *Bee {
	now := &Bee{tree: b.tree, prefix: b.prefix, version: b.version}
	now.log, now.fork, now.close = b.freeze()
	if b.version == 0 {
		now.version = max(1, now.log.Length())
	}
	return now
}

// Close releases a checkout or a snapshot. It does nothing to the log of
// another bee.
func (b *Bee) Close() {
	if b.close != nil {
		b.close()
	}
}

// Sub returns the bee of the keys that begin with name and a zero byte, which
// it leaves out. It is a part of b: a batch, a lock and a version are of both.
// The open range of a sub leaves out the empty key and the key of one zero byte,
// as the original's does.
func (b *Bee) Sub(name string) *Bee { return b.SubSep(name, []byte{0}) }

// SubSep is Sub with other bytes after the name.
func (b *Bee) SubSep(name string, sep []byte) *Bee {
	s := *b
	s.close = nil
	s.prefix = append(append(bytes.Clone(b.prefix), name...), sep...)
	return &s
}

// fullKey is the key in the tree, of a key in the sub.
func (b *Bee) fullKey(key []byte) []byte {
	if len(b.prefix) == 0 {
		return key
	}
	full := make([]byte, 0, len(b.prefix)+len(key))
	return append(append(full, b.prefix...), key...)
}

func (b *Bee) ownKey(key []byte) string { return string(b.fullKey(key)) }

func (b *Bee) strip(e Entry, err error) (Entry, error) {
	if err != nil {
		return Entry{}, err
	}
	return b.stripped(e), nil
}

func (b *Bee) stripped(e Entry) Entry {
	if len(e.Key) >= len(b.prefix) { // an Entry that is none has no key
		e.Key = e.Key[len(b.prefix):]
	}
	return e
}
