package hyperbee

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// newCore returns a log of its own, in memory.
func newCore(t testing.TB) *hypercore.Core {
	t.Helper()
	store := storage.Memory()
	core, err := hypercore.Create(store, hypercore.Options{})
	must(t, err)
	t.Cleanup(func() {
		core.Close()
		store.Close()
	})
	return core
}

func newBee(t testing.TB) (*Bee, *hypercore.Core) {
	t.Helper()
	core := newCore(t)
	return New(core, Options{}), core
}

func put(t testing.TB, b writer, pairs ...string) {
	t.Helper()
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		must(t, b.Put(ctx, []byte(k), []byte(v)))
	}
}

func TestMissingKey(t *testing.T) {
	b, core := newBee(t)
	for range 2 {
		if _, err := b.Get(ctx, []byte("ann")); !errors.Is(err, cloudpal.NotExist) {
			t.Errorf("get: got %v, want %v", err, cloudpal.NotExist)
		}
		if _, err := b.Peek(ctx, Range{}); !errors.Is(err, cloudpal.NotExist) {
			t.Errorf("peek: got %v, want %v", err, cloudpal.NotExist)
		}
		must(t, b.Delete(ctx, []byte("ann")))
	}
	if core.Length() != 1 || b.Version() != 1 {
		t.Errorf("length is %d, version %d, want 1 and 1: the header", core.Length(), b.Version())
	}
}

// TestNoValue: none and empty are two things, and neither is a deletion.
func TestNoValue(t *testing.T) {
	b, _ := newBee(t)
	must(t, b.Put(ctx, []byte("none"), nil))
	must(t, b.Put(ctx, []byte("empty"), []byte{}))
	none, err := b.Get(ctx, []byte("none"))
	must(t, err)
	empty, err := b.Get(ctx, []byte("empty"))
	must(t, err)
	if none.Value != nil || empty.Value == nil || len(empty.Value) != 0 {
		t.Errorf("values are %v and %v, want nil and empty", none.Value, empty.Value)
	}
	for o, err := range b.History(ctx, Span{}) {
		must(t, err)
		if o.Deleted {
			t.Errorf("%s counts as deleted", show(o.Entry))
		}
	}
}

func TestSwap(t *testing.T) {
	b, core := newBee(t)
	never := func(prev, next Entry) bool { return false }
	done, err := b.PutIf(ctx, []byte("ann"), []byte("1"), never)
	if must(t, err); !done {
		t.Error("a new key was not set")
	}
	done, err = b.PutIf(ctx, []byte("ann"), []byte("2"), never)
	if must(t, err); done || core.Length() != 2 {
		t.Error("a refused swap was made")
	}
	var asked []string
	done, err = b.PutIf(ctx, []byte("ann"), []byte("2"), func(prev, next Entry) bool {
		asked = append(asked, show(prev), show(next))
		return true
	})
	if must(t, err); !done {
		t.Error("an allowed swap was not made")
	}
	equal(t, "asked", asked, []string{"1ann=1", "2ann=2"})
	done, err = b.DeleteIf(ctx, []byte("ann"), never)
	if must(t, err); done {
		t.Error("a refused deletion was made")
	}
	done, err = b.DeleteIf(ctx, []byte("ann"), func(prev, next Entry) bool { return next.Value == nil && prev.Seq == 2 })
	if must(t, err); !done {
		t.Error("an allowed deletion was not made")
	}
	done, err = b.DeleteIf(ctx, []byte("ann"), nil)
	if must(t, err); done {
		t.Error("a key was deleted that is not there")
	}
}

func TestSwapInSub(t *testing.T) {
	b, _ := newBee(t)
	sub := b.Sub("s")
	put(t, sub, "ann=1")
	_, err := sub.PutIf(ctx, []byte("ann"), []byte("2"), func(prev, next Entry) bool {
		if string(prev.Key) != "ann" || string(next.Key) != "ann" {
			t.Errorf("swap sees keys %q and %q", prev.Key, next.Key)
		}
		return true
	})
	must(t, err)
}

