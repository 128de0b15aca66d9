package storage

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestFolderIsOnDisk loses power after a first Sync into a folder that was not
// there, nor was the one that it is in, and after one into a folder that another
// had made and not synced.
func TestFolderIsOnDisk(t *testing.T) {
	for name, prepare := range map[string]func(fs vfs.FS) error{
		"made by Open":   func(vfs.FS) error { return nil },
		"made by others": func(fs vfs.FS) error { return fs.MkdirAll("/home/ann/store", 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			sync := func(dir string) {
				d, err := fs.OpenDir(dir)
				if err == nil {
					err = d.Sync()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := fs.MkdirAll("/home/ann", 0o700); err != nil {
				t.Fatal(err)
			}
			sync("/")
			sync("/home")
			if err := prepare(fs); err != nil {
				t.Fatal(err)
			}
			dir := "/home/ann/store"
			if name == "made by Open" {
				dir = "/home/ann/pal/data/store"
			}
			s, err := Open(dir, Options{FS: fs})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Create([32]byte{1}, Identity{Key: [32]byte{1}}); err != nil {
				t.Fatal(err)
			}
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			later, err := Open(dir, Options{FS: fs.CrashClone(vfs.CrashCloneCfg{}), ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer later.Close()
			if _, err := later.Core([32]byte{1}); err != nil {
				t.Errorf("what was synced before the power was lost: %v", err)
			}
		})
	}
}
