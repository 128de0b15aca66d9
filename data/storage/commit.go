package storage

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tradle/cloudpal"
)

// A Batch is a set of changes that are made together or not at all. It is not
// safe for concurrent use. Close it in the end, committed or not.
type Batch struct {
	store *Store
	b     *pebble.Batch
	err   error     // the first change that could not be noted
	cores []touched // whose head or tree changes
	buf   []byte    // for records, used again
}

// touched is a core that a batch changes, and its head to be.
type touched struct {
	core *Core
	head Head
}

// Begin starts a batch.
func (s *Store) Begin() *Batch { return &Batch{store: s, b: s.db.NewBatch()} }

// Reset empties a batch, so that it can be used again. What was not committed
// is forgotten.
func (b *Batch) Reset() {
	b.drop()
	b.b.Reset()
	b.err = nil
}

// Close gives a batch's memory back. What was not committed is forgotten.
func (b *Batch) Close() {
	b.drop()
	b.b.Close()
}

// touch returns what is noted of a core that changes.
func (b *Batch) touch(c *Core) *touched {
	for i := range b.cores {
		if b.cores[i].core == c {
			return &b.cores[i]
		}
	}
	b.cores = append(b.cores, touched{c, c.head})
	return &b.cores[len(b.cores)-1]
}

// drop forgets what was noted of cores in memory.
func (b *Batch) drop() {
	for _, t := range b.cores {
		t.core.tiles.mu.Lock()
		t.core.tiles.drop()
		t.core.tiles.mu.Unlock()
	}
	b.cores = b.cores[:0]
}

// flush moves what changed in memory into the batch.
func (b *Batch) flush() {
	for _, t := range b.cores {
		t.core.tiles.mu.Lock()
		for _, tile := range t.core.tiles.dirty {
			b.tile(t.core, tile)
		}
		t.core.tiles.mu.Unlock()
	}
}

func (b *Batch) tile(c *Core, t *tile) {
	k := makeKey(c.num, tileKind, t.root)
	if t.have == 0 {
		b.remove(k[:])
		return
	}
	t.encode(b.reserve(k[:], t.size()))
}

// settle makes what was committed what the cores are.
func (b *Batch) settle() {
	for _, t := range b.cores {
		t.core.tiles.mu.Lock()
		t.core.head = t.head
		t.core.tiles.written()
		t.core.tiles.mu.Unlock()
	}
	b.cores = b.cores[:0]
}

// Len returns how many bytes the batch holds so far.
func (b *Batch) Len() int { return b.b.Len() }

// Commit makes the changes, for all in this process to see. They are on disk
// when a Sync that began later has returned.
func (b *Batch) Commit() error {
	b.flush()
	if b.err != nil {
		return b.store.fail("write", b.err)
	}
	if b.b.Empty() {
		return nil
	}
	s := b.store
	if s.ro {
		return cloudpal.E("write to the store "+s.dir, cloudpal.Denied, errReadOnly)
	}
	if err := s.flow.wait(s); err != nil {
		return s.fail("write", err)
	}
	s.commits.Lock()
	defer s.commits.Unlock()
	if err := s.failed(); err != nil {
		return s.fail("write", err)
	}
	if err := s.guard(func() error { return s.db.Apply(b.b, pebble.NoSync) }); err != nil {
		s.refuse(err)
		return s.fail("write", err)
	}
	s.flow.wrote(b.b.Len(), b.b.Len() > s.large)
	b.settle()
	return nil
}

var errReadOnly = errors.New("it was opened for reading only")

func (b *Batch) set(k, v []byte) {
	if err := b.b.Set(k, v, nil); err != nil && b.err == nil {
		b.err = err
	}
}

// reserve notes a value of n bytes and returns where to put it.
func (b *Batch) reserve(k []byte, n int) []byte {
	op := b.b.SetDeferred(len(k), n)
	copy(op.Key, k)
	if err := op.Finish(); err != nil && b.err == nil {
		b.err = err
	}
	return op.Value
}

func (b *Batch) remove(k []byte) {
	if err := b.b.Delete(k, nil); err != nil && b.err == nil {
		b.err = err
	}
}

func (b *Batch) removeRange(from, to []byte) {
	if err := b.b.DeleteRange(from, to, nil); err != nil && b.err == nil {
		b.err = err
	}
}

