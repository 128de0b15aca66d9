package hyperdrive

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

const openFlags = unix.O_NONBLOCK

var errNoSpace = unix.ENOSPC

// nameErrors are those by which Linux refuses a name, not its content.
var nameErrors = []error{unix.ENAMETOOLONG, unix.EINVAL, unix.EILSEQ, unix.ELOOP, unix.ENOTDIR}

// lockFolder locks a folder until dir is closed, or its process ends. It
// reports false where the file system has no such locks.
func lockFolder(dir *os.File) (bool, error) {
	err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, errMirrored
	}
	return err == nil, nil
}

// syncFile leaves it to syncAll to bring a file to the disk, but has the system
// begin with a large one, so that syncAll waits for less.
func syncFile(f *os.File, size int64) error {
	if size < begunAt {
		return nil
	}
	err := unix.SyncFileRange(int(f.Fd()), 0, size, unix.SYNC_FILE_RANGE_WRITE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ESPIPE) || errors.Is(err, unix.EINVAL) {
		return nil // it is a hint
	}
	return err
}

// begunAt is how large a file must be to be begun with.
const begunAt = 256 << 10

// syncAll brings all that is pending to the disk: one wait instead of one for
// each file.
func (s *folderSink) syncAll() error { return s.syncfs() }

// syncDirs brings the changes of names to the disk.
func (s *folderSink) syncDirs() error {
	if len(s.touched) == 0 {
		return nil
	}
	return s.syncfs()
}

// syncfs syncs the file system of the folder, and those that are mounted in it
// and were written to.
func (s *folderSink) syncfs() error {
	seen := map[uint64]bool{}
	dirs := map[string]bool{"": true}
	for dir := range s.touched {
		dirs[dir] = true
	}
	for _, p := range s.pending {
		dirs[path.Dir("/"+p.temp)] = true
	}
	for dir := range dirs {
		d, err := s.folder.root.Open(path.Join(".", local(dir)))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return folderError("mirror", err)
		}
		err = syncOnce(d, seen)
		d.Close()
		if err != nil {
			return folderError("mirror", err)
		}
	}
	return nil
}

// syncOnce syncs the file system that has d, once.
func syncOnce(d *os.File, seen map[uint64]bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil || seen[uint64(st.Dev)] {
		return err
	}
	seen[uint64(st.Dev)] = true
	return unix.Syncfs(int(d.Fd()))
}
