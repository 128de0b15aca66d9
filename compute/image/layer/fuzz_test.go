package layer

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"
)

// FuzzApply makes file systems of archives, alone and over another, and walks
// what was made with a reader that is not ours.
func FuzzApply(f *testing.F) {
	f.Add([]byte{})
	for _, headers := range [][]tar.Header{
		{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, {Typeflag: tar.TypeReg, Name: "d/f", Size: 3}},
		{{Typeflag: tar.TypeReg, Name: ".wh.d"}, {Typeflag: tar.TypeReg, Name: "e/.wh..wh..opq"}},
		{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../.."}, {Typeflag: tar.TypeReg, Name: "l/x"}},
		{{Typeflag: tar.TypeReg, Name: "a"}, {Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}, {Typeflag: tar.TypeLink, Name: "c", Linkname: "/b"}},
		{{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1, Devminor: 3}, {Typeflag: tar.TypeFifo, Name: "p"}},
		{{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1"}}},
		{{Typeflag: tar.TypeReg, Name: "big", Size: 200 << 10}},
	} {
		f.Add(seed(f, headers))
	}
	lower := seed(f, []tar.Header{
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700}, {Typeflag: tar.TypeReg, Name: "d/f", Size: 5000}, {Typeflag: tar.TypeLink, Name: "a", Linkname: "d/f"},
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		build(t, filepath.Join(dir, "alone"), NewLayer, raw)
		build(t, filepath.Join(dir, "bottom"), NewBottom, lower, raw)
	})
}

func seed(f *testing.F, headers []tar.Header) []byte {
	f.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte{7}, int(h.Size))); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

func build(t *testing.T, path string, builder func(*os.File, string, Limits) (*Builder, error), archives ...[]byte) {
	t.Helper()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	b, err := builder(out, filepath.Dir(path), Limits{Bytes: 1 << 20, Entries: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, a := range archives {
		if b.Apply(bytes.NewReader(a)) != nil {
			return
		}
	}
	if _, err := b.Finish([16]byte{}); err != nil {
		t.Fatalf("what was taken cannot be written: %v", err)
	}
	walk(t, out)
}

// walk reads all of a file system.
func walk(t *testing.T, f *os.File) {
	t.Helper()
	fsys, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(name, "\\") {
			return err
		}
		_, err = fs.ReadFile(fsys, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
