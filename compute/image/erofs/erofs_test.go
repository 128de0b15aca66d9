package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A tree in the making: what is written, and what must be read back.
type grove struct {
	w    *Writer
	r    *rand.Rand
	want map[string]leaf // by path
}

type leaf struct {
	mode     uint16
	uid, gid uint32
	time     time.Time
	data     []byte
	xattrs   map[string]string
}

// sizes are those at which a file comes to lie in another way.
var sizes = []int{
	0, 1, maxTail - 1, maxTail, maxTail + 1, BlockSize - 1, BlockSize, BlockSize + 1, BlockSize + maxTail, 2*minChunk - 1,
	2 * minChunk, 2*minChunk + 1, 5*minChunk + 77,
}

// grow makes a directory of random files, and of directories down to depth.
func (g *grove) grow(t *testing.T, path string, depth int) *Inode {
	t.Helper()
	dir := g.inode(path, TypeDir, nil)
	for i := range g.r.IntN(10) * (1 + g.r.IntN(2)*9) { // sometimes of many blocks
		name := fmt.Sprintf("%d-%s", i, strings.Repeat("n", g.r.IntN(60)))
		child := filepath.Join(path, name)
		var n *Inode
		if depth > 0 && g.r.IntN(8) == 0 {
			n = g.grow(t, child, depth-1)
		} else {
			n = g.file(t, child)
		}
		dir.Entries = append(dir.Entries, Entry{name, n})
	}
	g.r.Shuffle(len(dir.Entries), func(i, j int) { dir.Entries[i], dir.Entries[j] = dir.Entries[j], dir.Entries[i] })
	return dir
}

func (g *grove) inode(path string, typ uint16, data []byte) *Inode {
	l := leaf{
		mode: typ | uint16(g.r.IntN(0o1000)), uid: g.r.Uint32N(1 << 31), gid: g.r.Uint32N(1 << 31),
		time: time.Unix(g.r.Int64N(1<<33), g.r.Int64N(1e9)), data: data,
	}
	if g.r.IntN(3) == 0 {
		l.xattrs = map[string]string{"user.a": strings.Repeat("x", g.r.IntN(5000)), "trusted.b": "y"}
	}
	g.want[path] = l
	return &Inode{Mode: l.mode, UID: l.uid, GID: l.gid, ModTime: l.time, Xattrs: l.xattrs}
}

// file has noise and runs of zeros.
func (g *grove) file(t *testing.T, path string) *Inode {
	t.Helper()
	data := make([]byte, sizes[g.r.IntN(len(sizes))])
	for at := 0; at < len(data); at += minChunk {
		if g.r.IntN(2) == 0 {
			for i := at; i < min(at+minChunk, len(data)); i++ {
				data[i] = byte(g.r.Uint32())
			}
		}
	}
	n := g.inode(path, TypeRegular, data)
	if err := g.w.Store(n, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTheKernelReadsBackWhatIsWritten mounts what it makes: who reads it in
// earnest is the guest's kernel.
func TestTheKernelReadsBackWhatIsWritten(t *testing.T) {
	for seed := range uint64(8) {
		f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewWriter(f, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		g := &grove{w: w, r: rand.New(rand.NewPCG(seed, 1)), want: map[string]leaf{}}
		if err := errors.Join(w.Finish(g.grow(t, ".", 3), [16]byte{1}), f.Close()); err != nil {
			t.Fatal(err)
		}
		g.compare(t, seed, mounted(t, f.Name()))
	}
}

func mounted(t *testing.T, file string) (dir string) {
	t.Helper()
	reason := ""
	if list, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(list), "erofs") {
		reason = "needs a kernel with EROFS: modprobe erofs"
	}
	if os.Getuid() != 0 {
		reason = "needs root: it mounts"
	}
	if reason != "" && os.Getenv("CLOUDPAL_MUST_RUN") != "" {
		t.Fatal("must not be skipped here, but it " + reason)
	}
	if reason != "" {
		t.Skip(reason)
	}
	dir = t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "ro,loop", file, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func (g *grove) compare(t *testing.T, seed uint64, dir string) {
	t.Helper()
	found := 0
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		found++
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, path), &st); err != nil {
			return err
		}
		want, ok := g.want[path]
		if at := time.Unix(st.Mtim.Unix()); !ok || st.Mode != uint32(want.mode) || !at.Equal(want.time) ||
			st.Uid != want.uid || st.Gid != want.gid {
			return fmt.Errorf("%s: got %o %d:%d %v, want %+v", path, st.Mode, st.Uid, st.Gid, at, want)
		}
		if d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || !bytes.Equal(data, want.data) {
			return fmt.Errorf("%s: got %d bytes, %v; want %d as they were", path, len(data), err, len(want.data))
		}
		return g.compareXattrs(filepath.Join(dir, path), want)
	})
	if err != nil || found != len(g.want) {
		t.Fatalf("seed %d: got %d files, %v; want %d", seed, found, err, len(g.want))
	}
}

func (g *grove) compareXattrs(path string, want leaf) error {
	buf := make([]byte, 8<<10)
	for name, value := range want.xattrs {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil || string(buf[:max(n, 0)]) != value {
			return fmt.Errorf("%s: %s: got %d bytes, %v; want %d as they were", path, name, n, err, len(value))
		}
	}
	return nil
}

func TestAShortFileIsAnError(t *testing.T) {
	for _, size := range sizes[1:] {
		f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := NewWriter(f, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		err = w.Store(&Inode{Mode: TypeRegular}, bytes.NewReader(make([]byte, size-1)), int64(size))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes of %d: got %v, want %v", size-1, size, err, io.ErrUnexpectedEOF)
		}
	}
}

func TestDeviceIsAsTheKernelHasIt(t *testing.T) {
	for _, c := range []struct{ major, minor, want uint32 }{
		{0, 0, 0}, {1, 3, 0x103}, {5, 1, 0x501}, {8, 0x1ff, 0x1008ff}, {4095, 1<<20 - 1, 0xffffffff},
	} {
		if got := Device(c.major, c.minor); got != c.want {
			t.Errorf("%d:%d: got %#x, want %#x", c.major, c.minor, got, c.want)
		}
	}
}
