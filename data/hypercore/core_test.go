package hypercore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/storage"
)

func newStore(t testing.TB) *storage.Store {
	t.Helper()
	s := storage.Memory()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func create(t testing.TB, s *storage.Store, o hypercore.Options) *hypercore.Core {
	t.Helper()
	c, err := hypercore.Create(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func appendAll(t testing.TB, c *hypercore.Core, blocks ...string) {
	t.Helper()
	var raw [][]byte
	for _, b := range blocks {
		raw = append(raw, []byte(b))
	}
	if _, err := c.Append(raw...); err != nil {
		t.Fatal(err)
	}
}

func wantBlocks(t testing.TB, c *hypercore.Core, blocks ...string) {
	t.Helper()
	if got := c.Length(); got != uint64(len(blocks)) {
		t.Errorf("length: got %d, want %d", got, len(blocks))
	}
	for i, want := range blocks {
		got, err := c.Local(uint64(i))
		if err != nil || string(got) != want {
			t.Errorf("block %d: got %q (%v), want %q", i, got, err, want)
		}
	}
}

func TestAppendAndGet(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	appendAll(t, c, "hello", "world")
	appendAll(t, c, "")
	wantBlocks(t, c, "hello", "world", "")
	if got := c.ByteLength(); got != 10 {
		t.Errorf("bytes: got %d, want 10", got)
	}
	if _, err := c.Local(3); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("a block that is not there: got %v", err)
	}
}

func TestGetTimesOut(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, 0); !errors.Is(err, cloudpal.Timeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestTruncate(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	appendAll(t, c, "a", "b", "c")
	old := c.Snapshot()
	defer old.Close()
	if err := c.Truncate(1); err != nil {
		t.Fatal(err)
	}
	appendAll(t, c, "B")
	wantBlocks(t, c, "a", "B")
	wantBlocks(t, old, "a", "b", "c")
	if got := c.Fork(); got != 1 {
		t.Errorf("fork: got %d, want 1", got)
	}
	audit, err := c.Audit(t.Context(), nil)
	if err != nil || !audit.Good() || audit.Blocks != 2 {
		t.Errorf("audit: got %+v (%v)", audit, err)
	}
}
