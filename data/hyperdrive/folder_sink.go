package hyperdrive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/tradle/cloudpal"
)

const (
	maxPendingFiles = 4096
	maxPendingBytes = 64 << 20
)

// A folderSink writes into a folder so that every file is at all times as it
// was or as it will be: it is written under another name, brought to the disk,
// and then renamed. Some are pending at a time, so that bringing them to the
// disk costs one wait for all, and not one for each.
type folderSink struct {
	folder  *Folder
	run     *run
	pending []pendingFile
	names   map[string]bool // of what is pending
	bytes   int64
	dirs    map[string]bool // folders that are there and are real
	touched map[string]bool // folders of which names have changed since the last flush
}

type pendingFile struct{ temp, name string }

func (f *Folder) sink(context.Context) (sink, error) {
	r, err := f.begin()
	if err != nil {
		return nil, err
	}
	return &folderSink{folder: f, run: r, names: map[string]bool{}, dirs: map[string]bool{"": true}, touched: map[string]bool{}}, nil
}

func (s *folderSink) put(ctx context.Context, e Entry, content io.Reader) (int64, error) {
	at, err := s.place(e)
	if err != nil {
		return 0, err
	}
	file, err := s.folder.root.OpenFile(at.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, at.mode)
	if err != nil {
		return 0, s.refused(err)
	}
	if at.replaces {
		_ = file.Chmod(at.mode) // whatever the umask; it is no trouble where that fails
	}
	n, err := io.Copy(file, content)
	if err == nil {
		err = syncFile(file, n)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		_ = s.folder.root.Remove(at.temp)
		return n, folderError("mirror", err)
	}
	s.bytes += n
	return n, s.add(at.temp, e.Name)
}

// withExecutable lets those execute a file who can read it, or nobody.
func withExecutable(mode fs.FileMode, executable bool) fs.FileMode {
	if !executable {
		return mode &^ 0o111
	}
	return mode | mode&0o444>>2
}

func (s *folderSink) link(_ context.Context, e Entry) error {
	if err := checkLink(e.Name, e.Linkname); err != nil {
		return &skipped{err}
	}
	target := filepath.FromSlash(e.Linkname)
	if below, ok := strings.CutPrefix(e.Linkname, "/"); ok {
		target = filepath.Join(s.folder.path, filepath.FromSlash(below))
	}
	at, err := s.place(e)
	if err != nil {
		return err
	}
	if err := s.folder.root.Symlink(target, at.temp); err != nil {
		return s.refused(err)
	}
	return s.add(at.temp, e.Name)
}

// meta makes a file executable or not.
func (s *folderSink) meta(_ context.Context, e, _ Entry) error {
	info, err := s.folder.root.Lstat(local(e.Name))
	if err == nil {
		err = s.folder.root.Chmod(local(e.Name), withExecutable(info.Mode().Perm(), e.Executable))
	}
	if err != nil {
		return skipWhere(err, fs.ErrNotExist)
	}
	return nil
}

// remove removes a file, and the folders that are empty then.
func (s *folderSink) remove(_ context.Context, e Entry) error {
	err := s.folder.root.Remove(local(e.Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return folderError("mirror", err)
	}
	dir := path.Dir(e.Name)
	for ; dir != "/" && s.folder.root.Remove(local(dir)) == nil; dir = path.Dir(dir) {
		delete(s.dirs, dir)
		delete(s.touched, dir)
	}
	s.touched[strings.TrimSuffix(dir, "/")] = true
	return nil
}

// A spot is where a file comes to be.
type spot struct {
	temp     string // a path beside it that nothing else has
	mode     fs.FileMode
	replaces bool // the mode is that of the file before
}

// place makes the folders above a file, and sees to it that it can come to be
// there. What is in the way and cannot be replaced is found here, before
// anything is written.
func (s *folderSink) place(e Entry) (at spot, err error) {
	dir := strings.TrimSuffix(path.Dir(e.Name), "/")
	if err := s.makeDir(dir); err != nil {
		return at, err
	}
	at.mode = 0o666
	old, err := s.folder.root.Lstat(local(e.Name))
	switch {
	case err == nil && old.IsDir():
		if s.folder.root.Remove(local(e.Name)) != nil { // one that is empty makes way
			return at, errInTheWay
		}
		delete(s.dirs, e.Name)
	case err == nil && old.Mode().IsRegular():
		at.mode, at.replaces = old.Mode().Perm(), true
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return at, s.refused(err)
	}
	at.mode = withExecutable(at.mode, e.Executable)
	at.temp = path.Join(local(dir), s.run.temp())
	return at, nil
}

// makeDir makes a folder and those above it. A link to a folder is none: what
// a drive has below a name that is a link here is not written elsewhere.
func (s *folderSink) makeDir(dir string) error {
	if s.dirs[dir] {
		return nil
	}
	if s.names[dir] {
		return errInTheWay
	}
	above := strings.TrimSuffix(path.Dir(dir), "/")
	if err := s.makeDir(above); err != nil {
		return err
	}
	info, err := s.folder.root.Lstat(local(dir))
	switch {
	case err == nil && !info.IsDir():
		return errInTheWay
	case errors.Is(err, fs.ErrNotExist):
		if err := s.folder.root.Mkdir(local(dir), 0o777); err != nil {
			return s.refused(err)
		}
		s.touched[above] = true
	case err != nil:
		return s.refused(err)
	}
	s.dirs[dir] = true
	return nil
}

var errInTheWay = &skipped{cloudpal.E("mirror", cloudpal.Exist, errors.New("a file is where a folder must be, or the other way round"))}

// refused sorts the errors by which a file system says that it cannot have
// such a name from those that say that it has had enough.
func (s *folderSink) refused(err error) error { return skipWhere(err, nameErrors...) }

func (s *folderSink) add(temp, name string) error {
	s.pending = append(s.pending, pendingFile{temp, name})
	s.names[name] = true
	if len(s.pending) < maxPendingFiles && s.bytes < maxPendingBytes {
		return nil
	}
	return s.settle()
}

// settle brings what is pending to the disk, and then gives it its names.
func (s *folderSink) settle() error {
	if len(s.pending) == 0 {
		return nil
	}
	if err := s.syncAll(); err != nil {
		return err
	}
	for len(s.pending) > 0 {
		p := s.pending[0]
		if err := s.folder.root.Rename(p.temp, local(p.name)); err != nil {
			return folderError("mirror", err)
		}
		s.touched[strings.TrimSuffix(path.Dir(p.name), "/")] = true
		s.pending = s.pending[1:]
	}
	s.pending, s.bytes = nil, 0
	clear(s.names)
	return nil
}

// flush puts everything in its place, and returns when that is on disk.
func (s *folderSink) flush(context.Context) error {
	if err := s.settle(); err != nil {
		return err
	}
	err := s.syncDirs()
	clear(s.touched)
	return err
}

// cancel leaves in place what is there, and removes what is pending.
func (s *folderSink) cancel() {
	defer s.folder.end(s.run)
	for _, p := range s.pending {
		_ = s.folder.root.Remove(p.temp)
	}
	s.pending = nil
}
