package wallet

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/test/apart"
	"github.com/tradle/cloudpal/ticket"
)

// A disk that is full is told, and what was there is whole. Nothing was sent.
func TestDiskFull(t *testing.T) {
	apart.Root(t, "it mounts a small disk")
	dir := t.TempDir()
	h := newHouse(t)
	h.must(syscall.Mount("none", dir, "tmpfs", 0, "size=200k"))
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	w, err := Create(h.config(filepath.Join(dir, "wallet"), "ann", Now), h.trust, FirstDevice)
	h.must(err)
	defer w.Close()
	ann := &own{w, h}
	ann.buy("week")
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	h.must(err)
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	f.Close()
	var failed error
	for range 50 {
		if _, _, err := ann.Send(t.Context(), ticket.Paid, 1); err != nil {
			failed = err
			break
		}
		failed = ann.change(t.Context(), func(_ *state, c *change) error {
			c.putFact("test", bytes.Repeat([]byte{'x'}, 3000))
			return nil
		})
		if failed != nil {
			break
		}
	}
	mustBe(t, cloudpal.NoSpace, failed)
	if cloudpal.HintOf(failed) == "" {
		t.Error("there is no hint")
	}
	h.must(os.Remove(ballast))
	if got := ann.all(); got != 426 {
		t.Errorf("the wallet has %d units, want 426", got)
	}
	ann.buy("day")
	if got := ann.all(); got != 490 {
		t.Errorf("the wallet has %d units, want 490", got)
	}
}
