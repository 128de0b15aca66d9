package hyperdrive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperblobs"
)

// A Folder is a folder of this machine, as one side of a mirror. Nothing
// outside of it is read or written, whatever symbolic links it has: each name
// is looked up from the folder itself, step by step.
type Folder struct {
	root *os.Root
	path string // absolute, for links that name it
	run  atomic.Pointer[run]
}

// OpenFolder opens a folder that is there. Close it when done.
func OpenFolder(path string) (*Folder, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, folderError("open a folder", err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, folderError("open a folder", err)
	}
	return &Folder{root: root, path: abs}, nil
}

// MakeFolder opens a folder, and makes it, with those above it, where there is
// none. Close it when done.
func MakeFolder(path string) (*Folder, error) {
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, folderError("make a folder", err)
	}
	return OpenFolder(path)
}

// Close ends its use.
func (f *Folder) Close() error { return f.root.Close() }

// items yields the files and links at and below a prefix, in the order of their
// names' bytes, as drives have them.
func (f *Folder) items(ctx context.Context, prefix string, ignore func(string) bool) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		if prefix == "" {
			f.walk(ctx, "", ignore, yield)
			return
		}
		info, err := f.root.Lstat(local(prefix))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			yield(item{}, folderError("list a folder", err))
		default:
			f.visit(ctx, prefix, info, ignore, yield)
		}
	}
}

// local returns the path of a drive's name within the folder.
func local(name string) string { return filepath.FromSlash(strings.TrimPrefix(name, "/")) }

// walk yields what is below a folder, and reports whether to go on.
func (f *Folder) walk(ctx context.Context, dir string, ignore func(string) bool, yield func(item, error) bool) bool {
	infos, err := f.read(dir)
	if errors.Is(err, fs.ErrNotExist) && dir != "" {
		return true // it went away meanwhile
	}
	if errors.Is(err, fs.ErrPermission) && dir != "" {
		return yield(item{Entry: Entry{Name: dir}, trouble: err, below: true}, nil)
	}
	if err != nil {
		return yield(item{}, folderError("list a folder", err))
	}
	for _, info := range infos {
		if err := ctx.Err(); err != nil {
			return yield(item{}, folderError("list a folder", err))
		}
		if !f.visit(ctx, dir+"/"+info.Name(), info, ignore, yield) {
			return false
		}
	}
	return true
}

// read returns what a folder has, in the order in which a drive has the names
// below them: a folder's name counts with its slash.
func (f *Folder) read(dir string) ([]fs.FileInfo, error) {
	d, err := f.root.Open(path.Join(".", local(dir)))
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return nil, err
	}
	infos := make([]fs.FileInfo, 0, len(names))
	for _, name := range names {
		info, err := f.root.Lstat(path.Join(local(dir), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went away meanwhile
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return strings.Compare(sortName(a), sortName(b)) })
	return infos, nil
}

func sortName(info fs.FileInfo) string {
	if info.IsDir() {
		return info.Name() + "/"
	}
	return info.Name()
}

// visit yields one thing, or what is below it.
func (f *Folder) visit(ctx context.Context, name string, info fs.FileInfo, ignore func(string) bool, yield func(item, error) bool) bool {
	switch {
	case ignore(name):
		return true
	case isTemp(info.Name()):
		f.sweep(name, info)
		return true
	case !isClean(name):
		return yield(item{Entry: Entry{Name: name}, trouble: badName("a drive cannot have such a name"), below: info.IsDir()}, nil)
	case info.IsDir():
		return f.walk(ctx, name, ignore, yield)
	}
	return yield(f.item(name, info), nil)
}

// item returns the entry that stands for a file or a link.
func (f *Folder) item(name string, info fs.FileInfo) item {
	it := item{Entry: Entry{Name: name}}
	switch info.Mode().Type() {
	case 0:
		it.Blob = &hyperblobs.ID{ByteLength: uint64(info.Size())}
		it.Executable = info.Mode()&0o100 != 0
	case fs.ModeSymlink:
		target, err := f.root.Readlink(local(name))
		if err == nil {
			it.Linkname, err = f.linkname(name, target)
		}
		it.trouble = err
	default:
		it.trouble = cloudpal.E("mirror", cloudpal.Invalid, errors.New("it is neither a file, a folder nor a link"))
	}
	return it
}

// linkname returns what a link is called in a drive, as the original has it:
// one that names the folder by its path begins with / there.
func (f *Folder) linkname(name, target string) (string, error) {
	target = filepath.ToSlash(target)
	if below, ok := strings.CutPrefix(target, filepath.ToSlash(f.path)+"/"); ok {
		target = "/" + below
	} else if path.IsAbs(target) {
		return "", errOutside
	}
	return target, checkLink(name, target)
}

var errOutside = cloudpal.E("mirror", cloudpal.Denied, errors.New("the link leads out of the folder"))

// checkLink refuses links by which whoever follows them would leave the
// folder.
func checkLink(name, target string) error {
	if _, err := Resolve(path.Dir(name), target); err != nil || strings.ContainsAny(target, "\x00") {
		return errOutside
	}
	return nil
}

// size returns how many bytes a file has.
func (f *Folder) size(_ context.Context, e Entry) (int64, error) { return plainSize(e), nil }

// open opens a file to be read. What is none any more, such as a pipe that
// took its place, is not waited for.
func (f *Folder) open(_ context.Context, e Entry) (io.ReadCloser, error) {
	file, err := f.root.OpenFile(local(e.Name), os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, skipWhere(err, fs.ErrNotExist, fs.ErrPermission)
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, &skipped{errors.Join(err, errors.New("it is no file any more"))}
	}
	return file, nil
}

// A skipped error concerns one file; the mirror goes on with the others.
type skipped struct{ cause error }

func (s *skipped) Error() string { return s.cause.Error() }
func (s *skipped) Unwrap() error { return s.cause }

// skipWhere makes err a skipped one where it is one of those.
func skipWhere(err error, those ...error) error {
	for _, e := range those {
		if errors.Is(err, e) {
			return &skipped{err}
		}
	}
	return folderError("mirror", err)
}

// folderError gives an error of the file system the kind that it is.
func folderError(op string, err error) error {
	for _, k := range errorKinds {
		if errors.Is(err, k.err) {
			return cloudpal.E(op, k.kind, err)
		}
	}
	return cloudpal.E(op, "", err)
}

var errorKinds = []struct {
	err  error
	kind cloudpal.Kind
}{
	{fs.ErrNotExist, cloudpal.NotExist}, {fs.ErrPermission, cloudpal.Denied}, {fs.ErrExist, cloudpal.Exist},
	{errNoSpace, cloudpal.NoSpace}, {context.Canceled, cloudpal.Timeout}, {context.DeadlineExceeded, cloudpal.Timeout},
}

func (f *Folder) hasFolder(_ context.Context, name string) (bool, error) {
	info, err := f.root.Lstat(local(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, folderError("mirror", err)
	}
	return info.IsDir(), nil
}

// fetch has nothing to do.
func (f *Folder) fetch(context.Context, string, func(string) bool) (stop func()) { return func() {} }

func (f *Folder) is() traits { return traits{folders: true} }
