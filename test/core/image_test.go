package core_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/tradle/cloudpal/test/images"
	"github.com/tradle/cloudpal/test/world"
)

// maxImage is how large the image may be, unpacked.
const maxImage = 80 << 20

func TestTheImageIsSmallAndTheSameAgain(t *testing.T) {
	world.Require(t)
	first, again := world.Core(t), filepath.Join(t.TempDir(), "core")
	bin, err := world.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "cloudpal"), "core-image", again, "--kernel", filepath.Join(images.ModuleRoot(), "bin", "kernel"))
	for range 2 { // the second time in place of the first
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		cmd = exec.Command(cmd.Path, cmd.Args[1:]...)
	}
	a, b := index(t, first), index(t, again)
	if a != b {
		t.Errorf("two images of the same parts are %s and %s", a, b)
	}
	if size := unpacked(t, first); size > maxImage {
		t.Errorf("it has %d MiB, want at most %d", size>>20, maxImage>>20)
	} else {
		t.Logf("it has %.1f MiB", float64(size)/(1<<20))
	}
}

func index(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func unpacked(t *testing.T, dir string) (size int64) {
	t.Helper()
	p, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil || len(m.Manifests) != 1 {
		t.Fatalf("%d images, %v", len(m.Manifests), err)
	}
	img, err := idx.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	files := mutate.Extract(img)
	defer files.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := files.Read(buf)
		size += int64(n)
		if err != nil {
			return size
		}
	}
}
