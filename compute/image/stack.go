package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tradle/cloudpal/compute/image/layer"
)

// stack makes the devices of an image, bottom first: one for each layer, save
// that the lowest ones are made into one where there are too many, or where
// one of them does not stand alone.
func (s *Store) stack(ctx context.Context, p plan, tell report) ([]stored, error) {
	bottom := 0 // how many of the lowest layers are one device
	if n := len(p.layers); n > MaxDevices {
		bottom = n - MaxDevices + 1
	}
	for {
		devices, err := s.devices(ctx, p, bottom, tell)
		var b *bound
		if !errors.As(err, &b) {
			return devices, err
		}
		bottom = b.layer + 1
	}
}

// A bound says that a layer has to be made with all those below it.
type bound struct {
	layer int
	why   error
}

func (b *bound) Error() string { return b.why.Error() }

// devices makes the devices where the lowest bottom layers are one.
func (s *Store) devices(ctx context.Context, p plan, bottom int, tell report) ([]stored, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	jobs := s.jobs(p, bottom, tell)
	list := make([]made, len(jobs))
	errs := make([]error, len(jobs))
	var wait sync.WaitGroup
	for i, job := range jobs {
		wait.Go(func() {
			if list[i], errs[i] = job(ctx); errs[i] != nil && !isBound(errs[i]) {
				cancel()
			}
		})
	}
	wait.Wait()
	if err := worst(errs); err != nil {
		return nil, err
	}
	return s.checkStack(list, bottom)
}

// jobs returns what makes each device.
func (s *Store) jobs(p plan, bottom int, tell report) []func(context.Context) (made, error) {
	var jobs []func(context.Context) (made, error)
	if bottom > 0 {
		jobs = append(jobs, func(ctx context.Context) (made, error) { return s.makeBottom(ctx, p.layers[:bottom], tell) })
	}
	for i := bottom; i < len(p.layers); i++ {
		jobs = append(jobs, func(ctx context.Context) (made, error) {
			m, err := s.makeLayer(ctx, p.layers[i], tell)
			if errors.Is(err, layer.ErrBelow) {
				err = &bound{i, err}
			}
			return m, err
		})
	}
	return jobs
}

func isBound(err error) bool {
	var b *bound
	return errors.As(err, &b)
}

// worst returns the error that ends it: one that is not only the echo of
// another; and else the bound of the highest layer.
func worst(errs []error) (worst error) {
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) && !isBound(err) {
			return err
		}
	}
	for _, err := range errs {
		if isBound(err) || err != nil && worst == nil {
			worst = err
		}
	}
	return worst
}

// checkStack looks for layers whose ties do not hold.
func (s *Store) checkStack(devices []made, bottom int) ([]stored, error) {
	first := max(bottom-1, 0) // the layer that the lowest device ends with
	list := make([]stored, len(devices))
	for i, d := range devices {
		list[i] = d.stored
	}
	for i := len(devices) - 1; i >= 0; i-- {
		if i == 0 && bottom > 0 {
			break // was made to lie lowest
		}
		holds, err := s.tiesHold(devices[i].about, list[:i])
		if err != nil {
			return nil, err
		}
		if !holds {
			return nil, &bound{first + i, layer.ErrBelow}
		}
	}
	return list, nil
}

// chainID is the name of layers laid over each other (image-spec, config.md,
// "Layer ChainID").
func chainID(layers []part) string {
	id := layers[0].diffID.String()
	for _, l := range layers[1:] {
		sum := sha256.Sum256([]byte(id + " " + l.diffID.String()))
		id = "sha256:" + hex.EncodeToString(sum[:])
	}
	return id
}

func layerKey(diffID v1.Hash) string { return diffID.Algorithm + "-" + diffID.Hex }

func chainKey(chainID string) string { return "chain-" + chainID[len("sha256:"):] }
