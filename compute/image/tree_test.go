package image_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/image"
)

// needRoot skips a test that mounts, unless CLOUDPAL_MUST_RUN is set.
func needRoot(t *testing.T) {
	t.Helper()
	reason := ""
	if os.Getuid() != 0 {
		reason = "mounting needs root"
	}
	if b, _ := os.ReadFile("/proc/filesystems"); !strings.Contains(string(b), "\t"+image.FS+"\n") {
		reason = "this kernel has no " + image.FS + ": try modprobe " + image.FS
	}
	if _, err := exec.LookPath("umoci"); err != nil {
		reason = "needs umoci to compare with: run make setup"
	}
	if reason != "" && os.Getenv("CLOUDPAL_MUST_RUN") != "" {
		t.Fatal(reason)
	}
	if reason != "" {
		t.Skip(reason)
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// mountFile mounts a layer's file with a loop device of its own, as a layer
// that an image has twice is two devices in the guest.
func mountFile(t *testing.T, file string) string {
	t.Helper()
	dir := t.TempDir()
	loop := strings.TrimSpace(run(t, "losetup", "--find", "--show", "--read-only", file))
	t.Cleanup(func() { run(t, "losetup", "--detach", loop) })
	run(t, "mount", "-t", image.FS, "-o", "ro", loop, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}

// mountImage mounts an image as the guest does, and returns its root. The
// upper layer is on a tmpfs of its own.
func mountImage(t *testing.T, img image.Image) string {
	t.Helper()
	var lower []string
	for _, l := range img.Layers {
		lower = append([]string{mountFile(t, l.Path)}, lower...)
	}
	tmp, root := t.TempDir(), t.TempDir()
	run(t, "mount", "-t", "tmpfs", "tmpfs", tmp)
	t.Cleanup(func() { run(t, "umount", tmp) })
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", strings.Join(lower, ":"), tmp, tmp)
	run(t, "mount", "-t", "overlay", "overlay", "-o", options, root)
	t.Cleanup(func() { run(t, "umount", root) })
	return root
}

// A tree is what there is to know about each file below a directory.
type tree map[string]string

// readTree describes the files below root. The numbers of inodes differ from
// one file system to another, so hard links are told by the least of their
// names.
func readTree(t *testing.T, root string) tree {
	t.Helper()
	seen := tree{}
	first := map[[2]uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		seen[rel], err = describe(path, rel, first)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func describe(path, rel string, first map[[2]uint64]string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return "", err
	}
	text := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		sum, err := sumOf(path)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" %d %s", st.Size, sum)
	case syscall.S_IFLNK:
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		text += " -> " + to
	case syscall.S_IFCHR, syscall.S_IFBLK:
		text += fmt.Sprintf(" dev %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		id := [2]uint64{st.Dev, st.Ino}
		if first[id] == "" {
			first[id] = rel
		}
		text += fmt.Sprintf(" links %d of %s", st.Nlink, first[id])
	}
	text += fmt.Sprintf(" time %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	attrs, err := xattrsOf(path)
	return text + attrs, err
}

func sumOf(path string) (string, error) {
	b, err := os.ReadFile(path)
	if len(b) > 1<<30 {
		return "large", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:16], err
}

func xattrsOf(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return "", err
	}
	var text strings.Builder
	names := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
	for _, name := range slices.Sorted(slices.Values(names)) {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", err
		}
		text.WriteString(fmt.Sprintf(" %s=%x", name, buf[:n]))
	}
	return text.String(), nil
}

// compare fails the test where the trees differ.
func compare(t *testing.T, got, want tree) {
	t.Helper()
	names := maps.Clone(got)
	maps.Copy(names, want)
	bad := 0
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got[name] == want[name] {
			continue
		}
		if bad++; bad <= 20 {
			t.Errorf("%q:\n got %q\nwant %q", name, got[name], want[name])
		}
	}
	if bad > 20 {
		t.Errorf("and %d more", bad-20)
	}
}
