package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/test/images"
)

// benchUnpack holds taking in an image against umoci, which unpacks it into
// directories.
func benchUnpack(b *run) error {
	layout, err := images.Build(context.Background(), "postgresql", images.Cache())
	b.must(err)
	var ours, theirs sample
	var size int64
	for range 5 {
		d, n := b.unpackOurs(layout)
		ours, size = append(ours, d), n
		theirs = append(theirs, b.unpackUmoci(layout))
	}
	rate := func(s sample) float64 { return mib(int(size)) / (s.at(0.5) / 1000) }
	b.add(told("unpack an image (PostgreSQL), as it is in the end", "MiB/s", rate(ours), rate(theirs), "umoci unpack"))
	return nil
}

func (b *run) unpackOurs(layout string) (time.Duration, int64) {
	dir := filepath.Join(b.TempDir(), "store")
	defer os.RemoveAll(dir)
	s, err := image.Open(dir)
	b.must(err)
	var img image.Image
	d, err := timed(func() (err error) {
		img, err = s.Import(context.Background(), layout, "bench", nil)
		return err
	})
	b.must(err)
	return d, img.Size
}

func (b *run) unpackUmoci(layout string) time.Duration {
	dir := filepath.Join(b.TempDir(), "bundle")
	defer os.RemoveAll(dir)
	d, err := timed(func() error {
		b.shell("umoci", "unpack", "--image", layout+":latest", dir)
		return nil
	})
	b.must(err)
	return d
}
