package dav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"path"
	"time"

	"golang.org/x/net/webdav"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperblobs"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

// Stat describes what a path leads to.
func (s system) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	return s.stat(ctx, "stat", name)
}

func (s system) stat(ctx context.Context, op, name string) (info, error) {
	e, folder, err := s.drive.Walk(ctx, name)
	if err != nil {
		return info{}, pathError(op, name, err)
	}
	return s.info(ctx, path.Base(name), e, folder)
}

func (s system) info(ctx context.Context, base string, e hyperdrive.Entry, folder bool) (info, error) {
	i := info{drive: s.drive, name: base, entry: e, folder: folder}
	var err error
	if i.size, err = s.drive.Size(ctx, e); err != nil {
		return i, pathError("stat", base, err)
	}
	return i, nil
}

// An info is an fs.FileInfo that also knows what package webdav would
// otherwise read a file for.
type info struct {
	drive  *hyperdrive.Drive
	name   string
	entry  hyperdrive.Entry
	folder bool
	size   int64
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) IsDir() bool        { return i.folder }
func (i info) ModTime() time.Time { return i.entry.MTime() }
func (i info) Sys() any           { return i.entry }

func (i info) Mode() fs.FileMode {
	switch {
	case i.folder:
		return fs.ModeDir | 0o755
	case i.entry.Executable:
		return 0o755
	}
	return 0o644
}

// ETag tells contents apart by where they are: nothing is written to one place
// twice, unless the drive is truncated.
func (i info) ETag(context.Context) (string, error) {
	fork := i.drive.Database().Fork()
	if i.entry.Blob == nil {
		return fmt.Sprintf(`"%x-%x"`, fork, i.entry.Seq), nil
	}
	return fmt.Sprintf(`"%x-%x-%x"`, fork, i.entry.Blob.ByteOffset, i.size), nil
}

// ContentType goes by the name alone, so that listing a folder reads no files.
func (i info) ContentType(context.Context) (string, error) {
	if t := mime.TypeByExtension(path.Ext(i.name)); t != "" {
		return t, nil
	}
	return "application/octet-stream", nil
}

// OpenFile opens a file or folder to be read, or a file to be written anew.
func (s system) OpenFile(ctx context.Context, name string, flag int, _ fs.FileMode) (webdav.File, error) {
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		return s.create(ctx, name)
	}
	i, err := s.stat(ctx, "open", name)
	if err != nil {
		return nil, err
	}
	if i.folder {
		return &folder{system: s, ctx: ctx, info: i}, nil
	}
	r, err := s.drive.EntryReader(ctx, i.entry)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &reader{Reader: r, ctx: ctx, info: i}, nil
}

var errNotPossible = errors.New("not possible with this kind of file")

// A reader is a file that is open to be read.
type reader struct {
	*hyperblobs.Reader
	ctx  context.Context // of the request
	info info
}

func (r *reader) Stat() (fs.FileInfo, error)         { return r.info, nil }
func (r *reader) Readdir(int) ([]fs.FileInfo, error) { return nil, errNotPossible }
func (r *reader) Write([]byte) (int, error)          { return 0, fs.ErrPermission }
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	if to, ok := w.(*writer); ok && to.shareFrom(r) {
		return r.info.size, nil
	}
	return r.Reader.WriteTo(w)
}

// A folder is one that is open.
type folder struct {
	system system
	ctx    context.Context // of the request
	info   info
	list   []fs.FileInfo // what is still to be listed
	read   bool
}

func (f *folder) Stat() (fs.FileInfo, error)     { return f.info, nil }
func (f *folder) Close() error                   { return nil }
func (f *folder) Read([]byte) (int, error)       { return 0, errNotPossible }
func (f *folder) Write([]byte) (int, error)      { return 0, errNotPossible }
func (f *folder) Seek(int64, int) (int64, error) { return 0, errNotPossible }

