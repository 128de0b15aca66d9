package hyperdrive

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestMirrorWhatCannotBe skips what the other side cannot have, and goes on.
func TestMirrorWhatCannotBe(t *testing.T) {
	d, from, to := newTestDrive(t), newDisk(t), newDisk(t)
	from.write("/good", "g", `/back\slash`, "b", "/bad\xff", "b", "/.cloudpal-x.tmp", "half")
	must(t, syscall.Mkfifo(from.at("/pipe"), 0o666))
	must(t, os.Symlink("/etc/passwd", from.at("/outside")))
	must(t, os.Symlink("../../x", from.at("/above")))
	var told []string
	skips := func(e Event) {
		if e.Op == Skipped {
			told = append(told, e.Name)
		}
	}
	sum, err := Mirror(ctx, from.folder(), d, MirrorOptions{Progress: skips})
	must(t, err)
	if sum.Added != 1 || sum.Skipped != 5 {
		t.Errorf("%+v, want 1 added and 5 skipped", sum)
	}
	sameNames(t, "skipped", told, "/above", `/back\slash`, "/bad\xff", "/outside", "/pipe")

	told = nil
	put(t, d, "/good/below", "x", "/"+strings.Repeat("n", 300), "x", "/taken", "x", "/parent/x", "x")
	must(t, d.Symlink(ctx, "/l1", "../x"))
	must(t, d.Symlink(ctx, "/l2", "/../../x"))
	to.write("/taken/file", "t", "/parent", "p")
	_, err = Mirror(ctx, d, to.folder(), MirrorOptions{Progress: skips, Keep: true})
	must(t, err)
	sameNames(t, "skipped", told, "/good/below", "/l1", "/l2", "/"+strings.Repeat("n", 300), "/parent/x", "/taken")
	sameNames(t, "the folder", to.state(), "/good=g", "/parent=p", "/taken/file=t")
}

// TestMirrorUnreadable keeps in the drive what cannot be looked at for now.
func TestMirrorUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		runtime.LockOSThread() // never unlocked: the thread ends with the test
		must(t, syscall.Setfsuid(65534))
		defer syscall.Setfsuid(0)
	}
	d, from := newTestDrive(t), newDisk(t)
	must(t, os.Chmod(from.path, 0o777))
	from.write("/a", "1", "/closed/b", "2", "/z", "3")
	_, err := Mirror(ctx, from.folder(), d, MirrorOptions{})
	must(t, err)
	must(t, os.Chmod(from.at("/closed"), 0))
	must(t, os.Chmod(from.at("/z"), 0))
	defer os.Chmod(from.at("/closed"), 0o777)
	from.write("/a", "changed")
	if _, err := os.ReadDir(from.at("/closed")); err == nil {
		t.Skip("this file system lets everybody read")
	}
	sum, err := Mirror(ctx, from.folder(), d, MirrorOptions{})
	must(t, err)
	if sum.Skipped != 2 || sum.Changed != 1 || sum.Removed != 0 {
		t.Errorf("%+v, want 2 skipped and 1 changed", sum)
	}
	if got, err := d.Get(ctx, "/closed/b"); err != nil || string(got) != "2" {
		t.Errorf("/closed/b = %q, %v", got, err)
	}
}
