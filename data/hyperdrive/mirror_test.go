package hyperdrive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal"
)

// A disk is a folder of a test.
type disk struct {
	t    testing.TB
	path string
}

func newDisk(t testing.TB) disk { return disk{t, t.TempDir()} }

func (d disk) folder() *Folder {
	d.t.Helper()
	f, err := OpenFolder(d.path)
	must(d.t, err)
	d.t.Cleanup(func() { f.Close() })
	return f
}

func (d disk) at(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

// write makes files, each a name and its content.
func (d disk) write(files ...string) {
	d.t.Helper()
	for i := 0; i < len(files); i += 2 {
		must(d.t, os.MkdirAll(filepath.Dir(d.at(files[i])), 0o777))
		must(d.t, os.WriteFile(d.at(files[i]), []byte(files[i+1]), 0o666))
	}
}

// state is what a folder has: "name=content", with "*" before an executable
// file's, "name->target", and "name/" of folders that are empty.
func (d disk) state() (state []string) {
	d.t.Helper()
	err := filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == d.path {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, d.path))
		info, err := e.Info()
		must(d.t, err)
		switch {
		case e.IsDir():
			if below, err := os.ReadDir(path); err == nil && len(below) == 0 {
				state = append(state, name+"/")
			}
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			must(d.t, err)
			state = append(state, name+"->"+strings.Replace(target, d.path, "ROOT", 1))
		default:
			data, err := os.ReadFile(path)
			must(d.t, err)
			mark := ""
			if info.Mode()&0o100 != 0 {
				mark = "*"
			}
			if len(data) > 50 {
				data = fmt.Appendf(nil, "%d bytes %x", len(data), blake2b.Sum256(data))
			}
			state = append(state, name+"="+mark+string(data))
		}
		return nil
	})
	must(d.t, err)
	slices.Sort(state)
	return state
}

// events notes what a mirror tells, but for how far it is.
func events(into *[]string) func(Event) {
	return func(e Event) {
		if e.Op != Copying {
			*into = append(*into, fmt.Sprintf("%s %s +%d -%d", e.Op, e.Name, e.BytesAdded, e.BytesRemoved))
		}
	}
}

func TestMirrorFolderToDriveAndBack(t *testing.T) {
	d, from, to := newTestDrive(t), newDisk(t), newDisk(t)
	from.write("/a.txt", "a", "/a/b.txt", "b", "/a/c/d", "d", "/empty", "", "/run", "#!")
	must(t, os.Chmod(from.at("/run"), 0o755))
	must(t, os.Symlink("a/b.txt", from.at("/rel")))
	must(t, os.Symlink(from.at("/a/c/d"), from.at("/abs")))
	must(t, os.Mkdir(from.at("/nothing"), 0o777))

	sum, err := Mirror(ctx, from.folder(), d, MirrorOptions{})
	must(t, err)
	if want := (Summary{Files: 7, Links: 2, Added: 7, BytesAdded: 5}); sum != want {
		t.Errorf("first: %+v, want %+v", sum, want)
	}
	e, err := d.Entry(ctx, "/abs")
	must(t, err)
	if e.Linkname != "/a/c/d" {
		t.Errorf("the link into the folder leads to %q", e.Linkname)
	}
	version := d.Version()
	sum, err = Mirror(ctx, from.folder(), d, MirrorOptions{})
	must(t, err)
	if want := (Summary{Files: 7, Links: 2, Equal: 7}); sum != want || d.Version() != version {
		t.Errorf("again: %+v at version %d; want %+v at %d", sum, d.Version(), want, version)
	}

	_, err = Mirror(ctx, d, to.folder(), MirrorOptions{})
	must(t, err)
	want := slices.DeleteFunc(from.state(), func(s string) bool { return s == "/nothing/" })
	sameNames(t, "the other folder", to.state(), want...)
	sum, err = Mirror(ctx, d, to.folder(), MirrorOptions{})
	must(t, err)
	if want := (Summary{Files: 7, Links: 2, Equal: 7}); sum != want {
		t.Errorf("again: %+v, want %+v", sum, want)
	}
}

