package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tradle/cloudpal"
)

// A segment of the log goes when nobody needs a block of it and the database has,
// on disk, that this is so: then a replay begins behind it. Where less than half
// of the log is needed, what is needed of the segments that are emptiest moves to
// its end, so that they go.

// A durable is what the tables of the database say, whatever it has in memory.
type durable struct {
	end  position
	live map[uint32]bool // segments that are needed, beside the one that end is in
}

func (s *Store) durable() (d durable, err error) {
	d.live = map[uint32]bool{}
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: endKey(), UpperBound: after(prefix(0, segmentKind)), OnlyReadGuaranteedDurable: true,
	})
	if err != nil {
		return d, err
	}
	defer it.Close()
	for more := it.First(); more; more = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return d, err
		}
		switch k := it.Key(); {
		case bytes.Equal(k, endKey()) && len(v) == 16:
			d.end = position(binary.BigEndian.Uint64(v))
		case bytes.HasPrefix(k, prefix(0, segmentKind)) && len(k) == 13:
			d.live[binary.BigEndian.Uint32(k[9:])] = true
		}
	}
	return d, it.Error()
}

// reclaim gives back what room it can.
func (s *Store) reclaim() {
	s.reclaims.Lock()
	defer s.reclaims.Unlock()
	if err := s.removeSegments(); err != nil {
		s.refuse(err)
		return
	}
	if victims := s.victims(); len(victims) > 0 {
		s.empty(victims)
	}
}

// removeSegments deletes those that nobody needs.
func (s *Store) removeSegments() error {
	if !s.readers.enter() {
		return nil
	}
	defer s.readers.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.views) > 0 || s.failed() != nil {
		return nil
	}
	d, err := s.durable()
	if err != nil {
		return nil // who reads is told
	}
	numbers, err := s.log.numbers()
	if err != nil {
		return err
	}
	return s.log.remove(slices.DeleteFunc(numbers, func(n uint32) bool { return n >= d.end.segment() || d.live[n] }))
}

// victims returns the segments that are to be emptied.
func (s *Store) victims() map[uint32]bool {
	s.commits.Lock()
	live, current, limit := maps.Clone(s.live), s.current, s.log.limit
	s.commits.Unlock()
	var needed, wasted int64
	victims := map[uint32]bool{}
	for n, bytes := range live {
		size, err := s.log.sizeOf(n)
		if n >= current || err != nil || s.stuck[n] {
			continue
		}
		needed += bytes
		wasted += size - bytes
		if bytes < size/2 {
			victims[n] = true
		}
	}
	if wasted < max(needed, 2*limit) {
		return nil
	}
	return victims
}

// empty moves what is needed of segments to the end of the log.
func (s *Store) empty(victims map[uint32]bool) {
	s.mu.Lock()
	next := s.next
	s.mu.Unlock()
	b := s.Begin()
	defer b.Close()
	for core := uint64(1); core < next; core++ {
		err := s.scan(prefix(core, placesKind), func(k, record []byte) (bool, error) {
			if len(k) != 8 {
				return false, damaged{errPlaces}
			}
			err := s.emptyPage(b, placesKey{core, binary.BigEndian.Uint64(k)}, record, victims)
			return err == nil && !s.isClosing(), err
		})
		if err != nil || s.isClosing() {
			return // closed, or one of which who reads or writes next is told
		}
	}
	if b.Commit() == nil {
		s.guard(func() error { _, err := s.db.AsyncFlush(); return err })
	}
}

// isClosing reports whether Close waits.
func (s *Store) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// emptyPage moves those blocks of a record that are in segments.
func (s *Store) emptyPage(b *Batch, k placesKey, record []byte, victims map[uint32]bool) (err error) {
	reading := eachPlace(record, func(slot int, p spot) bool {
		if !victims[p.at.segment()] || s.stuck[p.at.segment()] {
			return true
		}
		s.buf, err = s.log.read(s.buf[:0], p)
		if errors.Is(err, cloudpal.Corrupt) {
			s.stuck[p.at.segment()] = true // for who reads it to be told
			err = nil
			return true
		}
		if err == nil {
			copy(b.log(move{core: k.core, start: k.page*placesLen + uint64(slot), comes: true, size: p.size, was: p}), s.buf)
		}
		if err == nil && b.Len() > moveSize {
			err = b.Commit()
			b.Reset()
		}
		return err == nil
	})
	return errors.Join(err, reading)
}

// moveSize is about how much moves at a time.
const moveSize = 1 << 20

// reclaiming reclaims whenever there may be something to reclaim, until the store
// is closed or fails.
func (s *Store) reclaiming() {
	defer close(s.reclaimed)
	for {
		select {
		case <-s.sorted:
			s.reclaim()
		case <-s.closing:
			return
		case <-s.refusing:
			return
		}
	}
}

// wakeReclaim says that there may be something to reclaim.
func (s *Store) wakeReclaim() {
	select {
	case s.sorted <- struct{}{}:
	default:
	}
}

// readLive reads how much of each segment is needed.
func (s *Store) readLive() error {
	s.live = map[uint32]int64{}
	v, err := s.record(endKey())
	if err != nil || v == nil {
		return err
	}
	s.current = position(binary.BigEndian.Uint64(v)).segment()
	s.live[s.current] = int64(binary.BigEndian.Uint64(v[8:]))
	return s.scan(prefix(0, segmentKind), func(k, v []byte) (bool, error) {
		if len(k) != 4 || len(v) != 8 {
			return false, cloudpal.Corrupt
		}
		s.live[binary.BigEndian.Uint32(k)] = int64(binary.BigEndian.Uint64(v))
		return true, nil
	})
}
