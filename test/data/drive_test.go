package data_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

// A file as the peer tells it.
type file struct {
	Seq        uint64
	Path       string
	Executable bool
	Linkname   *string
	Metadata   json.RawMessage
}

// line is what can be compared of a file.
func (f file) line() string {
	link := ""
	if f.Linkname != nil {
		link = *f.Linkname
	}
	return fmt.Sprintf("%s %v -> %q %s", f.Path, f.Executable, link, f.Metadata)
}

func lineOf(e hyperdrive.Entry) string {
	f := file{Path: e.Name, Executable: e.Executable, Metadata: e.Metadata}
	if e.IsLink() {
		f.Linkname = &e.Linkname
	}
	if f.Metadata == nil {
		f.Metadata = json.RawMessage("null")
	}
	return f.line()
}

func theirFiles(p *peer, name string) (all []string) {
	p.t.Helper()
	for _, f := range ask[struct{ Files []file }](p, "files", q{"on": name, "path": "/"}).Files {
		all = append(all, f.line())
	}
	return all
}

func ourFiles(t testing.TB, d *hyperdrive.Drive) (all []string) {
	t.Helper()
	for e, err := range d.List(soon(t), "/") {
		must(t, err)
		all = append(all, lineOf(e))
	}
	return all
}

func theirFile(p *peer, drive, path string) []byte {
	p.t.Helper()
	return ask[struct{ Block []byte }](p, "getFile", q{"on": drive, "path": path}).Block
}

// paths are those of the tests' files.
var paths = []string{"/a.txt", "/b/c.bin", "/b/d/e", "/ä ö/ü", "/empty", "/b/large"}

