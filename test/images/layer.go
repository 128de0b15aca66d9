package images

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// date is the time of every file that has none of its own.
var date = time.Unix(1_700_000_000, 0)

// A layer is a layer's archive as it grows in a file. The first error sticks,
// and pack returns it.
type layer struct {
	file *os.File
	out  *tar.Writer
	dirs map[string]bool // that are in the archive already
	err  error
}

// newLayer starts a layer in a file in dir.
func newLayer(dir string) *layer {
	f, err := os.CreateTemp(dir, "layer-*.tar")
	return &layer{file: f, out: tar.NewWriter(f), dirs: map[string]bool{}, err: err}
}

// entry adds one entry, and the directories that lead to it. A directory that
// is there already keeps its first description.
func (l *layer) entry(h tar.Header, content io.Reader) {
	if l.err != nil {
		return
	}
	h.Name = path.Clean(h.Name)
	if h.Typeflag == tar.TypeDir && l.dirs[h.Name] {
		return
	}
	if parent := path.Dir(h.Name); parent != "." {
		l.dir(parent, 0o755, 0, 0)
	}
	if h.ModTime.IsZero() {
		h.ModTime = date
	}
	if h.Typeflag == tar.TypeDir {
		l.dirs[h.Name] = true
		h.Name += "/"
	}
	h.Format = tar.FormatPAX
	l.err = errors.Join(l.err, l.out.WriteHeader(&h))
	if content != nil && l.err == nil {
		_, l.err = io.Copy(l.out, content)
	}
}

func (l *layer) dir(name string, mode int64, uid, gid int) {
	l.entry(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: uid, Gid: gid}, nil)
}

func (l *layer) link(name, target string) {
	l.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// text adds a file with this content, of root.
func (l *layer) text(name, content string, mode int64) {
	l.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, strings.NewReader(content))
}

// copy adds the file at from as name.
func (l *layer) copy(name, from string, mode int64) {
	f, err := os.Open(from)
	if err != nil {
		l.err = errors.Join(l.err, err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		l.err = errors.Join(l.err, err)
		return
	}
	l.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: info.Size()}, f)
}

// hide adds a whiteout: what lower layers have under that name goes.
func (l *layer) hide(name string) {
	l.text(path.Join(path.Dir(name), ".wh."+path.Base(name)), "", 0o644)
}

// hideAll makes a directory opaque: what lower layers have in it goes.
func (l *layer) hideAll(dir string) { l.text(path.Join(dir, ".wh..wh..opq"), "", 0o644) }

// pack ends the archive and packs it.
func (l *layer) pack() (v1.Layer, error) {
	if err := errors.Join(l.err, l.out.Close(), l.file.Close()); err != nil {
		return nil, err
	}
	return tarball.LayerFromFile(l.file.Name(), tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.DefaultCompression), tarball.WithCompressedCaching)
}