// Readdir lists what is left, at most n of it where n is more than 0.
func (f *folder) Readdir(n int) (list []fs.FileInfo, err error) {
	if !f.read {
		if err := f.load(); err != nil {
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

// load lists the folder. A link is listed as what it leads to, unless that is
// nothing.
func (f *folder) load() error {
	for c, err := range f.system.drive.ReadDir(f.ctx, f.info.entry.Name) {
		if err != nil {
			return pathError("readdir", f.info.name, err)
		}
		if isKeep(c) {
			continue
		}
		e, isFolder := c.Entry, c.Folder
		if e.IsLink() {
			to, folder, err := f.system.drive.Walk(f.ctx, e.Name)
			if f.ctx.Err() != nil {
				return pathError("readdir", f.info.name, err)
			}
			if err != nil {
				continue
			}
			e, isFolder = to, folder
		}
		i, err := f.system.info(f.ctx, c.Name, e, isFolder)
		if err != nil {
			return err
		}
		f.list = append(f.list, i)
	}
	return nil
}

func isKeep(c hyperdrive.Child) bool {
	return c.Name == keep && c.Entry.Blob != nil && c.Entry.Blob.BlockLength == 0
}

// create opens a file to be written.
func (s system) create(ctx context.Context, name string) (webdav.File, error) {
	at, err := s.place(ctx, "create", name)
	if err != nil {
		return nil, err
	}
	w := &writer{system: s, ctx: ctx, at: at, over: requestOf(ctx).remove == at}
	old, isFolder, err := s.drive.Walk(ctx, at)
	switch {
	case err == nil && isFolder && !w.over:
		return nil, &fs.PathError{Op: "create", Path: name, Err: errNotPossible}
	case err == nil && !isFolder:
		w.attr = hyperdrive.Attr{Executable: old.Executable, Metadata: old.Metadata}
		if !w.over {
			w.at = old.Name // where a link leads
		}
	case err != nil && !errors.Is(err, cloudpal.NotExist):
		return nil, pathError("create", name, err)
	}
	return w, nil
}

// A writer is a file that is being written. Nothing of it is seen before it is
// ended, by Stat or Close; after an error it never is.
type writer struct {
	system system
	ctx    context.Context // of the request
	at     string
	over   bool // it overwrites what is noted to be removed
	attr   hyperdrive.Attr
	out    *hyperdrive.Writer // nil before the first byte
	shared *hyperdrive.Entry  // whose content it is to have
	done   bool
	entry  hyperdrive.Entry
	err    error
}

func (w *writer) open() error {
	if w.done {
		return errNotPossible
	}
	if w.out == nil && w.err == nil {
		w.attr.Metadata = modified(w.attr.Metadata, time.Now())
		w.out, w.err = w.system.drive.Writer(w.ctx, w.at, hyperdrive.WriterOptions{Attr: w.attr, Shared: true})
	}
	return w.err
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	n, err := w.out.Write(p)
	w.err = err
	return n, err
}

// ReadFrom writes what r has. If that ends with an error, such as that the
// client has gone away, the file stays as it was.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	n, err := w.out.ReadFrom(r)
	w.err = err
	return n, err
}

// shareFrom makes the file have another's content, without copying it.
func (w *writer) shareFrom(r *reader) bool {
	if w.out != nil || w.done || r.info.drive != w.system.drive || r.info.entry.Blob == nil {
		return false
	}
	if at, err := r.Seek(0, io.SeekCurrent); at != 0 || err != nil {
		return false
	}
	w.shared = &r.info.entry
	return true
}

// end makes what was written the file's content.
func (w *writer) end() error {
	if w.done || w.err != nil {
		return w.err
	}
	if w.shared == nil {
		if w.err = w.open(); w.err != nil { // a file of no bytes
			return w.err
		}
	}
	w.err = w.commit()
	w.done = true
	return w.err
}

func (w *writer) commit() error {
	e := hyperdrive.Entry{}
	if w.shared != nil {
		e = *w.shared
	} else {
		id, release, err := w.out.Finish()
		if err != nil {
			return pathError("write", w.at, err)
		}
		defer release()
		e.Executable, e.Metadata, e.Blob = w.attr.Executable, w.attr.Metadata, &id
	}
	w.entry = e
	return w.system.change(w.ctx, "write", w.at, func(b *hyperdrive.Batch) error {
		if w.over {
			if _, err := w.system.makeWay(w.ctx, b, w.at); err != nil {
				return err
			}
		}
		return b.PutEntry(w.at, e)
	})
}

// Stat ends the file: package webdav asks for its ETag before it closes it.
func (w *writer) Stat() (fs.FileInfo, error) {
	if err := w.end(); err != nil {
		return nil, err
	}
	return w.system.info(w.ctx, path.Base(w.at), w.entry, false)
}

// Close ends the file, unless something went wrong.
func (w *writer) Close() error {
	err := w.end()
	if err != nil && w.out != nil {
		w.out.Cancel()
	}
	return err
}

func (w *writer) Read([]byte) (int, error)           { return 0, fs.ErrPermission }
func (w *writer) Seek(int64, int) (int64, error)     { return 0, errNotPossible }
func (w *writer) Readdir(int) ([]fs.FileInfo, error) { return nil, errNotPossible }
