//go:build !linux

package hyperdrive

import (
	"errors"
	"os"
	"path"
	"syscall"
)

const openFlags = 0

var errNoSpace = syscall.ENOSPC

// nameErrors are those by which a file system refuses a name, not its content.
var nameErrors = []error{os.ErrInvalid, syscall.ENAMETOOLONG, syscall.EINVAL, syscall.ENOTDIR}

// lockFolder has no locks that all systems would have.
func lockFolder(*os.File) (bool, error) { return false, nil }

// syncFile brings a file to the disk.
func syncFile(f *os.File, _ int64) error { return f.Sync() }

func (s *folderSink) syncAll() error { return nil }

// syncDirs brings the changes of names to the disk. Where a folder cannot be
// synced, as on Windows, the file system sees to that itself.
func (s *folderSink) syncDirs() error {
	for dir := range s.touched {
		d, err := s.folder.root.Open(path.Join(".", local(dir)))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return folderError("mirror", err)
		}
		_ = d.Sync()
		d.Close()
	}
	return nil
}
