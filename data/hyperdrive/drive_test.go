package hyperdrive

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/manifest"
)

var ctx = context.Background()

// vectorKey is the primary key of the original's vectors.
var vectorKey = corestore.PrimaryKey(bytes.Repeat([]byte{0x50}, 32))

func newStore(t testing.TB) *corestore.Store {
	t.Helper()
	s, err := corestore.Open("store", corestore.Options{FS: vfs.NewMem(), PrimaryKey: &vectorKey})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func newDriveIn(t testing.TB, s *corestore.Store, o Options) *Drive {
	t.Helper()
	d, err := New(s, o)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func newTestDrive(t testing.TB) *Drive { return newDriveIn(t, newStore(t), Options{}) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put writes files, each a name and its content.
func put(t testing.TB, d *Drive, files ...string) {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		must(t, d.Put(ctx, files[i], []byte(files[i+1]), Attr{}))
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + i>>8)
	}
	return b
}

// namesOf returns what a list yields, by name.
func namesOf[T any](t testing.TB, list iter.Seq2[T, error], name func(T) string) (names []string) {
	t.Helper()
	for e, err := range list {
		must(t, err)
		names = append(names, name(e))
	}
	return names
}

func entryName(e Entry) string { return e.Name }
func childName(c Child) string {
	if c.Folder {
		return c.Name + "/"
	}
	return c.Name
}

func sameNames(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// vectorDrive does what the original did to make the vectors.
func vectorDrive(t testing.TB, o Options) *Drive {
	d := newDriveIn(t, newStore(t), o)
	must(t, d.Put(ctx, "/hello.txt", []byte("hello world"), Attr{}))
	must(t, d.Put(ctx, "a/b/c.bin", bytes.Repeat([]byte{0x61}, 70000), Attr{}))
	must(t, d.Put(ctx, "/exec.sh", []byte("#!/bin/sh"), Attr{Executable: true, Metadata: json.RawMessage(`{"mtime": 1}`)}))
	must(t, d.Symlink(ctx, "/link", "/hello.txt"))
	must(t, d.Put(ctx, "/empty", nil, Attr{}))
	must(t, d.Delete(ctx, "/exec.sh"))
	must(t, d.Put(ctx, `\win\..\x//y.txt`, []byte("norm"), Attr{}))
	must(t, d.PutEntry(ctx, "/dir/entry-only", Entry{Metadata: json.RawMessage(`{"tag":"x"}`)}))
	return d
}

// TestVectors makes the drive that the original made, block for block.
func TestVectors(t *testing.T) {
	v := driveVectors(t)
	d := vectorDrive(t, Options{})
	key := d.Key()
	if got := hex.EncodeToString(key[:]); got != v.Key {
		t.Errorf("the key is %s, want %s", got, v.Key)
	}
	core, err := d.Content(ctx)
	must(t, err)
	blobsKey := core.Key()
	if got := hex.EncodeToString(blobsKey[:]); got != v.BlobsKey {
		t.Errorf("the content's key is %s, want %s", got, v.BlobsKey)
	}
	if d.Version() != v.Version {
		t.Errorf("the version is %d, want %d", d.Version(), v.Version)
	}
	for _, b := range v.DBBlocks {
		block, err := d.Database().Get(ctx, b.Seq)
		must(t, err)
		if got := hex.EncodeToString(block); got != b.Hex {
			t.Errorf("block %d is\n%s, want\n%s", b.Seq, got, b.Hex)
		}
	}
	if core.Length() != uint64(len(v.BlobBlocks)) {
		t.Errorf("the content has %d blocks, want %d", core.Length(), len(v.BlobBlocks))
	}
	for _, b := range v.BlobBlocks {
		block, err := core.Get(ctx, b.Index)
		must(t, err)
		hash := blake2b.Sum256(block)
		if hex.EncodeToString(hash[:]) != b.Hash || uint64(len(block)) != b.Bytes {
			t.Errorf("block %d of the content is another", b.Index)
		}
	}
}

// TestVectorViews lists and compares as the original did.
func TestVectorViews(t *testing.T) {
	v := driveVectors(t)
	d := vectorDrive(t, Options{})
	var children []string
	for c, err := range d.ReadDir(ctx, "/") {
		must(t, err)
		children = append(children, c.Name)
	}
	sameNames(t, "ReadDir", children, v.ReaddirRoot...)
	sameNames(t, "List", namesOf(t, d.List(ctx, "/a"), entryName), v.ListA...)

	var i int
	for e, err := range d.List(ctx, "") {
		must(t, err)
		if want := v.Entries[i].entry(t); !reflect.DeepEqual(&e, want) {
			t.Errorf("entry %d is %+v, want %+v", i, e, *want)
		}
		i++
	}
	i = 0
	for c, err := range d.Diff(ctx, 4, "/") {
		must(t, err)
		want := v.DiffFrom4[i]
		if !reflect.DeepEqual(c.Now, want.Left.entry(t)) || !reflect.DeepEqual(c.Before, want.Right.entry(t)) {
			t.Errorf("difference %d is %+v, want %+v", i, c, want)
		}
		i++
	}
	if i != len(v.DiffFrom4) {
		t.Errorf("%d differences, want %d", i, len(v.DiffFrom4))
	}
}

func (v *vectorEntry) entry(t testing.TB) *Entry {
	if v == nil {
		return nil
	}
	e := Entry{Name: v.Key, Seq: v.Seq}
	var compact bytes.Buffer
	must(t, json.Compact(&compact, v.Value))
	must(t, decodeEntry(compact.Bytes(), &e))
	return &e
}

// TestEncryptedVectors makes the encrypted drive that the original made.
func TestEncryptedVectors(t *testing.T) {
	var v struct {
		Key, BlobsKey, EncryptionKey string
		DBStored, BlobsStored        []string
	}
	readVectors(t, "hyperdrive-encrypted.json", &v)
	secret, err := hex.DecodeString(v.EncryptionKey)
	must(t, err)
	s := newStore(t)
	d := newDriveIn(t, s, Options{EncryptionKey: (*[32]byte)(secret)})
	must(t, d.Put(ctx, "/x", []byte("secret"), Attr{}))
	core, err := d.Content(ctx)
	must(t, err)
	for _, stored := range []struct {
		key  manifest.Key
		want []string
	}{{d.Key(), v.DBStored}, {core.Key(), v.BlobsStored}} {
		raw, err := s.GetKey(stored.key)
		must(t, err)
		defer raw.Close()
		for i, want := range stored.want {
			block, err := raw.Get(ctx, uint64(i))
			must(t, err)
			if got := hex.EncodeToString(block); got != want {
				t.Errorf("block %d is stored as\n%s, want\n%s", i, got, want)
			}
		}
	}
	if got, err := d.Get(ctx, "/x"); err != nil || string(got) != "secret" {
		t.Errorf("Get = %q, %v", got, err)
	}
}

func TestPutGetDelete(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/a", "1", "/b/c", "2", "/a", "3")
	for name, want := range map[string]string{"/a": "3", "b/c": "2", `\b\x\..\c`: "2"} {
		if got, err := d.Get(ctx, name); err != nil || string(got) != want {
			t.Errorf("Get(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	must(t, d.Delete(ctx, "/a"))
	must(t, d.Delete(ctx, "/never"))
	if _, err := d.Get(ctx, "/a"); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("Get after Delete: %v", err)
	}
	if ok, err := d.Exists(ctx, "/a"); ok || err != nil {
		t.Errorf("Exists = %v, %v", ok, err)
	}
	for _, name := range []string{"/", "", "..", "/a/../..", "/zero\x00", "/\xff"} {
		if err := d.Put(ctx, name, nil, Attr{}); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("Put(%q): %v, want Invalid", name, err)
		}
	}
	if err := d.Put(ctx, "/m", nil, Attr{Metadata: json.RawMessage(`{`)}); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("Put with half of an object as metadata: %v", err)
	}
	if err := d.Put(ctx, "/m", nil, Attr{Metadata: pattern(0)[:0:0]}); err != nil {
		t.Errorf("Put with no metadata: %v", err)
	}
	long := fmt.Appendf(nil, "%q", strings.Repeat("x", MaxEntry-100))
	if err := d.Put(ctx, "/m", nil, Attr{Metadata: long}); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("Put with more metadata than can be read: %v", err)
	}
}

// TestSizes writes files of sizes around those where blocks, small files and
// batches end, each way there is.
func TestSizes(t *testing.T) {
	d := newTestDrive(t)
	for _, n := range []int{0, 1, 65535, 65536, 65537, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5 << 20} {
		want := pattern(n)
		ways := map[string]func(name string) error{
			"put": func(name string) error { return d.Put(ctx, name, want, Attr{}) },
			"writer": func(name string) error {
				w, err := d.Writer(ctx, name, WriterOptions{})
				must(t, err)
				_, err = w.Write(want)
				return errors.Join(err, w.Close())
			},
			"shared": func(name string) error {
				w, err := d.Writer(ctx, name, WriterOptions{Shared: true})
				must(t, err)
				_, err = w.ReadFrom(bytes.NewReader(want))
				return errors.Join(err, w.Close())
			},
			"batch": func(name string) error {
				b := d.Batch()
				_, err := b.ReadFrom(ctx, name, bytes.NewReader(want), Attr{})
				return errors.Join(err, b.Put(ctx, name+"2", want, Attr{}), b.Flush(ctx))
			},
		}
		for way, write := range ways {
			name := fmt.Sprintf("/%s-%d", way, n)
			must(t, write(name))
			got, err := d.Get(ctx, name)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: got %d bytes, %v", name, len(got), err)
			}
			e, err := d.Entry(ctx, name)
			must(t, err)
			if size, err := d.Size(ctx, e); err != nil || size != int64(n) {
				t.Errorf("%s: the size is %d, %v", name, size, err)
			}
		}
	}
}

