package image

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
)

// A record is what images/ keeps of an image.
type record struct {
	ID           string    `json:"id"`
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	Layers       []stored  `json:"layers"`
	Config       Config    `json:"config"`
}

// stored is a layer by the names of its digest and its directory.
type stored struct {
	DiffID string `json:"diffID"`
	Key    string `json:"key"`
	Size   int64  `json:"size"`
}

// A nameRecord is what names/ keeps of a name.
type nameRecord struct {
	Name   string `json:"name"` // in full: "index.docker.io/library/nginx:latest"
	ID     string `json:"id"`
	Digest string `json:"digest,omitempty"`
}

func (s *Store) image(r record, n nameRecord) Image {
	img := Image{
		Name: short(n.Name), ID: r.ID, Digest: n.Digest, Created: r.Created,
		Architecture: r.Architecture, Config: r.Config,
	}
	for _, l := range r.Layers {
		img.Layers = append(img.Layers, Layer{DiffID: l.DiffID, Path: s.layerPath(l.Key), Size: l.Size})
		img.Size += l.Size
	}
	return img
}

func (s *Store) layerPath(key string) string { return s.path("layers", key, layerFile) }

// checkWhole returns an error of kind Corrupt where a layer of the image is not
// there, or not all of it.
func (s *Store) checkWhole(img Image) error {
	for _, l := range img.Layers {
		info, err := os.Stat(l.Path)
		if err != nil {
			return corrupt("%w", err)
		}
		if info.Size() != l.Size {
			return corrupt("%s has %d bytes instead of %d", l.Path, info.Size(), l.Size)
		}
	}
	return nil
}

func (s *Store) readRecord(id string) (record, error) {
	return readJSON[record](s.path("images", fileName(id)))
}

func (s *Store) writeRecord(r record) error {
	return s.writeJSON(s.path("images", fileName(r.ID)), r)
}

func (s *Store) readName(full string) (nameRecord, error) {
	return readJSON[nameRecord](s.path("names", fileName(full)))
}

func (s *Store) writeName(n nameRecord) error {
	return s.writeJSON(s.path("names", fileName(n.Name)), n)
}

// fileName makes a name that has slashes and colons one of a file.
func fileName(name string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F", ":", "%3A").Replace(name) + ".json"
}

// writeJSON puts v at path: afterwards the file holds all of it or what it held
// before.
func (s *Store) writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	d, err := s.draft()
	if err != nil {
		return err
	}
	defer d.discard()
	temp := filepath.Join(d.dir, "json")
	if err := writeSynced(temp, b); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func readJSON[T any](path string) (v T, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, cloudpal.E("read "+path, cloudpal.Corrupt, err).
			WithHint("remove this file and fetch the image again")
	}
	return v, nil
}

// readAll reads every file of a kind. A damaged one is left out: it must not
// hide the others.
func readAll[T any](dir string) ([]T, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []T
	for _, e := range list {
		v, err := readJSON[T](filepath.Join(dir, e.Name()))
		switch {
		case err == nil:
			all = append(all, v)
		case errors.Is(err, cloudpal.Corrupt) || errors.Is(err, fs.ErrNotExist):
		default:
			return nil, err
		}
	}
	return all, nil
}
