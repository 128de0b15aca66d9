package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/compute/image/layer"
)

func TestHostileLayersAreRefused(t *testing.T) {
	t.Parallel()
	for what, files := range map[string][]file{
		"a name that climbs out":         {regular("../../etc/passwd", "x")},
		"a name that climbs out later":   {regular("a/../../x", "x")},
		"a link to a place outside":      {hardlink("passwd", "../../../etc/passwd")},
		"a link to nothing":              {hardlink("a", "b")},
		"links in a ring":                {hardlink("a", "b"), hardlink("b", "a")},
		"a link to itself":               {hardlink("a", "a")},
		"a link to a directory":          {dir("d/", 0o755), hardlink("d/e", "d")},
		"symbolic links in a ring":       {symlink("a", "b"), symlink("b", "a"), regular("a/x", "x")},
		"symbolic links that grow":       {symlink("a", "a/a"), regular("a/x", "x")},
		"a link to nowhere":              {symlink("a", "")},
		"a name too long":                {regular(strings.Repeat("n", 256), "x")},
		"a path too long":                {regular(strings.Repeat("n/", 3000)+"x", "x")},
		"a file for the root":            {regular(".", "x")},
		"a whiteout of nothing":          {whiteout(".wh.")},
		"a whiteout of the parent":       {whiteout("a/.wh...")},
		"a device that cannot be":        {device(tar.TypeChar, "dev", 1<<20, 1)},
		"an owner that cannot be":        {regular("x", "x").owned(-5, 0)},
		"an attribute too large":         {regular("x", "x").xattr("user.big", strings.Repeat("v", 70_000))},
		"attributes too large together":  {manyXattrs()},
		"a file of an unknown kind":      {{Header: tar.Header{Typeflag: 'Q', Name: "x"}}},
		"a link that goes on for ever":   {symlink("l", strings.Repeat("x", 5000))},
		"a climb through a link":         {symlink("up", "/"), regular("up/../../../x", "x")},
		"a directory in place of itself": {symlink("a", "a"), dir("a/b/", 0o755)},
	} {
		t.Run(what, func(t *testing.T) {
			s := open(t)
			_, err := s.Import(t.Context(), layoutOf(t, imageOf(t, layerOf(t, tarOf(t, files...)))), "bad", nil)
			if err == nil {
				t.Fatal("taken in")
			}
			refused(t, s, err, cloudpal.Invalid, "")
		})
	}
}

func manyXattrs() file {
	f := regular("x", "x")
	for i := range 100 {
		f = f.xattr(fmt.Sprintf("user.n%d", i), strings.Repeat("v", 4000))
	}
	return f
}

// TestLinksLeadNowhereOutside: a path in the archive that goes through a link
// which leads out of the image stays in the image, and nothing of the host is
// touched.
func TestLinksLeadNowhereOutside(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	files := []file{
		symlink("abs", outside), regular("abs/one", "1"),
		symlink("rel", "../../../../../../.."+outside), regular("rel/two", "2"),
	}
	got := readTree(t, mountFile(t, imported(t, layerOf(t, tarOf(t, files...))).Layers[0].Path))
	for _, name := range []string{"one", "two"} {
		if got[strings.TrimPrefix(outside, "/")+"/"+name] == "" {
			t.Errorf("%s is not in the image's own %s", name, outside)
		}
	}
	if list, err := os.ReadDir(outside); len(list) > 0 || err != nil {
		t.Errorf("the host has %v, %v", list, err)
	}
}

func TestDevicesAreOnlyData(t *testing.T) {
	// A device node in an image is a number in a file system that only the
	// guest mounts: it names the guest's devices, and so is kept as it is.
	needRoot(t)
	got := readTree(t, mountFile(t, imported(t, layerOf(t, tarOf(t, device(tar.TypeBlock, "sda", 8, 0)))).Layers[0].Path))
	if !strings.Contains(got["sda"], "dev 8:0") {
		t.Errorf("got %q", got["sda"])
	}
}

