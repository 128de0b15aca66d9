package hypercore_test

import (
	"errors"
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
	if err := reader.Reorg(h, h.Roots, 4, 0); err != nil {
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

// TestReorgOfAnOlderFork has a reader compare its log with a tree of fork 2, and
// change to fork 1 before it makes that its own: what it found in common was so
// with a log that it has not any more.
func TestReorgOfAnOlderFork(t *testing.T) {
	writer := create(t, newStore(t), hypercore.Options{})
	appendAll(t, writer, "0", "1", "2", "3")
	reader, err := hypercore.Open(newStore(t), writer.Key(), hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fetch(t, writer, reader, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 4}, Manifest: true})
	for i := range uint64(4) {
		missing, err := reader.Missing(i)
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, writer, reader, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
	}
	if err := writer.Truncate(1, 1); err != nil {
		t.Fatal(err)
	}
	appendAll(t, writer, "one", "two", "three")
	first := writer.Head()
	if err := writer.Truncate(1, 2); err != nil {
		t.Fatal(err)
	}
	appendAll(t, writer, "1", "2", "3") // as in fork 0, with which it has all in common
	second := writer.Head()

	if err := reader.Reorg(first, first.Roots, 1, 0); err != nil {
		t.Fatal(err)
	}
	if err := reader.Reorg(second, second.Roots, 4, 0); !errors.Is(err, merkle.ErrStale) {
		t.Errorf("compared with fork 0: got %v, want %v", err, merkle.ErrStale)
	}
	if got := reader.Head(); got.Fork != 1 || got.Hash() != first.Hash() {
		t.Errorf("the log has fork %d, want 1", got.Fork)
	}
	if err := reader.Reorg(second, second.Roots, 1, 1); err != nil {
		t.Errorf("compared with fork 1: %v", err)
	}
	if audit, err := reader.Audit(t.Context(), nil); err != nil || !audit.Good() {
		t.Errorf("audit: %v %v", audit.Faults, err)
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
