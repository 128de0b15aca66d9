package storage

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// A spot is where in the log a block is.
type spot struct {
	at   position
	size uint32
}

func (p spot) end() position { return p.at + position(p.size) + sumSize }

// room is how many bytes of the log are the block's.
func (p spot) room() int64 { return int64(p.size) + sumSize }

// places are those of placesLen blocks of a core that follow each other, kept as
// one record. A block that is not in the log has none.
type places struct {
	have uint64
	list [placesLen]spot
}

const placesLen = 64

// A placesKey says whose places, and which.
type placesKey struct{ core, page uint64 }

func (k placesKey) key() key { return makeKey(k.core, placesKind, k.page) }

// set, and clear below, return what was there.
func (p *places) set(slot uint64, to spot) (was spot, had bool) {
	was, had = p.list[slot], p.have>>slot&1 == 1
	p.list[slot] = to
	p.have |= 1 << slot
	return was, had
}

func (p *places) clear(slot uint64) (was spot, had bool) {
	had = p.have>>slot&1 == 1
	p.have &^= 1 << slot
	return p.list[slot], had
}

// append appends the record: which blocks there are, and of each its size, and
// where it is unless it follows on the one before.
func (p *places) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, p.have)
	var next position
	for have := p.have; have != 0; have &= have - 1 {
		e := p.list[bits.TrailingZeros64(have)]
		if e.at == next {
			b = binary.AppendUvarint(b, uint64(e.size)<<1)
		} else {
			b = binary.AppendUvarint(b, uint64(e.size)<<1|1)
			b = binary.AppendUvarint(b, uint64(e.at))
		}
		next = e.end()
	}
	return b
}

var errPlaces = errors.New("a record of where blocks are is not valid")

// decode reads what append wrote. It reads all of b or fails.
func (p *places) decode(b []byte) error {
	p.have = 0
	return eachPlace(b, func(slot int, e spot) bool {
		p.have |= 1 << slot
		p.list[slot] = e
		return true
	})
}

// findPlace returns one of a record's places.
func findPlace(b []byte, slot uint64) (p spot, found bool, err error) {
	if len(b) < 8 || binary.LittleEndian.Uint64(b)>>slot&1 == 0 {
		return spot{}, false, nil
	}
	err = eachPlace(b, func(i int, e spot) bool {
		p, found = e, uint64(i) == slot
		return !found
	})
	return p, found, err
}

// eachPlace gives f a record's places in their order, until f says false.
func eachPlace(b []byte, f func(slot int, e spot) bool) error {
	if len(b) < 8 {
		return damaged{errPlaces}
	}
	have := binary.LittleEndian.Uint64(b)
	b = b[8:]
	var next position
	for ; have != 0; have &= have - 1 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size>>1 > maxEntry {
			return damaged{errPlaces}
		}
		b = b[n:]
		if size&1 == 1 {
			at, n := binary.Uvarint(b)
			if n <= 0 || position(at) == next {
				return damaged{errPlaces}
			}
			b = b[n:]
			next = position(at)
		}
		e := spot{next, uint32(size >> 1)}
		if !f(bits.TrailingZeros64(have), e) {
			return nil
		}
		next = e.end()
	}
	if len(b) > 0 {
		return damaged{errPlaces}
	}
	return nil
}

// A placeCache keeps records of places in memory, and that there is none. A log of
// a million blocks has 4 MB of them.
type placeCache struct {
	limit int

	mu   sync.RWMutex
	m    map[placesKey][]byte
	size int

	// changes counts, for each of some groups of records, how often one was
	// changed: what was read before is not kept after.
	changes [256]atomic.Uint32
}

// recordCost is about what a record in memory takes beside its bytes.
const recordCost = 80

func (c *placeCache) group(k placesKey) *atomic.Uint32 {
	return &c.changes[(k.core*31+k.page)%uint64(len(c.changes))]
}

// find looks for a spot in what is in memory. What is known says whether the
// record is, or that there is none.
func (c *placeCache) find(k placesKey, slot uint64) (p spot, found, known bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	b, known := c.m[k]
	if known {
		p, found, err = findPlace(b, slot)
	}
	return p, found, known, err
}

// record appends a record to dst, if it is known.
func (c *placeCache) record(dst []byte, k placesKey) (b []byte, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	b, known = c.m[k]
	return append(dst, b...), known
}

// keep keeps what was read, unless it was changed since.
func (c *placeCache) keep(k placesKey, b []byte, changes uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.group(k).Load() == changes {
		c.putLocked(k, b)
	}
}

// putLocked puts a copy of what was there before, whose memory it uses again.
func (c *placeCache) putLocked(k placesKey, b []byte) {
	old := c.m[k]
	c.dropLocked(k)
	for other := range c.m {
		if c.size < c.limit {
			break
		}
		c.dropLocked(other)
	}
	b = append(old[:0], b...)
	c.m[k] = b
	c.size += len(b) + recordCost
}

func (c *placeCache) dropLocked(k placesKey) {
	if old, found := c.m[k]; found {
		c.size -= len(old) + recordCost
		delete(c.m, k)
	}
}

// changed takes in what is in the database now.
func (c *placeCache) changed(pages []*placesPage, gone []placesRange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range gone {
		for i := range c.changes {
			c.changes[i].Add(1)
		}
		for k := range c.m {
			if r.has(k) {
				c.dropLocked(k)
			}
		}
	}
	for _, p := range pages {
		c.group(p.key).Add(1)
		c.putLocked(p.key, p.record)
	}
}

// spot returns where a block is in the log, if it is there.
func (s *Store) spot(core, index uint64) (p spot, found bool, err error) {
	k := placesKey{core, index / placesLen}
	p, found, known, err := s.places.find(k, index%placesLen)
	if known {
		return p, found, err
	}
	changes := s.places.group(k).Load()
	b, err := s.readPlaces(s.reader, k)
	if err != nil {
		return spot{}, false, err
	}
	s.places.keep(k, b, changes)
	return findPlace(b, index%placesLen)
}

// readPlaces reads a record of places, of which there may be none.
func (s *Store) readPlaces(r pebble.Reader, k placesKey) ([]byte, error) {
	key := keys.Get().(*key)
	defer keys.Put(key)
	*key = k.key()
	v, closer, err := r.Get(key[:])
	if err == pebble.ErrNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := append([]byte(nil), v...)
	if err := closer.Close(); err != nil { // as in number
		return nil, err
	}
	return b, nil
}
