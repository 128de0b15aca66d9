//go:build !race

package hypercore_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// TestAllocations holds what is done for each block to the memory that it gives
// away: none of ours where a buffer is used again.
func TestAllocations(t *testing.T) {
	fs := vfs.NewMem()
	s, err := storage.Open("store", storage.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	c := create(t, s, hypercore.Options{})
	blocks := make([][]byte, 100)
	for i := range blocks {
		blocks[i] = diskBlock(uint64(i), 1024)
	}
	appends := func() {
		if _, err := c.Append(blocks...); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		appends()
	}
	if got := testing.AllocsPerRun(10, appends); got > 20 { // of a signature, most
		t.Errorf("appending 100 blocks makes %v allocations", got)
	}
	// Of what is on disk the database makes one for each record.
	reads := func(t *testing.T, c *hypercore.Core, each float64) {
		t.Helper()
		buf := make([]byte, 0, 2048)
		for i := range uint64(1000) { // what is cached of the disk is not counted
			if buf, err = c.AppendBlock(buf[:0], i); err != nil {
				t.Fatal(err)
			}
		}
		i := uint64(0)
		if got := testing.AllocsPerRun(200, func() {
			if buf, err = c.AppendBlock(buf[:0], i*7%1000); err != nil {
				t.Fatal(err)
			}
			i++
		}); got > each {
			t.Errorf("reading a block makes %v allocations", got)
		}
		i = 0
		if got := testing.AllocsPerRun(200, func() {
			if _, err := c.Get(ctx, i*7%1000); err != nil {
				t.Fatal(err)
			}
			i++
		}); got > 1+each {
			t.Errorf("reading a block into memory of its own makes %v allocations", got)
		}
		p := c.Prover()
		defer p.Close()
		var proof merkle.Proof
		req := merkle.Request{Block: &merkle.NodeRequest{Nodes: 1}}
		if got := testing.AllocsPerRun(200, func() {
			req.Block.Index = i * 7 % 1000
			if err := p.Prove(req, &proof); err != nil {
				t.Fatal(err)
			}
			i++
		}); got > 4+2*each {
			t.Errorf("proving a block makes %v allocations", got)
		}
	}
	t.Run("from memory", func(t *testing.T) { reads(t, c, 0) })
	c.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = storage.Open("store", storage.Options{FS: fs}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c, err = hypercore.Open(s, c.Key(), hypercore.Options{}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Run("from disk", func(t *testing.T) { reads(t, c, 1) })
}
