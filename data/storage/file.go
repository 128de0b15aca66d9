package storage

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A diskFS is where a store's database is. It writes tables in larger pieces
// than Pebble does, which hands on every 4 KiB by themselves, and none before what
// it speaks of is on disk in the log.
type diskFS struct {
	vfs.FS
	s *Store
}

// writeSize is how much of a table is written at once.
const writeSize = 128 << 10

// Create implements vfs.FS.
func (fs diskFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !strings.HasSuffix(name, ".sst") && !strings.HasSuffix(name, ".blob") {
		return fs.create(name, category)
	}
	if err := fs.change(func() error { return fs.s.log.sync(fs.s.log.written()) }); err != nil {
		return nil, err
	}
	f, err := fs.create(name, category)
	if err != nil {
		return nil, err
	}
	return &bufferedFile{File: f, s: fs.s}, nil
}

func (fs diskFS) create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.Create(name, category) })
}

// Unwrap implements vfs.FS.
func (fs diskFS) Unwrap() vfs.FS { return fs.FS }

// A bufferedFile is one that is being written, by one goroutine.
type bufferedFile struct {
	vfs.File
	s   *Store
	buf []byte
}

// tell returns err, unless Pebble would fall over it: where a file of blocks
// cannot be finished, it closes that a second time.
func (f *bufferedFile) tell(err error) error {
	if err != nil && calledBy("(*fileBufferedWritable).Finish") {
		f.s.giveUp(err)
	}
	return err
}

// Write implements vfs.File.
func (f *bufferedFile) Write(p []byte) (n int, err error) {
	if f.buf == nil {
		f.buf = make([]byte, 0, writeSize)
	}
	if len(f.buf)+len(p) > cap(f.buf) {
		if err := f.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) >= cap(f.buf) {
		n, err := f.File.Write(p)
		return n, f.tell(err)
	}
	f.buf = append(f.buf, p...)
	return len(p), nil
}

func (f *bufferedFile) flush() error {
	if len(f.buf) == 0 {
		return nil
	}
	_, err := f.File.Write(f.buf)
	f.buf = f.buf[:0]
	return f.tell(err)
}

// Sync implements vfs.File.
func (f *bufferedFile) Sync() error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.tell(f.File.Sync())
}

// SyncData implements vfs.File.
func (f *bufferedFile) SyncData() error {
	if err := f.flush(); err != nil {
		return err
	}
	return f.tell(f.File.SyncData())
}

// SyncTo implements vfs.File.
func (f *bufferedFile) SyncTo(length int64) (fullSync bool, err error) {
	if err := f.flush(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

// Close implements vfs.File.
func (f *bufferedFile) Close() error {
	err := f.flush()
	if closing := f.File.Close(); err == nil {
		err = closing
	}
	f.buf = nil
	return f.tell(err)
}

// Stat implements vfs.File.
func (f *bufferedFile) Stat() (vfs.FileInfo, error) {
	if err := f.flush(); err != nil {
		return nil, err
	}
	return f.File.Stat()
}
