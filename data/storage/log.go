package storage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
)

// A log has every commit, in their order: the blocks that it brings, and then its
// changes to the database. It is what a Sync syncs, and what is read again where
// the database had a commit in memory only. Large blocks stay in it for good, so
// that they are written once; the database keeps where they are.
//
//	log/000001.log    a segment: its head, then entries
//	log/000002.log    the next, whose head says where the one before ends
//	log/mark          what heads of entries have in common
//
//	entry             head │ block, sum │ block, sum │ ... │ changes
//
// The log is on disk before a table of the database is that speaks of it. So what
// the database has after a loss of power never leads beyond the log, and what the
// log has beyond the database is its end, up to the first entry that is not whole.
type log struct {
	fs    diskFS
	dir   string
	limit int64 // where a segment ends, unless one entry is larger

	// Of who commits, who holds Store.commits.
	file   vfs.File // that is written to; nil where the next entry begins a segment
	grown  bool     // it was made here, and is written in sequence
	last   uint32   // the highest number of a segment, in use or not
	closed bool     // the last entry says that all before it is on disk
	mark   mark     // zero before there is a segment

	mu      sync.Mutex
	change  sync.Cond
	end     position   // of what was written
	synced  position   // what is before this is on disk
	files   []vfs.File // that may not be synced, in their order; the last is written to
	syncing bool
	failure error // of a sync, after which nobody knows what is on disk

	segments segments
}

// A position in the log is a segment's number and how many bytes into it.
type position uint64

func positionOf(segment uint32, offset int64) position {
	return position(segment)<<32 | position(offset)
}

func (p position) segment() uint32 { return uint32(p >> 32) }
func (p position) offset() int64   { return int64(uint32(p)) }

const markFile = "mark"

// segmentSize is the limit of segments.
const segmentSize = 64 << 20

// maxEntry keeps an entry's bytes countable in a position.
const maxEntry = 2 << 30

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// sumSize is how long a checksum is.
const sumSize = 4

func (l *log) name(segment uint32) string {
	return l.fs.PathJoin(l.dir, fmt.Sprintf("%06d.log", segment))
}

// write writes an entry whose head has room but is not filled yet, where reserve
// said that it would be.
func (l *log) write(entry []byte, changes int) error {
	h := entryHead{
		at: l.end, synced: l.onDisk(),
		blocks: uint32(len(entry) - entryHeadSize - changes), changes: uint32(changes),
	}
	h.blocksSum = checksum(entry[entryHeadSize : len(entry)-changes])
	h.changesSum = checksum(entry[len(entry)-changes:])
	h.encode(entry, l.mark)
	return l.put(entry)
}

func (l *log) put(entry []byte) (err error) {
	if l.grown {
		_, err = l.file.Write(entry)
	} else {
		_, err = l.file.WriteAt(entry, l.end.offset())
	}
	if err != nil {
		return err
	}
	l.closed = false
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end += position(len(entry))
	return nil
}

// reserve returns where an entry of about so many bytes will be.
func (l *log) reserve(size int) (position, error) {
	if size > maxEntry {
		return 0, errors.New("too much for one batch")
	}
	if l.file == nil || l.end.offset()+int64(size) > l.limit && l.end.offset() > segmentHeadSize {
		if err := l.begin(); err != nil {
			return 0, err
		}
	}
	return l.end, nil
}

// begin begins the next segment.
func (l *log) begin() error {
	if l.mark == (mark{}) {
		var m mark
		rand.Read(m[:])
		if err := l.setMark(m); err != nil {
			return err
		}
	}
	number := l.last + 1
	f, err := l.fs.create(l.name(number), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	head := segmentHead(number, l.end)
	if _, err = f.Write(head[:]); err == nil {
		err = syncFolder(l.fs, l.dir)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.last, l.grown = f, number, true
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files = append(l.files, f)
	l.end = positionOf(number, segmentHeadSize)
	return nil
}

// setMark writes the mark of a new log, which is on disk before there are entries.
func (l *log) setMark(m mark) error {
	name := l.fs.PathJoin(l.dir, markFile)
	f, err := l.fs.create(name+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(binary.LittleEndian.AppendUint32(m[:], checksum(m[:])))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := l.fs.Rename(name+".new", name); err != nil {
		return err
	}
	l.mark = m
	return syncFolder(l.fs, l.dir)
}

// readMark reads the mark of a log that has segments.
func (l *log) readMark() error {
	f, err := l.fs.FS.Open(l.fs.PathJoin(l.dir, markFile))
	if errors.Is(err, os.ErrNotExist) {
		return cloudpal.E("read the log", cloudpal.Corrupt, errors.New("its mark is gone"))
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var b [len(mark{}) + sumSize]byte
	if _, err := io.ReadFull(f, b[:]); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	l.mark = mark(b[:])
	if l.mark == (mark{}) || checksum(l.mark[:]) != binary.LittleEndian.Uint32(b[len(l.mark):]) {
		return cloudpal.E("read the log", cloudpal.Corrupt, errors.New("its mark is damaged"))
	}
	return nil
}

func (l *log) written() position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

func (l *log) onDisk() position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced
}

// sync returns when what is before a position is on disk. Those who wait at the
// same time share one sync.
func (l *log) sync(to position) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.synced < to {
		switch {
		case l.failure != nil:
			return l.failure
		case l.syncing:
			l.change.Wait()
		default:
			l.syncLocked()
		}
	}
	return nil
}

// syncLocked syncs what was written so far. The caller holds mu, which is free
// while the disk works.
func (l *log) syncLocked() {
	files, end := l.files, l.end
	l.syncing = true
	l.mu.Unlock()
	var err error
	for _, f := range files {
		if err = f.SyncData(); err != nil {
			break
		}
	}
	l.mu.Lock()
	l.syncing = false
	if l.failure = err; err == nil {
		for len(l.files) > 1 && l.files[0] != files[len(files)-1] {
			l.files[0].Close() // it is on disk
			l.files = l.files[1:]
		}
		l.synced = end
	}
	l.change.Broadcast()
}

// finish notes in the log that all of it is on disk. The caller holds
// Store.commits, or is alone.
func (l *log) finish() error {
	if l.file == nil || l.closed {
		return nil
	}
	if err := l.sync(l.written()); err != nil {
		return err
	}
	if err := l.write(make([]byte, entryHeadSize), 0); err != nil {
		return err
	}
	l.closed = true
	return l.sync(l.written())
}

// shut gives the files back.
func (l *log) shut() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	l.segments.shut()
	return errors.Join(errs...)
}
