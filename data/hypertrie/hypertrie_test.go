package hypertrie_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/hypertrie"
	"github.com/tradle/cloudpal/data/storage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

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

// blocks are a log in memory.
type blocks [][]byte

func (b *blocks) Length() uint64 { return uint64(len(*b)) }
func (b *blocks) Fork() uint64   { return 0 }
func (b *blocks) Append(more ...[]byte) (uint64, error) {
	for _, block := range more {
		*b = append(*b, bytes.Clone(block))
	}
	return b.Length(), nil
}

func (b *blocks) Get(_ context.Context, i uint64) ([]byte, error) {
	if i >= b.Length() {
		return nil, errors.New("a block is asked for that is not there")
	}
	return bytes.Clone((*b)[i]), nil
}

// keys lists keys.
func keys(t testing.TB, trie *hypertrie.Trie, prefix string, o hypertrie.List) (out []string) {
	t.Helper()
	for e, err := range trie.List(t.Context(), prefix, o) {
		must(t, err)
		out = append(out, e.Key)
	}
	return out
}

func TestKeys(t *testing.T) {
	trie := hypertrie.New(newCore(t), hypertrie.Options{})
	must(t, trie.Put(t.Context(), "/people/ann/", []byte("12")))
	for _, key := range []string{"people/ann", "/people/ann", "people/ann/", "/people/ann/"} {
		if e, err := trie.Get(t.Context(), key); err != nil || e.Key != "people/ann" || string(e.Value) != "12" || e.Seq != 1 {
			t.Errorf("get %q: got %+v, %v", key, e, err)
		}
	}
	// Each slash that is written before a key would be lost when it is read.
	must(t, trie.Put(t.Context(), "///of/slashes//", []byte("13")))
	for _, key := range []string{"of/slashes", "/of/slashes/", "//of/slashes", "///of/slashes//"} {
		if e, err := trie.Get(t.Context(), key); err != nil || e.Key != "of/slashes" || string(e.Value) != "13" {
			t.Errorf("get %q: got %+v, %v", key, e, err)
		}
	}
	for _, key := range []string{"people", "people/an", "people/ann/x", "people//ann", "ann"} {
		if e, err := trie.Get(t.Context(), key); !errors.Is(err, cloudpal.NotExist) {
			t.Errorf("get %q: got %+v, %v, want %v", key, e, err, cloudpal.NotExist)
		}
	}
	for _, key := range []string{"", "/", "//", "\xff", strings.Repeat("x", hypertrie.MaxKey+1)} {
		if err := trie.Put(t.Context(), key, nil); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("put: got %v, want %v", err, cloudpal.Invalid)
		}
	}
	if trie.Version() != 3 {
		t.Errorf("got version %d, want 3", trie.Version())
	}
}

func TestHeader(t *testing.T) {
	core := newCore(t)
	trie := hypertrie.New(core, hypertrie.Options{Header: hypertrie.Header{Metadata: []byte{1}, Subtype: "s"}})
	if trie.Version() != 1 || len(keys(t, trie, "", hypertrie.List{})) != 0 {
		t.Errorf("a new trie is not empty")
	}
	must(t, trie.Put(t.Context(), "a", nil))
	h, err := trie.Header(t.Context())
	if err != nil || h.Type != "hypertrie" || !bytes.Equal(h.Metadata, []byte{1}) || h.Subtype != "s" {
		t.Errorf("got %+v, %v", h, err)
	}
	other := blocks{[]byte("\x0a\x08hyperbee")}
	if _, err := hypertrie.New(&other, hypertrie.Options{}).Header(t.Context()); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
	}
}