// TestBatchLock: while a batch is open, others read what was there before, and
// writers wait.
func TestBatchLock(t *testing.T) {
	b, core := newBee(t)
	put(t, b, "ann=1")
	batch := b.Sub("s").Batch()
	put(t, batch, "ben=2")
	if _, err := b.Get(ctx, []byte("s\x00ben")); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("get of what is not flushed: %v", err)
	}
	if e, err := batch.Get(ctx, []byte("ben")); err != nil || string(e.Value) != "2" || string(e.Key) != "ben" || e.Seq != 2 {
		t.Errorf("the batch has %s (%v)", show(e), err)
	}
	if e, err := batch.BySeq(ctx, 2); err != nil || string(e.Key) != "ben" {
		t.Errorf("block 2 of the batch is %s (%v)", show(e), err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.Put(short, []byte("x"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a second writer: got %v, want %v", err, context.Canceled)
	}
	second := make(chan error)
	go func() { second <- b.Put(ctx, []byte("cat"), []byte("3")) }()
	must(t, batch.Flush())
	must(t, <-second)
	equal(t, "keys", keysOf(t, b.Range(ctx, Range{})), []string{"ann", "cat", "s\x00ben"})
	put(t, batch, "dan=4")
	batch.Close()
	if core.Length() != 4 {
		t.Errorf("length is %d, want 4: what is closed is not written", core.Length())
	}
	put(t, b, "eve=5")
}

// TestBatchOverOthers: a batch notices that something else has appended.
func TestBatchOverOthers(t *testing.T) {
	b, core := newBee(t)
	batch := b.Batch()
	put(t, batch, "ann=1")
	_, err := core.Append([]byte("foreign"))
	must(t, err)
	if err := batch.Flush(); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("flush: got %v, want %v", err, cloudpal.Busy)
	}
	if core.Length() != 2 {
		t.Errorf("length is %d, want 2", core.Length())
	}
}

func TestReadOnly(t *testing.T) {
	b, core := newBee(t)
	put(t, b, "ann=1")
	old := b.Snapshot()
	defer old.Close()
	for _, b := range []*Bee{old, old.Sub("s"), New(core, Options{ReadOnly: true})} {
		if err := b.Put(ctx, []byte("ben"), nil); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("put: got %v, want %v", err, cloudpal.Denied)
		}
	}
}

// TestTruncation: a bee whose log is cut and written anew shows the new
// entries, and its snapshots go on showing the old.
func TestTruncation(t *testing.T) {
	b, core := newBee(t)
	for i := range 100 {
		put(t, b, fmt.Sprintf("%03d=old", i))
	}
	old := b.Snapshot()
	defer old.Close()
	equal(t, "before", keysOf(t, b.Range(ctx, Range{Limit: 1})), []string{"000"})
	must(t, core.Truncate(51))
	if n := len(keysOf(t, b.Range(ctx, Range{}))); n != 50 {
		t.Errorf("the bee has %d keys after the cut, want 50", n)
	}
	for i := range 30 {
		put(t, b, fmt.Sprintf("%03d=new", i))
	}
	for i := range 50 {
		e, err := b.Get(ctx, fmt.Appendf(nil, "%03d", i))
		must(t, err)
		if want := map[bool]string{true: "new", false: "old"}[i < 30]; string(e.Value) != want {
			t.Errorf("key %d is %q, want %q", i, e.Value, want)
		}
	}
	all := collect(t, old.Range(ctx, Range{}))
	if len(all) != 100 || slices.ContainsFunc(all, func(s string) bool { return strings.HasSuffix(s, "new") }) {
		t.Errorf("the snapshot has %d entries: %v", len(all), all)
	}
	var changed int
	for d, err := range b.Diff(ctx, old, Range{}) {
		must(t, err)
		if changed++; string(d.Right.Value) != "old" || string(d.Left.Value) == "old" {
			t.Errorf("difference %s, %s", show(d.Left), show(d.Right))
		}
	}
	if changed != 80 {
		t.Errorf("%d keys differ, want 80", changed)
	}
}

