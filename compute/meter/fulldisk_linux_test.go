package meter

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tradle/cloudpal"
)

func TestAppendOnAFullDiskLeavesTheLogAsItWas(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("needs root to mount a small tmpfs")
		}
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("meter-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	path, ballast := filepath.Join(dir, "usage"), filepath.Join(dir, "ballast")
	write(t, ballast, make([]byte, 16<<10))
	l := open(t, path)
	err := fillUp(l)
	if !errors.Is(err, cloudpal.NoSpace) {
		t.Fatalf("got %v, want %v", err, cloudpal.NoSpace)
	}
	if s := verified(t, path); s.Torn || s.Last != l.Last() {
		t.Errorf("verify finds %+v, want last %+v", s, l.Last())
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	add(t, l, 1)
	if s := verified(t, path); s.Last != l.Last() {
		t.Errorf("with room again verify finds %+v, want last %+v", s.Last, l.Last())
	}
	l.Close()
}

func fillUp(l *Log) error {
	for range 1000 {
		if _, err := l.Append(Record{Time: start, Event: strings.Repeat("x", 3000)}); err != nil {
			return err
		}
	}
	return nil
}
