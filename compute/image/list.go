package image

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/tradle/cloudpal"
)

// List returns all images, sorted by name. An image with two names is there
// twice; one that lost its name but is still in use has none.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	images, err := s.list()
	if err != nil {
		return nil, fail("list images", err)
	}
	return images, ctx.Err()
}

func (s *Store) list() ([]Image, error) {
	names, err := readAll[nameRecord](s.path("names"))
	if err != nil {
		return nil, err
	}
	records, err := readAll[record](s.path("images"))
	if err != nil {
		return nil, err
	}
	images := []Image{}
	for _, r := range records {
		images = append(images, s.named(r, names)...)
	}
	slices.SortFunc(images, func(a, b Image) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return images, nil
}

// named returns the image once for each of its names.
func (s *Store) named(r record, names []nameRecord) []Image {
	var images []Image
	for _, n := range names {
		if n.ID == r.ID {
			images = append(images, s.image(r, n))
		}
	}
	if images == nil {
		images = append(images, s.image(r, nameRecord{}))
	}
	return images
}

// Get returns the image of that name ("nginx" is "nginx:latest"), or with that
// ID or beginning of an ID, if it is the only one. Where there is none, the
// error's kind is cloudpal.NotExist; where its layers are not all there,
// cloudpal.Corrupt.
func (s *Store) Get(name string) (Image, error) {
	op := "find image " + name
	img, err := s.lookUp(name)
	if err == nil {
		err = s.checkWhole(img)
	}
	if err != nil {
		return Image{}, fail(op, err)
	}
	return img, nil
}

func (s *Store) lookUp(name string) (Image, error) {
	img, err := s.byName(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, cloudpal.Invalid) {
		return s.byID(name)
	}
	return img, err
}

func (s *Store) byName(name string) (Image, error) {
	f, err := full(name)
	if err != nil {
		return Image{}, err
	}
	n, err := s.readName(f)
	if err != nil {
		return Image{}, err
	}
	r, err := s.readRecord(n.ID)
	if err != nil {
		return Image{}, err
	}
	return s.image(r, n), nil
}

// minPrefix is the shortest beginning of an ID that is taken for one.
const minPrefix = 4

func (s *Store) byID(prefix string) (Image, error) {
	images, err := s.list()
	if err != nil {
		return Image{}, err
	}
	hex := strings.TrimPrefix(prefix, "sha256:")
	images = slices.DeleteFunc(images, func(i Image) bool {
		return len(hex) < minPrefix || !strings.HasPrefix(strings.TrimPrefix(i.ID, "sha256:"), hex)
	})
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.ID, b.ID) })
	images = slices.CompactFunc(images, func(a, b Image) bool { return a.ID == b.ID })
	switch len(images) {
	case 0:
		return Image{}, cloudpal.E("", cloudpal.NotExist, nil).WithHint("fetch it with cloudpal image pull " + prefix)
	case 1:
		return images[0], nil
	}
	return Image{}, refuse("give more of the ID", "%d images have an ID that begins with %s", len(images), hex)
}

// Remove takes the name away, or, given an ID, all names of that image. The
// image itself goes with the next Collect.
func (s *Store) Remove(ctx context.Context, name string) error {
	op := "remove image " + name
	img, err := s.lookUp(name)
	if err != nil {
		return fail(op, err)
	}
	for _, n := range s.namesToRemove(img, name) {
		if err := os.Remove(s.path("names", fileName(n))); err != nil {
			return fail(op, err)
		}
	}
	if err := syncDir(s.path("names")); err != nil {
		return fail(op, err)
	}
	return ctx.Err()
}

// namesToRemove returns the names, in full, that name stands for.
func (s *Store) namesToRemove(img Image, name string) []string {
	if f, err := full(name); err == nil {
		if _, err := s.readName(f); err == nil {
			return []string{f}
		}
	}
	all, _ := readAll[nameRecord](s.path("names"))
	var names []string
	for _, n := range all {
		if n.ID == img.ID {
			names = append(names, n.Name)
		}
	}
	return names
}
