// Package images makes the images that tests and benchmarks run: from source
// in this tree, and from packages of Debian and npm. None comes from a
// registry of images.
//
//	web         a static Go program that does what a test asks of it; :8080
//	busybox     a shell and its tools, a user "app"; sleeps until it is told to stop
//	nginx       :80
//	redis       :6379
//	postgresql  :5432, trusts all who come; its database is made at the first start
//	node        a JSON service with a dependency from npm; :3000
package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// A recipe makes one image.
type recipe struct {
	// inputs is everything that the image depends on, besides the version
	// of packages: where it changes, the image is made anew.
	inputs func() []string
	// cook makes the image. cache keeps what was fetched, dir is its own.
	cook func(ctx context.Context, cache, dir string) (dish, error)
}

var recipes = map[string]recipe{}

// Names returns the names of the images that Build makes.
func Names() []string { return slices.Sorted(maps.Keys(recipes)) }

// Build makes the image of that name under cacheDir, unless it is there, and
// returns the directory of its OCI layout. In the layout the image has its
// name with the tag "latest". Many processes may call it at a time.
func Build(ctx context.Context, name, cacheDir string) (layoutDir string, err error) {
	r, ok := recipes[name]
	if !ok {
		return "", fmt.Errorf("no test image is called %q; there are %q", name, Names())
	}
	layoutDir = filepath.Join(cacheDir, name+"-"+key(r.inputs()))
	if exists(layoutDir) {
		return layoutDir, nil
	}
	unlock, err := lock(filepath.Join(cacheDir, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(layoutDir) {
		return layoutDir, nil
	}
	if err := r.build(ctx, cacheDir, layoutDir); err != nil {
		return "", fmt.Errorf("build test image %s: %w", name, err)
	}
	return layoutDir, nil
}

// build makes the layout under another name first, so that none is ever half
// there.
func (r recipe) build(ctx context.Context, cacheDir, layoutDir string) (err error) {
	dir, err := os.MkdirTemp(cacheDir, "temp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := r.cook(ctx, cacheDir, dir)
	if err != nil {
		return err
	}
	img, err := d.image()
	if err != nil {
		return err
	}
	made := filepath.Join(dir, "layout")
	p, err := layout.Write(made, empty.Index)
	if err != nil {
		return err
	}
	named := map[string]string{"org.opencontainers.image.ref.name": "latest"}
	if err := p.AppendImage(img, layout.WithAnnotations(named)); err != nil {
		return err
	}
	return os.Rename(made, layoutDir)
}

// Cache is where test images are kept: $CLOUDPAL_TEST_CACHE, or .cache/images
// at the root of the module that the caller runs in.
func Cache() string {
	if dir := os.Getenv("CLOUDPAL_TEST_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(ModuleRoot(), ".cache", "images")
}

// ModuleRoot returns the directory of the module that the caller runs in.
func ModuleRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		return os.TempDir()
	}
	for at := dir; ; at = filepath.Dir(at) {
		if exists(filepath.Join(at, "go.mod")) {
			return at
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// key is short for the recipe's inputs.
func key(inputs []string) string {
	sum := sha256.New()
	for _, s := range append(inputs, runtime.GOARCH) {
		fmt.Fprintf(sum, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}

// lock waits for the lock of that name. A process that ends lets go of it.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
