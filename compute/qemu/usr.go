package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/jail"
)

// Where Debian has QEMU. Its qemu-system-x86_64-microvm, a third of the size, is
// built without seccomp: there would be a wall less around it.
const (
	binaryAny = "/usr/bin/qemu-system-x86_64"
	modules   = "/usr/lib/x86_64-linux-gnu/qemu"
	firmware  = "/usr/share/qemu"
)

const setupHint = "install it: apt-get install qemu-system-x86"

// findBinary returns the QEMU to run.
func findBinary() (string, error) {
	if _, err := os.Stat(binaryAny); err != nil {
		return "", cloudpal.E("find QEMU", cloudpal.Missing, err).WithHint(setupHint)
	}
	return binaryAny, nil
}

// makeUsr fills dir with what QEMU opens, and nothing else: the /usr that a
// jail sees. It is made anew when QEMU has changed.
func makeUsr(dir, binary string) error {
	files, err := usrFiles(binary)
	if err != nil {
		return err
	}
	stamp, err := stamp(files)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(dir + ".stamp"); err == nil && bytes.Equal(old, stamp) {
		return nil
	}
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	for _, f := range files {
		if err := copyInto(tmp, f); err != nil {
			return err
		}
	}
	// Processes that see the old one keep it.
	if err := errors.Join(os.RemoveAll(dir), os.Rename(tmp, dir)); err != nil {
		return err
	}
	return os.WriteFile(dir+".stamp", stamp, 0o600)
}

// usrFiles lists QEMU, its libraries, its firmware for microvm and its translator.
func usrFiles(binary string) ([]string, error) {
	files := []string{binary, jail.Prlimit}
	for _, f := range []string{
		filepath.Join(firmware, "bios-microvm.bin"), filepath.Join(firmware, "pvh.bin"),
		filepath.Join(modules, "accel-tcg-x86_64.so"),
	} {
		if _, err := os.Stat(f); err == nil {
			files = append(files, f)
		}
	}
	for _, f := range slices.Clone(files) {
		if strings.HasSuffix(f, ".bin") {
			continue
		}
		libs, err := libraries(f)
		if err != nil {
			return nil, err
		}
		files = append(files, libs...)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// libraries asks the dynamic linker what a program needs.
func libraries(program string) ([]string, error) {
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	var libs []string
	for line := range strings.Lines(string(out)) {
		for word := range strings.FieldsSeq(line) {
			if !strings.HasPrefix(word, "/") {
				continue
			}
			// On a merged /usr, /lib is a symlink into it.
			if strings.HasPrefix(word, "/lib") {
				word = "/usr" + word
			}
			libs = append(libs, word)
		}
	}
	return libs, nil
}

// stamp says which files, and as of when.
func stamp(files []string) ([]byte, error) {
	var b bytes.Buffer
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return nil, cloudpal.E("find QEMU's files", cloudpal.Missing, err).WithHint(setupHint)
		}
		fmt.Fprintln(&b, f, info.Size(), info.ModTime().UnixNano())
	}
	return b.Bytes(), nil
}

// copyInto copies /usr/x to dir/x, following symlinks.
func copyInto(dir, file string) error {
	to := filepath.Join(dir, strings.TrimPrefix(file, "/usr"))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	src, err := os.Open(file)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
