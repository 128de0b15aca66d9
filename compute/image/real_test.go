package image_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/test/images"
)

// testImage returns the layout of a test image.
func testImage(t testing.TB, name string) string {
	t.Helper()
	layout, err := images.Build(t.Context(), name, images.Cache())
	if err != nil {
		t.Fatal(err)
	}
	return layout
}

func TestRealImagesAreWhatUmociUnpacks(t *testing.T) {
	needRoot(t)
	names := images.Names()
	if raced {
		names = []string{"busybox", "nginx"} // the others take ten times as long, and are for make test-slow
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			layout := testImage(t, name)
			img, err := open(t).Import(t.Context(), layout, name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if img.Name != name+":latest" {
				t.Errorf("its name is %q", img.Name)
			}
			for _, l := range img.Layers {
				run(t, "fsck.erofs", l.Path)
			}
			got := readTree(t, mountImage(t, img))
			want := readTree(t, umoci(t, layout, "latest"))
			if len(want) < 3 {
				t.Fatalf("umoci made only %d files", len(want))
			}
			compare(t, got, want)
		})
	}
}

// umoci unpacks an image and returns its root.
func umoci(t testing.TB, layout, tag string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	run(t, "umoci", "unpack", "--image", layout+":"+tag, dir)
	return filepath.Join(dir, "rootfs")
}

// BenchmarkUnpack unpacks a real image, and lets umoci unpack the same one in
// between. It reports MB/s of what the layers hold unpacked, and how many times
// umoci's speed that is.
func BenchmarkUnpack(b *testing.B) {
	if _, err := exec.LookPath("umoci"); err != nil {
		b.Skip("needs umoci to compare with")
	}
	layout := testImage(b, "postgresql")
	var ours, theirs time.Duration
	var bytes int64
	for b.Loop() {
		n, took := timeImport(b, layout)
		bytes += n
		ours += took
		theirs += timeUmoci(b, layout)
	}
	mb := float64(bytes) / 1e6
	b.ReportMetric(mb/ours.Seconds(), "MB/s")
	b.ReportMetric(mb/theirs.Seconds(), "umoci-MB/s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
}

func timeImport(b *testing.B, layout string) (bytes int64, took time.Duration) {
	s, err := image.Open(filepath.Join(b.TempDir(), "store"))
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	img, err := s.Import(b.Context(), layout, "bench", nil)
	if err != nil {
		b.Fatal(err)
	}
	return img.Size, time.Since(start)
}

// timeUmoci includes the sync that Import does too.
func timeUmoci(b *testing.B, layout string) time.Duration {
	dir := filepath.Join(b.TempDir(), "bundle")
	start := time.Now()
	run(b, "umoci", "unpack", "--image", layout+":latest", dir)
	run(b, "sync", "--file-system", dir)
	took := time.Since(start)
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	return took
}
