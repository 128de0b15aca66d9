package hypercore_test

import (
	"testing"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/merkle"
)

// TestCutForgetsBits has a reader get its blocks out of order until it has them
// all, close, open, and follow its log to a shorter fork that then grows again:
// of the blocks that were cut off it must not say that they are here.
func TestCutForgetsBits(t *testing.T) {
	writer := create(t, newStore(t), hypercore.Options{})
	appendAll(t, writer, "0", "1", "2", "3", "4", "5", "6", "7")
	there := newStore(t)
	reader, err := hypercore.Open(there, writer.Key(), hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, writer, reader, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 8}, Manifest: true})
	for _, i := range []uint64{6, 7, 5, 4, 0, 1, 2, 3} {
		missing, err := reader.Missing(i)
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, writer, reader, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
	}
	wantBlocks(t, reader, "0", "1", "2", "3", "4", "5", "6", "7")
	reader.Close()
	if reader, err = hypercore.Open(there, writer.Key(), hypercore.Options{}); err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := writer.Truncate(4); err != nil {
		t.Fatal(err)
	}
	h := writer.Head()
	if err := reader.Reorg(h, h.Roots, 4); err != nil {
		t.Fatal(err)
	}
	appendAll(t, writer, "four", "five", "six", "seven", "eight")
	fetch(t, writer, reader, merkle.Request{Fork: 1, Upgrade: &merkle.UpgradeRequest{Start: 4, Length: 5}})
	for i := range writer.Length() {
		if got, want := reader.Has(i), i < 4; got != want {
			t.Errorf("block %d is here: %v", i, got)
		}
	}
	if got := reader.Contiguous(); got != 4 {
		t.Errorf("contiguous: got %d, want 4", got)
	}
}

// fetch has a reader take what a writer answers to a request.
func fetch(t testing.TB, writer, reader *hypercore.Core, q merkle.Request) {
	t.Helper()
	q.Fork = writer.Fork()
	p, err := writer.Prove(q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Apply(p); err != nil {
		t.Fatal(err)
	}
}
