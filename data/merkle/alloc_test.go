//go:build !race

package merkle_test

import (
	"testing"

	"github.com/tradle/cloudpal/data/merkle"
)

func TestBatchDoesNotAllocate(t *testing.T) {
	blocks := make([][]byte, 100)
	for i := range blocks {
		blocks[i] = make([]byte, 1024)
	}
	var b merkle.Batch
	grow := func() {
		b.Reset(merkle.Head{})
		b.Append(blocks...)
		b.Append(blocks[0])
		if b.Hash() == (merkle.Hash{}) {
			t.Error("no hash")
		}
	}
	grow()
	if n := testing.AllocsPerRun(10, grow); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
