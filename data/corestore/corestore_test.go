package corestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// open returns an empty store in memory.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	o.FS = vfs.NewMem()
	return openDir(t, "", o)
}

func openDir(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func get(t testing.TB, s *Store, name string) *hypercore.Core {
	t.Helper()
	c, err := s.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func getKey(t testing.TB, s *Store, key manifest.Key) *hypercore.Core {
	t.Helper()
	c, err := s.GetKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func appendTo(t testing.TB, c *hypercore.Core, blocks ...string) {
	t.Helper()
	for _, b := range blocks {
		if _, err := c.Append([]byte(b)); err != nil {
			t.Fatal(err)
		}
	}
}

func wantBlock(t testing.TB, c *hypercore.Core, i uint64, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if b, err := c.Get(ctx, i); err != nil || string(b) != want {
		t.Errorf("block %d: got %q, %v; want %q", i, b, err, want)
	}
}

// Sessions of one core see the same, and one that is closed leaves the others
// alone.
func TestSessionsShareACore(t *testing.T) {
	s := open(t, Options{})
	a, b := get(t, s, "a"), get(t, s, "a")
	appendTo(t, a, "hello")
	wantBlock(t, b, 0, "hello")
	a.Close()
	wantBlock(t, b, 0, "hello")
	if _, err := a.Append([]byte("x")); err == nil {
		t.Error("a closed session appends")
	}
	appendTo(t, b, "again")
	wantBlock(t, getKey(t, s, b.Key()), 1, "again")
}

// Names of different namespaces are different cores.
func TestNamespacesAreApart(t *testing.T) {
	s := open(t, Options{})
	keys := map[manifest.Key]string{}
	for name, view := range map[string]*Store{
		"top": s, "app": s.Namespace("app"), "app/app": s.Namespace("app").Namespace("app"), "other": s.Namespace("other"),
	} {
		key := get(t, view, "a").Key()
		if other, clash := keys[key]; clash {
			t.Errorf("%s and %s share a core", name, other)
		}
		keys[key] = name
	}
	if get(t, s.Namespace("app"), "a").Key() != get(t, s.Namespace("app").Session(), "a").Key() {
		t.Error("two views of one namespace have different cores")
	}
}

// A core of ours can be written also when it is opened by its key, in a later
// process.
func TestOursStayWritable(t *testing.T) {
	fs := vfs.NewMem()
	s := openDir(t, "s", Options{FS: fs})
	named := get(t, s.Namespace("app"), "a")
	pair := manifest.GenerateKeyPair()
	given, err := s.Core(CoreOptions{KeyPair: &pair})
	if err != nil {
		t.Fatal(err)
	}
	m := manifest.New(manifest.Signer{Namespace: [32]byte{7}, PublicKey: pair.Public})
	own, err := s.Core(CoreOptions{KeyPair: &pair, Manifest: &m})
	if err != nil {
		t.Fatal(err)
	}
	keys := []manifest.Key{named.Key(), given.Key(), own.Key()}
	closeStore(t, s)

	s = openDir(t, "s", Options{FS: fs})
	for i, key := range keys {
		c := getKey(t, s, key)
		if !c.Writable() {
			t.Errorf("core %d cannot be written", i)
		}
		appendTo(t, c, "x")
		discovery := c.DiscoveryKey()
		found, err := s.Core(CoreOptions{DiscoveryKey: &discovery})
		if err != nil || found.Key() != key {
			t.Errorf("core %d by its discovery key: %v", i, err)
		}
	}
}

// One that is opened by its key first, before it is known to be ours, becomes
// ours by its name.
func TestReaderBecomesWriter(t *testing.T) {
	primary := PrimaryKey{1}
	key := get(t, open(t, Options{PrimaryKey: &primary}), "a").Key()
	s := open(t, Options{PrimaryKey: &primary})
	if getKey(t, s, key).Writable() {
		t.Fatal("a stranger's core can be written")
	}
	c := get(t, s, "a")
	appendTo(t, c, "mine")
	if !getKey(t, s, key).Writable() {
		t.Error("it cannot be written by its key")
	}
}

func TestStrangersCoreCannotBeWritten(t *testing.T) {
	c := getKey(t, open(t, Options{}), manifest.Key{1})
	if _, err := c.Append([]byte("x")); cloudpal.KindOf(err) != cloudpal.Denied {
		t.Errorf("got %v, want Denied", err)
	}
}

// What is not there is not made where that was asked for.
func TestExistingCores(t *testing.T) {
	s := open(t, Options{})
	key, discovery := manifest.Key{1}, [32]byte{2}
	for what, o := range map[string]CoreOptions{
		"name":          {Name: "a", Existing: true},
		"key":           {Key: &key, Existing: true},
		"discovery key": {DiscoveryKey: &discovery},
	} {
		if _, err := s.Core(o); cloudpal.KindOf(err) != cloudpal.NotExist {
			t.Errorf("%s: got %v, want NotExist", what, err)
		}
	}
	for d, err := range s.List() {
		t.Errorf("it made %x, %v", d, err)
	}
	if _, err := s.Core(CoreOptions{}); cloudpal.KindOf(err) != cloudpal.Invalid {
		t.Errorf("nothing in particular: got %v, want Invalid", err)
	}
}

// An alias gives a core another name, and Get follows it.
func TestAliases(t *testing.T) {
	s := open(t, Options{})
	theirs := manifest.Key{9}
	if _, found, err := s.Lookup("friend"); found || err != nil {
		t.Fatalf("it is there before: %v", err)
	}
	if err := s.SetAlias("friend", theirs); err != nil {
		t.Fatal(err)
	}
	get(t, s, "mine")
	get(t, s.Namespace("app"), "hidden")
	if key, found, err := s.Lookup("friend"); key != theirs || !found || err != nil {
		t.Errorf("got %v, %v, %v", key, found, err)
	}
	if c := get(t, s, "friend"); c.Key() != theirs || c.Writable() {
		t.Errorf("the alias opens %v", c.Key())
	}
	var names []string
	for a, err := range s.Aliases() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, a.Name)
	}
	if fmt.Sprint(names) != "[friend mine]" {
		t.Errorf("names are %v", names)
	}
	if err := s.RemoveAlias("friend"); err != nil {
		t.Fatal(err)
	}
	if c := get(t, s, "friend"); c.Key() == theirs || !c.Writable() {
		t.Error("the alias is still there")
	}
}

// Closing a view closes what was opened through it, and no more.
func TestClosingAView(t *testing.T) {
	s := open(t, Options{})
	view := s.Session()
	through, beside := get(t, view, "a"), get(t, s, "a")
	closeStore(t, view)
	if _, err := through.Append([]byte("x")); err == nil {
		t.Error("its session is open")
	}
	appendTo(t, beside, "x")
	if _, err := view.Get("a"); err == nil {
		t.Error("a closed view opens cores")
	}
	other := get(t, s.Namespace("n"), "a")
	closeStore(t, s)
	if _, err := other.Append([]byte("x")); err == nil {
		t.Error("a session outlives its store")
	}
	if _, err := s.Session().Get("a"); err == nil {
		t.Error("a closed store opens cores")
	}
}

// Cores that nobody uses are closed, and are there when they are wanted again.
func TestIdleCoresAreClosed(t *testing.T) {
	s := open(t, Options{Linger: -1})
	c := get(t, s, "a")
	appendTo(t, c, "x")
	c.Close()
	eventually(t, "the core is closed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.cores) == 0
	})
	wantBlock(t, get(t, s, "a"), 0, "x")
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestPurge(t *testing.T) {
	s := open(t, Options{})
	c := get(t, s, "a")
	appendTo(t, c, "x")
	if err := s.Purge(c.Key()); cloudpal.KindOf(err) != cloudpal.Busy {
		t.Errorf("one that is in use: got %v, want Busy", err)
	}
	c.Close()
	if err := s.Purge(c.Key()); err != nil {
		t.Fatal(err)
	}
	for d, err := range s.List() {
		t.Errorf("%x is there, %v", d, err)
	}
	if n := get(t, s, "a").Length(); n != 0 {
		t.Errorf("it has %d blocks", n)
	}
	if err := s.Purge(manifest.Key{1}); err != nil {
		t.Errorf("one that is not there: %v", err)
	}
}

// Many goroutines open, write, read and close the same cores at once, while
// idle ones are being closed under them.
func TestManyAtOnce(t *testing.T) {
	s := open(t, Options{Linger: -1})
	const workers, rounds, names = 8, 60, 5
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				if err := useCore(t.Context(), s.Session(), fmt.Sprint((w+i)%names)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	var total uint64
	for i := range names {
		total += get(t, s, fmt.Sprint(i)).Length()
	}
	if total != workers*rounds {
		t.Errorf("%d blocks, want %d", total, workers*rounds)
	}
}

func useCore(ctx context.Context, view *Store, name string) error {
	c, err := view.Get(name)
	if err != nil {
		return err
	}
	n, err := c.Append([]byte(name))
	if err != nil {
		return err
	}
	b, err := c.Get(ctx, n-1)
	if err == nil && string(b) != name {
		err = fmt.Errorf("block %d of %s is %q", n-1, name, b)
	}
	return errors.Join(err, view.Close())
}

// Everything that was synced is there after the process is killed: here, by
// leaving the store as it is and looking at what reached the disk.
func TestSyncedIsOnDisk(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openDir(t, "s", Options{FS: fs})
	a, b := get(t, s, "a"), get(t, s.Namespace("n"), "b")
	appendTo(t, a, "1", "2")
	appendTo(t, b, "3")
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	disk := fs.CrashClone(vfs.CrashCloneCfg{})
	later := openDir(t, "s", Options{FS: disk, Existing: true})
	if later.PrimaryKey() != s.PrimaryKey() {
		t.Error("the primary key is another")
	}
	wantBlock(t, get(t, later, "a"), 1, "2")
	wantBlock(t, get(t, later.Namespace("n"), "b"), 0, "3")
}

// However early a store's first process dies, the folder opens.
func TestCrashWhileItIsMade(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openDir(t, "s", Options{FS: fs})
	disk := fs.CrashClone(vfs.CrashCloneCfg{})
	if got := openDir(t, "s", Options{FS: disk}).PrimaryKey(); got != s.PrimaryKey() {
		t.Error("a store that was open has another primary key after a crash")
	}
}

// A store of ten thousand cores opens without reading them.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "s")
			fill(b, dir, n)
			b.ResetTimer()
			for b.Loop() {
				s, err := Open(dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				c, err := s.Get("0")
				if err != nil || c.Length() != 1 {
					b.Fatal(err)
				}
				closeStore(b, s)
			}
		})
	}
}

func fill(b *testing.B, dir string, n int) {
	s := openDir(b, dir, Options{Linger: -1})
	defer closeStore(b, s)
	for i := range n {
		c := get(b, s, fmt.Sprint(i))
		appendTo(b, c, "x")
		c.Close()
	}
}