// TestCut: what reads while the log is cut does not wait for what is gone.
func TestCut(t *testing.T) {
	b, core := newBee(t)
	done := make(chan error)
	go func() {
		for i := range 2000 {
			_, err := b.Get(ctx, fmt.Appendf(nil, "%03d", i%100))
			if err != nil && !errors.Is(err, cloudpal.NotExist) {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 20 {
		for i := range 20 {
			put(t, b, fmt.Sprintf("%03d=x", i))
		}
		must(t, core.Truncate(uint64(rand.IntN(10))))
	}
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("a reader hangs")
	}
}

func TestCheckoutOfSub(t *testing.T) {
	b, _ := newBee(t)
	put(t, b, "a=1", "z=1")
	put(t, b.Sub("s"), "b=1", "c=1")
	version := b.Version()
	put(t, b.Sub("s"), "d=1")
	old := b.Sub("s").Checkout(version)
	defer old.Close()
	equal(t, "old sub", keysOf(t, old.Range(ctx, Range{})), []string{"b", "c"})
	equal(t, "reverse", keysOf(t, b.Sub("s").Range(ctx, Range{Reverse: true, LTE: []byte("c")})), []string{"c", "b"})
	var history []string
	for o, err := range b.Sub("s").History(ctx, Span{Reverse: true, Limit: 2}) {
		must(t, err)
		history = append(history, string(o.Key))
	}
	equal(t, "history", history, []string{"d", "c"})
}

// TestVersionInBatch: there is none, and to ask for it ends.
func TestVersionInBatch(t *testing.T) {
	b, _ := newBee(t)
	batch := b.Batch()
	put(t, batch, "a=1", "b=2", "c=3")
	must(t, batch.Flush())
	old := b.Checkout(3)
	defer old.Close()
	if _, err := old.Get(ctx, []byte("a")); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("get: got %v, want %v", err, cloudpal.Corrupt)
	}
}

// TestWatch: only what is watched wakes the watcher, and it sees both sides of
// the change. A cut counts.
func TestWatch(t *testing.T) {
	b, core := newBee(t)
	put(t, b, "a=1", "m=1", "z=1")
	synctest.Test(t, func(t *testing.T) { watch(t, b, core) })
}

func watch(t *testing.T, b *Bee, core *hypercore.Core) {
	// All at once: who watches may else see a part of it.
	putAll := func(pairs ...string) func() {
		return func() {
			batch := b.Batch()
			put(t, batch, pairs...)
			must(t, batch.Flush())
		}
	}
	steps := []struct {
		do   func()
		want []string
	}{
		{putAll("a=2", "m=2"), []string{"4a=2", "5m=2", "3z=1"}},
		{func() { must(t, b.Delete(ctx, []byte("n"))); must(t, b.Delete(ctx, []byte("m"))) }, []string{"4a=2", "3z=1"}},
		{putAll("z=2", "a=3", "n=1"), []string{"8a=3", "9n=1", "7z=2"}},
		{func() { must(t, core.Truncate(2)) }, []string{"1a=1"}},
	}
	watching, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	go func() {
		synctest.Wait() // until there is somebody who watches
		steps[0].do()
	}()
	n := 0
	var last []string
	for c, err := range b.Watch(watching, Range{GTE: []byte("m"), LT: []byte("o")}) {
		must(t, err)
		now := collect(t, c.Current.Range(ctx, Range{}))
		equal(t, fmt.Sprint("after step ", n), now, steps[n].want)
		if n > 0 {
			equal(t, fmt.Sprint("before step ", n), collect(t, c.Previous.Range(ctx, Range{})), last)
		}
		last = now
		if n++; n == len(steps) {
			break
		}
		go steps[n].do()
	}
	if n != len(steps) {
		t.Errorf("%d changes, want %d", n, len(steps))
	}
}

func TestWatchKey(t *testing.T) {
	b, _ := newBee(t)
	steps := []func(){
		func() { put(t, b, "other=1", "k=1") },
		func() { put(t, b, "other=2"); must(t, b.Delete(ctx, []byte("k"))) },
		func() {},
	}
	watching, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	var got []string
	for e, err := range b.WatchKey(watching, []byte("k")) {
		must(t, err)
		got = append(got, show(e))
		if len(got) == len(steps) {
			break
		}
		go steps[len(got)-1]()
	}
	equal(t, "entries", got, []string{"0=none", "2k=1", "0=none"})
}

// TestWatchEnds: a watch ends with its context, and says so.
func TestWatchEnds(t *testing.T) {
	b, _ := newBee(t)
	short, stop := context.WithCancel(ctx)
	stop()
	for _, err := range b.Watch(short, Range{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	}
	for _, err := range New(new(list), Options{}).Watch(ctx, Range{}) {
		if !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("got %v, want %v", err, cloudpal.Invalid)
		}
	}
}

func TestLiveHistory(t *testing.T) {
	b, _ := newBee(t)
	put(t, b, "a=1")
	waiting, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	var got []string
	for o, err := range b.History(waiting, Span{Live: true, Limit: 3}) {
		must(t, err)
		if got = append(got, show(o.Entry)); len(got) == 1 {
			go put(t, b, "b=2", "c=3", "d=4")
		}
	}
	equal(t, "history", got, []string{"1a=1", "2b=2", "3c=3"})
}

// A courier is a reader's Fetcher: it brings each block with its proof from the
// writer, as a network would, and counts.
type courier struct {
	from, to *hypercore.Core
	brought  int
}

func (c *courier) Fetch(_ context.Context, index uint64) error {
	nodes, err := c.to.Missing(index)
	if err != nil {
		return err
	}
	proof, err := c.from.Prove(merkle.Request{Block: &merkle.NodeRequest{Index: index, Nodes: nodes}})
	if err != nil {
		return err
	}
	c.brought++
	_, err = c.to.Apply(proof)
	return err
}

func (c *courier) Update(context.Context) error {
	proof, err := c.from.Prove(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: c.to.Length(), Length: c.from.Length() - c.to.Length()}, Manifest: true})
	if err != nil {
		return err
	}
	_, err = c.to.Apply(proof)
	return err
}

