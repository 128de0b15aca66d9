package storage

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/merkle"
)

// storeWith returns a store with one core of so many blocks.
func storeWith(t *testing.T, blocks uint64) (*Store, *Core) {
	t.Helper()
	s, err := Open("store", Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := s.Create([32]byte{1}, Identity{Key: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	b := s.Begin()
	defer b.Close()
	for i := range blocks {
		b.Block(c, i, 1)[0] = byte(i)
		if err := b.Node(c, merkle.Node{Index: 2 * i, Size: 1}); err != nil {
			t.Fatal(err)
		}
	}
	b.SetPage(c, 0, &Page{1})
	b.SetHead(c, Head{Length: blocks})
	b.SetAlias([32]byte{2}, "name", [32]byte{1})
	b.SetUserData(c, "name", []byte("value"))
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// nodes is another each time: those that were read are in memory.
var nodes atomic.Uint64

// uses are all that can be asked of a store, its cores and views.
func uses(s *Store, c *Core, v *View) map[string]func() error {
	return map[string]func() error{
		"core":       func() error { _, err := s.Core([32]byte{1}); return err },
		"create":     func() error { _, err := s.Create([32]byte{9}, Identity{}); return err },
		"delete":     func() error { return s.Delete([32]byte{8}) },
		"identity":   func() error { _, err := c.Identity(); return err },
		"block":      func() error { _, err := c.AppendBlock(nil, 3); return err },
		"node":       func() error { _, _, err := c.Node(1<<40 + nodes.Add(32)); return err },
		"pages":      func() error { return c.Pages(func(uint64, *Page) error { return nil }) },
		"user data":  func() error { _, err := c.UserData("name"); return err },
		"user names": func() error { _, err := c.UserNames(); return err },
		"store data": func() error { _, err := s.UserData("name"); return err },
		"alias":      func() error { _, _, err := s.Alias([32]byte{2}, "name"); return err },
		"view block": func() error { _, err := v.AppendBlock(nil, 3); return err },
		"view node":  func() error { _, _, err := v.Node(6); return err },
		"new view": func() error {
			v := c.View()
			defer v.Close()
			_, err := v.AppendBlock(nil, 3)
			return err
		},
		"cores": func() (err error) {
			for _, e := range s.Cores() {
				err = e
			}
			return err
		},
		"aliases": func() (err error) {
			for _, e := range s.Aliases(nil) {
				err = e
			}
			return err
		},
		"commit": func() error {
			b := s.Begin()
			defer b.Close()
			b.Block(c, 7, 1)[0] = 1
			return b.Commit()
		},
		"sync": s.Sync,
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s, c := storeWith(t, 1<<12)
	v := c.View()
	c.head.Length = 1 << 50 // so that nodes are looked for on disk
	for name, use := range uses(s, c, v) {
		if err := use(); err != nil {
			t.Errorf("%s of an open store: %v", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatalf("closing a store with an open view: %v", err)
	}
	for name, use := range uses(s, c, v) {
		if err := use(); !errors.Is(err, ErrClosed) || cloudpal.KindOf(err) == cloudpal.Corrupt {
			t.Errorf("%s of a closed store: got %v, want %v", name, err, ErrClosed)
		}
	}
	v.Close()
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

// TestCloseWhileInUse closes stores that many use: each use succeeds or says
// that the store is closed.
func TestCloseWhileInUse(t *testing.T) {
	for range 5 {
		s, c := storeWith(t, 100)
		v := c.View()
		c.head.Length = 1 << 50
		var users sync.WaitGroup
		begun := make(chan struct{}, 100)
		for name, use := range uses(s, c, v) {
			if name == "create" {
				continue // it succeeds once
			}
			users.Go(func() {
				for {
					err := use()
					if errors.Is(err, ErrClosed) {
						return
					}
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		users.Wait()
	}
}
