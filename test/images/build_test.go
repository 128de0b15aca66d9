package images_test

import (
	"testing"

	"github.com/tradle/cloudpal/test/images"
)

// TestEveryImageIsWhole builds all images, or finds them in the cache.
func TestEveryImageIsWhole(t *testing.T) {
	for _, name := range images.Names() {
		t.Run(name, func(t *testing.T) {
			dir, err := images.Build(t.Context(), name, images.Cache())
			if err != nil {
				t.Fatal(err)
			}
			img := check(t, dir, 3)
			t.Logf("%d MiB", img.Size>>20)
		})
	}
}
