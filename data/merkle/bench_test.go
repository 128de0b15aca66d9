package merkle_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal/data/merkle"
)

// BenchmarkHash is what BenchmarkAppend cannot be faster than.
func BenchmarkHash(b *testing.B) {
	block := make([]byte, 1024)
	b.ReportAllocs()
	b.SetBytes(int64(len(block)))
	for n := uint64(0); b.Loop(); n++ {
		binary.LittleEndian.PutUint64(block, n)
		blake2b.Sum256(block)
	}
}

func BenchmarkAppend(b *testing.B) {
	block := make([]byte, 1024)
	var batch merkle.Batch
	b.ReportAllocs()
	b.SetBytes(int64(len(block)))
	for n := uint64(0); b.Loop(); n++ {
		if n%100 == 0 {
			batch.Reset(merkle.Head{})
		}
		binary.LittleEndian.PutUint64(block, n)
		batch.Append(block)
	}
}

// BenchmarkVerify verifies blocks of a log of a million, each with the whole way
// to the root, as the worst case is.
func BenchmarkVerify(b *testing.B) {
	const length = 1 << 20
	block := make([]byte, 1024)
	var batch merkle.Batch
	for range length {
		batch.Append(block[:8])
	}
	w := &writer{nodes: merkle.Nodes{}, head: batch.Head()}
	w.nodes.Add(batch.Nodes()...)
	p, err := merkle.Prove(w.nodes, w.head, merkle.Request{Block: &merkle.NodeRequest{Index: 777, Nodes: 20}})
	if err != nil {
		b.Fatal(err)
	}
	p.Block.Value = block[:8]
	roots := merkle.Nodes{}
	roots.Add(w.head.Roots...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := merkle.Verify(roots, w.head, p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyNext verifies a block of which all but the leaf is known, as
// half of all are when a log is read in order.
func BenchmarkVerifyNext(b *testing.B) {
	block := make([]byte, 1024)
	w := write(b, 0, [][]byte{block, block})
	p, err := w.answer(merkle.Request{Block: &merkle.NodeRequest{Index: 1}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := merkle.Verify(w.nodes, w.head, p); err != nil {
			b.Fatal(err)
		}
	}
}
