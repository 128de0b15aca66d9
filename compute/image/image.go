// Package image keeps OCI images as what a microVM can use: one read-only
// block device file for each layer, made once, shared by every VM and named by
// the layer's diff ID. The guest stacks them with overlayfs.
//
//	reference ─┐                      ┌─ layers/sha256-<diff ID>/layer.erofs
//	layout    ─┼─ manifest, config ───┼─ layers/sha256-<diff ID>/layer.erofs
//	archive   ─┘   (checked)          └─ layers/chain-<chain ID>/layer.erofs
//
// The last is several layers made into one: the lowest of an image with more
// layers than a VM has devices, and those that do not stand alone (a hard link
// to a file of a layer below; a directory that the layer uses without saying
// what it is, while a layer below says it is no ordinary one).
//
// Images come from strangers. Every digest is checked: of the manifest, of the
// configuration, of each layer as it is sent and as it unpacks. Limits bounds
// all of it.
package image

import (
	"time"

	"github.com/tradle/cloudpal/compute/image/layer"
)

// FS is the file system of the layers.
const FS = layer.FS

// MaxDevices is the most layers that an Image has.
const MaxDevices = 16

// An Image is one image in a store.
type Image struct {
	Name         string    `json:"name"`   // "nginx:latest"; empty where only its ID is left
	ID           string    `json:"id"`     // the digest of its configuration, "sha256:..."
	Digest       string    `json:"digest"` // the digest of its manifest; empty where the archive has none
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	Size         int64     `json:"size"`   // bytes of all layers
	Layers       []Layer   `json:"layers"` // bottom first; 1 to MaxDevices
	Config       Config    `json:"config"`
}

// A Layer is one block device file.
type Layer struct {
	DiffID string `json:"diffID"` // the digest of the layer's archive, or the chain ID of several in one
	Path   string `json:"path"`
	Size   int64  `json:"size"` // bytes
}

// A Config says how the image wants to be run (image-spec, config.md).
type Config struct {
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Env          []string          `json:"env,omitempty"`
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"workingDir,omitempty"`
	StopSignal   string            `json:"stopSignal,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"`      // sorted
	ExposedPorts []string          `json:"exposedPorts,omitempty"` // "80/tcp", sorted
	Labels       map[string]string `json:"labels,omitempty"`
}

// Progress tells how far one layer is. Calls come one at a time, the last one
// of a layer with Done == Total.
type Progress struct {
	Layer string `json:"layer"` // its digest, or where the archive has none its diff ID
	Phase string `json:"phase"` // Pulling or Unpacking
	Done  int64  `json:"done"`  // bytes as they are sent
	Total int64  `json:"total"`
}

// The phases. A layer from a registry unpacks while it is pulled.
const (
	Pulling   = "pull"
	Unpacking = "unpack"
)

// Limits bounds what one image may ask for. A zero field means the default.
type Limits struct {
	Layer  layer.Limits // each layer; several made into one are bounded together
	JSON   int64        // bytes of a manifest, index or configuration; 4 MiB
	Layers int          // layers of an image; 512
	// Ratio is the most bytes, zeros not counted, that each byte sent may
	// unpack to, once RatioFrom bytes came; 200, 1 GiB.
	Ratio, RatioFrom int64
}

func (l Limits) withDefaults() Limits {
	if l.JSON == 0 {
		l.JSON = 4 << 20
	}
	if l.Layers == 0 {
		l.Layers = 512
	}
	if l.Ratio == 0 {
		l.Ratio = 200
	}
	if l.RatioFrom == 0 {
		l.RatioFrom = 1 << 30
	}
	return l
}
