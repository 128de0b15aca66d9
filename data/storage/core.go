package storage

import (
	"encoding/binary"
	"iter"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/merkle"
)

// A Core is what a store keeps of one hypercore. Reads may run at the same
// time as each other. Who changes a core, or reads nodes of one that changes,
// holds a lock of their own: package hypercore does.
type Core struct {
	store *Store
	num   uint64
	head  Head
	tiles tiles
}

// Core returns a core by its discovery key, or NotExist.
func (s *Store) Core(discovery [32]byte) (*Core, error) {
	num, found, err := s.find(discovery)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, cloudpal.E("find a core in the store "+s.dir, cloudpal.NotExist, nil)
	}
	c := &Core{store: s, num: num}
	c.head, err = c.readHead()
	return c, err
}

// find returns a core's number.
func (s *Store) find(discovery [32]byte) (num uint64, found bool, err error) {
	num, found, err = s.number(discoveryKey(discovery))
	if err != nil {
		err = s.fail("find a core in", err)
	}
	return num, found, err
}

// Create makes a core and returns it, or Exist. It is on disk after a Sync.
func (s *Store) Create(discovery [32]byte, id Identity) (*Core, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, found, err := s.find(discovery); err != nil || found {
		if err == nil {
			err = cloudpal.E("create a core in the store "+s.dir, cloudpal.Exist, nil)
		}
		return nil, err
	}
	b := s.Begin()
	defer b.Close()
	c := &Core{store: s, num: s.next}
	b.set(nextKey(), appendNumber(nil, s.next+1))
	b.set(discoveryKey(discovery), appendNumber(nil, c.num))
	b.SetIdentity(c, id)
	if err := b.Commit(); err != nil {
		return nil, err
	}
	s.next++
	return c, nil
}

// Delete removes a core and all that is kept of it. It must not be in use.
func (s *Store) Delete(discovery [32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared[discovery] != nil {
		return cloudpal.E("delete a core from the store "+s.dir, cloudpal.Busy, nil).WithHint("close all of its sessions first")
	}
	num, found, err := s.find(discovery)
	if err != nil || !found {
		return err
	}
	b := s.Begin()
	defer b.Close()
	b.remove(discoveryKey(discovery))
	b.moves = append(b.moves, move{core: num, end: math.MaxUint64})
	b.removeRange(appendNumber(nil, num), appendNumber(nil, num+1))
	return b.Commit()
}

// Cores yields the discovery keys of all cores, in their order.
func (s *Store) Cores() iter.Seq2[[32]byte, error] {
	return func(yield func([32]byte, error) bool) {
		err := s.scan(prefix(0, discoveryKind), func(k, v []byte) (bool, error) {
			if len(k) != 32 {
				return false, cloudpal.Corrupt
			}
			return yield([32]byte(k), nil), nil
		})
		if err != nil {
			yield([32]byte{}, s.fail("list the cores of", err))
		}
	}
}

// scan gives f what is behind a prefix: the rest of each key, and the value,
// both valid until f returns, until f says false.
func (s *Store) scan(p []byte, f func(k, v []byte) (more bool, err error)) error {
	return s.scanOf(s.reader, p, f)
}

// scanOf is scan of the database or of a snapshot.
func (s *Store) scanOf(r pebble.Reader, p []byte, f func(k, v []byte) (more bool, err error)) error {
	if !s.readers.enter() {
		return ErrClosed
	}
	defer s.readers.leave()
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: p, UpperBound: after(p)})
	if err != nil {
		return err
	}
	defer it.Close()
	for more := it.First(); more; more = it.Next() {
		if s.readers.shutting() {
			return ErrClosed
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if more, err := f(it.Key()[len(p):], v); err != nil || !more {
			return err
		}
	}
	return it.Error()
}

// Number is what the keys of the core's records begin with.
func (c *Core) Number() uint64 { return c.num }

// Head returns where the core stands.
func (c *Core) Head() Head { return c.head }

func (c *Core) readHead() (h Head, err error) {
	v, err := c.store.record(headKey(c.num))
	if err != nil || v == nil {
		return Head{}, err
	}
	if h, err = decodeHead(v); err != nil {
		return Head{}, c.store.fail("read a core's head from", damaged{err})
	}
	return h, nil
}

// Identity reads what the core is.
func (c *Core) Identity() (Identity, error) {
	v, err := c.store.record(identityKey(c.num))
	if err != nil {
		return Identity{}, err
	}
	id, err := decodeIdentity(v)
	if err != nil {
		return Identity{}, c.store.fail("read a core's identity from", damaged{err})
	}
	return id, nil
}

