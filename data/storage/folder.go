package storage

import (
	"errors"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// makeFolder makes a folder, and those that it is in, and returns when their
// names are on disk: what is synced inside a folder whose name is not is lost
// with it.
func makeFolder(fs vfs.FS, dir string) error {
	if dir == "" {
		return nil // the root of a file system in memory
	}
	_, err := fs.Stat(dir)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if parent := fs.PathDir(dir); parent != dir {
		if err := makeFolder(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncParent(fs, dir)
}

// syncParent returns when a folder's name is on disk.
func syncParent(fs vfs.FS, dir string) error {
	if dir == "" {
		return nil
	}
	return syncFolder(fs, fs.PathDir(dir))
}

// syncFolder returns when the names in a folder are on disk.
func syncFolder(fs vfs.FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
