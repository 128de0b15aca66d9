package hyperdrive

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperblobs"
)

// An FS is a drive as a file system of package io/fs, to be read. Besides
// fs.FS it is an fs.ReadDirFS, fs.ReadFileFS, fs.ReadLinkFS, fs.StatFS and
// fs.SubFS; its files can seek. Links are followed within the drive, those to
// folders as well. Errors are *fs.PathError.
type FS struct {
	ctx   context.Context // of all that is read through it: package io/fs has no other place for it
	drive *Drive
	dir   string // "" for the drive's root
}

// FS returns the drive as a file system. ctx ends all its waiting for peers.
// That of a checkout never changes.
func (d *Drive) FS(ctx context.Context) *FS { return &FS{ctx: ctx, drive: d} }

// A node is what a path leads to.
type node struct {
	entry  Entry
	folder bool
}

// MTime returns when a file was last changed, where its metadata says so: a
// member "mtime" with milliseconds since 1970, as package dav writes it.
func (e Entry) MTime() time.Time {
	if len(e.Metadata) == 0 || e.Metadata[0] != '{' {
		return time.Time{}
	}
	var m struct {
		MTime json.Number `json:"mtime"`
	}
	if json.Unmarshal(e.Metadata, &m) != nil {
		return time.Time{}
	}
	ms, err := m.MTime.Float64()
	if err != nil || ms <= 0 || ms >= 1<<53 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

// path returns the name in the drive of a path in f.
func (f *FS) path(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		return f.dir, nil
	}
	return f.dir + "/" + name, nil
}

// find returns what a path leads to, and follows links above it, and itself
// if it is one.
func (f *FS) find(op, name string, follow bool) (node, error) {
	at, err := f.path(op, name)
	if err != nil {
		return node{}, err
	}
	n, err := f.drive.walk(f.ctx, at, follow)
	if err != nil {
		return n, pathError(op, name, err)
	}
	return n, nil
}

// Walk returns what a name leads to: an entry, or a folder, with links
// followed wherever they are on the way.
func (d *Drive) Walk(ctx context.Context, name string) (e Entry, folder bool, err error) {
	clean, err := cleanFolder(name)
	if err != nil {
		return e, false, err
	}
	n, err := d.walk(ctx, clean, true)
	return n.entry, n.folder, err
}

func (d *Drive) walk(ctx context.Context, at string, follow bool) (node, error) {
	for range maxHops {
		n, err := d.look(ctx, at)
		switch {
		case err == nil && follow && n.entry.IsLink():
			at, err = d.linked(ctx, n.entry)
		case err == nil:
			return n, nil
		case errors.Is(err, cloudpal.NotExist):
			at, err = d.around(ctx, at, err)
		}
		if err != nil {
			return node{}, err
		}
	}
	return node{}, errTooManyLinks
}

// look returns what stands at a name.
func (d *Drive) look(ctx context.Context, at string) (n node, err error) {
	if at == "" || at == "/" {
		return node{folder: true}, nil
	}
	if !isClean(at) {
		return n, cloudpal.NotExist
	}
	n.entry, err = d.entry(ctx, at)
	if !errors.Is(err, cloudpal.NotExist) {
		return n, err
	}
	d.list(ctx, below(at), func(e Entry, listErr error) bool {
		n, err = node{entry: Entry{Name: at}, folder: true}, listErr
		return false
	})
	return n, err
}

// linked returns where a link leads, of the two names that it may mean (see
// Follow) the one that has something.
func (d *Drive) linked(ctx context.Context, link Entry) (string, error) {
	next, err := Resolve(folderOf(link.Name), link.Linkname)
	if err == nil {
		_, err = d.look(ctx, next)
	}
	if err == nil {
		return next, nil
	}
	if other, err := Resolve(link.Name, link.Linkname); err == nil {
		if _, err := d.look(ctx, other); err == nil {
			return other, nil
		}
	}
	if next == "" {
		return "", cloudpal.NotExist // it leaves the drive, where there is nothing
	}
	return next, nil
}

// around returns the name that at means when a folder above it is a link, or
// err where none is.
func (d *Drive) around(ctx context.Context, at string, err error) (string, error) {
	for dir := folderOf(at); dir != "/"; dir = folderOf(dir) {
		if !isClean(dir) {
			break
		}
		e, lookErr := d.entry(ctx, dir)
		if errors.Is(lookErr, cloudpal.NotExist) {
			continue
		}
		if lookErr != nil || !e.IsLink() {
			break
		}
		to, lookErr := d.linked(ctx, e)
		if lookErr != nil {
			return "", lookErr
		}
		return strings.TrimSuffix(to, "/") + at[len(dir):], nil
	}
	return "", err
}

