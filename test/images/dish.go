package images

import (
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A dish is what a recipe makes.
type dish struct {
	config v1.Config
	layers []*layer // bottom first
}

// image puts the layers together. They have no dates, so that the same input
// makes the same image.
func (d dish) image() (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Config: d.config, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	for _, l := range d.layers {
		packed, err := l.pack()
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, packed); err != nil {
			return nil, err
		}
	}
	return img, nil
}
