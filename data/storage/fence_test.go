package storage

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tradle/cloudpal"
)

// TestFence leaves a database behind whose disk failed: it cannot touch the
// folder any more, not through files that it had open either, and another may
// open that.
func TestFence(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s, err := Open("store", Options{FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create([32]byte{1}, Identity{}); err != nil { // which the log has not synced
		t.Fatal(err)
	}
	disk := diskFS{mem, s}
	held, err := disk.Create("store/held", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	s.refuse(syscall.EIO)
	if err := s.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("closing says %v", err)
	}
	second, err := Open("store", Options{FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for name, change := range map[string]func() error{
		"write":   func() error { _, err := held.Write([]byte("x")); return err },
		"writeAt": func() error { _, err := held.WriteAt([]byte("x"), 0); return err },
		"create":  func() error { _, err := disk.Create("store/new", vfs.WriteCategoryUnspecified); return err },
		"table":   func() error { _, err := disk.Create("store/000099.sst", vfs.WriteCategoryUnspecified); return err },
		"open":    func() error { _, err := disk.OpenReadWrite("store/held", vfs.WriteCategoryUnspecified); return err },
		"rename":  func() error { return disk.Rename("store/held", "store/other") },
		"link":    func() error { return disk.Link("store/held", "store/other") },
		"remove":  func() error { return disk.Remove("store/held") },
		"folder":  func() error { return disk.MkdirAll("store/folder", 0o700) },
		"all":     func() error { return disk.RemoveAll("store") },
	} {
		if err := change(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: got %v, want %v", name, err, ErrClosed)
		}
	}
}

// TestWhyItDoesNotOpen tells a folder that is in use from one that cannot be
// used.
func TestWhyItDoesNotOpen(t *testing.T) {
	mem := vfs.NewMem()
	s, err := Open("store", Options{FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	broken := func(err error) vfs.FS {
		return errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpLock {
				return err
			}
			return nil
		}))
	}
	for _, c := range []struct {
		fs   vfs.FS
		dir  string
		want cloudpal.Kind
	}{
		{mem, "store", cloudpal.Busy},
		{broken(syscall.ENOSPC), "store", cloudpal.NoSpace},
		{broken(&os.PathError{Op: "open", Path: "LOCK", Err: syscall.EACCES}), "store", cloudpal.Denied},
		{broken(syscall.EROFS), "store", cloudpal.Denied},
	} {
		s, err := Open(c.dir, Options{FS: c.fs})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, c.want) || cloudpal.HintOf(err) == "" {
			t.Errorf("got %v with the hint %q, want %v", err, cloudpal.HintOf(err), c.want)
		}
	}
	if _, err := Open("nowhere", Options{FS: mem, ReadOnly: true}); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("reading a store that is not there: got %v, want %v", err, cloudpal.NotExist)
	}
}
