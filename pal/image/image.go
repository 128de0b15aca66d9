// Package image makes the core's image: an OCI layout with this program, the
// kernel modules that a core loads, mke2fs with its libraries, and nothing
// else. Made of the same files it is the same image, to the bit.
package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/kernel"
	"github.com/tradle/cloudpal/pal/module"
)

// program is this program in the image.
const program = "/usr/bin/cloudpal"

// date is the time of everything in the image.
var date = time.Unix(1_700_000_000, 0).UTC()

// Parts are the files that an image is made of.
type Parts struct {
	Program string // cloudpal, linked statically
	Kernel  kernel.Kernel
	Mke2fs  string // the distribution's, with its libraries where that has them
}

// Write makes the image at dir, in place of what is there.
func Write(dir string, p Parts) error {
	const op = "make the core's image"
	layer, err := p.layer()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	img, err := imageOf(layer)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	if err := place(img, dir); err != nil {
		return cloudpal.E(op, "", err)
	}
	return nil
}

// layer returns all files as an archive.
func (p Parts) layer() ([]byte, error) {
	a := newArchive()
	if err := p.addProgram(a); err != nil {
		return nil, err
	}
	if err := addLinked(a, p.Mke2fs, "/usr/sbin/mke2fs"); err != nil {
		return nil, err
	}
	if err := p.addModules(a); err != nil {
		return nil, err
	}
	for _, dir := range []string{"/dev", "/etc", "/pal", "/proc", "/run", "/sys", "/tmp"} {
		a.dir(dir)
	}
	return a.close()
}

func (p Parts) addProgram(a *archive) error {
	f, err := elf.Open(p.Program)
	if err != nil {
		return err
	}
	defer f.Close()
	if interpreter(f) != "" {
		return cloudpal.E("put "+p.Program+" into it", cloudpal.Invalid, errors.New("it needs libraries")).
			WithHint("build it with CGO_ENABLED=0, as make build does")
	}
	return a.copy(program, p.Program)
}

func (p Parts) addModules(a *archive) error {
	var order strings.Builder
	there := map[string]bool{}
	for _, list := range []struct {
		names []string
		mark  string
	}{{module.Needed, ""}, {module.Useful, "-"}} {
		modules, err := p.Kernel.ReadModules(list.names)
		if err != nil {
			return err
		}
		for _, m := range modules {
			if there[m.Name] {
				continue
			}
			there[m.Name] = true
			a.file(module.Dir+"/"+m.Name+".ko", m.Data, 0o644)
			order.WriteString(list.mark + m.Name + "\n")
		}
	}
	a.file(module.Dir+"/"+module.Order, []byte(order.String()), 0o644)
	return nil
}

// libraryDirs are where Debian has libraries.
var libraryDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64"}

// addLinked adds a program under the name to and all libraries that it and
// they are linked with, where they are here. It runs nothing of them.
func addLinked(a *archive, from, to string) error {
	if err := a.copy(to, from); err != nil {
		return cloudpal.E("put mke2fs into it", cloudpal.Missing, err).WithHint("install it: apt-get install e2fsprogs")
	}
	for todo := []string{from}; len(todo) > 0; todo = todo[1:] {
		needs, err := neededBy(todo[0])
		if err != nil {
			return err
		}
		for _, lib := range needs {
			if a.has(lib) {
				continue
			}
			if err := a.copy(lib, lib); err != nil {
				return err
			}
			todo = append(todo, lib)
		}
	}
	return nil
}

// neededBy returns the libraries that a program or library names, and its
// interpreter.
func neededBy(file string) (paths []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	if i := interpreter(f); i != "" {
		paths = append(paths, i)
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, name := range names {
		path, err := findLibrary(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			path := make([]byte, p.Filesz)
			if _, err := p.ReadAt(path, 0); err == nil {
				return string(bytes.TrimRight(path, "\x00"))
			}
		}
	}
	return ""
}

func findLibrary(name string) (string, error) {
	for _, dir := range libraryDirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", cloudpal.E("find library "+name, cloudpal.Missing, nil).WithHint("make the image on Debian")
}

// An archive is a layer in the making. Each file is in it once, with the
// directories that lead to it.
type archive struct {
	data  bytes.Buffer
	out   *tar.Writer
	names map[string]bool
	err   error // the first one; close returns it
}

func newArchive() *archive {
	a := &archive{names: map[string]bool{"/": true}}
	a.out = tar.NewWriter(&a.data)
	return a
}

func (a *archive) has(name string) bool { return a.names[name] }

// copy adds the file at from, following symlinks.
func (a *archive) copy(name, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	a.file(name, data, 0o755)
	return nil
}

func (a *archive) file(name string, data []byte, mode int64) {
	a.dir(filepath.Dir(name))
	a.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data)
}

func (a *archive) dir(name string) {
	if a.has(name) {
		return
	}
	a.dir(filepath.Dir(name))
	a.entry(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, nil)
}

func (a *archive) entry(h tar.Header, data []byte) {
	a.names[h.Name] = true
	h.Name = strings.TrimPrefix(h.Name, "/")
	h.ModTime, h.Format = date, tar.FormatPAX
	if a.err == nil {
		a.err = a.out.WriteHeader(&h)
	}
	if a.err == nil {
		_, a.err = a.out.Write(data)
	}
}

func (a *archive) close() ([]byte, error) {
	if err := errors.Join(a.err, a.out.Close()); err != nil {
		return nil, err
	}
	return a.data.Bytes(), nil
}

// imageOf makes an image of one layer that runs a pal's core.
func imageOf(layer []byte) (v1.Image, error) {
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil }
	l, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: date}, CreatedBy: "cloudpal core-image"}})
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Created = runtime.GOARCH, "linux", v1.Time{Time: date}
	file.Config = v1.Config{Entrypoint: []string{program, "pal"}}
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(img, types.OCIConfigJSON), nil
}

// place writes the image beside dir first: none is ever half there.
func place(img v1.Image, dir string) error {
	tmp := filepath.Clean(dir) + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	p, err := layout.Write(tmp, empty.Index)
	if err != nil {
		return err
	}
	named := map[string]string{"org.opencontainers.image.ref.name": "latest"}
	if err := p.AppendImage(img, layout.WithAnnotations(named)); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}
