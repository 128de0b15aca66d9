package hypercore

import (
	"math"

	"github.com/tradle/cloudpal/data/storage"
)

// A bitfield says which blocks are here. A log that is whole, which is what a
// writer's is, needs but one number: all blocks before contiguous are here.
// Only beyond it are there pages of bits, read from the store when first asked
// for; what they say of blocks before contiguous means nothing.
type bitfield struct {
	core       *storage.Core
	contiguous uint64
	pages      map[uint64]*storage.Page
	loaded     bool
	dirty      map[uint64]bool // pages to be saved
	below      uint64          // pages before this one are not in the store
}

// reset forgets the pages: the store's are what holds.
func (b *bitfield) reset(contiguous uint64) {
	b.contiguous, b.pages, b.loaded, b.dirty, b.below = contiguous, nil, false, nil, 0
}

func (b *bitfield) load() error {
	if b.loaded {
		return nil
	}
	b.pages, b.dirty = map[uint64]*storage.Page{}, map[uint64]bool{}
	err := b.core.Pages(func(i uint64, p *storage.Page) error {
		b.pages[i] = p
		return nil
	})
	b.loaded = err == nil
	return err
}

// whole reports whether nothing beyond the log's contiguous part is here, for
// which no page need be read.
func (b *bitfield) whole(length uint64) bool { return b.contiguous == length }

// has reports whether a block is here; pages are loaded.
func (b *bitfield) has(i uint64) bool {
	if i < b.contiguous {
		return true
	}
	p := b.pages[i/storage.PageBits]
	return p != nil && p.Has(i%storage.PageBits)
}

// next returns the first block from start on, before end, that is here, or is
// not; end where there is none. Pages are loaded.
func (b *bitfield) next(start, end uint64, here bool) uint64 {
	if start < b.contiguous {
		if here {
			return min(start, end)
		}
		start = b.contiguous
	}
	for start < end {
		first := start / storage.PageBits * storage.PageBits
		p := b.pages[start/storage.PageBits]
		switch {
		case p == nil && !here:
			return start
		case p != nil:
			if n := p.Next(start-first, here); n < storage.PageBits {
				return min(first+n, end)
			}
		}
		start = first + storage.PageBits
	}
	return end
}

// fill notes that the blocks from start to end are here, or are not.
func (b *bitfield) fill(start, end uint64, here bool) error {
	if start >= end {
		return nil
	}
	if here && start <= b.contiguous {
		return b.advance(max(end, b.contiguous))
	}
	if err := b.load(); err != nil {
		return err
	}
	if !here && start < b.contiguous {
		was := b.contiguous
		b.mark(start, was, true) // what they said of these meant nothing
		b.contiguous = start
		b.below = min(b.below, start/storage.PageBits)
	}
	b.mark(start, end, here)
	return nil
}

// advance moves contiguous to at least end, and over what is here behind it.
func (b *bitfield) advance(end uint64) error {
	if !b.loaded && b.pages == nil && b.core.Head().Contiguous == b.core.Head().Length {
		b.contiguous = end // a whole log has no pages that say anything
		return nil
	}
	if err := b.load(); err != nil {
		return err
	}
	b.contiguous = end
	b.contiguous = b.next(end, math.MaxUint64, false)
	b.drop()
	return nil
}

// drop forgets the pages that say nothing any more.
func (b *bitfield) drop() {
	for i := range b.pages {
		if (i+1)*storage.PageBits <= b.contiguous {
			delete(b.pages, i)
			b.dirty[i] = true
		}
	}
}

// cut notes that nothing from length on is here. Of a whole log, too, the pages
// are read: what they say of blocks before contiguous, which meant nothing, would
// mean something once these are cut off.
func (b *bitfield) cut(length uint64) error {
	if err := b.load(); err != nil {
		return err
	}
	b.contiguous = min(b.contiguous, length)
	for i := range b.pages {
		if i > length/storage.PageBits {
			delete(b.pages, i)
			b.dirty[i] = true
		}
	}
	if p := b.pages[length/storage.PageBits]; p != nil {
		p.Fill(length%storage.PageBits, storage.PageBits, false)
		b.dirty[length/storage.PageBits] = true
	}
	return nil
}

func (b *bitfield) mark(start, end uint64, here bool) {
	for start < end {
		i := start / storage.PageBits
		first := i * storage.PageBits
		n := min(end-first, storage.PageBits)
		p := b.pages[i]
		if p == nil && here {
			p = new(storage.Page)
			b.pages[i] = p
		}
		if p != nil {
			p.Fill(start-first, n, here)
			b.dirty[i] = true
		}
		start = first + storage.PageBits
	}
}

// save puts what changed into a batch.
func (b *bitfield) save(batch *storage.Batch) {
	var none storage.Page
	for i := range b.dirty {
		p := b.pages[i]
		if p == nil {
			p = &none
		}
		batch.SetPage(b.core, i, p)
		delete(b.dirty, i)
	}
}
