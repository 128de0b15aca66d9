package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A plan is an image about to be taken in: its configuration is here and
// checked, its layers wait to be read.
type plan struct {
	id     v1.Hash // of the configuration
	digest string  // of the manifest; "" where there is none
	config v1.ConfigFile
	layers []part
	phase  string
}

// A part is one layer as it is sent.
type part struct {
	diffID v1.Hash
	digest v1.Hash // zero where the source has none to check
	size   int64   // bytes to be sent
	open   func(context.Context) (io.ReadCloser, error)
}

// A source is a registry's repository or a layout: what has parts of images by
// digest. What it returns is not checked yet.
type source interface {
	blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
	manifest(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
}

// maxNesting is how deep an index may lie in an index.
const maxNesting = 4

// resolve returns the plan for what d describes: a manifest, or an index with
// one for this machine.
func (s *Store) resolve(ctx context.Context, src source, d v1.Descriptor) (plan, error) {
	for range maxNesting {
		raw, err := s.small(ctx, d, src.manifest)
		if err != nil {
			return plan{}, err
		}
		kind, err := mediaType(raw, d.MediaType)
		if err != nil {
			return plan{}, err
		}
		if !kind.IsIndex() {
			return s.planOf(ctx, src, d, raw)
		}
		if d, err = chooseFrom(raw); err != nil {
			return plan{}, err
		}
	}
	return plan{}, refuse("", "indexes lie in each other more than %d deep", maxNesting)
}

// small reads a manifest, index or configuration and checks its digest.
func (s *Store) small(ctx context.Context, d v1.Descriptor, open func(context.Context, v1.Descriptor) (io.ReadCloser, error)) ([]byte, error) {
	most := s.Limits.withDefaults().JSON
	if d.Size > most {
		return nil, refuse("", "%s has %d bytes, %d is the most", d.Digest, d.Size, most)
	}
	r, err := open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, refuse("", "%s has more than %d bytes", d.Digest, most)
	}
	return b, check(b, d.Digest)
}

// check compares b with the digest it should have.
func check(b []byte, want v1.Hash) error {
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return refuse("", "digest %q is of an unknown kind", want)
	}
	h.Write(b)
	return checkSum(h.Sum(nil), want)
}

// mediaType returns what raw says it is; where it says nothing, what the
// descriptor says, and else what it looks like.
func mediaType(raw []byte, described types.MediaType) (types.MediaType, error) {
	var m struct {
		MediaType     types.MediaType `json:"mediaType"`
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", refuse("check what the reference names", "not a manifest: %w", err)
	}
	switch {
	case m.SchemaVersion == 1:
		return "", refuse("push it again with a docker newer than 1.10", "the image is in the old format of docker (schema 1)")
	case m.MediaType.IsImage() || m.MediaType.IsIndex():
		return m.MediaType, nil
	case m.MediaType != "":
		return "", refuse("", "manifest of the unknown type %q", m.MediaType)
	case described.IsImage() || described.IsIndex():
		return described, nil
	case m.Manifests != nil:
		return types.OCIImageIndex, nil
	}
	return types.OCIManifestSchema1, nil
}

func (s *Store) planOf(ctx context.Context, src source, d v1.Descriptor, raw []byte) (plan, error) {
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return plan{}, refuse("", "not a manifest: %w", err)
	}
	if !m.Config.MediaType.IsConfig() {
		return plan{}, refuse("only images that can run are of use here", "not an image to run, but %q", m.Config.MediaType)
	}
	config, err := s.small(ctx, m.Config, src.blob)
	if err != nil {
		return plan{}, err
	}
	p := plan{id: m.Config.Digest, digest: d.Digest.String()}
	for _, l := range m.Layers {
		if err := checkLayer(l); err != nil {
			return plan{}, err
		}
		open := func(ctx context.Context) (io.ReadCloser, error) { return src.blob(ctx, l) }
		p.layers = append(p.layers, part{digest: l.Digest, size: l.Size, open: open})
	}
	return p, s.configure(&p, config)
}

// configure reads the configuration and gives each layer its diff ID.
func (s *Store) configure(p *plan, raw []byte) error {
	c, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return refuse("", "not an image's configuration: %w", err)
	}
	most := s.Limits.withDefaults().Layers
	switch n := len(p.layers); {
	case n != len(c.RootFS.DiffIDs):
		return refuse("", "%d layers, but the configuration tells of %d", n, len(c.RootFS.DiffIDs))
	case n == 0:
		return refuse("", "the image has no layers")
	case n > most:
		return refuse("", "the image has %d layers, %d is the most", n, most)
	}
	if err := checkPlatform(*c); err != nil {
		return err
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := checkHash(d); err != nil {
			return err
		}
		p.layers[i].diffID = d
	}
	p.config = *c
	return nil
}

// checkLayer refuses layers that cannot be had or read.
func checkLayer(d v1.Descriptor) error {
	kind := string(d.MediaType)
	switch {
	case strings.Contains(kind, "encrypted"):
		return refuse("decrypt the image first, with skopeo copy --decryption-key", "layer %s is encrypted", d.Digest)
	case len(d.URLs) > 0 || d.MediaType.IsLayer() && !d.MediaType.IsDistributable():
		return refuse("only images whose layers are all in one place can be used", "layer %s has to be fetched from elsewhere", d.Digest)
	case !d.MediaType.IsLayer():
		return refuse("only layers that are tar archives, plain or packed with gzip or zstd, can be used", "layer %s is of the unknown type %q", d.Digest, kind)
	case d.Size < 0:
		return refuse("", "layer %s has %d bytes", d.Digest, d.Size)
	}
	return checkHash(d.Digest)
}

// checkHash refuses digests that cannot be checked. Layers are filed under
// them, so nothing else may get by.
func checkHash(h v1.Hash) error {
	if _, err := v1.NewHash(h.String()); err != nil || h.Algorithm != "sha256" {
		return refuse("", "digest %.100q is of an unknown kind", h)
	}
	return nil
}

// configOf returns what of an image's configuration is of use to a VM.
func configOf(c v1.Config) Config {
	return Config{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir,
		StopSignal: c.StopSignal, Labels: c.Labels,
		Volumes:      slices.Sorted(maps.Keys(c.Volumes)),
		ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)),
	}
}