func TestReadRange(t *testing.T) {
	d := newTestDrive(t)
	must(t, d.Put(ctx, "/before", pattern(1234), Attr{}))
	must(t, d.Put(ctx, "/f", pattern(200000), Attr{}))
	r, err := d.Reader(ctx, "/f")
	must(t, err)
	defer r.Close()
	_, err = r.Seek(131000, io.SeekStart)
	must(t, err)
	got := make([]byte, 300)
	_, err = io.ReadFull(r, got)
	if err != nil || !bytes.Equal(got, pattern(200000)[131000:131300]) {
		t.Errorf("read another range, %v", err)
	}
}

// TestWriterCancel leaves the file as it was.
func TestWriterCancel(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/f", "old")
	version := d.Version()
	w, err := d.Writer(ctx, "/f", WriterOptions{})
	must(t, err)
	_, err = w.Write(pattern(3 << 20))
	must(t, err)
	w.Cancel()
	if err := w.Close(); err == nil {
		t.Error("Close after Cancel is no error")
	}
	if got, err := d.Get(ctx, "/f"); err != nil || string(got) != "old" || d.Version() != version {
		t.Errorf("Get = %q, %v at version %d, want the old at %d", got, err, d.Version(), version)
	}
}

func TestDeduplicate(t *testing.T) {
	d := newTestDrive(t)
	write := func(data []byte) {
		w, err := d.Writer(ctx, "/f", WriterOptions{Deduplicate: true})
		must(t, err)
		_, err = w.Write(data)
		must(t, errors.Join(err, w.Close()))
	}
	data := pattern(1 << 20)
	write(data)
	core, err := d.Content(ctx)
	must(t, err)
	before := core.Length()
	data[500000]++
	write(data)
	if n := core.Length() - before; n != 2 {
		t.Errorf("a change of one byte took %d blocks, want one and the map", n)
	}
	if got, err := d.Get(ctx, "/f"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestLinks(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/dir/file", "f", "/dir/sub/x", "x", "/original/link/b", "as the original sees it")
	for name, target := range map[string]string{
		"/abs": "/dir/file", "/dir/rel": "file", "/dir/sub/up": "../file", "/chain": "/abs",
		"/loop1": "/loop2", "/loop2": "/loop1", "/out": "../../x", "/nowhere": "/gone",
		"/original/link": "./b",
	} {
		must(t, d.Symlink(ctx, name, target))
	}
	for name, want := range map[string]string{
		"/abs": "f", "/dir/rel": "f", "/dir/sub/up": "f", "/chain": "f", "/original/link": "as the original sees it",
	} {
		if got, err := d.Get(ctx, name); err != nil || string(got) != want {
			t.Errorf("Get(%s) = %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]cloudpal.Kind{"/loop1": cloudpal.Invalid, "/out": cloudpal.Invalid, "/nowhere": cloudpal.NotExist} {
		if _, err := d.Get(ctx, name); !errors.Is(err, want) {
			t.Errorf("Get(%s): %v, want %v", name, err, want)
		}
	}
	if e, err := d.Entry(ctx, "/abs"); err != nil || e.Linkname != "/dir/file" {
		t.Errorf("Entry(/abs) = %+v, %v", e, err)
	}
	for i, last := range []string{"/h15", "/h16"} { // 15 links are followed
		put(t, d, "/h0", "end")
		for n := 1; n <= 15+i; n++ {
			must(t, d.Symlink(ctx, fmt.Sprintf("/h%d", n), fmt.Sprintf("/h%d", n-1)))
		}
		if _, err := d.Get(ctx, last); (err != nil) != (i == 1) {
			t.Errorf("Get(%s): %v", last, err)
		}
	}
	if err := d.Symlink(ctx, "/l", ""); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a link to nothing: %v", err)
	}
}

func TestListAndReadDir(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/a", "", "/b/1", "", "/b/2/3", "", "/b/2/4", "", "/b!", "", "/b0", "", "/c/d/e", "")
	sameNames(t, "List(/)", namesOf(t, d.List(ctx, "/"), entryName), "/a", "/b!", "/b/1", "/b/2/3", "/b/2/4", "/b0", "/c/d/e")
	sameNames(t, "List(b/)", namesOf(t, d.List(ctx, "b/"), entryName), "/b/1", "/b/2/3", "/b/2/4")
	sameNames(t, "List(/none)", namesOf(t, d.List(ctx, "/none"), entryName))
	sameNames(t, "ReadDir(/)", namesOf(t, d.ReadDir(ctx, ""), childName), "a", "b!", "b/", "b0", "c/")
	sameNames(t, "ReadDir(/b)", namesOf(t, d.ReadDir(ctx, "/b"), childName), "1", "2/")

	put(t, d, "/b", "a file where a folder is")
	sameNames(t, "ReadDir(/)", namesOf(t, d.ReadDir(ctx, ""), childName), "a", "b", "b!", "b0", "c/")
}

// TestKeysThatAreNoNames lists a drive whose writer put what no drive puts.
func TestKeysThatAreNoNames(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/good", "x")
	for _, key := range []string{"", "x", "/", "//x", "/a/", "/a/../../etc/passwd", "/./x", `/a\b`, "/\xff", "/zero\x00"} {
		must(t, d.files.Put(ctx, []byte(key), []byte(`{"executable":false,"linkname":null,"blob":null,"metadata":null}`)))
	}
	sameNames(t, "List", namesOf(t, d.List(ctx, "/"), entryName), "/good")
	sameNames(t, "ReadDir", namesOf(t, d.ReadDir(ctx, "/"), childName), "good")
	sameNames(t, "Diff", namesOf(t, d.Diff(ctx, 1, ""), func(c Change) string { return c.Name }), "/good")
}

func TestCheckout(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/a", "1")
	v := d.Version()
	put(t, d, "/a", "2", "/b", "3")
	old := d.Checkout(v)
	defer old.Close()
	if got, err := old.Get(ctx, "/a"); err != nil || string(got) != "1" {
		t.Errorf("the old version's /a = %q, %v", got, err)
	}
	sameNames(t, "the old version", namesOf(t, old.List(ctx, ""), entryName), "/a")
	if err := old.Put(ctx, "/a", nil, Attr{}); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("Put into an old version: %v", err)
	}
	sameNames(t, "Diff", namesOf(t, d.Diff(ctx, v, "/"), func(c Change) string { return c.Name }), "/a", "/b")
	sameNames(t, "History", namesOf(t, d.History(ctx, 0, true), func(o Operation) string { return o.Name }), "/b", "/a", "/a")
}

// TestBatch is one version, of which nothing is seen before.
func TestBatch(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/old", "x")
	before := d.Snapshot()
	defer before.Close()
	b := d.Batch()
	for i := range 100 {
		must(t, b.Put(ctx, fmt.Sprintf("/%02d", i), pattern(i*1000), Attr{}))
	}
	must(t, b.Delete("/old"))
	must(t, b.Symlink("/link", "/05"))
	sameNames(t, "before the flush", namesOf(t, d.List(ctx, ""), entryName), "/old")
	must(t, b.Flush(ctx))
	if n := len(namesOf(t, d.List(ctx, ""), entryName)); n != 101 {
		t.Errorf("%d names, want 101", n)
	}
	if got, err := d.Get(ctx, "/link"); err != nil || !bytes.Equal(got, pattern(5000)) {
		t.Errorf("Get(/link) = %d bytes, %v", len(got), err)
	}
	sameNames(t, "the version before", namesOf(t, before.List(ctx, ""), entryName), "/old")

	must(t, b.Put(ctx, "/x", pattern(5<<20), Attr{}))
	b.Cancel()
	must(t, b.Flush(ctx))
	if ok, err := d.Exists(ctx, "/x"); ok || err != nil {
		t.Errorf("after Cancel: %v, %v", ok, err)
	}
}

// TestOldDrive reads and writes a drive from before manifests said where the
// content is: its header does.
func TestOldDrive(t *testing.T) {
	s := newStore(t)
	content, err := s.Get("content")
	must(t, err)
	defer content.Close()
	key := content.Key()
	db, err := s.Get(database)
	must(t, err)
	defer db.Close()
	bee := hyperbee.New(db, hyperbee.Options{Metadata: &hyperbee.Metadata{ContentFeed: append(key[:], "more"...)}})
	_, err = content.Append([]byte("old"))
	must(t, err)
	must(t, bee.Put(ctx, []byte("files\x00/a"), []byte(`{"executable":false,"linkname":null,"blob":{"blockOffset":0,"byteOffset":0,"blockLength":1,"byteLength":3}}`)))

	d := newDriveIn(t, s, Options{})
	if got, err := d.Get(ctx, "/a"); err != nil || string(got) != "old" {
		t.Errorf("Get = %q, %v", got, err)
	}
	put(t, d, "/b", "new")
	if got, err := content.Get(ctx, 1); err != nil || string(got) != "new" {
		t.Errorf("the content's log has %q, %v", got, err)
	}
}
