package images_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/test/images"
)

func TestManyBuildTheSameImageOnce(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	dirs := make([]string, 4)
	var wait sync.WaitGroup
	for i := range dirs {
		wait.Go(func() {
			var err error
			if dirs[i], err = images.Build(t.Context(), "web", cache); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, d := range dirs {
		if d != dirs[0] || d == "" {
			t.Errorf("got %q and %q", d, dirs[0])
		}
	}
	check(t, dirs[0], 3)
	if left, _ := filepath.Glob(filepath.Join(cache, "temp-*")); len(left) > 0 {
		t.Errorf("%q was left behind", left)
	}
}

// check takes the layout in as a host does, which reads and checks all of it.
func check(t *testing.T, dir string, layers int) image.Image {
	t.Helper()
	s, err := image.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.Import(t.Context(), dir, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Layers) < layers {
		t.Errorf("got %d layers, want %d at least", len(img.Layers), layers)
	}
	return img
}

func TestAnUnknownNameIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := images.Build(t.Context(), "../web", t.TempDir()); err == nil {
		t.Error("no error")
	}
}
