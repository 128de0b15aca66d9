package storage

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal/data/merkle"
)

// TestNodesAfterTrim has a batch that cuts a tree and adds nodes beyond the cut,
// as a reader does that follows its log to another fork: beside the nodes added
// there is none of the old tree, whether it was in memory or not.
func TestNodesAfterTrim(t *testing.T) {
	const blocks = 4096
	s, err := Open("store", Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := s.Create([32]byte{1}, Identity{Key: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	commit := func(f func(b *Batch) error) {
		t.Helper()
		b := s.Begin()
		defer b.Close()
		if err := f(b); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	commit(func(b *Batch) error {
		for i := range uint64(blocks) {
			if err := b.Node(c, merkle.Node{Index: 2 * i, Size: 1}); err != nil {
				return err
			}
		}
		b.SetHead(c, Head{Length: blocks})
		return nil
	})
	const common, added = 100, 3000
	undone := s.Begin()
	if err := undone.Trim(c, common); err != nil {
		t.Fatal(err)
	}
	if err := undone.Node(c, merkle.Node{Index: 2 * added, Size: 2}); err != nil {
		t.Fatal(err)
	}
	undone.Close()
	if n, ok, err := c.Node(2*added + 2); err != nil || !ok || n.Size != 1 {
		t.Errorf("after a batch that was given up, the node beside is %v, %v, %v", n, ok, err)
	}
	for i := range uint64(2000) { // until the others are not in memory
		if _, _, err := c.Node(2 * i); err != nil {
			t.Fatal(err)
		}
	}
	commit(func(b *Batch) error {
		if err := b.Trim(c, common); err != nil {
			return err
		}
		b.SetHead(c, Head{Fork: 1, Length: blocks})
		return b.Node(c, merkle.Node{Index: 2 * added, Size: 2})
	})
	for i := range uint64(blocks) {
		n, ok, err := c.Node(2 * i)
		if err != nil {
			t.Fatal(err)
		}
		if want := i < common || i == added; ok != want {
			t.Fatalf("node of block %d is there: %v", i, ok)
		}
		if i == added && n.Size != 2 {
			t.Errorf("the node added is %v", n)
		}
	}
}