// AppendBlock appends a block, as it is stored, to dst. It returns
// cloudpal.NotExist itself where the block is not here.
func (c *Core) AppendBlock(dst []byte, index uint64) ([]byte, error) {
	s := c.store
	if !s.readers.enter() {
		return dst, s.fail("read a block from", ErrClosed)
	}
	defer s.readers.leave()
	p, found, err := s.spot(c.num, index)
	for err == nil && found {
		var out []byte
		if out, err = s.log.read(dst, p); err == nil {
			return out, nil
		}
		// What was removed in the meantime may be gone from the log, too.
		was, reading := p, err
		if p, found, err = s.spot(c.num, index); err == nil && found && p == was {
			err = reading
		}
	}
	if err != nil {
		return dst, s.fail("read a block from", err)
	}
	return c.appendSmall(s.reader, dst, index)
}

// appendSmall appends a block that the database has itself.
func (c *Core) appendSmall(r pebble.Reader, dst []byte, index uint64) ([]byte, error) {
	k := keys.Get().(*key)
	defer keys.Put(k)
	*k = makeKey(c.num, blockKind, index)
	v, closer, err := r.Get(k[:])
	if err == pebble.ErrNotFound {
		return dst, cloudpal.NotExist
	}
	if err != nil {
		return dst, c.store.fail("read a block from", err)
	}
	n := len(dst)
	dst = append(dst, v...)
	if err := closer.Close(); err != nil { // as in number
		return dst[:n], c.store.fail("read a block from", err)
	}
	return dst, nil
}

// Node returns a node of the tree, also one that an open Batch has set. It
// makes Core a merkle.Reader.
func (c *Core) Node(index uint64) (n merkle.Node, ok bool, err error) {
	root, slot := place(index)
	c.tiles.mu.Lock()
	defer c.tiles.mu.Unlock()
	t, err := c.tile(root)
	if err != nil {
		return merkle.Node{}, false, err
	}
	n, ok = t.get(slot)
	return n, ok, nil
}

// tile returns a tile, empty where none of its nodes are stored. The caller
// holds the tiles' lock.
func (c *Core) tile(root uint64) (*tile, error) {
	if t := c.tiles.find(root); t != nil {
		return t, nil
	}
	t := c.tiles.add(root)
	first, _ := flat.Span(root)
	if first/2+1<<t.base() > c.head.Length {
		return t, nil // the tree does not reach there: nothing to look for
	}
	if err := c.readTile(c.store.reader, t); err != nil {
		c.tiles.forget(root, t)
		return nil, err
	}
	if c.tiles.cutting {
		t.trim(c.tiles.cut)
		t.dirty = false // the database will have it so, by the same commit
	}
	return t, nil
}

func (c *Core) readTile(r pebble.Reader, t *tile) error {
	if !c.store.readers.enter() {
		return c.store.fail("read the tree of a core in", ErrClosed)
	}
	defer c.store.readers.leave()
	k := keys.Get().(*key)
	defer keys.Put(k)
	*k = makeKey(c.num, tileKind, t.root)
	v, closer, err := r.Get(k[:])
	if err == pebble.ErrNotFound {
		return nil
	}
	if err != nil {
		return c.store.fail("read the tree of a core in", err)
	}
	decoding := t.decode(v)
	if err := closer.Close(); err != nil { // as in number
		return c.store.fail("read the tree of a core in", err)
	}
	if decoding != nil {
		return c.store.fail("read the tree of a core in", damaged{decoding})
	}
	return nil
}

// Pages gives f the pages of the bitfield, in their order. A page that is not
// stored has no bits.
func (c *Core) Pages(f func(index uint64, p *Page) error) error {
	return c.pages(c.store.reader, f)
}

func (c *Core) pages(r pebble.Reader, f func(index uint64, p *Page) error) error {
	err := c.store.scanOf(r, prefix(c.num, pageKind), func(k, v []byte) (bool, error) {
		p := new(Page)
		if len(k) != 8 {
			return false, damaged{errPage}
		}
		if err := decodePage(v, p); err != nil {
			return false, damaged{err}
		}
		return true, f(binary.BigEndian.Uint64(k), p)
	})
	if err != nil {
		return c.store.fail("read the bitfield of a core in", err)
	}
	return nil
}

// UserData returns what a program keeps with the core under a name, or nil.
func (c *Core) UserData(name string) ([]byte, error) {
	return c.store.record(userKey(c.num, name))
}

// UserNames gives f all names that have user data.
func (c *Core) UserNames() (names []string, err error) {
	err = c.store.scan(prefix(c.num, userKind), func(k, _ []byte) (bool, error) {
		names = append(names, string(k))
		return true, nil
	})
	return names, err
}

// damaged says that a record is not what was written.
type damaged struct{ error }

func (d damaged) Unwrap() []error { return []error{d.error, cloudpal.Corrupt} }

