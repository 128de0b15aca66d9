package image_test

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/image"
)

func whiteout(name string) file { return regular(name, "") }

// base is a lowest layer that others change.
func base() []file {
	return []file{
		dir("etc/", 0o755), regular("etc/passwd", "root"), regular("etc/old", "old"),
		dir("usr/", 0o755), dir("usr/lib/", 0o755), regular("usr/lib/a.so", "a"), symlink("lib", "usr/lib"),
		dir("data/", 0o755), regular("data/1", "1"), regular("data/2", "2"), dir("data/sub/", 0o755), regular("data/sub/3", "3"),
		dir("tmp/", 0o1777), dir("home/", 0o755), dir("home/ann/", 0o700).owned(1000, 1000), regular("home/ann/key", "k").owned(1000, 1000),
		regular("wasfile", "f"), dir("wasdir/", 0o755), regular("wasdir/x", "x"),
	}
}

func TestStackIsWhatUmociUnpacks(t *testing.T) {
	needRoot(t)
	stacks := map[string][][]file{
		"whiteout of a file":                   {base(), {dir("etc/", 0o755), whiteout("etc/.wh.old")}},
		"whiteout of a directory":              {base(), {whiteout(".wh.data")}},
		"opaque directory":                     {base(), {dir("data/", 0o700), whiteout("data/.wh..wh..opq"), regular("data/new", "n")}},
		"opaque after its files":               {base(), {dir("data/", 0o700), regular("data/new", "n"), whiteout("data/.wh..wh..opq")}},
		"whiteout and a new file":              {base(), {dir("etc/", 0o755), whiteout("etc/.wh.old"), regular("etc/old", "new")}},
		"whiteout and a new directory":         {base(), {whiteout(".wh.data"), dir("data/", 0o711), regular("data/new", "n")}},
		"directory becomes a file":             {base(), {regular("wasdir", "now a file")}},
		"file becomes a directory":             {base(), {dir("wasfile/", 0o750), regular("wasfile/x", "x")}},
		"file goes and comes again":            {base(), {whiteout(".wh.wasfile")}, {regular("wasfile", "again")}},
		"directory goes and comes again":       {base(), {whiteout(".wh.data")}, {dir("data/", 0o755), regular("data/4", "4")}},
		"undescribed ordinary directory":       {base(), {regular("etc/new", "n")}},
		"undescribed directory with a mode":    {base(), {regular("tmp/new", "n")}},
		"undescribed directory with an owner":  {base(), {regular("home/ann/new", "n")}, {regular("etc/x", "x")}},
		"undescribed directory that is a link": {base(), {regular("lib/b.so", "b")}},
		"hard link to a file below":            {base(), {regular("etc/q", "q")}, {dir("etc/", 0o755), hardlink("etc/passwd2", "etc/passwd")}, {regular("top", "t")}},
		"all is hidden":                        {base(), {whiteout(".wh..wh..opq"), regular("only", "this")}},
		"opaque directory in an opaque one": {base(), {dir("data/", 0o755), whiteout("data/.wh..wh..opq"), dir("data/sub/", 0o700),
			whiteout("data/sub/.wh..wh..opq"), whiteout("data/.wh.1"), regular("data/sub/4", "4")}},
		"whiteouts of nothing": {{dir("a/", 0o755), whiteout("a/.wh.x"), whiteout(".wh.y")},
			{dir("b/", 0o755), whiteout("b/.wh.x"), whiteout("a/.wh.z")}, {whiteout(".wh.b")}, {dir("b/", 0o755), whiteout("b/.wh.x")}},
		"empty layers":         {{}, base(), {}},
		"the same layer twice": {base(), {whiteout(".wh.data")}, base()},
	}
	for name, stack := range stacks {
		t.Run(name, func(t *testing.T) {
			var layers []v1.Layer
			for _, files := range stack {
				layers = append(layers, layerOf(t, tarOf(t, files...)))
			}
			got := readTree(t, mountImage(t, imported(t, layers...)))
			compare(t, got, readTree(t, unpack(t, layers...)))
		})
	}
}

// deep makes n layers, each of which changes something of those before.
func deep(t *testing.T, n int) []v1.Layer {
	layers := []v1.Layer{layerOf(t, tarOf(t, base()...))}
	for i := 1; i < n; i++ {
		files := []file{regular(fmt.Sprintf("layer%d", i), "x"), dir("log/", 0o755), regular("log/last", fmt.Sprint(i)),
			regular(fmt.Sprintf("log/%d", i), strings.Repeat("y", i*100))}
		if i%3 == 0 {
			files = append(files, whiteout(fmt.Sprintf("log/.wh.%d", i-2)))
		}
		if i%10 == 0 {
			files = append(files, whiteout("log/.wh..wh..opq"))
		}
		if i == 5 {
			files = append(files, hardlink("linked", "wasfile"))
		}
		layers = append(layers, layerOf(t, tarOf(t, files...)))
	}
	return layers
}

func TestFortyLayersFitTheDevices(t *testing.T) {
	needRoot(t)
	layers := deep(t, 40)
	img := imported(t, layers...)
	if len(img.Layers) != image.MaxDevices {
		t.Fatalf("got %d devices, want %d", len(img.Layers), image.MaxDevices)
	}
	compare(t, readTree(t, mountImage(t, img)), readTree(t, unpack(t, layers...)))
}

func TestLinkToBelowCostsOnlyTheLayersBelow(t *testing.T) {
	img := imported(t, deep(t, 10)...)
	if len(img.Layers) != 10-5 {
		t.Errorf("got %d devices, want the lowest 6 of 10 layers as one", len(img.Layers))
	}
}

func TestWhiteoutsAreOverlayfsOwn(t *testing.T) {
	needRoot(t)
	img := imported(t, layerOf(t, tarOf(t, whiteout(".wh.gone"), dir("new/", 0o755), whiteout("new/.wh..wh..opq"))))
	root := mountFile(t, img.Layers[0].Path)
	var st unix.Stat_t
	if err := unix.Lstat(root+"/gone", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout: got mode %o device %x (%v), want a character device 0/0", st.Mode, st.Rdev, err)
	}
	b := make([]byte, 8)
	if n, err := unix.Lgetxattr(root+"/new", "trusted.overlay.opaque", b); err != nil || string(b[:n]) != "y" {
		t.Errorf("opaque: got %q (%v), want y", b[:n], err)
	}
}

func TestLayersAreShared(t *testing.T) {
	s := open(t)
	common := layerOf(t, tarOf(t, base()...))
	var paths []string
	for i := range 2 {
		l := layerOf(t, tarOf(t, regular(fmt.Sprintf("own%d", i), "x")))
		img, err := s.Import(t.Context(), layoutOf(t, imageOf(t, common, l)), fmt.Sprintf("image%d", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, img.Layers[0].Path)
	}
	if paths[0] != paths[1] {
		t.Errorf("one layer is at %s and %s", paths[0], paths[1])
	}
}
