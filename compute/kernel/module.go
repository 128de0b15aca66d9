package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/tradle/cloudpal"
)

// maxModule bounds an uncompressed module, in bytes.
const maxModule = 64 << 20

// A Module is a kernel module as it is loaded: uncompressed, unsigned.
type Module struct {
	Name string // "nf_tables"
	Data []byte
}

// ReadModules returns the named modules and all they depend on, each after
// those it depends on. What is built into the kernel is left out. The error is
// cloudpal.Missing for a module that the kernel does not have.
func (k Kernel) ReadModules(names []string) ([]Module, error) {
	files, err := loadOrder(k.Modules, names)
	if err != nil {
		return nil, err
	}
	var modules []Module
	for _, file := range files {
		data, err := readModule(file)
		if err != nil {
			return nil, cloudpal.E("read kernel module "+moduleName(file), "", err).WithHint(setupHint)
		}
		modules = append(modules, Module{moduleName(file), data})
	}
	return modules, nil
}

// loadOrder returns the files of the named modules in dir and of all they
// depend on, each after those it depends on. Modules built into the kernel
// are left out. What a module needs it says itself: modules.dep is not in the
// distribution's package, it is made when that is installed.
func loadOrder(dir string, names []string) ([]string, error) {
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, cloudpal.E("read modules", cloudpal.Missing, err).WithHint(setupHint)
	}
	o := &ordering{builtin: builtin, seen: map[string]bool{}}
	if o.files, err = findModules(dir); err != nil {
		return nil, cloudpal.E("read modules", "", err)
	}
	for _, name := range names {
		if err := o.add(name); err != nil {
			return nil, err
		}
	}
	return o.order, nil
}

// An ordering is a list of modules in the making.
type ordering struct {
	files   map[string]string // by name
	builtin []byte
	seen    map[string]bool
	order   []string
}

func (o *ordering) add(name string) error {
	name = moduleName(name)
	if o.seen[name] {
		return nil
	}
	o.seen[name] = true
	file, ok := o.files[name]
	if !ok {
		if hasBuiltin(o.builtin, name) {
			return nil
		}
		return cloudpal.E("find kernel module "+name, cloudpal.Missing, nil).
			WithHint("use the distribution's linux-image-cloud-amd64")
	}
	module, err := readModule(file)
	if err != nil {
		return cloudpal.E("read kernel module "+name, "", err)
	}
	needs, err := dependencies(module)
	if err != nil {
		return cloudpal.E("read kernel module "+name, cloudpal.Corrupt, err).WithHint(setupHint)
	}
	for _, need := range needs {
		if err := o.add(need); err != nil {
			return err
		}
	}
	o.order = append(o.order, file)
	return nil
}

// findModules maps the names of all modules below dir to their files.
func findModules(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			files[moduleName(path)] = path
		}
		return err
	})
	return files, err
}

// maxModinfo bounds the section that says what a module is, in bytes.
const maxModinfo = 1 << 20

// dependencies returns the modules that a module says it needs: "depends=a,b"
// among the strings of its section .modinfo (Linux, include/linux/module.h).
func dependencies(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil || section.Size > maxModinfo {
		return nil, errors.New("it does not say what it is")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var needs []string
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		list, ok := strings.CutPrefix(string(entry), "depends=")
		if !ok {
			continue
		}
		for name := range strings.SplitSeq(list, ",") {
			if name != "" {
				needs = append(needs, name)
			}
		}
	}
	return needs, nil
}

// moduleName is how the kernel knows a module: without directory or ending,
// dashes as underscores.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func hasBuiltin(list []byte, name string) bool {
	for line := range strings.Lines(string(list)) {
		if moduleName(strings.TrimSpace(line)) == moduleName(name) {
			return true
		}
	}
	return false
}

// signatureMark ends a signed module (Linux, scripts/sign-file.c). Before it
// are the signature and a 12-byte trailer whose last four bytes are the
// signature's length, big-endian.
const signatureMark = "~Module signature appended~\n"

// readModule returns a module as the kernel loads it: uncompressed, and without
// its signature. Nobody but the host puts modules into the initrd, so checking
// it would only cost time (100 ms of a boot under emulation, measured).
func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := moduleReader(f, path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(data) > maxModule {
		return nil, fmt.Errorf("%s: more than %d MiB uncompressed", path, maxModule>>20)
	}
	return stripSignature(data), nil
}

func moduleReader(f io.Reader, path string) (io.Reader, error) {
	switch filepath.Ext(path) {
	case ".xz":
		return xz.NewReader(f)
	case ".zst":
		return zstd.NewReader(f)
	}
	return f, nil
}

func stripSignature(module []byte) []byte {
	body, ok := bytes.CutSuffix(module, []byte(signatureMark))
	if !ok || len(body) < 12 {
		return module
	}
	t := body[len(body)-4:]
	length := int(t[0])<<24 | int(t[1])<<16 | int(t[2])<<8 | int(t[3])
	if length > len(body)-12 {
		return module
	}
	return body[:len(body)-12-length]
}