func TestMirrorChanges(t *testing.T) {
	d, from, to := newTestDrive(t), newDisk(t), newDisk(t)
	from.write("/same", "x", "/longer", "x", "/other", "abc", "/gone", "x", "/deep/gone", "x", "/mode", "m", "/link", "x", "/tofolder", "x", "/tofile/x", "x")
	mirrorBoth := func(o MirrorOptions) (told []string) {
		t.Helper()
		o.Progress = events(&told)
		_, err := Mirror(ctx, from.folder(), d, o)
		must(t, err)
		if !o.DryRun {
			_, err = Mirror(ctx, d, to.folder(), MirrorOptions{Keep: o.Keep, Ignore: o.Ignore})
			must(t, err)
		}
		return told
	}
	mirrorBoth(MirrorOptions{})
	sameNames(t, "after the first", to.state(), from.state()...)

	from.write("/longer", "xyz", "/other", "ABC", "/new", "n")
	must(t, os.RemoveAll(from.at("/deep")))
	must(t, os.Remove(from.at("/gone")))
	must(t, os.Remove(from.at("/link")))
	must(t, os.Symlink("same", from.at("/link")))
	must(t, os.Chmod(from.at("/mode"), 0o700))
	must(t, os.Remove(from.at("/tofolder")))
	must(t, os.RemoveAll(from.at("/tofile")))
	from.write("/tofolder/x", "y", "/tofile", "y")
	want := []string{
		"remove /deep/gone +0 -1", "remove /gone +0 -1", "change /link +0 -1", "change /longer +3 -1",
		"change /mode +0 -0", "add /new +1 -0", "change /other +3 -3", "equal /same +0 -0", "add /tofile +1 -0",
		"remove /tofile/x +0 -1", "remove /tofolder +0 -1", "add /tofolder/x +1 -0",
	}
	version := d.Version()
	sameNames(t, "a dry run", mirrorBoth(MirrorOptions{DryRun: true}), want...)
	if d.Version() != version {
		t.Error("a dry run changed the drive")
	}
	sameNames(t, "the changes", mirrorBoth(MirrorOptions{}), want...)
	sameNames(t, "after the changes", to.state(), from.state()...)
	if info, err := os.Stat(to.at("/mode")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the mode was not taken over: %v, %v", info.Mode(), err)
	}
}

func TestMirrorKeepIgnorePrefix(t *testing.T) {
	d, from, to := newTestDrive(t), newDisk(t), newDisk(t)
	from.write("/a", "1", "/sub/b", "2", "/sub/c/d", "3", "/subx", "4")
	to.write("/mine", "m", "/sub/mine", "m", "/skip/x", "s")
	put(t, d, "/mine", "m", "/sub/mine", "m", "/skip/x", "s")

	_, err := Mirror(ctx, from.folder(), d, MirrorOptions{Keep: true})
	must(t, err)
	sameNames(t, "Keep", namesOf(t, d.List(ctx, ""), entryName), "/a", "/mine", "/skip/x", "/sub/b", "/sub/c/d", "/sub/mine", "/subx")
	must(t, d.Delete(ctx, "/a"))
	_, err = Mirror(ctx, from.folder(), d, MirrorOptions{Prefix: "/sub"})
	must(t, err)
	sameNames(t, "Prefix", namesOf(t, d.List(ctx, ""), entryName), "/mine", "/skip/x", "/sub/b", "/sub/c/d", "/subx")
	_, err = Mirror(ctx, from.folder(), d, MirrorOptions{Prefix: "a"})
	must(t, err)
	sameNames(t, "Prefix of a file", namesOf(t, d.List(ctx, ""), entryName), "/a", "/mine", "/skip/x", "/sub/b", "/sub/c/d", "/subx")
	_, err = Mirror(ctx, from.folder(), to.folder(), MirrorOptions{Ignore: Below("/skip", "sub/c")})
	must(t, err)
	sameNames(t, "Ignore", to.state(), "/a=1", "/skip/x=s", "/sub/b=2", "/subx=4")
}

