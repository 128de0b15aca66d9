package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
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
	moves []move    // of blocks
	entry []byte    // of the log: room for its head, and blocks with room for their sums
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
	b.moves = b.moves[:0]
	b.release()
}

// Close gives a batch's memory back. What was not committed is forgotten.
func (b *Batch) Close() {
	b.drop()
	b.b.Close()
	b.release()
}

// maxKept is how much memory an empty batch keeps for its next blocks.
const maxKept = 1 << 20

// largeEntries is memory of entries above maxKept, for whichever batch is the
// next to need as much.
var largeEntries sync.Pool // of *[]byte

// release empties the entry.
func (b *Batch) release() {
	if cap(b.entry) > maxKept {
		giveBack(b.entry)
		b.entry = nil
	}
	b.entry = b.entry[:0]
}

func giveBack(large []byte) {
	large = large[:0]
	largeEntries.Put(&large)
}

// Grow makes room for so many blocks, of so many bytes in all, so that noting
// them does not move those before.
func (b *Batch) Grow(blocks, bytes int) {
	const changes = 4 << 10 // about what the rest of a batch takes
	if bytes >= blocks*separate {
		b.grow(entryHeadSize + bytes + blocks*sumSize + changes)
	}
}

// grow makes room for n more bytes of the entry.
func (b *Batch) grow(n int) {
	need := len(b.entry) + n
	if need <= cap(b.entry) {
		return
	}
	var grown []byte
	if need > maxKept {
		if large, _ := largeEntries.Get().(*[]byte); large != nil {
			grown = *large
		}
	}
	if cap(grown) < need {
		grown = make([]byte, 0, need+need/4)
	}
	grown = append(grown, b.entry...)
	b.release()
	b.entry = grown
}

// extend makes the entry n bytes longer, and returns these, which are anything.
func (b *Batch) extend(n int) []byte {
	b.grow(n)
	end := len(b.entry) + n
	b.entry = b.entry[:end]
	return b.entry[end-n : end : end]
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
func (b *Batch) Len() int { return b.b.Len() + len(b.entry) }

// Commit makes the changes, for all in this process to see. They are on disk
// when a Sync that began later has returned.
func (b *Batch) Commit() error {
	b.flush()
	if b.err != nil {
		return b.store.fail("write", b.err)
	}
	if b.b.Empty() && len(b.moves) == 0 {
		return nil
	}
	s := b.store
	if s.ro {
		return cloudpal.E("write to the store "+s.dir, cloudpal.Denied, errReadOnly)
	}
	if b.Len() > maxEntry {
		return cloudpal.E("write to the store "+s.dir, cloudpal.Invalid, fmt.Errorf("%d bytes at once", b.Len())).
			WithHint("write it in several batches")
	}
	if err := s.flow.wait(s); err != nil {
		return s.fail("write", err)
	}
	s.commits.Lock()
	defer s.commits.Unlock()
	if err := s.failed(); err != nil {
		return s.fail("write", err)
	}
	if err := b.commit(); err != nil {
		return s.fail("write", err)
	}
	b.settle()
	return nil
}

// commit writes the batch to the log and gives it to the database. The caller
// holds commits.
func (b *Batch) commit() error {
	s := b.store
	at, err := s.log.reserve(b.Len())
	if err != nil {
		s.refuse(err)
		return err
	}
	changes, err := b.seal(at)
	if err != nil {
		return err
	}
	written := len(b.entry)
	s.flow.writes(b.b.Len())
	err = s.log.write(b.entry, changes)
	if err == nil {
		err = s.guard(func() error { return s.db.Apply(b.b, pebble.NoSync) })
	}
	if err != nil {
		s.refuse(err)
		return err
	}
	freed := s.placing.settle(at)
	if s.flow.wrote(written + int(freed)) {
		if err := s.guard(func() error { _, err := s.db.AsyncFlush(); return err }); err != nil {
			s.refuse(err) // what was committed stays
		}
	}
	return nil
}

// seal makes the batch an entry of the log, at a position. It returns how much of
// it are changes of the database.
func (b *Batch) seal(at position) (changes int, err error) {
	s := b.store
	if len(b.entry) == 0 {
		b.extend(entryHeadSize)
	}
	for _, m := range b.moves {
		if end := m.offset + int(m.size); m.logged {
			binary.LittleEndian.PutUint32(b.entry[end:], checksum(b.entry[m.offset:end]))
		}
	}
	if err := s.placing.take(b, at); err != nil {
		return 0, err
	}
	end := s.placing.count(b, at)
	if b.err != nil {
		return 0, b.err
	}
	record := b.b.Repr()
	binary.BigEndian.PutUint64(end, uint64(at)+uint64(len(b.entry)+len(record)))
	copy(b.extend(len(record)), record)
	return len(record), nil
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

// startSync asks for a sync and returns how to wait for it.
func (s *Store) startSync() (wait func() error, err error) {
	if err := s.failed(); err != nil {
		return nil, err
	}
	end := s.log.written()
	return func() error {
		err := s.log.sync(end)
		if err != nil {
			s.refuse(err)
		}
		return err
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
	buffer int // bytes of the one that is being filled, at most
	total  int // bytes that were committed
	begun  int // of these, when tables were last begun
	done   int // bytes that are in tables, at least
	logged int // bytes of the log since tables were last begun, or asked for
	sorted int // tables on disk that are not merged with the rest yet
}

// Limits of what may wait. Pebble's own are set out of reach.
const (
	maxBuffers = 3 // full ones, in bytes
	maxSorted  = 40

	// maxReplay is how much of the log may have to be read when the store is
	// opened after a crash, roughly.
	maxReplay = 32 << 20
)

// start begins the counts for a database as it was opened.
func (f *flow) start(db *pebble.DB, buffer uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buffer = int(buffer)
	f.total, f.begun, f.done, f.logged = 0, 0, 0, 0
	f.sorted = int(db.Metrics().Levels[0].TablesCount)
}

// wait returns when there is room for another batch.
func (f *flow) wait(s *Store) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.total-f.done > (1+maxBuffers)*f.buffer || f.sorted > maxSorted {
		if err := s.failed(); err != nil {
			return err
		}
		f.change.Wait()
	}
	return nil
}

// writes counts what the database is about to get.
func (f *flow) writes(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total += n
}

func (f *flow) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change.Broadcast()
}

// wrote counts what went to the log, or was removed from it, and reports whether
// it is time to have tables made although there is room in the buffer.
func (f *flow) wrote(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.logged += n; f.logged < maxReplay {
		return false
	}
	f.logged = 0
	return true
}

// flushing says that buffers are being made tables, all but the last.
func (f *flow) flushing() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun, f.logged = f.total, 0
}

// flushed says that they are so many tables now.
func (f *flow) flushed(tables int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = max(f.done, f.begun-f.buffer)
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

// calledBy reports whether a function is on this goroutine's stack.
func calledBy(name string) bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, name) {
			return true
		}
		if !more {
			return false
		}
	}
}
