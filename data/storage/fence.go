package storage

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A database whose disk failed cannot be closed in order: its own goroutines may
// wait for a disk that does not come back, or still be merging tables. It is
// left, and the fence keeps it from the folder, so that whoever opens that next
// is alone in it.

// change does something that changes the folder, unless the fence is up.
func (fs diskFS) change(do func() error) error {
	if !fs.s.writers.enter() {
		return ErrClosed
	}
	defer fs.s.writers.leave()
	return do()
}

// open is change for what gives a file that can be written.
func (fs diskFS) open(do func() (vfs.File, error)) (f vfs.File, err error) {
	err = fs.change(func() error {
		f, err = do()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &fencedFile{f, fs}, nil
}

// A fencedFile is written as long as the fence is down.
type fencedFile struct {
	vfs.File
	fs diskFS
}

// Write implements vfs.File.
func (f *fencedFile) Write(p []byte) (n int, err error) {
	err = f.fs.change(func() error { n, err = f.File.Write(p); return err })
	return n, err
}

// WriteAt implements vfs.File.
func (f *fencedFile) WriteAt(p []byte, at int64) (n int, err error) {
	err = f.fs.change(func() error { n, err = f.File.WriteAt(p, at); return err })
	return n, err
}

// Preallocate implements vfs.File.
func (f *fencedFile) Preallocate(offset, length int64) error {
	return f.fs.change(func() error { return f.File.Preallocate(offset, length) })
}

// OpenReadWrite implements vfs.FS.
func (fs diskFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.OpenReadWrite(name, category, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (fs diskFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.ReuseForWrite(old, name, category) })
}

// Link implements vfs.FS.
func (fs diskFS) Link(old, name string) error {
	return fs.change(func() error { return fs.FS.Link(old, name) })
}

// Rename implements vfs.FS.
func (fs diskFS) Rename(old, name string) error {
	return fs.change(func() error { return fs.FS.Rename(old, name) })
}

// Remove implements vfs.FS.
func (fs diskFS) Remove(name string) error {
	return fs.change(func() error { return fs.FS.Remove(name) })
}

// RemoveAll implements vfs.FS.
func (fs diskFS) RemoveAll(name string) error {
	return fs.change(func() error { return fs.FS.RemoveAll(name) })
}

// MkdirAll implements vfs.FS.
func (fs diskFS) MkdirAll(dir string, mode os.FileMode) error {
	return fs.change(func() error { return fs.FS.MkdirAll(dir, mode) })
}

// Lock implements vfs.FS. The store itself holds the lock, for longer than the
// database does.
func (diskFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }
