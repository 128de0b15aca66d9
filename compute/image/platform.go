package image

import (
	"bytes"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// variants are the versions of an architecture that every machine of it can
// run, best first. The empty one says nothing, and so promises to run on all.
var variants = map[string][]string{
	"amd64": {"", "v1"},
	"arm64": {"", "v8"},
	"arm":   {"v7", "", "v6", "v5"},
}

// rank returns how well p fits this machine, 0 is best; -1 not at all.
func rank(p v1.Platform) int {
	if p.OS != "linux" || p.Architecture != runtime.GOARCH {
		return -1
	}
	known := variants[p.Architecture]
	if known == nil {
		known = []string{""}
	}
	return slices.Index(known, p.Variant)
}

// chooseFrom returns the descriptor, in the index raw, of what this machine
// can run.
func chooseFrom(raw []byte) (v1.Descriptor, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return v1.Descriptor{}, refuse("", "not an index: %w", err)
	}
	return choose(index.Manifests)
}

func choose(list []v1.Descriptor) (v1.Descriptor, error) {
	best, at := -1, 0
	for i, d := range list {
		if d.Platform == nil {
			continue
		}
		if r := rank(*d.Platform); r >= 0 && (best < 0 || r < best) {
			best, at = r, i
		}
	}
	if best >= 0 {
		return list[at], nil
	}
	return chooseSilent(list)
}

// chooseSilent takes the one that does not say what it is for; its
// configuration will.
func chooseSilent(list []v1.Descriptor) (v1.Descriptor, error) {
	silent := slices.DeleteFunc(slices.Clone(list), func(d v1.Descriptor) bool {
		return d.Platform != nil || !d.MediaType.IsImage() && !d.MediaType.IsIndex()
	})
	if len(silent) == 1 {
		return silent[0], nil
	}
	if len(silent) > 1 {
		return v1.Descriptor{}, refuse("give the name of one of them", "%d images, and nothing says which is meant", len(silent))
	}
	return v1.Descriptor{}, refuse("find or build the image for linux/"+runtime.GOARCH,
		"no image for linux/%s, only for %s", runtime.GOARCH, platforms(list))
}

// platforms lists what there is, for people. Attestations say "unknown".
func platforms(list []v1.Descriptor) string {
	var names []string
	for _, d := range list {
		if d.Platform != nil && d.Platform.OS != "unknown" && !slices.Contains(names, d.Platform.String()) {
			names = append(names, d.Platform.String())
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

func checkPlatform(c v1.ConfigFile) error {
	p := v1.Platform{OS: c.OS, Architecture: c.Architecture}
	if rank(p) < 0 {
		return refuse("find or build the image for linux/"+runtime.GOARCH, "the image is for %s, this machine is linux/%s", p, runtime.GOARCH)
	}
	return nil
}
