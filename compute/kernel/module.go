package kernel

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/tradle/cloudpal"
)

// maxModule bounds an uncompressed module, in bytes.
const maxModule = 64 << 20

// loadOrder returns the files of the named modules in dir and of all they
// depend on, each after those it depends on. Modules built into the kernel
// are left out.
func loadOrder(dir string, names []string) ([]string, error) {
	deps, err := readDeps(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, cloudpal.E("read modules", cloudpal.Missing, err).WithHint(setupHint)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, cloudpal.E("read modules", cloudpal.Missing, err).WithHint(setupHint)
	}
	var order []string
	seen := map[string]bool{}
	for _, name := range names {
		m, ok := deps[moduleName(name)]
		if !ok {
			if hasBuiltin(builtin, name) {
				continue
			}
			return nil, cloudpal.E("find kernel module "+name, cloudpal.Missing, nil).
				WithHint("use the distribution's linux-image-cloud-amd64")
		}
		// modules.dep lists what a module needs, what is needed last first.
		for i := len(m) - 1; i >= 0; i-- {
			if !seen[m[i]] {
				seen[m[i]] = true
				order = append(order, filepath.Join(dir, m[i]))
			}
		}
	}
	return order, nil
}

// readDeps reads modules.dep: "path: path path ...". A module comes first in
// its own list.
func readDeps(file string) (map[string][]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseDeps(f)
}

func parseDeps(r io.Reader) (map[string][]string, error) {
	deps := map[string][]string{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		path, needs, ok := strings.Cut(s.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: no colon in %.100q", s.Text())
		}
		all := append([]string{path}, strings.Fields(needs)...)
		for _, p := range all {
			if !filepath.IsLocal(p) {
				return nil, fmt.Errorf("modules.dep: path %.100q", p)
			}
		}
		deps[moduleName(path)] = all
	}
	return deps, s.Err()
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
	data, err := io.ReadAll(io.LimitReader(r, maxModule))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
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