// TestMirrorStaysInTheFolder has a stranger's drive try to write elsewhere
// through links, those that are there and those that it brings along.
func TestMirrorStaysInTheFolder(t *testing.T) {
	d, to, outside := newTestDrive(t), newDisk(t), newDisk(t)
	outside.write("/victim", "safe")
	must(t, os.Symlink(outside.path, to.at("/door")))
	must(t, os.Symlink(outside.at("/victim"), to.at("/file")))
	put(t, d, "/door/victim", "evil", "/door/new", "evil", "/file", "evil", "/own/x", "evil", "/own", "evil")
	must(t, d.Symlink(ctx, "/a", outside.path))
	put(t, d, "/a/victim", "evil")
	for _, key := range []string{"/../" + filepath.Base(outside.path) + "/victim", "/x/../../y", `/..\z`} {
		must(t, d.files.Put(ctx, []byte(key), []byte(`{"blob":null}`)))
	}
	for _, keep := range []bool{true, false} {
		_, err := Mirror(ctx, d, to.folder(), MirrorOptions{Keep: keep})
		must(t, err)
		sameNames(t, "what is outside", outside.state(), "/victim=safe")
	}
	if entries, err := os.ReadDir(filepath.Dir(to.path)); err != nil || len(entries) != 2 {
		t.Errorf("beside the folder are %v, %v", entries, err)
	}
	target, err := os.Readlink(to.at("/a"))
	if err != nil || !strings.HasPrefix(target, to.path+"/") {
		t.Errorf("the stranger's link leads to %q, %v", target, err)
	}
}

// TestMirrorDriveToDrive takes metadata along.
func TestMirrorDriveToDrive(t *testing.T) {
	s := newStore(t)
	from, to := newDriveIn(t, s, Options{}), newDriveIn(t, s.Namespace("other"), Options{})
	must(t, from.Put(ctx, "/m", []byte("x"), Attr{Metadata: json.RawMessage(`{"a":1}`)}))
	must(t, from.PutEntry(ctx, "/only", Entry{Metadata: json.RawMessage(`[1]`)}))
	must(t, from.Put(ctx, "/large", pattern(3<<20), Attr{Executable: true}))
	must(t, from.Symlink(ctx, "/l", "m"))
	put(t, to, "/extra", "x", "/m", "x")
	var told []string
	_, err := Mirror(ctx, from, to, MirrorOptions{Progress: events(&told)})
	must(t, err)
	sameNames(t, "events", told, "remove /extra +0 -1", "add /l +0 -0", "add /large +3145728 -0", "change /m +0 -0", "add /only +0 -0")
	for a, err := range from.List(ctx, "") {
		must(t, err)
		b, err := to.Entry(ctx, a.Name)
		must(t, err)
		if a.Executable != b.Executable || a.Linkname != b.Linkname || !bytes.Equal(a.Metadata, b.Metadata) || (a.Blob == nil) != (b.Blob == nil) {
			t.Errorf("%+v became %+v", a, b)
		}
	}
	told = nil
	_, err = Mirror(ctx, from, to, MirrorOptions{Progress: events(&told)})
	must(t, err)
	sameNames(t, "events", told, "equal /l +0 -0", "equal /large +0 -0", "equal /m +0 -0", "equal /only +0 -0")
	if _, err := Mirror(ctx, from, to.Checkout(1), MirrorOptions{}); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("into an old version: %v", err)
	}
}

// TestMirrorProgress tells how far a large file is.
func TestMirrorProgress(t *testing.T) {
	d, from := newTestDrive(t), newDisk(t)
	from.write("/large", string(pattern(5<<20)))
	var last int64
	steps := 0
	_, err := Mirror(ctx, from.folder(), d, MirrorOptions{Progress: func(e Event) {
		if e.Op == Copying && e.BytesAdded > last {
			last, steps = e.BytesAdded, steps+1
		}
	}})
	must(t, err)
	if last < 4<<20 || steps < 3 {
		t.Errorf("%d steps to %d bytes", steps, last)
	}
}

