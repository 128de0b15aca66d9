package storage

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tradle/cloudpal/data/merkle"
)

// TestUnreadable reads from a disk that cannot be read: each read says so, and
// none takes it for an empty value, of whatever size that was.
func TestUnreadable(t *testing.T) {
	mem := vfs.NewMem()
	s, err := Open("store", Options{FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Create([32]byte{1}, Identity{Key: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	b := s.Begin()
	for i := range uint64(64) {
		clear(b.Block(c, i, int(i*64)))
		if err := b.Node(c, merkle.Node{Index: 2 * i, Size: 1}); err != nil {
			t.Fatal(err)
		}
		if err := b.Node(c, merkle.Node{Index: 2*i + 1, Size: 1}); err != nil {
			t.Fatal(err)
		}
	}
	var scattered Page
	for i := range scattered {
		scattered[i] = 0x5555555555555555
	}
	for i := range uint64(20) { // so that the tree is not beside the head, which opening the core reads
		b.SetPage(c, i, &scattered)
	}
	b.SetHead(c, Head{Length: 64})
	b.SetUserData(c, "name", make([]byte, 4000))
	if err := errors.Join(b.Commit(), s.Close()); err != nil {
		t.Fatal(err)
	}
	b.Close()

	var bad atomic.Bool // the database reads by itself, too
	s, err = Open("store", Options{FS: errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if bad.Load() && op.Kind == errorfs.OpFileReadAt {
			return syscall.EIO
		}
		return nil
	}))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c, err = s.Core([32]byte{1}); err != nil {
		t.Fatal(err)
	}
	view := c.View()
	defer view.Close()
	bad.Store(true)
	for i := range uint64(64) {
		got, err := c.AppendBlock(nil, i)
		if inMemory := i < separate/64 && err == nil && len(got) == int(i*64); !inMemory && !errors.Is(err, syscall.EIO) {
			t.Errorf("block %d: got %d bytes, %v, want %v", i, len(got), err, syscall.EIO)
		}
		if _, _, err := view.Node(2 * i); !errors.Is(err, syscall.EIO) {
			t.Errorf("node %d: got %v, want %v", 2*i, err, syscall.EIO)
		}
	}
	if _, err := c.UserData("name"); !errors.Is(err, syscall.EIO) {
		t.Errorf("user data: got %v, want %v", err, syscall.EIO)
	}
}