// startSync asks for a sync and returns how to wait for it, so that nobody
// stands in the way of other commits while the disk works.
func (s *Store) startSync() (wait func() error, err error) {
	s.commits.Lock()
	defer s.commits.Unlock()
	if err := s.failed(); err != nil {
		return nil, err
	}
	b := s.db.NewBatch()
	b.LogData(nil, nil)
	if err := s.guard(func() error { return s.db.ApplyNoSyncWait(b, pebble.Sync) }); err != nil {
		s.refuse(err)
		return nil, err
	}
	return func() error {
		err := b.SyncWait()
		if err == nil && s.severed.Load() {
			err = s.failed()
		}
		if err != nil {
			s.refuse(err)
			return err
		}
		return b.Close()
	}, nil
}

// failed returns why nothing is written any more, or nil.
func (s *Store) failed() error {
	if why := s.failure.Load(); why != nil {
		return *why
	}
	return nil
}

// refuse makes the store refuse further changes. The first reason stays.
func (s *Store) refuse(why error) {
	if s.failure.CompareAndSwap(nil, &why) {
		close(s.refusing)
	}
	s.flow.wake()
}

// fail makes an error of this package.
func (s *Store) fail(op string, err error) error {
	return cloudpal.E(op+" the store "+s.dir, kindOf(err), err).WithHint(hintOf(err))
}

// A fatal is what Pebble says when it gives up.
type fatal struct{ error }

// guard runs f, in which Pebble may give up, and makes an error of that.
// Pebble's answer to a failing disk is to end the process; ours is to refuse
// changes and let the program decide.
func (s *Store) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = asError(p)
		}
	}()
	return f()
}

func asError(p any) error {
	if err, ok := p.(error); ok {
		if err, bug := p.(runtime.Error); bug {
			panic(err) // ours, or Pebble's
		}
		return err
	}
	return fmt.Errorf("%v", p)
}

// A logger drops Pebble's talk and hears its last words.
type logger struct{ s *Store }

func (logger) Infof(string, ...any)  {}
func (logger) Errorf(string, ...any) {}

// Fatalf must not return.
func (l logger) Fatalf(format string, args ...any) { l.s.giveUp(fatalError(format, args)) }

// giveUp does not return. Where a caller of ours is on the stack it gets an
// error; a goroutine of Pebble's own ends here, giving its locks back.
func (s *Store) giveUp(err error) {
	s.refuse(err)
	if calledBy(guardName) {
		panic(fatal{err})
	}
	runtime.Goexit()
}

// fatalError keeps the cause, so that a full disk is known as one.
func fatalError(format string, args []any) error {
	for _, arg := range args {
		if cause, ok := arg.(error); ok {
			return cause
		}
	}
	return fmt.Errorf(format, args...)
}

const guardName = "storage.(*Store).guard"

// A flow holds writers back while the disk is behind. Pebble would do so
// itself, but inside, where a disk that never catches up would leave the
// writer waiting for good.
type flow struct {
	mu     sync.Mutex
	change sync.Cond
	limit  int   // of bytes that wait
	filled int   // bytes in the buffer that is being filled
	queue  []int // bytes in each of those that wait to be sorted to disk
	queued int   // their sum
	sorted int   // tables on disk that are not merged with the rest yet
}

// Limits of what may wait. Pebble's own are set out of reach.
const (
	maxBuffers = 3 // full ones, in bytes
	maxSorted  = 40
)

// start begins the counts for a database as it was opened.
func (f *flow) start(db *pebble.DB, buffer uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = maxBuffers * int(buffer)
	f.filled, f.queue, f.queued = 0, nil, 0
	f.sorted = int(db.Metrics().Levels[0].TablesCount)
}

// wait returns when there is room for another batch.
func (f *flow) wait(s *Store) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.queued > f.limit || f.sorted > maxSorted {
		if err := s.failed(); err != nil {
			return err
		}
		f.change.Wait()
	}
	return nil
}

func (f *flow) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change.Broadcast()
}

// wrote counts a batch. One that is large is a buffer by itself.
func (f *flow) wrote(n int, large bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if large {
		f.push(n)
		return
	}
	f.filled += n
}

// holds reports whether more than n bytes wait for being sorted.
func (f *flow) holds(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.filled+f.queued > n
}

// full says that the next buffer is being filled.
func (f *flow) full() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.push(f.filled)
	f.filled = 0
}

func (f *flow) push(n int) {
	f.queue = append(f.queue, n)
	f.queued += n
}

// flushed says that the first of the buffers are tables now.
func (f *flow) flushed(buffers, tables int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; buffers > 0 && len(f.queue) > 0; buffers-- {
		f.queued -= f.queue[0]
		f.queue = f.queue[1:]
	}
	f.sorted += tables
	f.change.Broadcast()
}

// merged says that so many tables are gone.
func (f *flow) merged(tables int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sorted = max(f.sorted-tables, 0)
	f.change.Broadcast()
}