func TestConditions(t *testing.T) {
	trie := hypertrie.New(newCore(t), hypertrie.Options{})
	ctx := t.Context()
	never := func(prev, next hypertrie.Entry) bool { return false }
	if done, err := trie.PutIf(ctx, hypertrie.Entry{Key: "a"}, never); done || err != nil || trie.Version() != 1 {
		t.Errorf("got %v, %v, version %d", done, err, trie.Version())
	}
	fresh := func(prev, next hypertrie.Entry) bool { return prev.Seq == 0 && next.Key == "a" && next.Seq == 1 }
	if done, err := trie.PutIf(ctx, hypertrie.Entry{Key: "a", Value: []byte("1"), Flags: 7}, fresh); !done || err != nil {
		t.Errorf("got %v, %v", done, err)
	}
	if done, err := trie.PutIf(ctx, hypertrie.Entry{Key: "a", Value: []byte("2")}, fresh); done || err != nil {
		t.Errorf("got %v, %v", done, err)
	}
	if done, err := trie.DeleteIf(ctx, "a", never); done || err != nil {
		t.Errorf("got %v, %v", done, err)
	}
	was := func(prev, next hypertrie.Entry) bool {
		return string(prev.Value) == "1" && prev.Flags == 7 && next.Key == "a"
	}
	if done, err := trie.DeleteIf(ctx, "a", was); !done || err != nil {
		t.Errorf("got %v, %v", done, err)
	}
	if done, err := trie.DeleteIf(ctx, "a", nil); done || err != nil {
		t.Errorf("got %v, %v", done, err)
	}
	if _, err := trie.PutIf(ctx, hypertrie.Entry{Key: "a", Flags: hypertrie.MaxFlags + 1}, nil); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("got %v, want %v", err, cloudpal.Invalid)
	}
}

func TestBatch(t *testing.T) {
	core := newCore(t)
	trie := hypertrie.New(core, hypertrie.Options{})
	b := trie.Batch()
	must(t, b.Put(t.Context(), "a", []byte("1")))
	must(t, b.Delete(t.Context(), "a"))
	must(t, b.Put(t.Context(), "b", []byte("2")))
	if e, err := b.Get(t.Context(), "b"); err != nil || string(e.Value) != "2" {
		t.Errorf("got %+v, %v", e, err)
	}
	if _, err := b.Get(t.Context(), "a"); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("got %v, want %v", err, cloudpal.NotExist)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := trie.Put(ended, "c", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a writer does not wait for the batch: %v", err)
	}
	if b.Len() != 3 || core.Length() != 0 {
		t.Errorf("got %d blocks, and %d in the log, want 3 and none", b.Len(), core.Length())
	}
	must(t, b.Flush())
	b.Close()
	if got := keys(t, trie, "", hypertrie.List{}); !slices.Equal(got, []string{"b"}) || core.Length() != 4 {
		t.Errorf("got %v, %d blocks, want [b], 4", got, core.Length())
	}
	given := trie.Batch()
	must(t, given.Put(t.Context(), "x", nil))
	given.Close()
	must(t, given.Flush())
	must(t, trie.Put(t.Context(), "y", nil))
	if got := keys(t, trie, "", hypertrie.List{}); len(got) != 2 || slices.Contains(got, "x") {
		t.Errorf("got %v, want b and y", got)
	}
	old := trie.Checkout(2)
	defer old.Close()
	if err := old.Put(t.Context(), "z", nil); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("got %v, want %v", err, cloudpal.Denied)
	}
}

// TestForeignWriter has somebody else write to the log while a batch is made.
func TestForeignWriter(t *testing.T) {
	log := &blocks{}
	trie := hypertrie.New(log, hypertrie.Options{})
	must(t, trie.Put(t.Context(), "a", nil))
	b := trie.Batch()
	must(t, b.Put(t.Context(), "b", nil))
	must(t, hypertrie.New(log, hypertrie.Options{}).Put(t.Context(), "c", nil))
	if err := b.Flush(); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
	}
}

func TestHiddenKeys(t *testing.T) {
	trie := hypertrie.New(newCore(t), hypertrie.Options{})
	hidden := trie.Hidden()
	must(t, trie.Put(t.Context(), "a", []byte("seen")))
	must(t, hidden.Put(t.Context(), "a", []byte("not seen")))
	must(t, hidden.Put(t.Context(), "b", nil))
	if got := keys(t, trie, "", hypertrie.List{}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %v, want [a]", got)
	}
	if got := keys(t, hidden, "", hypertrie.List{}); len(got) != 2 {
		t.Errorf("got %v, want a and b", got)
	}
	must(t, trie.Delete(t.Context(), "a"))
	if e, err := hidden.Get(t.Context(), "a"); err != nil || string(e.Value) != "not seen" {
		t.Errorf("got %+v, %v", e, err)
	}
}

