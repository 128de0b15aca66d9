package storage

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// A move is what a batch does with blocks, in the order of its calls.
type move struct {
	core       uint64
	start, end uint64 // blocks that go; or the one that comes
	comes      bool
	logged     bool // it comes into the log, not into the database
	offset     int  // in the entry
	size       uint32
	was        spot // where it comes from, if it only moves: not where it is gone, or elsewhere, by now
}

// A placing finds out what a batch's moves are in records. It is used again for
// each batch, by who holds Store.commits.
type placing struct {
	s      *Store
	pages  []*placesPage    // that change
	gone   []placesRange    // of which no record stays
	freed  map[uint32]int64 // bytes of each segment that nobody needs any more; negative for those that come
	free   []*placesPage
	record []byte     // one as it was, used again
	none   placesNone // small blocks come many at a time, and ask for the same
}

// placesNone is the record that was asked for last and is not there, if one was.
type placesNone struct {
	key   placesKey
	known bool
}

// A placesPage is a record of places that changes.
type placesPage struct {
	key placesKey
	places
	record []byte // what it is to be; empty where none is to be
}

// A placesRange is records of a core that follow each other.
type placesRange struct{ core, start, end uint64 }

func (r placesRange) has(k placesKey) bool {
	return k.core == r.core && k.page >= r.start && k.page < r.end
}

func (p *placing) reset() {
	p.free = append(p.free, p.pages[:min(len(p.pages), 64)]...)
	p.pages, p.gone, p.none = p.pages[:0], p.gone[:0], placesNone{}
	if p.freed == nil {
		p.freed = make(map[uint32]int64)
	}
	clear(p.freed)
}

// take does a batch's moves, of which the blocks that come are in an entry that
// will be at a position.
func (p *placing) take(b *Batch, at position) error {
	p.reset()
	for i := range b.moves {
		if err := p.move(b, &b.moves[i], at); err != nil {
			return err
		}
	}
	for _, page := range p.pages {
		k := page.key.key()
		if page.record = page.record[:0]; page.have == 0 {
			b.remove(k[:])
			continue
		}
		page.record = page.append(page.record)
		b.set(k[:], page.record)
	}
	return nil
}

func (p *placing) move(b *Batch, m *move, at position) error {
	if !m.comes {
		return p.remove(b, m)
	}
	moves := m.was != spot{}
	page, err := p.page(placesKey{m.core, m.start / placesLen}, m.logged && !moves)
	if err != nil || page == nil {
		return err
	}
	slot := m.start % placesLen
	if moves && (page.have>>slot&1 == 0 || page.list[slot] != m.was) {
		return nil
	}
	if !m.logged {
		p.drop(page.clear(slot))
		return nil
	}
	to := spot{at + position(m.offset), m.size}
	p.drop(page.set(slot, to))
	p.freed[at.segment()] -= to.room()
	return nil
}

// drop counts a place that is not needed any more.
func (p *placing) drop(was spot, had bool) {
	if had {
		p.freed[was.at.segment()] += was.room()
	}
}

// page returns a record that is to change, or nil where there is none yet and
// none is to be made.
func (p *placing) page(k placesKey, make bool) (*placesPage, error) {
	for i := len(p.pages) - 1; i >= 0; i-- {
		if p.pages[i].key == k {
			return p.pages[i], nil
		}
	}
	if !make && p.none == (placesNone{k, true}) {
		return nil, nil
	}
	record := p.record[:0]
	if !slices.ContainsFunc(p.gone, func(r placesRange) bool { return r.has(k) }) {
		var known bool
		if record, known = p.s.places.record(record, k); !known {
			var err error
			if record, err = p.s.readPlaces(p.s.db, k); err != nil {
				return nil, err
			}
			p.s.places.keep(k, record, p.s.places.group(k).Load()) // nobody else changes it
		}
		p.record = record
	}
	if len(record) == 0 && !make {
		p.none = placesNone{k, true}
		return nil, nil
	}
	page := p.add(k)
	if len(record) == 0 {
		return page, nil
	}
	return page, page.decode(record)
}

