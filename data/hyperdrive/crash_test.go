package hyperdrive

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tradle/cloudpal/data/corestore"
)

// TestCrash takes the disk as it may be after a power cut at many points of
// many writes, with any part of what was not synced lost, and looks at the drive
// that is on it: what was synced is there, what was not may be, and every file
// is whole.
func TestCrash(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disk := vfs.NewCrashableMem()
		s, err := corestore.Open("store", corestore.Options{FS: disk, PrimaryKey: &vectorKey})
		must(t, err)
		d, err := New(s, Options{})
		must(t, err)
		synced := model{}                   // what must be there, unless it was changed since
		maybe := map[string][]string{}      // what else each name may have
		write := func(name string, n int) { // a file tells its name and length, so that a half one is seen
			data := fileFor(name, n)
			if n%3 == 0 {
				b := d.Batch()
				_, err := b.ReadFrom(ctx, name, bytes.NewReader(data), Attr{})
				must(t, errors.Join(err, b.Flush(ctx)))
			} else {
				must(t, d.Put(ctx, name, data, Attr{}))
			}
			maybe[name] = append(maybe[name], string(data))
		}
		for range 25 {
			for range rng.IntN(4) {
				write(fmt.Sprintf("/%d", rng.IntN(6)), []int{0, 50, 5000, 70000, 3 << 20}[rng.IntN(5)]+rng.IntN(9))
			}
			if rng.IntN(3) == 0 {
				must(t, d.Sync())
				for name, all := range maybe {
					synced[name] = all[len(all)-1]
				}
				clear(maybe)
			}
			after := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 30, 70, 100}[rng.IntN(4)], RNG: rng})
			checkCrashed(t, after, synced, maybe)
		}
		must(t, errors.Join(d.Close(), s.Close()))
	}
}

func fileFor(name string, n int) []byte {
	head := fmt.Sprintf("%s %d\n", name, n)
	return append([]byte(head), pattern(n)...)
}

func checkCrashed(t *testing.T, disk vfs.FS, synced model, maybe map[string][]string) {
	t.Helper()
	s, err := corestore.Open("store", corestore.Options{FS: disk, PrimaryKey: &vectorKey})
	must(t, err)
	defer s.Close()
	d, err := New(s, Options{})
	must(t, err)
	defer d.Close()
	seen := map[string]bool{}
	for e, err := range d.List(ctx, "") {
		must(t, err)
		seen[e.Name] = true
		data, err := d.Get(briefly(t), e.Name)
		must(t, err)
		_, was := synced[e.Name]
		found := was && synced[e.Name] == string(data)
		for _, m := range maybe[e.Name] {
			found = found || m == string(data)
		}
		if !found {
			t.Errorf("%s has %d bytes that it was never given: %.30q", e.Name, len(data), data)
		}
	}
	for name := range synced {
		if !seen[name] {
			t.Errorf("%s was synced, and is gone", name)
		}
	}
	must(t, d.Put(ctx, "/after", []byte("x"), Attr{})) // it can go on
	if got, err := d.Get(ctx, "/after"); err != nil || string(got) != "x" {
		t.Errorf("after the crash: %q, %v", got, err)
	}
}

// TestFullDisk has a disk that takes nothing any more in the middle of writing.
func TestFullDisk(t *testing.T) {
	full := errorfs.Toggle{Injector: errorfs.ErrInjected.If(errorfs.Writes)}
	memory := vfs.NewCrashableMem()
	disk := errorfs.Wrap(memory, &full)
	s, err := corestore.Open("store", corestore.Options{FS: disk, PrimaryKey: &vectorKey})
	must(t, err)
	d, err := New(s, Options{})
	must(t, err)
	put(t, d, "/old", "kept")
	must(t, d.Sync())
	full.On()
	var failed error
	for i := 0; failed == nil && i < 100; i++ {
		failed = errors.Join(d.Put(ctx, fmt.Sprintf("/%d", i), pattern(100000), Attr{}), d.Sync())
	}
	if failed == nil {
		t.Fatal("nothing failed on a disk that takes nothing")
	}
	after := memory.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	d.Close()
	s.Close() // it says again what failed
	checkCrashed(t, after, model{"/old": "kept"}, map[string][]string{"/0": {string(pattern(100000))}})
}
