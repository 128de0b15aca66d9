package hyperbee

import (
	"sync"
)

// A cache has the pages that were used of late, up to a number of bytes. What
// a truncation may have changed goes: pages belong to a fork of the log.
//
// Eviction is second chance: a page in use costs its readers one flag, not a
// list to reorder.
type cache struct {
	max int64

	mu    sync.RWMutex
	fork  uint64
	used  int64
	pages map[uint64]*page // by place.id
	ring  []*page
	hand  int
}

// id is a place in one number, which is faster to look up; ok is false beyond
// the 2^48th block, whose pages are not kept.
func (at place) id() (id uint64, ok bool) {
	return at.seq<<16 | uint64(at.off), at.seq < 1<<48 && at.off < maxLevels
}

// pageBytes is about what a page costs beside its keys' texts: itself, its
// table of texts, and its place in the cache. placeBytes is what a child does.
const (
	pageBytes  = 280
	placeBytes = 16
)

func newCache(max int64) *cache {
	return &cache{max: max, pages: make(map[uint64]*page)}
}

func (c *cache) get(fork uint64, at place) *page {
	id, ok := at.id()
	if !ok {
		return nil
	}
	c.mu.RLock()
	p := c.pages[id]
	if c.fork != fork {
		p = nil
	}
	c.mu.RUnlock()
	if p != nil && !p.hit.Load() {
		p.hit.Store(true)
	}
	return p
}

// put adds p, of a fork. A fork above the cache's own makes that one the
// past, whose pages are dropped; pages of the past are not kept.
func (c *cache) put(fork uint64, p *page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(fork, p)
}

func (c *cache) putLocked(fork uint64, p *page) {
	if fork > c.fork {
		c.resetLocked(fork)
	}
	id, ok := p.at.id()
	if !ok || fork < c.fork || c.pages[id] != nil {
		return
	}
	p.size = p.bytes()
	c.makeRoomLocked(p.size)
	p.slot = int32(len(c.ring))
	c.ring = append(c.ring, p)
	c.pages[id] = p
	c.used += p.size
}

func (p *page) bytes() int64 {
	size := pageBytes + placeBytes*len(p.kids)
	if t := p.texts.Load(); t != nil {
		size += len(t.all)
	}
	return int64(size)
}

// replace is put of pages that come from others, at the places of old, which
// only old versions still have.
func (c *cache) replace(fork uint64, old []place, pages []*page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, p := range pages {
		was, _ := old[i].id()
		id, ok := p.at.id()
		former := c.pages[was]
		if former == nil || !ok || c.fork != fork {
			c.putLocked(fork, p)
			continue
		}
		delete(c.pages, was)
		c.pages[id], c.ring[former.slot] = p, p
		p.slot, former.slot = former.slot, -1
		p.size = p.bytes()
		c.used += p.size - former.size
		p.hit.Store(former.hit.Load())
	}
	c.makeRoomLocked(0)
}

// grow counts a text that p has learned.
func (c *cache) grow(p *page, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.slot < 0 {
		return
	}
	p.size += n
	c.used += n
	c.makeRoomLocked(0)
}

func (c *cache) makeRoomLocked(n int64) {
	for c.used+n > c.max && len(c.ring) > 0 {
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		p := c.ring[c.hand]
		if p.hit.Load() {
			p.hit.Store(false)
			c.hand++
			continue
		}
		c.dropLocked(p)
	}
}

func (c *cache) dropLocked(p *page) {
	top := c.ring[len(c.ring)-1]
	c.ring[p.slot], top.slot = top, p.slot
	c.ring[len(c.ring)-1] = nil
	c.ring = c.ring[:len(c.ring)-1]
	id, _ := p.at.id()
	delete(c.pages, id)
	c.used -= p.size
	p.slot = -1
}

func (c *cache) resetLocked(fork uint64) {
	for _, p := range c.ring {
		p.slot = -1
	}
	c.fork, c.used, c.hand, c.ring = fork, 0, 0, nil
	clear(c.pages)
}
