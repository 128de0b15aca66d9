package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
)

// segments are those of the log that are open for reading.
type segments struct {
	mu   sync.RWMutex
	open map[uint32]*segment
}

// A segment is open as long as somebody uses it.
type segment struct {
	vfs.File
	users atomic.Int32
}

// maxOpen is how many segments are kept open.
const maxOpen = 128

// segment returns a segment for reading. The caller leaves it.
func (l *log) segment(number uint32) (*segment, error) {
	l.segments.mu.RLock()
	g := l.segments.open[number]
	if g != nil {
		g.users.Add(1)
	}
	l.segments.mu.RUnlock()
	if g != nil {
		return g, nil
	}
	f, err := l.fs.FS.Open(l.name(number))
	if err != nil {
		return nil, err
	}
	return l.segments.add(number, f), nil
}

func (s *segments) add(number uint32, f vfs.File) *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.open[number]
	if g != nil { // another was faster
		f.Close()
	} else {
		for n := range s.open {
			if len(s.open) < maxOpen {
				break
			}
			s.dropLocked(n)
		}
		g = &segment{File: f}
		g.users.Store(1)
		s.open[number] = g
	}
	g.users.Add(1)
	return g
}

func (s *segments) dropLocked(number uint32) {
	if g := s.open[number]; g != nil {
		delete(s.open, number)
		g.leave()
	}
}

func (s *segments) drop(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(number)
}

func (s *segments) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.open {
		s.dropLocked(n)
	}
}

func (g *segment) leave() {
	if g.users.Add(-1) == 0 {
		g.Close()
	}
}

// read appends the block at a place to dst.
func (l *log) read(dst []byte, p spot) ([]byte, error) {
	g, err := l.segment(p.at.segment())
	if errors.Is(err, os.ErrNotExist) { // not of a block that is not here
		return dst, damagedBlock("segment %d is gone", p.at.segment())
	}
	if err != nil {
		return dst, err
	}
	defer g.leave()
	n, size := len(dst), int(p.size)
	dst = slices.Grow(dst, size+sumSize)
	b := dst[n : n+size+sumSize]
	switch _, err := g.ReadAt(b, p.at.offset()); {
	case err == io.EOF:
		return dst, damagedBlock("segment %d ends in the middle of a block", p.at.segment())
	case err != nil:
		return dst, err
	case checksum(b[:size]) != binary.LittleEndian.Uint32(b[size:]):
		return dst, damagedBlock("a block has another checksum than was written")
	}
	return dst[:n+size], nil
}

// numbers lists the segments that there are, in their order.
func (l *log) numbers() ([]uint32, error) {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	var all []uint32
	for _, name := range names {
		var n uint32
		if _, err := fmt.Sscanf(name, "%d.log", &n); err == nil && l.fs.PathBase(l.name(n)) == name {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// remove deletes segments.
func (l *log) remove(numbers []uint32) error {
	for _, n := range numbers {
		l.segments.drop(n)
		if err := l.fs.Remove(l.name(n)); err != nil {
			return err
		}
	}
	return nil
}

func damagedBlock(format string, args ...any) error {
	return cloudpal.E("read the log", cloudpal.Corrupt, fmt.Errorf(format, args...))
}

// damagedLog says that the log is not what was written.
func damagedLog(p position) error {
	return cloudpal.E("read the log", cloudpal.Corrupt, fmt.Errorf("segment %d is damaged at byte %d", p.segment(), p.offset()))
}
