package image

import (
	"context"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// PullOptions says how to pull. The zero value is right for most.
type PullOptions struct {
	// Keychain holds the registries' passwords; nil is docker's and podman's
	// own files in the home directory.
	Keychain authn.Keychain
}

// Pull fetches an image from a registry and returns it. ref is read as docker
// reads it: "nginx" is the latest library/nginx of the default registry. A
// registry on a loopback address is spoken to in plain HTTP. Layers that the
// store has are not fetched again. progress may be nil.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions, progress func(Progress)) (Image, error) {
	op := "pull " + ref
	r, err := parse(ref)
	if err != nil {
		return Image{}, fail(op, err)
	}
	p, err := s.planRemote(ctx, r, o)
	if err != nil {
		return Image{}, fail(op, err)
	}
	img, err := s.take(ctx, p, r.Name(), progress)
	if err != nil {
		return Image{}, fail(op, err)
	}
	return img, nil
}

func (s *Store) planRemote(ctx context.Context, ref name.Reference, o PullOptions) (plan, error) {
	keys := o.Keychain
	if keys == nil {
		keys = authn.DefaultKeychain
	}
	puller, err := remote.NewPuller(remote.WithAuthFromKeychain(keys), remote.WithUserAgent("cloudpal"))
	if err != nil {
		return plan{}, err
	}
	d, err := puller.Get(ctx, ref)
	if err != nil {
		return plan{}, err
	}
	p, err := s.resolve(ctx, registry{puller, ref.Context()}, d.Descriptor)
	p.phase = Pulling
	return p, err
}

// A registry is one repository of a registry, as a source.
type registry struct {
	puller *remote.Puller
	repo   name.Repository
}

func (r registry) manifest(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	m, err := r.puller.Get(ctx, r.repo.Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	return nopCloser(m.Manifest), nil
}

func (r registry) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	l, err := r.puller.Layer(ctx, r.repo.Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}
