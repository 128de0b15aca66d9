// Package kernel makes a guest kernel out of the distribution's package: the
// uncompressed vmlinux that a microVM boots directly, and an initrd with
// vminit and the modules that it loads. Nothing of it is a build of our own.
package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
)

// A Kernel is a distribution's kernel as `dpkg-deb -x` of its package leaves
// it.
type Kernel struct {
	Release string // "6.1.0-56-cloud-amd64"
	Image   string // boot/vmlinuz-RELEASE
	Modules string // lib/modules/RELEASE
}

const setupHint = "fetch the distribution's kernel with: make setup"

// Find returns the newest kernel below dir.
func Find(dir string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) == 0 {
		return Kernel{}, cloudpal.E("find a guest kernel in "+dir, cloudpal.Missing, err).WithHint(setupHint)
	}
	newest := slices.MaxFunc(images, func(a, b string) int { return modified(a).Compare(modified(b)) })
	k := Kernel{Release: strings.TrimPrefix(filepath.Base(newest), "vmlinuz-"), Image: newest}
	for _, lib := range []string{"lib", "usr/lib"} {
		k.Modules = filepath.Join(dir, lib, "modules", k.Release)
		if _, err := os.Stat(k.Modules); err == nil {
			return k, nil
		}
	}
	return Kernel{}, cloudpal.E("find the modules of kernel "+k.Release+" in "+dir, cloudpal.Missing, nil).WithHint(setupHint)
}

// Cmdline is the part of the guest's command line that suits every driver. It
// leaves out what only saves time: boot-time tests of the kernel's own
// cryptography, and tracing, which costs 8 MiB of every guest's memory.
// init_on_free=1 makes freed pages zero, so that a nap does not keep them.
// Mitigations, page protections and address randomisation of user space stay on;
// the kernel itself is not randomised, so that equal guests have equal pages.
const Cmdline = "quiet panic=-1 reboot=t no_timer_check cryptomgr.notests=1 audit=0 nowatchdog numa=off " +
	"nokaslr init_on_alloc=0 init_on_free=1 initcall_blacklist=init_kprobe_trace,init_trace_printk_function_export," +
	"tracer_init_tracefs,event_trace_init,init_blk_tracer,slab_sysfs_init,acpi_thermal_init,bpf_prog_test_run_init," +
	"load_system_certificate_list"

// modules are what a guest needs; what they depend on comes before them.
var modules = []string{"virtio_mmio", "virtio_blk", "virtio_net", "virtio-rng", "erofs", "overlay"}

// A Prepared kernel is ready to boot.
type Prepared struct {
	Release string
	VMLinux string   // path of the uncompressed kernel
	Cmdline string   // see Cmdline
	Modules []string // files in /modules of the initrd, in the order to load them
	base    string   // path of the initrd that all VMs share
}

// Prepare extracts the kernel and makes the base initrd, with the program
// vminit as /init, in the directory cache. What is there already and still
// fits is used as it is.
func (k Kernel) Prepare(cache, vminit string) (Prepared, error) {
	op := "prepare guest kernel " + k.Release
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Prepared{}, cloudpal.E(op, "", err)
	}
	p := Prepared{Release: k.Release, Cmdline: Cmdline}
	image, err := os.ReadFile(k.Image)
	if err != nil {
		return Prepared{}, cloudpal.E(op, "", err).WithHint(setupHint)
	}
	p.VMLinux = filepath.Join(cache, "vmlinux-"+digest(image))
	err = once(p.VMLinux, func() ([]byte, error) { return Extract(image) })
	if err != nil {
		return Prepared{}, cloudpal.E(op, "", err)
	}
	loads, err := loadOrder(k.Modules, modules)
	if err != nil {
		return Prepared{}, cloudpal.E(op, "", err)
	}
	init, err := os.ReadFile(vminit)
	if err != nil {
		return Prepared{}, cloudpal.E(op, "", err).WithHint("build it with: make build")
	}
	files, err := baseFiles(init, loads)
	if err != nil {
		return Prepared{}, cloudpal.E(op, "", err).WithHint(setupHint)
	}
	for _, m := range loads {
		p.Modules = append(p.Modules, filepath.Base(m))
	}
	var archive bytes.Buffer
	if err := writeArchive(&archive, files); err != nil {
		return Prepared{}, cloudpal.E(op, "", err)
	}
	p.base = filepath.Join(cache, "initrd-"+digest(archive.Bytes()))
	if err := once(p.base, func() ([]byte, error) { return archive.Bytes(), nil }); err != nil {
		return Prepared{}, cloudpal.E(op, "", err)
	}
	return p, nil
}

// Initrd writes the initrd of one VM: the base that all share, and its own
// files.
func (p Prepared) Initrd(w io.Writer, files []File) error {
	base, err := os.Open(p.base)
	if err != nil {
		return cloudpal.E("write an initrd", "", err)
	}
	defer base.Close()
	if _, err := io.Copy(w, base); err != nil {
		return cloudpal.E("write an initrd", "", err)
	}
	return writeArchive(w, files)
}

// baseFiles are what every guest starts with. The two device nodes are there
// because a Go program dies silently when it cannot open any of its standard
// descriptors.
func baseFiles(init []byte, loads []string) ([]File, error) {
	files := []File{
		{Name: "dev", Mode: fs.ModeDir | 0o755},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "dev/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 3},
		{Name: "init", Mode: 0o755, Data: init},
		{Name: "modules", Mode: fs.ModeDir | 0o755},
	}
	for _, m := range loads {
		data, err := readModule(m)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: "modules/" + filepath.Base(m), Mode: 0o644, Data: data})
	}
	return files, nil
}

// once makes a file unless it is there. Its name says what is in it, so who
// makes it at the same time makes the same.
func once(path string, content func() ([]byte, error)) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	data, err := content()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