// TestWatch is told of changes below a prefix, and of no others.
func TestWatch(t *testing.T) {
	trie := hypertrie.New(newCore(t), hypertrie.Options{})
	must(t, trie.Put(t.Context(), "a/1", nil))
	must(t, trie.Put(t.Context(), "b/1", nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := []func() error{
		func() error { return trie.Put(ctx, "a/2", nil) },
		func() error { return trie.Put(ctx, "a", nil) },
		func() error { return trie.Delete(ctx, "a/1") },
		func() error { cancel(); return nil },
	}
	told, release := make(chan uint64), make(chan struct{})
	go func() {
		defer close(told)
		for version, err := range trie.Watch(ctx, "a") {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			told <- version
			<-release
		}
	}()
	// The watcher begins when it will: write until it tells.
	for begun := false; !begun; {
		must(t, trie.Put(ctx, "a/0", nil))
		select {
		case <-told:
			begun = true
		default:
		}
	}
	for _, change := range changes {
		must(t, trie.Put(ctx, "b/2", nil))
		must(t, change())
		want := trie.Version()
		release <- struct{}{}
		for version := range told {
			if version == want {
				break
			}
			release <- struct{}{} // of what was written before it began
		}
	}
	if _, ok := <-told; ok {
		t.Error("told after the end")
	}
}

func TestHistoryLive(t *testing.T) {
	trie := hypertrie.New(newCore(t), hypertrie.Options{})
	must(t, trie.Put(t.Context(), "0", nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for e, err := range trie.History(ctx, hypertrie.Span{Live: true}) {
		if n == 5 {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %+v, %v, want %v", e, err, context.Canceled)
			}
			break
		}
		if err != nil || e.Key != fmt.Sprint(n) {
			t.Fatalf("got %+v, %v, want %d", e, err, n)
		}
		if n++; n == 5 {
			cancel()
			continue
		}
		must(t, trie.Put(t.Context(), fmt.Sprint(n), nil))
	}
}

// TestCutLog reads on when the log is truncated, and a snapshot does not notice.
func TestCutLog(t *testing.T) {
	core := newCore(t)
	trie := hypertrie.New(core, hypertrie.Options{})
	for i := range 20 {
		must(t, trie.Put(t.Context(), fmt.Sprint(i), nil))
	}
	snapshot, old := trie.Snapshot(), trie.Checkout(11)
	defer snapshot.Close()
	defer old.Close()
	must(t, core.Truncate(6))
	must(t, trie.Put(t.Context(), "new", nil))
	if got := keys(t, trie, "", hypertrie.List{}); len(got) != 6 || !slices.Contains(got, "new") {
		t.Errorf("got %v", got)
	}
	if got := keys(t, snapshot, "", hypertrie.List{}); len(got) != 20 {
		t.Errorf("the snapshot has %v", got)
	}
	if got := keys(t, old, "", hypertrie.List{}); len(got) != 10 {
		t.Errorf("the checkout has %v", got)
	}
}

// A model is what a trie should be.
type model map[string]string

func drawKey(t *rapid.T) string {
	part := rapid.StringMatching(`[a-d]{1,2}`) // five with the same last letter: so many may collide
	return strings.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "key"), "/")
}

// TestModel does random things to a trie and to a Go map.
func TestModel(t *testing.T) {
	for _, colliding := range []bool{false, true} {
		t.Run(fmt.Sprint("colliding ", colliding), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				trie := hypertrie.New(&blocks{}, hypertrie.Options{CacheNodes: rapid.IntRange(1, 50).Draw(rt, "cache")})
				if colliding {
					hypertrie.Colliding(trie)
				}
				versions := map[uint64]model{1: {}}
				now := model{}
				for range rapid.IntRange(0, 40).Draw(rt, "changes") {
					now.change(t.Context(), rt, trie)
					versions[trie.Version()] = maps.Clone(now)
				}
				now.check(rt, trie)
				numbers := slices.Sorted(maps.Keys(versions))
				a := rapid.SampledFrom(numbers).Draw(rt, "version")
				b := rapid.SampledFrom(numbers).Draw(rt, "other version")
				left, right := trie.Checkout(a), trie.Checkout(b)
				versions[a].check(rt, left)
				versions[a].checkDiff(rt, versions[b], left, right)
			})
		})
	}
}

