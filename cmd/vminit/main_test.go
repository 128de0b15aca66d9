package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/test/apart"
)

// TestMain: files are laid over those of /etc.
func TestMain(m *testing.M) { apart.Main(m, unix.CLONE_NEWNS, nil) }

func requireRoot(tb testing.TB) {
	tb.Helper()
	apart.Root(tb, "it mounts, and runs processes as others")
}

// etc is /etc/passwd and /etc/group as an image brings them.
type etc struct{ passwd, group string } // paths of what is laid over them

func ofImage(tb testing.TB) etc {
	tb.Helper()
	requireRoot(tb)
	dir := tb.TempDir()
	e := etc{filepath.Join(dir, "passwd"), filepath.Join(dir, "group")}
	for from, to := range map[string]string{e.passwd: "/etc/passwd", e.group: "/etc/group"} {
		if err := os.WriteFile(from, nil, 0o644); err != nil {
			tb.Fatal(err)
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { unix.Unmount(to, unix.MNT_DETACH) })
	}
	return e
}

func (e etc) say(tb testing.TB, passwd, group string) {
	tb.Helper()
	for path, text := range map[string]string{e.passwd: passwd, e.group: group} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}
