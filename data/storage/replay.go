package storage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
)

// replaying brings the database what the log has beyond it.
//
// A log that was closed says at its end that all of it is on disk: what is not as
// it was written is damage. One that was not, because the process was killed or
// the machine lost power, may end in entries that came to the disk in part, or
// not in their order. It ends at the first that is not whole, unless one after
// that says that this one had been synced: that is damage, too. Damage in a block
// is told by who reads that; damage elsewhere is told here, and the store is not
// opened, since what belongs together would not be.
type replaying struct {
	s       *Store
	l       *log
	numbers []uint32 // of all segments
	from    position // what the database has
	at      position // what was read so far
	whole   bool     // the log was closed
	torn    bool     // the last segment has something behind its last entry
	synced  *position
	apply   func(changes []byte) error
}

// replay opens the log. The database is open, and has what its tables have.
func (s *Store) replay() error {
	from, found, err := s.logEnd()
	if err != nil {
		return err
	}
	s.openLog()
	r := replaying{s: s, l: &s.log, from: from, at: from, apply: s.applyAgain}
	err = r.run()
	switch {
	case errors.Is(err, os.ErrNotExist) && !found:
		return s.log.create()
	case errors.Is(err, os.ErrNotExist):
		return damagedLog(r.at)
	case err != nil || s.ro:
		return err
	}
	return r.goOn()
}

func (s *Store) openLog() {
	l := &s.log
	l.fs, l.dir = diskFS{s.fs, s}, s.fs.PathJoin(s.dir, "log")
	l.limit = segmentSize
	l.change.L = &l.mu
	l.segments.open = map[uint32]*segment{}
}

// create makes the folder of a new log.
func (l *log) create() error {
	if l.fs.s.ro {
		return nil
	}
	if err := l.fs.MkdirAll(l.dir, 0o700); err != nil || l.fs.s.dir == "" {
		return err
	}
	return syncFolder(l.fs, l.fs.s.dir)
}

// wasClosed reports whether the log ends with an entry that says so.
func (l *log) wasClosed() (bool, error) {
	if l.last == 0 {
		return false, nil
	}
	size, err := l.sizeOf(l.last)
	if err != nil || size < segmentHeadSize+entryHeadSize {
		return false, err
	}
	g, err := l.segment(l.last)
	if err != nil {
		return false, err
	}
	defer g.leave()
	var b [entryHeadSize]byte
	at := positionOf(l.last, size-entryHeadSize)
	if _, err := g.ReadAt(b[:], at.offset()); err != nil {
		return false, err
	}
	h, ok := decodeEntryHead(b[:], at, l.mark)
	return ok && h.synced == at && h.size() == entryHeadSize, nil
}