// change does one thing to both.
func (m model) change(ctx context.Context, t *rapid.T, trie *hypertrie.Trie) {
	b := trie.Batch()
	for range rapid.IntRange(1, 4).Draw(t, "in one batch") {
		key := drawKey(t)
		if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
			_, had := m[key]
			if done, err := b.DeleteIf(ctx, key, nil); err != nil || done != had {
				t.Fatalf("delete %s: got %v, %v, want %v", key, done, err, had)
			}
			delete(m, key)
			continue
		}
		value := rapid.StringN(0, 4, -1).Draw(t, "value")
		if err := b.Put(ctx, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
		m[key] = value
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
}

// check compares all ways to read.
func (m model) check(t *rapid.T, trie *hypertrie.Trie) {
	ctx := context.Background()
	for key, value := range m {
		if e, err := trie.Get(ctx, key); err != nil || e.Key != key || string(e.Value) != value {
			t.Fatalf("get %s: got %+v, %v, want %q", key, e, err, value)
		}
	}
	if key := drawKey(t); m[key] == "" {
		if _, had := m[key]; !had {
			if e, err := trie.Get(ctx, key); !errors.Is(err, cloudpal.NotExist) {
				t.Fatalf("get %s: got %+v, %v", key, e, err)
			}
		}
	}
	prefix := ""
	if rapid.Bool().Draw(t, "with a prefix") {
		prefix = drawKey(t)
	}
	o := hypertrie.List{Below: rapid.Bool().Draw(t, "below"), Reverse: rapid.Bool().Draw(t, "reverse"), Shallow: rapid.Bool().Draw(t, "shallow")}
	var got []string
	for e, err := range trie.List(ctx, prefix, o) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, shown(e.Key, prefix, o))
	}
	if want := m.list(prefix, o); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Fatalf("list %q, %+v: got %v, want %v", prefix, o, got, want)
	}
}

// shown is a key, or in a shallow list the part after the prefix.
func shown(key, prefix string, o hypertrie.List) string {
	if !o.Shallow || key == prefix {
		return key
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(key, prefix), "/")
	part, _, _ := strings.Cut(rest, "/")
	return strings.TrimPrefix(prefix+"/"+part, "/")
}

