package storage

import (
	"os"
	"runtime"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble ends the process, past any recover, where the write-ahead log cannot be
// written, synced or made in the middle of its change to another file. So it is
// never told: from the first such trouble on the log is severed. The store
// refuses further changes and says why, nothing more is written to the log, which
// so has no gap, and no other file follows the one that may have ended in the
// middle of a record.
func (s *Store) sever(why error) {
	s.refuse(why)
	s.severed.Store(true)
}

// A logFile is a file of the write-ahead log.
type logFile struct {
	vfs.File
	s *Store
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// logFile returns the file of the log that was made, or one in its place where
// it could not be.
func (s *Store) logFile(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		s.sever(err)
		if f, err = vfs.NewMem().Create("log", vfs.WriteCategoryUnspecified); err != nil {
			return nil, err
		}
	}
	return &logFile{f, s}, nil
}

// keep does something to the file unless the log is severed, and severs it where
// that fails.
func (f *logFile) keep(do func() error) error {
	if !f.s.severed.Load() {
		if err := do(); err != nil {
			f.s.sever(err)
		}
	}
	return nil
}

// Write implements vfs.File.
func (f *logFile) Write(p []byte) (int, error) {
	return len(p), f.keep(func() error { _, err := f.File.Write(p); return err })
}

// Sync implements vfs.File.
func (f *logFile) Sync() error { return f.keep(f.File.Sync) }

// SyncData implements vfs.File.
func (f *logFile) SyncData() error { return f.keep(f.File.SyncData) }

// SyncTo implements vfs.File.
func (f *logFile) SyncTo(length int64) (fullSync bool, err error) {
	err = f.keep(func() (err error) { fullSync, err = f.File.SyncTo(length); return err })
	return fullSync, err
}

// Preallocate implements vfs.File. It only saves time: where there is no room,
// it is the write that says so.
func (f *logFile) Preallocate(offset, length int64) error {
	if !f.s.severed.Load() {
		f.File.Preallocate(offset, length)
	}
	return nil
}

// Close implements vfs.File.
func (f *logFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.s.sever(err)
	}
	return nil
}

// A folder is one whose names are synced, for the log and for others.
type folder struct {
	vfs.File
	s *Store
}

// Sync implements vfs.File.
func (f *folder) Sync() error {
	err := f.File.Sync()
	if err != nil && calledBy("wal.(*StandaloneManager).Create") {
		return (&logFile{s: f.s}).keep(func() error { return err })
	}
	return err
}

// calledBy reports whether a function is on this goroutine's stack.
func calledBy(name string) bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, name) {
			return true
		}
		if !more {
			return false
		}
	}
}

// OpenDir implements vfs.FS.
func (fs diskFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &folder{f, fs.s}, nil
}

// ReuseForWrite implements vfs.FS. Only files of the log are used again.
func (fs diskFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if fs.s.severed.Load() {
		return fs.s.logFile(nil, os.ErrClosed)
	}
	return fs.s.logFile(fs.open(func() (vfs.File, error) { return fs.FS.ReuseForWrite(old, name, category) }))
}