func (p *placing) add(k placesKey) *placesPage {
	var page *placesPage
	if n := len(p.free); n > 0 {
		page, p.free = p.free[n-1], p.free[:n-1]
	} else {
		page = new(placesPage)
	}
	page.key, page.have = k, 0
	p.pages = append(p.pages, page)
	return page
}

// remove removes the places of blocks that go.
func (p *placing) remove(b *Batch, m *move) error {
	first, last := m.start/placesLen, (m.end-1)/placesLen // of the records that are concerned
	whole := placesRange{m.core, (m.start + placesLen - 1) / placesLen, m.end / placesLen}
	if m.end == math.MaxUint64 {
		whole.end = math.MaxUint64
	}
	if whole.start < whole.end {
		if err := p.removeWhole(b, whole); err != nil {
			return err
		}
	}
	for _, k := range []uint64{first, last} {
		key := placesKey{m.core, k}
		if whole.start < whole.end && whole.has(key) {
			continue
		}
		page, err := p.page(key, false)
		if err != nil {
			return err
		}
		for page != nil && page.have != 0 {
			slot := nextSlot(page.have, max(m.start, k*placesLen)-k*placesLen)
			if slot >= placesLen || k*placesLen+slot >= m.end {
				break
			}
			p.drop(page.clear(slot))
		}
	}
	return nil
}

// removeWhole removes records altogether.
func (p *placing) removeWhole(b *Batch, r placesRange) error {
	p.pages = slices.DeleteFunc(p.pages, func(page *placesPage) bool {
		if !r.has(page.key) {
			return false
		}
		for page.have != 0 {
			p.drop(page.clear(nextSlot(page.have, 0)))
		}
		page.have = 0
		return false // what the database has of it goes by itself
	})
	from, to := makeKey(r.core, placesKind, r.start), makeKey(r.core, placesKind, r.end)
	found := false
	err := p.s.scanRange(p.s.db, from[:], to[:], func(k, v []byte) error {
		key := placesKey{r.core, binary.BigEndian.Uint64(k[9:])}
		if p.counted(key) {
			return nil
		}
		found = true
		return eachPlace(v, func(_ int, e spot) bool {
			p.drop(e, true)
			return true
		})
	})
	if err == nil && found {
		b.removeRange(from[:], to[:])
		p.gone = append(p.gone, r)
	}
	return err
}

// counted reports whether what the database has of a record is replaced already.
func (p *placing) counted(k placesKey) bool {
	return slices.ContainsFunc(p.gone, func(r placesRange) bool { return r.has(k) }) ||
		slices.ContainsFunc(p.pages, func(page *placesPage) bool { return page.key == k })
}

// nextSlot returns the first slot from one on that is filled, or placesLen.
func nextSlot(have, from uint64) uint64 {
	for ; from < placesLen && have>>from&1 == 0; from++ {
	}
	return from
}

// count notes in a batch how much of each segment is needed, and where the entry
// of the batch ends. It returns where to write that, which is known last.
func (p *placing) count(b *Batch, at position) (end []byte) {
	s := p.s
	now := at.segment()
	if old := s.current; old != now && s.live[old] > 0 && p.freed[old] == 0 {
		p.freed[old] = 0 // its count is to be a record of its own from now on
	}
	for segment, freed := range p.freed {
		if segment == now {
			continue
		}
		k := segmentKey(segment)
		if left := s.live[segment] - freed; left > 0 {
			b.set(k, appendNumber(nil, uint64(left)))
		} else {
			b.remove(k)
		}
	}
	v := b.reserve(endKey(), 16)
	binary.BigEndian.PutUint64(v[8:], uint64(s.live[now]-p.freed[now]))
	return v
}

// settle makes what was committed what the store knows.
func (p *placing) settle(at position) (freed int64) {
	s := p.s
	for segment, n := range p.freed {
		if s.live[segment] -= n; s.live[segment] <= 0 && segment != at.segment() {
			delete(s.live, segment)
		}
		freed += max(n, 0)
	}
	s.current = at.segment()
	s.places.changed(p.pages, p.gone)
	return freed
}

// scanRange gives f each record between two keys.
func (s *Store) scanRange(r pebble.Reader, from, to []byte, f func(k, v []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer it.Close()
	for more := it.First(); more; more = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := f(it.Key(), v); err != nil {
			return err
		}
	}
	return it.Error()
}