func (m model) list(prefix string, o hypertrie.List) []string {
	out := map[string]bool{}
	for key := range m {
		if (key == prefix && !o.Below) || prefix == "" || strings.HasPrefix(key, prefix+"/") {
			out[shown(key, prefix, o)] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// checkDiff checks that all that differs is told, with what it was and is, and
// that what is told beyond was only written again.
func (m model) checkDiff(t *rapid.T, other model, left, right *hypertrie.Trie) {
	told := map[string]bool{}
	for d, err := range left.Diff(context.Background(), right, "") {
		if err != nil {
			t.Fatal(err)
		}
		if told[d.Key] || d.Left.Seq == d.Right.Seq {
			t.Fatalf("told %+v", d)
		}
		told[d.Key] = true
		l, inLeft := m[d.Key]
		r, inRight := other[d.Key]
		if inLeft != (d.Left.Seq != 0) || inRight != (d.Right.Seq != 0) || l != string(d.Left.Value) || r != string(d.Right.Value) {
			t.Fatalf("told %+v of %q and %q", d, l, r)
		}
	}
	for _, key := range append(slices.Collect(maps.Keys(m)), slices.Collect(maps.Keys(other))...) {
		l, inLeft := m[key]
		r, inRight := other[key]
		if (l != r || inLeft != inRight) && !told[key] {
			t.Fatalf("%s differs, and is not told", key)
		}
	}
}

// FuzzNode decodes any block.
func FuzzNode(f *testing.F) {
	log := &blocks{}
	trie := hypertrie.New(log, hypertrie.Options{})
	for _, key := range []string{"a", "a/b", "c", "a/d"} {
		must(f, trie.Put(f.Context(), key, []byte(key)))
	}
	must(f, trie.Delete(f.Context(), "c"))
	for i, block := range *log {
		f.Add(block, uint64(i))
	}
	f.Fuzz(func(t *testing.T, raw []byte, seq uint64) {
		out, err := hypertrie.DecodeNode(raw, seq)
		if err != nil && !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
		}
		if err != nil || out == nil {
			return
		}
		again, err := hypertrie.DecodeNode(out, seq)
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("%x is decoded to %x, and that to %x, %v", raw, out, again, err)
		}
	})
}

// FuzzLog changes blocks of a log at random: every operation ends, with an
// answer or with Corrupt.
func FuzzLog(f *testing.F) {
	good := &blocks{}
	trie := hypertrie.Colliding(hypertrie.New(good, hypertrie.Options{}))
	for i := range 30 {
		must(f, trie.Put(f.Context(), fmt.Sprintf("%c/%d", 'a'+i%3, i), nil))
	}
	must(f, trie.Delete(f.Context(), "a/3"))
	f.Add([]byte{3, 7, 1, 200, 30, 9, 4, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, changes []byte) {
		log := make(blocks, len(*good))
		for i, block := range *good {
			log[i] = bytes.Clone(block)
		}
		for ; len(changes) >= 3; changes = changes[3:] {
			block := log[int(changes[0])%len(log)]
			block[int(changes[1])%len(block)] ^= changes[2]
		}
		trie := hypertrie.Colliding(hypertrie.New(&log, hypertrie.Options{}))
		check := func(err error) {
			if err != nil && !errors.Is(err, cloudpal.Corrupt) && !errors.Is(err, cloudpal.NotExist) {
				t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
			}
		}
		listed := 0
		for _, err := range trie.List(t.Context(), "", hypertrie.List{}) {
			check(err)
			if listed++; listed > len(log) {
				t.Fatal("more is listed than there are blocks")
			}
		}
		for _, err := range trie.Diff(t.Context(), trie.Checkout(12), "") {
			check(err)
		}
		_, err := trie.Get(t.Context(), "b/4")
		check(err)
		check(trie.Delete(t.Context(), "b/4"))
		check(trie.Put(t.Context(), "b/5", nil))
	})
}

func BenchmarkPut(b *testing.B) {
	trie := hypertrie.New(newCore(b), hypertrie.Options{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		must(b, trie.Put(b.Context(), fmt.Sprintf("people/%d", i), []byte("value")))
	}
}

func BenchmarkGet(b *testing.B) {
	trie := hypertrie.New(newCore(b), hypertrie.Options{})
	batch := trie.Batch()
	const n = 10000
	for i := range n {
		must(b, batch.Put(b.Context(), fmt.Sprintf("people/%d", i), []byte("value")))
	}
	must(b, batch.Flush())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, err := trie.Get(b.Context(), fmt.Sprintf("people/%d", i*7919%n))
		must(b, err)
	}
}

func Example() {
	ctx := context.Background()
	store := storage.Memory()
	defer store.Close()
	core, err := hypercore.Create(store, hypercore.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer core.Close()

	trie := hypertrie.New(core, hypertrie.Options{})
	for _, key := range []string{"people/ann", "people/bob", "places/here"} {
		if err := trie.Put(ctx, key, []byte("first")); err != nil {
			fmt.Println(err)
			return
		}
	}
	before := trie.Snapshot()
	defer before.Close()
	if err := trie.Put(ctx, "people/ann", []byte("second")); err != nil {
		fmt.Println(err)
		return
	}

	for e, err := range trie.List(ctx, "people", hypertrie.List{}) {
		fmt.Println(e.Key, string(e.Value), err)
	}
	for d, err := range trie.Diff(ctx, before, "") {
		fmt.Println(d.Key, "was", string(d.Right.Value), "and is", string(d.Left.Value), err)
	}
	// Output:
	// people/ann second <nil>
	// people/bob first <nil>
	// people/ann was first and is second <nil>
}
