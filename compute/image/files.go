package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
)

// files is a directory or an archive with a layout in it.
type files interface {
	open(name string) (r io.ReadCloser, size int64, err error)
	Close() error
}

func openFiles(name string) (files, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(name)
		return folder{root}, err
	}
	return openArchive(name)
}

// A folder is a directory; links that lead out of it are not followed.
type folder struct{ *os.Root }

func (d folder) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, 0, err
	}
	if err != nil { // such as a link that leads out, which has no error of its own
		return nil, 0, refuse("give a layout of plain files", "%w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = refuse("", "%q is not a file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// An archive is a tar archive in a file, with a table of where things are.
type archive struct {
	file  *os.File
	where map[string]member
}

type member struct {
	offset, size int64
	link         string // the member meant instead
}

// maxMembers bounds the table of an archive.
const maxMembers = 100_000

func openArchive(name string) (files, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &archive{file: f, where: map[string]member{}}
	err = refusePacked(f)
	if err == nil {
		err = a.scan()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

// refusePacked refuses a packed archive: its parts cannot be reached without
// unpacking all of it.
func refusePacked(f *os.File) error {
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		return err
	}
	if bytes.HasPrefix(magic[:], gzipMagic) || bytes.Equal(magic[:], zstdMagic) {
		return refuse("unpack it first, with gunzip or zstd -d", "the archive is packed")
	}
	return nil
}

func (a *archive) scan() error {
	t := tar.NewReader(a.file)
	for range maxMembers {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return refuse("give a tar archive or a directory", "not a tar archive: %w", err)
		}
		if err := a.note(h); err != nil {
			return err
		}
	}
	return refuse("", "more than %d files in the archive", maxMembers)
}

func (a *archive) note(h *tar.Header) error {
	at, err := a.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	name := path.Clean("/" + h.Name)
	switch h.Typeflag {
	case tar.TypeReg:
		a.where[name] = member{offset: at, size: h.Size}
	case tar.TypeSymlink: // how docker save once wrote a layer that is there twice
		a.where[name] = member{link: path.Join(path.Dir(name), h.Linkname)}
	case tar.TypeLink:
		a.where[name] = member{link: path.Clean("/" + h.Linkname)}
	}
	return nil
}

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	m, ok := a.where[path.Clean("/"+name)]
	if ok && m.link != "" {
		m, ok = a.where[m.link]
	}
	if !ok || m.link != "" {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(a.file, m.offset, m.size)), m.size, nil
}

func (a *archive) Close() error { return a.file.Close() }

func nopCloser(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
