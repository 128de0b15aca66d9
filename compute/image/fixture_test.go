package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tradle/cloudpal/compute/image"
)

var when = time.Unix(1_700_000_000, 123456789)

// A file is one entry of a layer.
type file struct {
	tar.Header
	data string
}

func dir(name string, mode int64) file {
	return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func regular(name, data string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data: data}
}

func symlink(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hardlink(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
}

func (f file) owned(uid, gid int) file { f.Uid, f.Gid = uid, gid; return f }
func (f file) mode(m int64) file       { f.Mode = m; return f }

func (f file) xattr(name, value string) file {
	if f.PAXRecords == nil {
		f.PAXRecords = map[string]string{}
	}
	f.PAXRecords["SCHILY.xattr."+name] = value
	return f
}

// tarOf makes a layer's archive.
func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.Header
		if h.ModTime.IsZero() {
			h.ModTime = when
		}
		h.Format = tar.FormatPAX
		if h.Size == 0 {
			h.Size = int64(len(f.data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layerOf makes a layer packed with gzip.
func layerOf(t testing.TB, tar []byte) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tar)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// plainLayer makes a layer that is not packed.
func plainLayer(tar []byte) v1.Layer { return static.NewLayer(tar, types.OCIUncompressedLayer) }

// imageOf makes an image of the layers for this machine.
func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.AppendLayers(img, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// layoutOf writes the image as an OCI layout with the tag "test".
func layoutOf(t testing.TB, img v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	name := map[string]string{"org.opencontainers.image.ref.name": "test"}
	if err := p.AppendImage(img, layout.WithAnnotations(name)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB) *image.Store {
	t.Helper()
	s, err := image.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// imported takes layers in and returns the image.
func imported(t testing.TB, layers ...v1.Layer) image.Image {
	t.Helper()
	img, err := open(t).Import(t.Context(), layoutOf(t, imageOf(t, layers...)), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// unpack gives what umoci makes of the layers.
func unpack(t testing.TB, layers ...v1.Layer) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	run(t, "umoci", "unpack", "--image", layoutOf(t, imageOf(t, layers...))+":test", dir)
	return filepath.Join(dir, "rootfs")
}