// pathError gives an error the kind that callers of package io/fs ask for.
func pathError(op, name string, err error) error {
	switch {
	case errors.Is(err, cloudpal.NotExist):
		err = fs.ErrNotExist
	case errors.Is(err, cloudpal.Denied):
		err = fs.ErrPermission
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Open opens a file or a folder.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	info, err := f.info("open", name, n)
	if err != nil {
		return nil, err
	}
	if n.folder {
		return &folderFile{fs: f, name: name, info: info}, nil
	}
	r, err := f.drive.EntryReader(f.ctx, n.entry)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &file{Reader: r, info: info}, nil
}

// ReadFile returns a file's content.
func (f *FS) ReadFile(name string) ([]byte, error) {
	n, err := f.find("readfile", name, true)
	if err != nil {
		return nil, err
	}
	if n.folder {
		return nil, &fs.PathError{Op: "readfile", Path: name, Err: errors.New("is a folder")}
	}
	if n.entry.Blob == nil {
		return []byte{}, nil
	}
	blobs, err := f.drive.content.blobs(f.ctx)
	if err == nil {
		var data []byte
		if data, err = blobs.Get(f.ctx, *n.entry.Blob); err == nil {
			return data, nil
		}
	}
	return nil, pathError("readfile", name, err)
}

// Stat describes what a name leads to.
func (f *FS) Stat(name string) (fs.FileInfo, error) { return f.stat("stat", name, true) }

// Lstat describes a name, which may be a link.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.stat("lstat", name, false) }

func (f *FS) stat(op, name string, follow bool) (fs.FileInfo, error) {
	n, err := f.find(op, name, follow)
	if err != nil {
		return nil, err
	}
	return f.info(op, name, n)
}

// ReadLink returns what a link has as its target, as it is written.
func (f *FS) ReadLink(name string) (string, error) {
	n, err := f.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	if !n.entry.IsLink() {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return n.entry.Linkname, nil
}

// Sub returns the file system of a folder. Links may lead out of it.
func (f *FS) Sub(dir string) (fs.FS, error) {
	at, err := f.path("sub", dir)
	if err != nil {
		return nil, err
	}
	return &FS{ctx: f.ctx, drive: f.drive, dir: at}, nil
}

// ReadDir lists a folder, ordered by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if !n.folder {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("is no folder")}
	}
	var list []fs.DirEntry
	for c, err := range f.drive.ReadDir(f.ctx, n.entry.Name) {
		if err != nil {
			return nil, pathError("readdir", name, err)
		}
		list = append(list, dirEntry{fs: f, child: c})
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// info describes a node.
func (f *FS) info(op, name string, n node) (fileInfo, error) {
	i := fileInfo{name: path.Base(name), node: n}
	switch {
	case n.folder:
	case n.entry.IsLink():
		i.size = int64(len(n.entry.Linkname))
	default:
		var err error
		if i.size, err = f.drive.Size(f.ctx, n.entry); err != nil {
			return i, pathError(op, name, err)
		}
	}
	return i, nil
}

// A fileInfo is an fs.FileInfo.
type fileInfo struct {
	name string
	size int64
	node node
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) IsDir() bool        { return i.node.folder }
func (i fileInfo) ModTime() time.Time { return i.node.entry.MTime() }

// Sys returns the Entry; that of a folder has only a name.
func (i fileInfo) Sys() any { return i.node.entry }

func (i fileInfo) Mode() fs.FileMode {
	switch {
	case i.node.folder:
		return fs.ModeDir | 0o555
	case i.node.entry.IsLink():
		return fs.ModeSymlink | 0o777
	case i.node.entry.Executable:
		return 0o555
	}
	return 0o444
}

func (i fileInfo) String() string { return fs.FormatFileInfo(i) }

// A dirEntry is an fs.DirEntry.
type dirEntry struct {
	fs    *FS
	child Child
}

func (e dirEntry) Name() string      { return e.child.Name }
func (e dirEntry) IsDir() bool       { return e.child.Folder }
func (e dirEntry) Type() fs.FileMode { return fileInfo{node: e.node()}.Mode().Type() }
func (e dirEntry) String() string    { return fs.FormatDirEntry(e) }
func (e dirEntry) node() node        { return node{entry: e.child.Entry, folder: e.child.Folder} }

func (e dirEntry) Info() (fs.FileInfo, error) { return e.fs.info("stat", e.child.Name, e.node()) }

// A file is one that is open.
type file struct {
	*hyperblobs.Reader
	info fileInfo
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }

// A folderFile is a folder that is open.
type folderFile struct {
	fs   *FS
	name string
	info fileInfo
	list []fs.DirEntry // what is still to be listed
	read bool
}

func (f *folderFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *folderFile) Close() error               { return nil }

func (f *folderFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.name, Err: errors.New("is a folder")}
}

// ReadDir lists what is left, at most n of it where n is more than 0.
func (f *folderFile) ReadDir(n int) (list []fs.DirEntry, err error) {
	if !f.read {
		if f.list, err = f.fs.ReadDir(f.name); err != nil {
			return nil, err
		}
		f.read = true
	}
	if n <= 0 {
		list, f.list = f.list, nil
		return list, nil
	}
	if len(f.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.list))
	list, f.list = f.list[:n], f.list[n:]
	return list, nil
}
