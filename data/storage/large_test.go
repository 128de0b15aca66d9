package storage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLargeBatches has stores take batches of blocks above what a batch keeps
// memory for, at the same time: they hand that memory on to each other.
func TestLargeBatches(t *testing.T) {
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			if err := largeBatches(uint64(n)); err != nil {
				t.Errorf("store %d: %v", n, err)
			}
		})
	}
	all.Wait()
}

func largeBatches(seed uint64) error {
	s, err := Open("store", Options{FS: vfs.NewMem()})
	if err != nil {
		return err
	}
	defer s.Close()
	core, err := s.Create([32]byte{1}, Identity{})
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(seed, 1))
	block := func(i uint64) []byte {
		of := rand.New(rand.NewPCG(seed, i))
		return bytes.Repeat([]byte{byte(of.Uint32())}, separate+of.IntN(300<<10))
	}
	b := s.Begin()
	defer b.Close()
	var length uint64
	for range 6 {
		b.Reset()
		count, size := random.IntN(30), 0
		for i := range count {
			size += len(block(length + uint64(i)))
		}
		if random.IntN(2) == 0 {
			b.Grow(count, size)
		}
		for range count {
			data := block(length)
			copy(b.Block(core, length, len(data)), data)
			length++
		}
		b.SetHead(core, Head{Length: length})
		if err := b.Commit(); err != nil {
			return err
		}
	}
	for i := range length {
		if got, err := core.AppendBlock(nil, i); err != nil || !bytes.Equal(got, block(i)) {
			return fmt.Errorf("block %d of %d bytes: got %d bytes, %v", i, len(block(i)), len(got), err)
		}
	}
	return nil
}