// text is what a file holds in a round.
func text(path string, round int) []byte {
	switch path {
	case "/empty":
		return []byte{}
	case "/b/large":
		rng := rand.New(rand.NewPCG(uint64(round), 1))
		b := make([]byte, 300_000)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	return fmt.Appendf(nil, "%s in round %d", path, round)
}

// TestDrive has one drive written by both kinds in turn, out of one primary key,
// and read, listed and compared with its past by both.
func TestDrive(t *testing.T) {
	for _, key := range []*[32]byte{nil, {3, 3}} {
		name := map[bool]string{true: "plain", false: "encrypted"}[key == nil]
		t.Run(name, func(t *testing.T) { testDrive(t, key) })
	}
}

func testDrive(t *testing.T, key *[32]byte) {
	primary := corestore.PrimaryKey{6}
	us, them := openOurs(t, t.TempDir(), &primary), startPeer(t)
	them.do("store", q{"as": "store", "dir": t.TempDir(), "primaryKey": hex.EncodeToString(primary[:])})
	options, args := hyperdrive.Options{EncryptionKey: key}, q{"as": "drive", "on": "store"}
	if key != nil {
		args["encryptionKey"] = hex.EncodeToString(key[:])
	}
	d, err := hyperdrive.New(us.Store, options)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	told := ask[struct{ Key, ContentKey string }](them, "drive", args)
	content, err := d.Content(soon(t))
	must(t, err)
	if told.Key != hexKey(d.Key()) || told.ContentKey != hexKey(content.Key()) {
		t.Fatalf("JavaScript's keys are %s and %s, ours %s and %s", told.Key, told.ContentKey, hexKey(d.Key()), hexKey(content.Key()))
	}
	them.do("core", q{"as": "db", "on": "store", "key": told.Key})
	them.do("core", q{"as": "content", "on": "store", "key": told.ContentKey})
	them.do("follow", q{"on": "db"})
	them.do("follow", q{"on": "content"})
	us.dial(them.listen("store"))
	them.do("peers", q{"on": "db", "count": 1})
	them.do("peers", q{"on": "content", "count": 1})

	ctx := context.Background()
	var versions []uint64
	past := map[uint64][]string{}
	for round := range 6 {
		ours := round%2 == 0
		for i, path := range paths {
			if ours {
				a := hyperdrive.Attr{Executable: i == 1}
				if i == 2 {
					a.Metadata = json.RawMessage(`{"by":"us"}`)
				}
				must(t, d.Put(ctx, path, text(path, round), a))
				continue
			}
			args := q{"on": "drive", "path": path, "data": text(path, round), "executable": i == 1}
			if i == 2 {
				args["metadata"] = q{"by": "them"}
			}
			them.do("putFile", args)
		}
		link, gone := fmt.Sprintf("/link %d", round), fmt.Sprintf("/link %d", round-2)
		if ours {
			must(t, d.Symlink(ctx, link, "b/c.bin"))
			if round >= 2 {
				must(t, d.Delete(ctx, gone))
			}
			them.wait("db", d.Database().Length(), 0, true)
			them.wait("content", content.Length(), 0, true)
		} else {
			them.do("symlink", q{"on": "drive", "path": link, "target": "b/c.bin"})
			if round >= 2 {
				them.do("removeFile", q{"on": "drive", "path": gone})
			}
			await(t, d.Database(), ask[coreInfo](them, "info", q{"on": "db"}).Length, 0, true)
			await(t, content, ask[coreInfo](them, "info", q{"on": "content"}).Length, 0, true)
		}
		sameDrive(t, d, them, "drive", round)
		for core, theirs := range map[string]string{"db": hashOf(d.Database()), "content": hashOf(content)} {
			if h := them.treeHash(core, ask[coreInfo](them, "info", q{"on": core}).Length); h != theirs {
				t.Fatalf("round %d: tree hashes of %s differ: JavaScript's %s, ours %s", round, core, h, theirs)
			}
		}
		versions = append(versions, d.Version())
		past[d.Version()] = ourFiles(t, d)
	}
	for _, v := range versions {
		if got := ourFiles(t, d.Checkout(v)); !slices.Equal(got, past[v]) {
			t.Errorf("our checkout of %d has %v, want %v", v, got, past[v])
		}
		name := fmt.Sprint("at", v)
		them.do("checkout", q{"as": name, "on": "drive", "version": v})
		if got := theirFiles(them, name); !slices.Equal(got, past[v]) {
			t.Errorf("JavaScript's checkout of %d has %v, want %v", v, got, past[v])
		}
		sameDriveDiff(t, d, them, v)
	}
	audit(t, d.Database())
	audit(t, content)
}

// sameDrive compares all that both have of a drive.
func sameDrive(t *testing.T, d *hyperdrive.Drive, them *peer, name string, round int) {
	t.Helper()
	if ours, theirs := ourFiles(t, d), theirFiles(them, name); !slices.Equal(ours, theirs) {
		t.Errorf("round %d: we list %v, JavaScript %v", round, ours, theirs)
	}
	for _, path := range paths {
		want := text(path, round)
		got, err := d.Get(soon(t), path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("round %d: we read %d bytes of %s (%v), want %d", round, len(got), path, err, len(want))
		}
		if got := theirFile(them, name, path); !bytes.Equal(got, want) {
			t.Errorf("round %d: JavaScript reads %d bytes of %s, want %d", round, len(got), path, len(want))
		}
	}
	var names []string
	for c, err := range d.ReadDir(soon(t), "/b") {
		must(t, err)
		names = append(names, c.Name)
	}
	if theirs := ask[struct{ Names []string }](them, "names", q{"on": name, "path": "/b"}).Names; !slices.Equal(names, theirs) {
		t.Errorf("round %d: we find %v in /b, JavaScript %v", round, names, theirs)
	}
}

func sameDriveDiff(t *testing.T, d *hyperdrive.Drive, them *peer, since uint64) {
	t.Helper()
	var want, got []string
	for _, c := range ask[struct {
		Changes []struct{ Left, Right *file }
	}](them, "driveDiff", q{"on": "drive", "version": since, "path": "/"}).Changes {
		left, right := "-", "-"
		if c.Left != nil {
			left = c.Left.line()
		}
		if c.Right != nil {
			right = c.Right.line()
		}
		want = append(want, left+" <- "+right)
	}
	for c, err := range d.Diff(soon(t), since, "/") {
		must(t, err)
		left, right := "-", "-"
		if c.Now != nil {
			left = lineOf(*c.Now)
		}
		if c.Before != nil {
			right = lineOf(*c.Before)
		}
		got = append(got, left+" <- "+right)
	}
	if !slices.Equal(got, want) {
		t.Errorf("what changed since %d: ours %v, JavaScript's %v", since, got, want)
	}
}

// TestDriveElsewhere reads parts of a drive whose key is all that one has: out of
// one of the other kind, into a folder, and back.
func TestDriveElsewhere(t *testing.T) {
	us, them := newOurs(t), theirStore(t)
	ctx := context.Background()
	from := t.TempDir()
	want := writeTree(t, from)
	d, err := hyperdrive.New(us.Store, hyperdrive.Options{})
	must(t, err)
	t.Cleanup(func() { d.Close() })
	folder, err := hyperdrive.OpenFolder(from)
	must(t, err)
	defer folder.Close()
	_, err = hyperdrive.Mirror(ctx, folder, d, hyperdrive.MirrorOptions{})
	must(t, err)
	mine := ask[struct{ Key string }](them, "drive", q{"as": "mine", "on": "store"})
	in := ask[version](them, "mirrorIn", q{"on": "mine", "dir": from})
	them.do("drive", q{"as": "ours", "on": "store", "key": hexKey(d.Key())})
	us.dial(them.listen("store"))

	// Into JavaScript's folder, by JavaScript.
	them.do("waitDrive", q{"on": "ours", "version": d.Version()})
	part := ask[struct{ Block []byte }](them, "readFile", q{"on": "ours", "path": "/b/large", "start": 70_000, "end": 140_000}).Block
	if !bytes.Equal(part, text("/b/large", 1)[70_000:140_001]) {
		t.Errorf("JavaScript reads %d bytes of our file, not those wanted", len(part))
	}
	to := t.TempDir()
	them.do("mirrorOut", q{"on": "ours", "dir": to})
	if got := readTree(t, to); !maps.Equal(got, want) {
		t.Errorf("JavaScript made %v of our drive, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}

	// Into our folder, out of JavaScript's drive.
	far, err := hyperdrive.Open(us.Store, *keyOf(t, mine.Key), hyperdrive.Options{})
	must(t, err)
	t.Cleanup(func() { far.Close() })
	await(t, far.Database(), in.Version, 0, false)
	back := t.TempDir()
	into, err := hyperdrive.MakeFolder(back)
	must(t, err)
	defer into.Close()
	_, err = hyperdrive.Mirror(soon(t), far, into, hyperdrive.MirrorOptions{})
	must(t, err)
	if got := readTree(t, back); !maps.Equal(got, want) {
		t.Errorf("we made %v of JavaScript's drive, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// writeTree makes a folder of files, one of them executable and one a link.
func writeTree(t testing.TB, dir string) map[string]string {
	t.Helper()
	for _, p := range paths {
		at := filepath.Join(dir, p)
		must(t, os.MkdirAll(filepath.Dir(at), 0o755))
		must(t, os.WriteFile(at, text(p, 1), 0o644))
	}
	must(t, os.Chmod(filepath.Join(dir, "b/c.bin"), 0o755))
	must(t, os.Symlink("b/c.bin", filepath.Join(dir, "link")))
	return readTree(t, dir)
}

// readTree has what each file of a folder holds, or links to.
func readTree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			all[name], err = os.Readlink(at)
			all[name] = "-> " + all[name]
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(at)
		all[name] = fmt.Sprintf("%v %s", info.Mode()&0o100 != 0, b)
		return err
	}))
	return all
}