// bomb is a layer of n bytes in one file, packed.
func bomb(t testing.TB, fill byte, n int64) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bomb", Mode: 0o644, Size: n})
	for left := n; left > 0 && err == nil; left -= int64(len(block(fill))) {
		_, err = w.Write(block(fill)[:min(left, int64(len(block(fill))))])
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return packedLayer{plainLayer(b.Bytes()), b.Bytes(), types.OCILayer}
}

var blocks = [2][]byte{bytes.Repeat([]byte{0}, 1<<20), bytes.Repeat([]byte{1}, 1<<20)}

func block(fill byte) []byte { return blocks[fill] }

func TestBombsAreStopped(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		limits image.Limits
		fill   byte
	}{
		"by size":               {image.Limits{Layer: layer.Limits{Bytes: 1 << 20}}, 0},
		"by what it would take": {image.Limits{Ratio: 10, RatioFrom: 8 << 20}, 1},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			s.Limits = c.limits
			_, err := s.Import(t.Context(), layoutOf(t, imageOf(t, bomb(t, c.fill, 64<<20))), "bomb", nil)
			if err == nil {
				t.Fatal("taken in")
			}
			refused(t, s, err, cloudpal.Invalid, "")
		})
	}
}

func TestManyEntriesAreRefusedAboveTheLimit(t *testing.T) {
	t.Parallel()
	var files []file
	for i := range 101 {
		files = append(files, regular(fmt.Sprint(i), ""))
	}
	s := open(t)
	s.Limits.Layer.Entries = 100
	_, err := s.Import(t.Context(), layoutOf(t, imageOf(t, layerOf(t, tarOf(t, files...)))), "many", nil)
	refused(t, s, err, cloudpal.Invalid, "more than 100 entries")
}

// TestAMillionFiles holds memory and time to bounds, and mounts the outcome.
func TestAMillionFiles(t *testing.T) {
	needRoot(t)
	files := 1_000_000
	if raced {
		files /= 10 // all of them are for make test-slow
	}
	path := filepath.Join(t.TempDir(), "million.tar")
	writeMillion(t, path, files)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	b, err := layer.NewLayer(out, t.TempDir(), layer.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	start, before := time.Now(), heap()
	if err := b.Apply(f); err != nil {
		t.Fatal(err)
	}
	grown := heap() - before
	if _, err := b.Finish([16]byte{1}); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(b)
	t.Logf("%d files: %v, %d MiB of memory", files, time.Since(start).Round(time.Millisecond), grown>>20)
	if grown > 600<<20 {
		t.Errorf("%d MiB of memory for %d files", grown>>20, files)
	}
	if took := time.Since(start); took > 2*time.Minute {
		t.Errorf("took %v", took)
	}
	root := mountFile(t, out.Name())
	for _, i := range []int{0, 1, 4711, files - 1} {
		if got, err := os.ReadFile(filepath.Join(root, millionth(i))); string(got) != fmt.Sprint(i) {
			t.Errorf("%s: got %q and %v", millionth(i), got, err)
		}
	}
}

func millionth(i int) string { return fmt.Sprintf("d%d/e%d/file%d", i%10, i/10%100, i) }

func writeMillion(t *testing.T, path string, n int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for i := range n {
		text := fmt.Sprint(i)
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: millionth(i), Mode: 0o644, Size: int64(len(text))}))
		_, e := io.WriteString(w, text)
		if err = errors.Join(err, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestNoSpaceLeft(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	s, err := image.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	layout := layoutOf(t, imageOf(t, layerOf(t, tarOf(t, regular("big", random(8<<20))))))
	_, err = s.Import(t.Context(), layout, "big", nil)
	refused(t, s, err, cloudpal.NoSpace, "")
	small := layoutOf(t, imageOf(t, layerOf(t, tarOf(t, regular("small", "x")))))
	if _, err := s.Import(t.Context(), small, "small", nil); err != nil {
		t.Errorf("after that, a small one: %v", err)
	}
}
