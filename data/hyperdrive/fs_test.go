package hyperdrive

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"
	"time"
)

func TestFS(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/a", "1", "/b/c", "2", "/b/d/e", "3", "/b!", "4", "/empty", "")
	must(t, d.Put(ctx, "/b/large", pattern(200000), Attr{Executable: true}))
	must(t, d.Symlink(ctx, "/b/link", "d/e"))
	must(t, d.PutEntry(ctx, "/meta", Entry{Metadata: json.RawMessage(`{"x":1}`)}))
	w, err := d.Writer(ctx, "/b/mapped", WriterOptions{Deduplicate: true})
	must(t, err)
	_, err = w.Write(pattern(70000))
	must(t, errors.Join(err, w.Close()))
	must(t, fstest.TestFS(d.FS(ctx), "a", "b/c", "b/d/e", "b!", "empty", "b/large", "b/link", "meta", "b/mapped"))

	old := d.Snapshot()
	defer old.Close()
	put(t, d, "/new", "x")
	must(t, fstest.TestFS(old.FS(ctx), "a", "b/link"))
	if _, err := fs.Stat(old.FS(ctx), "new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old version has what is new: %v", err)
	}
	must(t, fstest.TestFS(newTestDrive(t).FS(ctx)))
}

func TestFSLinks(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/dir/sub/file", "content", "/dir/file2", "2")
	for name, target := range map[string]string{
		"/todir": "dir", "/dir/sub/up": "..", "/root": "/", "/file": "todir/sub/file", "/loop": "loop", "/a": "/b", "/b": "/a",
		"/out": "../..", "/dangling": "/nothing",
	} {
		must(t, d.Symlink(ctx, name, target))
	}
	f := d.FS(ctx)
	for _, name := range []string{"todir/sub/file", "dir/sub/up/sub/file", "todir/sub/up/sub/up/sub/file", "root/todir/sub/file", "file"} {
		if got, err := fs.ReadFile(f, name); err != nil || string(got) != "content" {
			t.Errorf("ReadFile(%s) = %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"out", "dangling", "dangling/x", "todir/none", "dir/file2/below", "none/none"} {
		if _, err := f.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%s): %v, want ErrNotExist", name, err)
		}
	}
	for _, name := range []string{"loop", "a", "b/x"} {
		if _, err := f.Stat(name); err == nil {
			t.Errorf("Stat(%s) of a loop is no error", name)
		}
	}
	entries, err := fs.ReadDir(f, "todir")
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"file2", "sub"}) {
		t.Errorf("ReadDir(todir) = %v", names)
	}
	if target, err := f.ReadLink("todir"); err != nil || target != "dir" {
		t.Errorf("ReadLink = %q, %v", target, err)
	}
	sub, err := fs.Sub(f, "dir")
	must(t, err)
	if got, err := fs.ReadFile(sub, "sub/up/file2"); err != nil || string(got) != "2" {
		t.Errorf("in a part: %q, %v", got, err)
	}
}

func TestFSFiles(t *testing.T) {
	d := newTestDrive(t)
	must(t, d.Put(ctx, "/f", pattern(100000), Attr{Metadata: json.RawMessage(`{"mtime":1700000000123}`)}))
	f, err := d.FS(ctx).Open("f")
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	if want := time.UnixMilli(1700000000123); !info.ModTime().Equal(want) || info.Size() != 100000 || info.Mode() != 0o444 {
		t.Errorf("Stat = %v, want %v", info, want)
	}
	_, err = f.(io.Seeker).Seek(-10, io.SeekEnd)
	must(t, err)
	if got, err := io.ReadAll(f); err != nil || string(got) != string(pattern(100000)[99990:]) {
		t.Errorf("the last bytes are %q, %v", got, err)
	}
	for metadata, want := range map[string]int64{`{"mtime":"x"}`: 0, `7`: 0, `{"mtime":-1}`: 0, `{"mtime":1e99}`: 0, `{"mtime":1.5}`: 1, `{}`: 0} {
		got := Entry{Metadata: json.RawMessage(metadata)}.MTime()
		if want == 0 && !got.IsZero() || want != 0 && got.UnixMilli() != want {
			t.Errorf("MTime of %s = %v", metadata, got)
		}
	}
}
