package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Collect removes the images that have no name and whose IDs are not among
// inUse, and then the layers that no image has. It returns how many bytes of
// disk that gave back.
func (s *Store) Collect(ctx context.Context, inUse []string) (freed int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep, err := s.sweepImages(inUse)
	if err != nil {
		return 0, fail("collect images", err)
	}
	freed, err = s.sweepLayers(ctx, keep)
	if err != nil {
		return freed, fail("collect images", err)
	}
	return freed, nil
}

// sweepImages removes records, and returns the keys of the layers of those
// that stay.
func (s *Store) sweepImages(inUse []string) (map[string]bool, error) {
	names, err := readAll[nameRecord](s.path("names"))
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		inUse = append(inUse, n.ID)
	}
	records, err := readAll[record](s.path("images"))
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	for _, r := range records {
		if !slices.Contains(inUse, r.ID) && s.pinned[r.ID] == 0 {
			if err := os.Remove(s.path("images", fileName(r.ID))); err != nil {
				return nil, err
			}
			continue
		}
		for _, l := range r.Layers {
			keep[l.Key] = true
		}
	}
	return keep, syncDir(s.path("images"))
}

func (s *Store) sweepLayers(ctx context.Context, keep map[string]bool) (freed int64, err error) {
	list, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		if keep[e.Name()] || s.pinned[e.Name()] > 0 {
			continue
		}
		if ctx.Err() != nil {
			return freed, ctx.Err()
		}
		n, err := s.removeLayer(e.Name())
		if err != nil {
			return freed, err
		}
		freed += n
	}
	return freed, syncDir(s.path("layers"))
}

// removeLayer moves the layer out of sight before it takes it apart, so that a
// crash does not leave half of one.
func (s *Store) removeLayer(key string) (freed int64, err error) {
	d, err := s.draft()
	if err != nil {
		return 0, err
	}
	defer d.discard()
	at := filepath.Join(d.dir, key)
	if err := os.Rename(s.path("layers", key), at); err != nil {
		return 0, err
	}
	return usage(filepath.Join(at, layerFile))
}

// usage returns the disk space a file takes.
func usage(path string) (int64, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512, nil
}

// pin keeps Collect away from layers and images until the function that it
// returns is called.
func (s *Store) pin(keys ...string) (unpin func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.pinned[k]++
	}
	return func() { s.unpin(keys) }
}

func (s *Store) unpin(keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if s.pinned[k]--; s.pinned[k] == 0 {
			delete(s.pinned, k)
		}
	}
}
