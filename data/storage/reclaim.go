package storage

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tradle/cloudpal"
)

// A segment of the log goes when nobody needs a block of it and the database has,
// on disk, that this is so: then a replay begins behind it.

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

// reclaim deletes segments that are not needed.
func (s *Store) reclaim() {
	if !s.readers.enter() {
		return
	}
	defer s.readers.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.views) > 0 || s.failed() != nil {
		return
	}
	d, err := s.durable()
	if err != nil {
		return // who reads is told
	}
	numbers, err := s.log.numbers()
	if err == nil {
		err = s.log.remove(slices.DeleteFunc(numbers, func(n uint32) bool { return n >= d.end.segment() || d.live[n] }))
	}
	if err != nil {
		s.refuse(err)
	}
}

// reclaiming reclaims whenever there may be something to reclaim, until the store
// is closed.
func (s *Store) reclaiming() {
	defer close(s.reclaimed)
	for {
		select {
		case <-s.sorted:
			s.reclaim()
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
