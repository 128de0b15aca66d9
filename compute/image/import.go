package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Import takes in an image from a file or directory: an OCI layout, as a
// directory or as a tar archive, or what docker save writes. Where name is
// empty, the image's own is taken, and else the file's. progress may be nil.
func (s *Store) Import(ctx context.Context, path, name string, progress func(Progress)) (Image, error) {
	op := "import " + path
	f, err := openFiles(path)
	if err != nil {
		return Image{}, fail(op, err)
	}
	defer f.Close()
	p, own, err := s.planLocal(ctx, f, name)
	if err != nil {
		return Image{}, fail(op, err)
	}
	p.phase = Unpacking
	name, err = importName(name, own, path)
	if err != nil {
		return Image{}, fail(op, err)
	}
	img, err := s.take(ctx, p, name, progress)
	if err != nil {
		return Image{}, fail(op, err)
	}
	return img, nil
}

// importName returns, in full, the first usable of the name that is wished,
// the image's own and the file's.
func importName(wished, own, file string) (string, error) {
	if wished != "" {
		return full(wished)
	}
	if f, err := full(own); own != "" && err == nil {
		return f, nil
	}
	base := filepath.Base(file)
	return full(strings.ToLower(strings.TrimSuffix(base, path.Ext(base))))
}

// planLocal reads the table of contents of a layout or archive.
func (s *Store) planLocal(ctx context.Context, f files, name string) (plan, string, error) {
	most := s.Limits.withDefaults().JSON
	if index, err := readSmall(f, "index.json", most); err == nil {
		return s.planLayout(ctx, f, index, name)
	}
	list, err := readSmall(f, "manifest.json", most)
	if err != nil {
		return plan{}, "", refuse("give the directory of an OCI layout, or a tar archive that docker save, podman save or skopeo wrote",
			"neither index.json nor manifest.json is in it")
	}
	return s.planDocker(f, list, name)
}

func readSmall(f files, name string, most int64) ([]byte, error) {
	r, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > most {
		return nil, refuse("", "%s has %d bytes, %d is the most", name, size, most)
	}
	return io.ReadAll(io.LimitReader(r, most))
}

// The annotations in which an index names its images.
const (
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
)

func (s *Store) planLayout(ctx context.Context, f files, raw []byte, name string) (plan, string, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return plan{}, "", refuse("", "index.json is not an index: %w", err)
	}
	list := index.Manifests
	if named := withName(list, name); len(named) > 0 {
		list = named
	}
	if len(list) == 0 {
		return plan{}, "", refuse("", "the layout has no images")
	}
	d := list[0]
	if len(list) > 1 {
		if d, err = choose(list); err != nil {
			return plan{}, "", err
		}
	}
	p, err := s.resolve(ctx, layout{f}, d)
	return p, ownName(d), err
}

// withName returns the descriptors that have this name.
func withName(list []v1.Descriptor, name string) (named []v1.Descriptor) {
	for _, d := range list {
		a := d.Annotations
		if name != "" && (a[refName] == name || a[containerdName] == name || a[refName] == tagOf(name)) {
			named = append(named, d)
		}
	}
	return named
}

func tagOf(name string) string {
	ref, err := parse(name)
	if err != nil {
		return ""
	}
	return ref.Identifier()
}

// ownName returns the name an index gives. Many give only a tag, which names
// no image.
func ownName(d v1.Descriptor) string {
	if n := d.Annotations[containerdName]; n != "" {
		return n
	}
	if n := d.Annotations[refName]; strings.ContainsAny(n, "/:") {
		return n
	}
	return ""
}

// A layout is an OCI layout as a source (image-spec, image-layout.md).
type layout struct{ files files }

func (l layout) blob(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if err := checkHash(d.Digest); err != nil {
		return nil, err
	}
	r, size, err := l.files.open("blobs/" + d.Digest.Algorithm + "/" + d.Digest.Hex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, corrupt("%s is not in the layout", d.Digest)
	}
	if err != nil {
		return nil, err
	}
	if size != d.Size {
		r.Close()
		return nil, corrupt("%s has %d bytes instead of %d", d.Digest, size, d.Size)
	}
	return r, nil
}

func (l layout) manifest(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return l.blob(ctx, d)
}

// A dockerManifest is an entry of the manifest.json that docker save writes.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (s *Store) planDocker(f files, raw []byte, name string) (plan, string, error) {
	var list []dockerManifest
	if err := json.Unmarshal(raw, &list); err != nil {
		return plan{}, "", refuse("", "manifest.json is not one of docker's: %w", err)
	}
	m, err := chooseDocker(list, name)
	if err != nil {
		return plan{}, "", err
	}
	config, err := readSmall(f, m.Config, s.Limits.withDefaults().JSON)
	if err != nil {
		return plan{}, "", err
	}
	id, _, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return plan{}, "", err
	}
	p := plan{id: id}
	for _, l := range m.Layers {
		part, err := dockerPart(f, l)
		if err != nil {
			return plan{}, "", err
		}
		p.layers = append(p.layers, part)
	}
	own := ""
	if len(m.RepoTags) > 0 {
		own = m.RepoTags[0]
	}
	return p, own, s.configure(&p, config)
}

func chooseDocker(list []dockerManifest, name string) (dockerManifest, error) {
	for _, m := range list {
		for _, t := range m.RepoTags {
			if f, err := full(t); err == nil && name != "" && f == fullOr(name) {
				return m, nil
			}
		}
	}
	if len(list) != 1 {
		return dockerManifest{}, refuse("give the name of one of them", "%d images, and nothing says which is meant", len(list))
	}
	return list[0], nil
}

func fullOr(name string) string {
	f, _ := full(name)
	return f
}

func dockerPart(f files, name string) (part, error) {
	r, size, err := f.open(name)
	if err != nil {
		return part{}, err
	}
	r.Close()
	return part{size: size, open: func(context.Context) (io.ReadCloser, error) {
		r, _, err := f.open(name)
		return r, err
	}}, nil
}