func (c *courier) Seek(context.Context, uint64, uint64) error     { return cloudpal.Invalid }
func (c *courier) Download(context.Context, uint64, uint64) error { return cloudpal.Invalid }

// newReader returns a bee that has nothing but the writer's signature, and the
// courier that brings it what it asks for.
func newReader(t *testing.T, writer *hypercore.Core) (*Bee, *courier) {
	t.Helper()
	store := storage.Memory()
	core, err := hypercore.Open(store, writer.Key(), hypercore.Options{})
	must(t, err)
	c := &courier{from: writer, to: core}
	core.SetFetcher(c)
	_, err = core.Update(ctx)
	must(t, err)
	t.Cleanup(func() {
		core.Close()
		store.Close()
	})
	return New(core, Options{}), c
}

// TestSparse: a reader who has nothing reads the path to a key, not the log.
func TestSparse(t *testing.T) {
	b, writer := newBee(t)
	batch := b.Batch()
	for i := range 20000 {
		put(t, batch, fmt.Sprintf("%05d=%d", i*7919%20000, i))
		if i%100 == 99 {
			must(t, batch.Flush())
		}
	}
	cases := []struct {
		name string
		do   func(r *Bee)
		most int
	}{
		{"last key", func(r *Bee) {
			e, err := r.Get(ctx, fmt.Appendf(nil, "%05d", 19999*7919%20000))
			if must(t, err); string(e.Value) != "19999" {
				t.Errorf("got %s", show(e))
			}
		}, 1},
		{"some key", func(r *Bee) {
			e, err := r.Get(ctx, []byte("12345"))
			if must(t, err); string(e.Value) == "" {
				t.Errorf("got %s", show(e))
			}
		}, 7 * 4},
		{"ten keys", func(r *Bee) {
			if n := len(keysOf(t, r.Range(ctx, Range{GTE: []byte("10000"), Limit: 10}))); n != 10 {
				t.Errorf("got %d keys", n)
			}
		}, 7*4 + 20},
		{"diff of the last hundred", func(r *Bee) {
			old := r.Checkout(r.Version() - 100)
			defer old.Close()
			n := 0
			for _, err := range r.Diff(ctx, old, Range{}) {
				must(t, err)
				n++
			}
			if n != 100 {
				t.Errorf("%d keys differ, want 100", n)
			}
		}, 2000},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			reader, courier := newReader(t, writer)
			c.do(reader)
			if courier.brought > c.most {
				t.Errorf("%d of %d blocks were fetched, want at most %d", courier.brought, writer.Length(), c.most)
			}
			t.Logf("%d of %d blocks", courier.brought, writer.Length())
		})
	}
}