// SetIdentity notes what a core is.
func (b *Batch) SetIdentity(c *Core, id Identity) {
	b.set(identityKey(c.num), appendIdentity(nil, id))
}

// SetHead notes where a core stands.
func (b *Batch) SetHead(c *Core, h Head) {
	b.touch(c).head = h
	b.buf = appendHead(b.buf[:0], h)
	b.set(headKey(c.num), b.buf)
}

// Block notes a block of n bytes, and returns where to put them, before
// anything else is done with b.
func (b *Batch) Block(c *Core, index uint64, n int) []byte {
	m := move{core: c.num, start: index, comes: true, size: uint32(n)}
	if n < separate {
		b.moves = append(b.moves, m)
		k := makeKey(c.num, blockKind, index)
		return b.reserve(k[:], n)
	}
	return b.log(m)
}

// log makes room in the log for a block.
func (b *Batch) log(m move) []byte {
	if len(b.entry) == 0 {
		b.extend(entryHeadSize)
	}
	m.logged, m.offset = true, len(b.entry)
	b.moves = append(b.moves, m)
	return b.extend(int(m.size) + sumSize)[:m.size:m.size]
}

// Node notes a node of a core's tree.
func (b *Batch) Node(c *Core, n merkle.Node) error {
	root, slot := place(n.Index)
	b.touch(c)
	c.tiles.mu.Lock()
	defer c.tiles.mu.Unlock()
	t, err := c.tile(root)
	if err != nil {
		return err
	}
	if !t.dirty {
		c.tiles.mark(t)
	}
	t.set(slot, n)
	return nil
}

// RemoveBlock notes that a block goes.
func (b *Batch) RemoveBlock(c *Core, index uint64) {
	k := makeKey(c.num, blockKind, index)
	b.remove(k[:])
	b.moves = append(b.moves, move{core: c.num, start: index, end: index + 1})
}

// RemoveBlocks notes that the blocks from start to end go; end may be
// math.MaxUint64.
func (b *Batch) RemoveBlocks(c *Core, start, end uint64) {
	if start >= end {
		return
	}
	from, to := makeKey(c.num, blockKind, start), makeKey(c.num, blockKind, end)
	b.removeRange(from[:], to[:])
	b.moves = append(b.moves, move{core: c.num, start: start, end: end})
}

// Trim notes that the nodes go that reach beyond a tree's length in blocks.
func (b *Batch) Trim(c *Core, length uint64) error {
	b.touch(c)
	c.tiles.mu.Lock()
	defer c.tiles.mu.Unlock()
	from, to := makeKey(c.num, tileKind, 2*length), prefix(c.num, tileKind+1)
	b.removeRange(from[:], to)
	for top := uint(levels - 1); top < 64; top += levels {
		// The tile of each level that has the first leaf that goes is cut
		// through; those right of it were removed, those left of it stay.
		if err := c.trimTile(flat.Index(top, (2*length)>>(top+1)), length); err != nil {
			return err
		}
		if length>>top == 0 && c.head.Length>>top == 0 {
			break
		}
	}
	for root, t := range c.tiles.m {
		if first, _ := flat.Span(root); first >= 2*length && t.have != 0 {
			c.empty(t)
		}
	}
	c.tiles.cutting, c.tiles.cut = true, length
	return nil
}

func (c *Core) trimTile(root, length uint64) error {
	t, err := c.tile(root)
	if err != nil {
		return err
	}
	had, was := t.have, t.dirty
	t.trim(length)
	if t.have != had && !was {
		c.tiles.mark(t)
	}
	if root >= 2*length && t.have != 0 && !t.dirty {
		// It was removed with those right of it.
		t.dirty = true
		c.tiles.mark(t)
	}
	return nil
}

// empty takes all nodes from a tile.
func (c *Core) empty(t *tile) {
	t.have = 0
	if !t.dirty {
		t.dirty = true
		c.tiles.mark(t)
	}
}

// SetPage notes a page of the bitfield.
func (b *Batch) SetPage(c *Core, index uint64, p *Page) {
	k := makeKey(c.num, pageKind, index)
	if *p == (Page{}) {
		b.remove(k[:])
		return
	}
	b.buf = appendPage(b.buf[:0], p)
	b.set(k[:], b.buf)
}

// RemovePages notes that the pages from start to end go.
func (b *Batch) RemovePages(c *Core, start, end uint64) {
	from, to := makeKey(c.num, pageKind, start), makeKey(c.num, pageKind, end)
	b.removeRange(from[:], to[:])
}

// SetUserData notes what a program keeps with a core; nil removes it.
func (b *Batch) SetUserData(c *Core, name string, v []byte) {
	if v == nil {
		b.remove(userKey(c.num, name))
		return
	}
	b.set(userKey(c.num, name), v)
}
