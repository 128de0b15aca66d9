package storage

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tradle/cloudpal/data/merkle"
)

// A View is a core as it was when the View was taken, whatever happens to it
// after. While it is held, the store keeps what is removed. All methods may be
// used at the same time.
type View struct {
	core  *Core
	snap  *pebble.Snapshot // nil where the store is for reading only: nothing changes
	read  pebble.Reader
	users atomic.Int32
}

// View returns the core as it is in the database now.
func (c *Core) View() *View {
	s := c.store
	v := &View{core: c}
	v.users.Store(1)
	if !s.readers.enter() {
		return v // nothing can be read of it
	}
	defer s.readers.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.read = s.reader; s.overlay == nil {
		v.snap = s.db.NewSnapshot()
		v.read = v.snap
		s.views[v] = struct{}{}
	}
	return v
}

// Hold adds a user of v, who closes it, too.
func (v *View) Hold() *View {
	v.users.Add(1)
	return v
}

// Close lets v go, when all of its users have closed it.
func (v *View) Close() {
	if v.users.Add(-1) > 0 {
		return
	}
	s := v.core.store
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropView(v)
}

// dropView gives back what a view holds, once. The caller holds mu.
func (s *Store) dropView(v *View) {
	if _, held := s.views[v]; held {
		delete(s.views, v)
		v.snap.Close()
		s.wakeReclaim()
	}
}

// dropViews gives back what all views hold, of which nothing is read any more.
func (s *Store) dropViews() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.views {
		s.dropView(v)
	}
}

// AppendBlock is that of Core, then.
func (v *View) AppendBlock(dst []byte, index uint64) ([]byte, error) {
	c := v.core
	if !c.store.readers.enter() {
		return dst, c.store.fail("read a block from", ErrClosed)
	}
	defer c.store.readers.leave()
	record, err := c.store.readPlaces(v.read, placesKey{c.num, index / placesLen})
	if err != nil {
		return dst, c.store.fail("read a block from", err)
	}
	p, found, err := findPlace(record, index%placesLen)
	if err == nil && found {
		dst, err = c.store.log.read(dst, p)
	}
	if err != nil {
		return dst, c.store.fail("read a block from", err)
	}
	if found {
		return dst, nil
	}
	return c.appendSmall(v.read, dst, index)
}

// Node is that of Core, then.
func (v *View) Node(index uint64) (n merkle.Node, ok bool, err error) {
	root, slot := place(index)
	t := tile{root: root}
	if err := v.core.readTile(v.read, &t); err != nil {
		return merkle.Node{}, false, err
	}
	n, ok = t.get(slot)
	return n, ok, nil
}

// Pages is that of Core, then.
func (v *View) Pages(f func(index uint64, p *Page) error) error {
	return v.core.pages(v.read, f)
}

// Nodes gives f all nodes of the tree that are stored, those of one tile after
// those of another: not in their order. The slice is valid until f returns.
func (v *View) Nodes(f func(nodes []merkle.Node) error) error {
	s := v.core.store
	var nodes []merkle.Node
	err := s.scanOf(v.read, prefix(v.core.num, tileKind), func(k, b []byte) (bool, error) {
		if len(k) != 8 {
			return false, damaged{errTile}
		}
		t := tile{root: binary.BigEndian.Uint64(k)}
		if err := t.decode(b); err != nil {
			return false, damaged{err}
		}
		nodes = nodes[:0]
		for slot := range slots {
			if n, ok := t.get(slot); ok {
				nodes = append(nodes, n)
			}
		}
		return true, f(nodes)
	})
	if err != nil {
		return s.fail("read the tree of a core in", err)
	}
	return nil
}
