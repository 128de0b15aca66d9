package image_test

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"
	"time"
)

// capNetBind is a security.capability of version 2: cap_net_bind_service=ep.
const capNetBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func device(kind byte, name string, major, minor int64) file {
	return file{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o660, Devmajor: major, Devminor: minor}}
}

// rich is a layer with everything that a file can be.
func rich() []file {
	files := []file{
		dir("bin/", 0o755), dir("tmp/", 0o1777), dir("srv/", 0o2750).owned(33, 44), dir("empty/", 0o700),
		regular("bin/su", "root, please").mode(0o4755),
		regular("bin/wall", "to all").mode(0o2755).owned(0, 5),
		regular("bin/ping", "who?").xattr("security.capability", capNetBind),
		regular("srv/noted", "n").xattr("user.note", "hello").xattr("trusted.secret", "x\x00y"),
		regular("srv/bignote", "b").xattr("user.big", strings.Repeat("v", 2000)),
		regular("srv/far", "owner").owned(70000, 4_000_000_000),
		hardlink("bin/su2", "bin/su"), hardlink("bin/su3", "bin/su2"), hardlink("empty/../bin/su4", "/bin/su"),
		symlink("lib", "usr/lib"), symlink("out", "../../../../etc/passwd"), symlink("abs", "/etc/shadow"),
		symlink("long", strings.Repeat("l/", 1000)+"x"), symlink("dangling", "\xff\xfe"),
		device(tar.TypeChar, "null", 1, 3), device(tar.TypeBlock, "disk", 259, 70000), device(tar.TypeFifo, "pipe", 0, 0),
		regular("caf\xe9", "latin1"), regular(strings.Repeat("n", 255), "longest"), regular("new\nline", "x"),
		regular(".", "").mode(0o755), // replaced below
	}
	files[len(files)-1] = dir("./", 0o755)
	old := regular("old", "before the epoch")
	old.ModTime = time.Unix(-1000, 0)
	return append(files, old)
}

// sizes makes files of lengths around the units of the file system.
func sizes() []file {
	var files []file
	for _, n := range []int{0, 1, 63, 64, 2047, 2048, 2049, 4031, 4032, 4095, 4096, 4097, 6144, 6145, 8191, 8192,
		64<<10 - 1, 64 << 10, 128<<10 - 1, 128 << 10, 128<<10 + 1, 1<<20 + 77} {
		files = append(files, regular(fmt.Sprintf("size%d", n), pattern(n)))
		files = append(files, regular(fmt.Sprintf("zero%d", n), strings.Repeat("\x00", n)))
		files = append(files, regular(fmt.Sprintf("half%d", n), strings.Repeat("\x00", n/2)+pattern(n-n/2)))
		files = append(files, regular(fmt.Sprintf("front%d", n), pattern(n-n/2)+strings.Repeat("\x00", n/2)))
	}
	return files
}

func pattern(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:n]
}

func TestOneLayerIsWhatUmociUnpacks(t *testing.T) {
	needRoot(t)
	for name, files := range map[string][]file{"rich": rich(), "sizes": sizes(), "empty": nil} {
		t.Run(name, func(t *testing.T) {
			l := layerOf(t, tarOf(t, files...))
			got := readTree(t, mountFile(t, imported(t, l).Layers[0].Path))
			compare(t, got, readTree(t, unpack(t, l)))
		})
	}
}

func TestManyNamesInOneDirectory(t *testing.T) {
	needRoot(t)
	var files []file
	for i := range 20_000 {
		files = append(files, regular(fmt.Sprintf("many/%s%d", strings.Repeat("x", i%200), i), "x"))
	}
	got := readTree(t, mountFile(t, imported(t, layerOf(t, tarOf(t, files...))).Layers[0].Path))
	if len(got) != len(files)+1 {
		t.Errorf("got %d names, want %d", len(got), len(files)+1)
	}
	for _, f := range files {
		if got[f.Name] == "" {
			t.Fatalf("%s is not there", f.Name)
		}
	}
}