// TestMirrorStopped leaves whole files only, and nothing half written.
func TestMirrorStopped(t *testing.T) {
	d, to := newTestDrive(t), newDisk(t)
	for i := range 20 {
		must(t, d.Put(ctx, fmt.Sprintf("/%02d", i), pattern(200000), Attr{}))
	}
	to.write("/05", "old")
	stopping, stop := context.WithCancel(ctx)
	n := 0
	_, err := Mirror(stopping, d, to.folder(), MirrorOptions{Progress: func(e Event) {
		if n++; n == 10 {
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Mirror: %v, want Canceled", err)
	}
	for _, s := range to.state() {
		if !strings.Contains(s, fmt.Sprintf("=200000 bytes %x", blake2b.Sum256(pattern(200000)))) && s != "/05=old" {
			t.Errorf("there is %s", s)
		}
	}
}

// TestMirrorLeftovers removes what a mirror into the folder left that was
// killed, and what one into another folder left only when it is old. Of a
// folder that is the source nothing is removed.
func TestMirrorLeftovers(t *testing.T) {
	d, to := newTestDrive(t), newDisk(t)
	f := to.folder()
	dead, err := f.begin()
	must(t, err)
	left := "/sub/" + dead.temp()
	f.end(dead)
	to.write("/.cloudpal-old.tmp", "x", "/.cloudpal-new.tmp", "x", left, "x")
	long := time.Now().Add(-2 * tempAge)
	must(t, os.Chtimes(to.at("/.cloudpal-old.tmp"), long, long))
	before := to.state()
	_, err = Mirror(ctx, f, d, MirrorOptions{})
	must(t, err)
	sameNames(t, "the source", to.state(), before...)
	sameNames(t, "the drive", namesOf(t, d.List(ctx, ""), entryName))
	_, err = Mirror(ctx, d, f, MirrorOptions{})
	must(t, err)
	want := []string{"/.cloudpal-new.tmp=x", "/sub/"}
	if runtime.GOOS != "linux" {
		want[1] = left + "=x" // there are no locks to tell by
	}
	sameNames(t, "the folder", to.state(), want...)
}

// TestOneMirrorAtATime refuses a second one into a folder, and takes it once the
// first is done.
func TestOneMirrorAtATime(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no locks")
	}
	d, to := newTestDrive(t), newDisk(t)
	put(t, d, "/a", "1")
	var second error
	_, err := Mirror(ctx, d, to.folder(), MirrorOptions{Progress: func(Event) {
		_, second = Mirror(ctx, d, to.folder(), MirrorOptions{})
	}})
	must(t, err)
	if !errors.Is(second, cloudpal.Busy) {
		t.Errorf("a second mirror meanwhile: %v, want Busy", second)
	}
	_, err = Mirror(ctx, d, to.folder(), MirrorOptions{})
	must(t, err)
}

// TestOpenFolder makes none: a source whose name is mistyped is an error.
func TestOpenFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	if f, err := OpenFolder(path); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("OpenFolder of nothing: %v, %v; want NotExist", f, err)
	}
	if _, err := os.Lstat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it made something: %v", err)
	}
	f, err := MakeFolder(path)
	must(t, err)
	must(t, f.Close())
	f, err = OpenFolder(path)
	must(t, err)
	must(t, f.Close())
}

// TestMirrorManyFiles needs several batches.
func TestMirrorManyFiles(t *testing.T) {
	d, from, to := newTestDrive(t), newDisk(t), newDisk(t)
	for i := range 700 {
		from.write(fmt.Sprintf("/%d/%d", i%7, i), strings.Repeat("x", i))
	}
	version := d.Version()
	_, err := Mirror(ctx, from.folder(), d, MirrorOptions{})
	must(t, err)
	if n := d.Version() - version; n != 700 {
		t.Errorf("%d blocks for 700 files", n)
	}
	core, err := d.Content(ctx)
	must(t, err)
	if core.Length() != 699 {
		t.Errorf("%d blocks of content", core.Length())
	}
	_, err = Mirror(ctx, d, to.folder(), MirrorOptions{})
	must(t, err)
	sameNames(t, "the other folder", to.state(), from.state()...)
}

