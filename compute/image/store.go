package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// A Store is a directory of images. Its methods may be called from many
// goroutines. A directory is for one process at a time, save that another may
// look at it.
//
//	names/<name>.json     which image a name means
//	images/<ID>.json      what an image is made of
//	layers/<key>/         a layer's file system, and what is known about it
//	temp/                 what is being made; each piece locked by its maker
//
// Whatever has its final name is complete: it was made under temp, synced, and
// renamed.
type Store struct {
	// Limits bounds the images that are taken in. Set it before the first use.
	Limits Limits

	dir   string
	slots chan struct{} // one for each layer that may unpack at a time

	mu     sync.Mutex
	making map[string]chan struct{} // layers being made, closed when done
	pinned map[string]int           // layers that an unfinished image needs
}

// Open returns the store in dir, makes the directory if it is not there, and
// removes what an earlier process left half made.
func Open(dir string) (*Store, error) {
	op := "open image store " + dir
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	s := &Store{dir: abs, slots: make(chan struct{}, 2), making: map[string]chan struct{}{}, pinned: map[string]int{}}
	for _, sub := range []string{"names", "images", "layers", "temp"} {
		if err := os.MkdirAll(s.path(sub), 0o755); err != nil {
			return nil, fail(op, err)
		}
	}
	if err := s.recover(); err != nil {
		return nil, fail(op, err)
	}
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// recover removes the pieces in temp that nobody is making any more.
func (s *Store) recover() error {
	list, err := os.ReadDir(s.path("temp"))
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := removeAbandoned(s.path("temp", e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func removeAbandoned(dir string) error {
	f, err := lock(dir)
	if err != nil {
		return nil // its maker lives
	}
	defer f.Close()
	return os.RemoveAll(dir)
}

// lock locks a file or directory until the file that it returns is closed, or
// the process ends.
func lock(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// A draft is a directory under temp that becomes part of the store, or goes.
type draft struct {
	dir  string
	lock *os.File
}

func (s *Store) draft() (*draft, error) {
	for {
		dir, err := os.MkdirTemp(s.path("temp"), "")
		if err != nil {
			return nil, err
		}
		f, err := lock(dir)
		if _, gone := os.Lstat(dir); errors.Is(gone, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
			if err == nil {
				f.Close()
			}
			continue // another program took it for abandoned before it was locked
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(dir))
		}
		return &draft{dir, f}, nil
	}
}

// discard removes the draft if it was not published.
func (d *draft) discard() {
	os.RemoveAll(d.dir)
	d.lock.Close()
}

// publish gives the draft its final name, for good once it returns. Where
// another program was faster, its piece stays: one name has one content.
func (d *draft) publish(path string) error {
	if err := syncDir(d.dir); err != nil {
		return err
	}
	err := os.Rename(d.dir, path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// acquire waits for a slot to unpack in.
func (s *Store) acquire(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) release() { <-s.slots }
