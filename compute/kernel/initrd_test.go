package kernel

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// readArchives reads newc archives, one behind the other, as the kernel does
// (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
func readArchives(b []byte) ([]File, error) {
	var files []File
	for len(b) > 0 {
		if len(b) < 110 || string(b[:6]) != "070701" {
			return nil, fmt.Errorf("no header %d bytes before the end", len(b))
		}
		var h [13]int
		for i := range h {
			n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return nil, err
			}
			h[i] = int(n)
		}
		mode, size, nameSize := h[1], h[6], h[11]
		at := 110 + nameSize
		at += -at & 3
		end := at + size
		end += -end & 3
		if end > len(b) || nameSize == 0 || b[110+nameSize-1] != 0 {
			return nil, fmt.Errorf("an entry is cut short")
		}
		name := string(b[110 : 110+nameSize-1])
		if name != "TRAILER!!!" {
			files = append(files, File{
				Name: name, Mode: goMode(mode), Major: h[9], Minor: h[10], Data: bytes.Clone(b[at : at+size]),
			})
		}
		b = b[end:]
	}
	return files, nil
}

func goMode(mode int) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & 0o170000 {
	case 0o040000:
		return m | fs.ModeDir
	case 0o020000:
		return m | fs.ModeDevice | fs.ModeCharDevice
	case 0o120000:
		return m | fs.ModeSymlink
	}
	return m
}

func unpacked(t *testing.T, archive []byte) map[string]File {
	t.Helper()
	files, err := readArchives(archive)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]File{}
	for _, f := range files {
		byName[f.Name] = f
	}
	return byName
}

func TestArchivesReadBackRight(t *testing.T) {
	modes := []fs.FileMode{0o644, 0o755, fs.ModeDir | 0o700, fs.ModeSymlink | 0o777, fs.ModeDevice | fs.ModeCharDevice | 0o600}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var want []File
		var archive bytes.Buffer
		for range 3 { // archives, one behind the other
			var files []File
			for range r.IntN(5) {
				files = append(files, File{
					Name: strings.Repeat("n", 1+r.IntN(9)), Mode: modes[r.IntN(len(modes))],
					Major: r.IntN(300), Minor: r.IntN(300), Data: bytes.Repeat([]byte{'d'}, r.IntN(9)),
				})
			}
			if err := writeArchive(&archive, files); err != nil {
				t.Fatal(err)
			}
			if archive.Len()%4 != 0 {
				t.Fatalf("seed %d: an archive of %d bytes does not end at a word", seed, archive.Len())
			}
			want = append(want, files...)
		}
		got, err := readArchives(archive.Bytes())
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("seed %d: got %v, %v; want %v", seed, got, err, want)
		}
	}
}

func TestInodesOfAnArchiveDiffer(t *testing.T) {
	// Equal ones would be hard links to the kernel.
	var archive bytes.Buffer
	if err := writeArchive(&archive, []File{{Name: "a", Data: []byte("1")}, {Name: "b", Data: []byte("2")}}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, entry := range strings.Split(archive.String(), "070701")[1:] {
		if inode := entry[:8]; seen[inode] {
			t.Errorf("got inode %s twice", inode)
		}
		seen[entry[:8]] = true
	}
	if len(seen) != 3 { // and the trailer
		t.Errorf("got %d entries, want 3", len(seen))
	}
}