// TestMirrorFromAFailingFile keeps what the drive has.
func TestMirrorFromAFailingFile(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/f", "old")
	b := d.Batch()
	broken := io.MultiReader(bytes.NewReader(pattern(3<<20)), iotestErr{})
	if _, err := b.ReadFrom(ctx, "/f", broken, Attr{}); err == nil {
		t.Error("a file that cannot be read is read")
	}
	must(t, b.Flush(ctx))
	if got, err := d.Get(ctx, "/f"); err != nil || string(got) != "old" {
		t.Errorf("Get = %q, %v", got, err)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errors.New("the disk is broken") }

// TestMirrorElsewhere goes from a part of one side to a part of the other.
func TestMirrorElsewhere(t *testing.T) {
	d, from, to := newTestDrive(t), newDisk(t), newDisk(t)
	from.write("/a", "1", "/sub/b", "2", "/sub/deep/c", "3", "/subx", "4")
	must(t, os.Symlink("deep/c", from.at("/sub/in")))
	must(t, os.Symlink(from.at("/sub/b"), from.at("/sub/abs")))
	must(t, os.Symlink("../a", from.at("/sub/out")))
	must(t, os.Symlink(from.at("/a"), from.at("/sub/absout")))
	put(t, d, "/scans/old", "x", "/other", "x")
	var told []string
	sum, err := Mirror(ctx, from.folder(), d, MirrorOptions{From: "sub", To: "/scans", Ignore: Below("/deep"), Progress: events(&told)})
	must(t, err)
	sameNames(t, "events", told, "add /abs +0 -0", "skip /absout +0 -0", "add /b +1 -0", "add /in +0 -0", "remove /old +0 -1", "skip /out +0 -0")
	if sum.Files != 5 || sum.Added != 3 || sum.Removed != 1 {
		t.Errorf("%+v", sum)
	}
	sameNames(t, "the drive", namesOf(t, d.List(ctx, ""), entryName), "/other", "/scans/abs", "/scans/b", "/scans/in")
	if e, err := d.Entry(ctx, "/scans/abs"); err != nil || e.Linkname != "/scans/b" {
		t.Errorf("the link is %+v, %v", e, err)
	}

	to.write("/mine", "m", "/into/mine", "m")
	_, err = Mirror(ctx, d, to.folder(), MirrorOptions{From: "/scans", To: "into"})
	must(t, err)
	sameNames(t, "the folder", to.state(), "/into/abs->ROOT/into/b", "/into/b=2", "/into/in->deep/c", "/mine=m")
	told = nil
	_, err = Mirror(ctx, d, to.folder(), MirrorOptions{From: "/scans", To: "into", Progress: events(&told)})
	must(t, err)
	sameNames(t, "again", told, "equal /abs +0 -0", "equal /b +0 -0", "equal /in +0 -0")
	_, err = Mirror(ctx, d, to.folder(), MirrorOptions{From: "/scans", Prefix: "b"})
	must(t, err)
	sameNames(t, "one file", to.state(), "/b=2", "/into/abs->ROOT/into/b", "/into/b=2", "/into/in->deep/c", "/mine=m")
	for _, side := range []Side{d, from.folder()} {
		if _, err := Mirror(ctx, side, to.folder(), MirrorOptions{From: "/mistyped"}); !errors.Is(err, cloudpal.NotExist) {
			t.Errorf("from a folder that is not there: %v", err)
		}
	}
	sameNames(t, "nothing happened", to.state(), "/b=2", "/into/abs->ROOT/into/b", "/into/b=2", "/into/in->deep/c", "/mine=m")
}
