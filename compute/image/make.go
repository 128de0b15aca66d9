package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/image/layer"
)

// The files of a layer's directory.
const (
	layerFile = "layer.erofs"
	aboutFile = "about.json"
)

// about is what the store knows of a layer besides its file system: how long
// its file is, and its ties. They are bytes because names need not be text.
type about struct {
	Bytes   int64    `json:"bytes"`
	Implied [][]byte `json:"implied,omitempty"`
	Hiding  [][]byte `json:"hiding,omitempty"`
}

type made struct {
	stored
	about
}

func (s *Store) makeLayer(ctx context.Context, p part, tell report) (made, error) {
	return s.make(ctx, layerKey(p.diffID), p.diffID.String(), []part{p}, layer.NewLayer, tell)
}

func (s *Store) makeBottom(ctx context.Context, parts []part, tell report) (made, error) {
	id := chainID(parts)
	return s.make(ctx, chainKey(id), id, parts, layer.NewBottom, tell)
}

type newBuilder func(*os.File, string, layer.Limits) (*layer.Builder, error)

// make returns the layer key, and makes it if it is not there. Of many calls
// at a time one makes it and the others wait; if it fails they try themselves.
func (s *Store) make(ctx context.Context, key, id string, parts []part, builder newBuilder, tell report) (made, error) {
	for {
		other := s.claim(key)
		if other == nil {
			break
		}
		select {
		case <-other:
		case <-ctx.Done():
			return made{}, ctx.Err()
		}
	}
	defer s.unclaim(key)
	m, err := s.find(key, id)
	if err == nil {
		for _, p := range parts {
			tell(p, p.size)
		}
		return m, nil
	}
	if errors.Is(err, cloudpal.Corrupt) {
		_, err = s.removeLayer(key)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return made{}, err
	}
	if err := s.acquire(ctx); err != nil {
		return made{}, err
	}
	defer s.release()
	if err := s.retry(ctx, key, parts, builder, tell); err != nil {
		return made{}, err
	}
	return s.find(key, id)
}

// claim makes the caller the one who makes key, or returns what is closed when
// another is done.
func (s *Store) claim(key string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.making[key]; other != nil {
		return other
	}
	s.making[key] = make(chan struct{})
	return nil
}

func (s *Store) unclaim(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.making[key])
	delete(s.making, key)
}

// find returns a layer that is there. Its kind of error is Corrupt where only
// a part of it is, which the store itself never leaves.
func (s *Store) find(key, id string) (made, error) {
	if _, err := os.Stat(s.path("layers", key)); err != nil {
		return made{}, err
	}
	a, err := readJSON[about](s.path("layers", key, aboutFile))
	if err != nil {
		return made{}, corrupt("layer %s: %w", id, err)
	}
	info, err := os.Stat(s.layerPath(key))
	if err != nil {
		return made{}, corrupt("layer %s: %w", id, err)
	}
	if info.Size() != a.Bytes {
		return made{}, corrupt("layer %s has %d bytes instead of %d", id, info.Size(), a.Bytes)
	}
	return made{stored{DiffID: id, Key: key, Size: a.Bytes}, a}, nil
}

// tries is how often a layer is fetched whose connection breaks.
const tries = 3

func (s *Store) retry(ctx context.Context, key string, parts []part, builder newBuilder, tell report) (err error) {
	for range tries {
		err = s.build(ctx, key, parts, builder, tell)
		if ctx.Err() != nil || !errors.Is(err, io.ErrUnexpectedEOF) && !isNetwork(err) {
			return err
		}
	}
	return err
}

// build makes a layer of the parts and puts it where it belongs.
func (s *Store) build(ctx context.Context, key string, parts []part, builder newBuilder, tell report) error {
	d, err := s.draft()
	if err != nil {
		return err
	}
	defer d.discard()
	f, err := os.Create(filepath.Join(d.dir, layerFile))
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := builder(f, d.dir, s.Limits.Layer)
	if err != nil {
		return err
	}
	defer b.Close()
	for _, p := range parts {
		if err := s.apply(ctx, b, p, func(done int64) { tell(p, done) }); err != nil {
			return err
		}
	}
	return s.seal(d, f, b, key)
}

// seal finishes the draft and publishes it.
func (s *Store) seal(d *draft, f *os.File, b *layer.Builder, key string) error {
	sum := sha256.Sum256([]byte(key))
	ties, err := b.Finish([16]byte(sum[:16]))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a := about{Bytes: info.Size(), Implied: toBytes(ties.Implied), Hiding: toBytes(ties.Hiding)}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Chmod(0o444), writeSynced(filepath.Join(d.dir, aboutFile), text)); err != nil {
		return err
	}
	if err := os.Chmod(d.dir, 0o755); err != nil {
		return err
	}
	return d.publish(s.path("layers", key))
}

func toBytes(names []string) [][]byte {
	var list [][]byte
	for _, n := range names {
		list = append(list, []byte(n))
	}
	return list
}