func (l *log) sizeOf(segment uint32) (int64, error) {
	info, err := l.fs.Stat(l.name(segment))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// run replays segment after segment.
func (r *replaying) run() (err error) {
	if r.numbers, err = r.l.numbers(); err != nil {
		return err
	}
	if n := len(r.numbers); n > 0 {
		r.l.last = r.numbers[n-1]
		if err := r.l.readMark(); err != nil {
			return err
		}
	}
	if r.whole, err = r.l.wasClosed(); err != nil {
		return err
	}
	if err := r.secure(); err != nil {
		return err
	}
	if r.at == 0 {
		next, found, err := r.next()
		if err != nil || !found {
			return err
		}
		r.at = next
	}
	for {
		if err := r.segment(); err != nil {
			return err
		}
		next, found, err := r.next()
		if err != nil || !found {
			return err
		}
		r.at, r.torn = next, false
	}
}

// secure brings to disk what is to be replayed: the database may make tables of
// it at once.
func (r *replaying) secure() error {
	if r.whole || r.s.ro {
		return nil
	}
	for _, n := range r.numbers {
		if n < r.from.segment() {
			continue
		}
		f, err := r.l.fs.OpenReadWrite(r.l.name(n), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		if err := errors.Join(f.SyncData(), f.Close()); err != nil {
			return err
		}
	}
	return syncFolder(r.l.fs, r.l.dir)
}

// next returns where the segment begins that comes next, if there is one.
func (r *replaying) next() (at position, found bool, err error) {
	at, found, err = r.follower()
	if err == nil && !found && r.at.segment() < r.l.last {
		err = r.broken()
	}
	return at, found, err
}

// follower returns where the segment begins whose head says that it follows on
// what was read.
func (r *replaying) follower() (at position, found bool, err error) {
	for _, n := range r.numbers {
		if n <= r.at.segment() {
			continue
		}
		g, err := r.l.segment(n)
		if err != nil {
			return 0, false, err
		}
		var b [segmentHeadSize]byte
		_, err = g.ReadAt(b[:], 0)
		g.leave()
		if err != nil && err != io.EOF {
			return 0, false, err
		}
		if before, ok := decodeSegmentHead(b[:], n); err == nil && ok && before == r.at {
			return positionOf(n, segmentHeadSize), true, nil
		}
	}
	return 0, false, nil
}

// segment replays what is left of one.
func (r *replaying) segment() error {
	number := r.at.segment()
	size, err := r.l.sizeOf(number)
	if errors.Is(err, os.ErrNotExist) {
		return damagedLog(r.at)
	}
	if err != nil {
		return err
	}
	if size < r.at.offset() {
		return damagedLog(r.at)
	}
	g, err := r.l.segment(number)
	if err != nil {
		return err
	}
	defer g.leave()
	in := bufio.NewReaderSize(io.NewSectionReader(g, r.at.offset(), size-r.at.offset()), writeSize)
	for left := size - r.at.offset(); left > 0; left = size - r.at.offset() {
		more, err := r.entry(in, left)
		if err != nil {
			return err
		}
		if !more {
			r.torn = true
			return nil
		}
	}
	return nil
}

// entry replays one, of which at most left bytes are here.
func (r *replaying) entry(in *bufio.Reader, left int64) (more bool, err error) {
	var b [entryHeadSize]byte
	if left < entryHeadSize {
		return false, r.broken()
	}
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return false, err
	}
	h, ok := decodeEntryHead(b[:], r.at, r.l.mark)
	if !ok || h.size() > left {
		return false, r.broken()
	}
	good, err := r.blocks(in, h)
	if err != nil || !good {
		return false, err
	}
	changes := make([]byte, h.changes)
	if _, err := io.ReadFull(in, changes); err != nil {
		return false, err
	}
	if checksum(changes) != h.changesSum {
		return false, r.broken()
	}
	if len(changes) > 0 {
		if err := r.apply(changes); err != nil {
			return false, err
		}
	}
	r.at += position(h.size())
	return true, nil
}

// blocks reads over the blocks of an entry, and reports whether it counts.
func (r *replaying) blocks(in *bufio.Reader, h entryHead) (good bool, err error) {
	if r.whole {
		_, err := in.Discard(int(h.blocks))
		return err == nil, err
	}
	sum := crc32.New(castagnoli)
	if _, err := io.CopyN(sum, in, int64(h.blocks)); err != nil {
		return false, err
	}
	if sum.Sum32() == h.blocksSum {
		return true, nil
	}
	left, err := r.leftBehind()
	return err == nil && !left, err
}

// broken returns nil where the log may end here, or that it is damaged.
func (r *replaying) broken() error {
	left, err := r.leftBehind()
	if err == nil && !left {
		err = damagedLog(r.at)
	}
	return err
}

// leftBehind reports whether what comes now was never on disk as a whole, and so
// is not part of the log.
func (r *replaying) leftBehind() (bool, error) {
	if _, found, err := r.follower(); err != nil || found {
		return found, err // by a replay before this one
	}
	if r.whole {
		return false, nil
	}
	synced, err := r.lastSynced()
	return synced <= r.at, err
}

// lastSynced returns how far the log was on disk, as far as what is left of it
// says so.
func (r *replaying) lastSynced() (last position, err error) {
	if r.synced != nil {
		return *r.synced, nil
	}
	for _, n := range r.numbers {
		if n < r.at.segment() {
			continue
		}
		from := int64(segmentHeadSize)
		if n == r.at.segment() {
			from = r.at.offset()
		}
		if err := r.lookThrough(n, from, &last); err != nil {
			return 0, err
		}
	}
	r.synced = &last
	return last, nil
}

// lookThrough looks for heads of entries in a segment.
func (r *replaying) lookThrough(number uint32, from int64, last *position) error {
	size, err := r.l.sizeOf(number)
	if err != nil {
		return err
	}
	g, err := r.l.segment(number)
	if err != nil {
		return err
	}
	defer g.leave()
	b := make([]byte, 1<<20)
	for from+entryHeadSize <= size {
		n, err := g.ReadAt(b[:min(int64(len(b)), size-from)], from)
		if err != nil && err != io.EOF {
			return err
		}
		if n < entryHeadSize {
			return nil
		}
		for i := range n - entryHeadSize + 1 {
			if b[i] != r.l.mark[0] {
				continue
			}
			if h, ok := decodeEntryHead(b[i:n], positionOf(number, from+int64(i)), r.l.mark); ok {
				*last = max(*last, h.synced)
			}
		}
		from += int64(n - entryHeadSize + 1)
	}
	return nil
}

// goOn makes the log ready for being written to where it ends: what is left of
// entries that were not whole is left behind.
func (r *replaying) goOn() error {
	l := r.l
	l.closed = r.whole
	var orphans []uint32
	for _, n := range r.numbers {
		if n > r.at.segment() {
			orphans = append(orphans, n)
		}
	}
	if r.at.segment() > 0 && !r.torn {
		f, err := l.fs.OpenReadWrite(l.name(r.at.segment()), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		l.file = f
	}
	l.mu.Lock() // the database already makes tables of what was replayed
	l.end, l.synced = r.at, r.at
	if l.file != nil {
		l.files = []vfs.File{l.file}
	}
	l.mu.Unlock()
	return l.remove(orphans)
}

// applyAgain gives the database a commit of the log.
func (s *Store) applyAgain(changes []byte) error {
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.SetRepr(changes); err != nil {
		return damaged{err}
	}
	if !s.ro {
		return s.guard(func() error { return s.db.Apply(b, pebble.NoSync) })
	}
	// What changes nothing on disk reads the database through what the log has
	// beyond it.
	if s.overlay == nil {
		s.overlay = s.db.NewIndexedBatch()
		s.reader = s.overlay
	}
	return s.overlay.Apply(b, nil)
}

// logEnd returns where the log ends, as far as the database has it.
func (s *Store) logEnd() (end position, found bool, err error) {
	v, err := s.record(endKey())
	if err != nil || v == nil {
		return 0, false, err
	}
	if len(v) != 16 {
		return 0, false, cloudpal.E("read where the log ends", cloudpal.Corrupt, fmt.Errorf("a record of %d bytes", len(v)))
	}
	return position(binary.BigEndian.Uint64(v)), true, nil
}
