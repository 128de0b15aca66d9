package hyperbee

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal"
)

var ctx = context.Background()

// A list is a Log in memory.
type list struct {
	mu     sync.Mutex
	blocks [][]byte
}

func (l *list) Length() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.blocks))
}

func (l *list) Fork() uint64 { return 0 }

func (l *list) Get(_ context.Context, i uint64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i >= uint64(len(l.blocks)) {
		return nil, cloudpal.NotExist
	}
	return l.blocks[i], nil
}

func (l *list) Append(blocks ...[]byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range blocks {
		l.blocks = append(l.blocks, slices.Clone(b))
	}
	return uint64(len(l.blocks)), nil
}

// A vector is a case of testdata/hyperbee.json, made by running the original.
type vector struct {
	Name    string
	Ops     json.RawMessage
	Entries []vectorEntry
	Blocks  []struct{ Hex string }

	RangeGteK05LtK15              []string
	RangeGtK05LteK15ReverseLimit3 []string
	History, HistoryReverseLimit3 []vectorEntry
	DiffAgainst20                 []struct{ Left, Right *vectorEntry }
	Checkout10Keys                []string

	BlockHashPrefixes []string
	LiveKeys          int
}

type vectorEntry struct {
	Type  string
	Seq   uint64
	Key   string
	Value *string
}

func (e vectorEntry) String() string {
	value := "none"
	if e.Value != nil {
		value = *e.Value
	}
	return fmt.Sprint(e.Seq, e.Key, "=", value)
}

func show(e Entry) string {
	value := "none"
	if e.Value != nil {
		value = string(e.Value)
	}
	return fmt.Sprint(e.Seq, string(e.Key), "=", value)
}

func readVector(t *testing.T, name string) (v vector) {
	t.Helper()
	raw, err := os.ReadFile("testdata/hyperbee.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Cases []json.RawMessage }
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	for _, raw := range all.Cases {
		var named struct{ Name string }
		if err := json.Unmarshal(raw, &named); err != nil {
			t.Fatal(err)
		}
		if named.Name != name {
			continue
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	t.Fatalf("no vector %q", name)
	return v
}

func (v vector) same(t *testing.T, l *list) {
	t.Helper()
	if len(l.blocks) != len(v.Blocks) {
		t.Fatalf("log has %d blocks, want %d", len(l.blocks), len(v.Blocks))
	}
	for i, b := range l.blocks {
		if got := hex.EncodeToString(b); got != v.Blocks[i].Hex {
			t.Errorf("block %d is\n%s, want\n%s", i, got, v.Blocks[i].Hex)
		}
	}
}

// writer is what Bee and Batch have in common.
type writer interface {
	Put(ctx context.Context, key, value []byte) error
	Delete(ctx context.Context, key []byte) error
}

func apply(t *testing.T, w writer, raw json.RawMessage) {
	t.Helper()
	var op []string
	must(t, json.Unmarshal(raw, &op))
	if op[0] == "del" {
		must(t, w.Delete(ctx, []byte(op[1])))
		return
	}
	must(t, w.Put(ctx, []byte(op[1]), []byte(op[2])))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func collect(t testing.TB, entries func(func(Entry, error) bool)) (got []string) {
	t.Helper()
	for e, err := range entries {
		must(t, err)
		got = append(got, show(e))
	}
	return got
}

func keysOf(t testing.TB, entries func(func(Entry, error) bool)) (got []string) {
	t.Helper()
	for e, err := range entries {
		must(t, err)
		got = append(got, string(e.Key))
	}
	return got
}

func texts2(entries []vectorEntry) (want []string) {
	for _, e := range entries {
		want = append(want, e.String())
	}
	return want
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is\n%s, want\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestVectorSingle(t *testing.T) {
	v := readVector(t, "puts and deletes one at a time")
	l := new(list)
	b := New(l, Options{})
	var ops []json.RawMessage
	must(t, json.Unmarshal(v.Ops, &ops))
	for _, op := range ops {
		apply(t, b, op)
	}
	v.same(t, l)
	equal(t, "range", collect(t, b.Range(ctx, Range{})), texts2(v.Entries))
	equal(t, "part", keysOf(t, b.Range(ctx, Range{GTE: []byte("k05"), LT: []byte("k15")})), v.RangeGteK05LtK15)
	equal(t, "reverse", keysOf(t, b.Range(ctx, Range{GT: []byte("k05"), LTE: []byte("k15"), Reverse: true, Limit: 3})), v.RangeGtK05LteK15ReverseLimit3)
	equal(t, "checkout", keysOf(t, b.Checkout(10).Range(ctx, Range{})), v.Checkout10Keys)
	for _, e := range v.Entries {
		got, err := b.Get(ctx, []byte(e.Key))
		must(t, err)
		if show(got) != e.String() {
			t.Errorf("get %q: got %s, want %s", e.Key, show(got), e)
		}
	}
	if _, err := b.Get(ctx, []byte("k00")); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("get of a deleted key: got %v, want %v", err, cloudpal.NotExist)
	}
}

func TestVectorBatches(t *testing.T) {
	v := readVector(t, "batches")
	l := new(list)
	b := New(l, Options{}).Batch()
	var ops []json.RawMessage
	must(t, json.Unmarshal(v.Ops, &ops))
	for _, op := range ops {
		if !strings.Contains(string(op), "flush") {
			apply(t, b, op)
			continue
		}
		before := collect(t, b.Range(ctx, Range{}))
		must(t, b.Flush())
		equal(t, "range before flush", before, collect(t, b.Range(ctx, Range{})))
	}
	v.same(t, l)
	equal(t, "range", collect(t, b.Range(ctx, Range{})), texts2(v.Entries))
}

func TestVectorSubs(t *testing.T) {
	v := readVector(t, "sub databases and header metadata")
	l := new(list)
	b := New(l, Options{Metadata: &Metadata{ContentFeed: bytes.Repeat([]byte{4}, 32), UserData: []byte("ud")}})
	must(t, b.Put(ctx, []byte("root"), []byte(`{"a":1}`)))
	must(t, b.Sub("users").Put(ctx, []byte("bob"), []byte(`{"id":1}`)))
	must(t, b.Sub("posts").Put(ctx, []byte("hello"), []byte("world")))
	must(t, b.Sub("users").SubSep("alice", []byte{1}).Put(ctx, []byte("x"), []byte("[1,2]")))
	v.same(t, l)
	equal(t, "sub", keysOf(t, b.Sub("users").Range(ctx, Range{})), []string{"alice\x01x", "bob"})
	h, err := b.Header(ctx)
	must(t, err)
	if h.Protocol != magic || string(h.Metadata.UserData) != "ud" || len(h.Metadata.ContentFeed) != 32 {
		t.Errorf("header is %v", h)
	}
}

// TestVectorLarge has only the blocks' hashes.
func TestVectorLarge(t *testing.T) {
	v := readVector(t, "large")
	l := new(list)
	b := New(l, Options{})
	for i := range 500 {
		must(t, b.Put(ctx, fmt.Append(nil, "key-", i*7919%1009), fmt.Append(nil, "value-", i)))
	}
	for i := 0; i < 500; i += 3 {
		must(t, b.Delete(ctx, fmt.Append(nil, "key-", i*7919%1009)))
	}
	batch := b.Batch()
	for i := range 500 {
		must(t, batch.Put(ctx, fmt.Append(nil, "bat-", i*31%509), fmt.Append(nil, "w", i)))
	}
	for i := 0; i < 500; i += 2 {
		must(t, batch.Delete(ctx, fmt.Append(nil, "bat-", i*31%509)))
	}
	must(t, batch.Flush())
	if len(v.BlockHashPrefixes) != len(l.blocks) {
		t.Fatalf("log has %d blocks, want %d", len(l.blocks), len(v.BlockHashPrefixes))
	}
	for i, block := range l.blocks {
		hash := blake2b.Sum256(block)
		if got := hex.EncodeToString(hash[:8]); got != v.BlockHashPrefixes[i] {
			t.Fatalf("block %d hashes to %s, want %s", i, got, v.BlockHashPrefixes[i])
		}
	}
	if n := len(keysOf(t, b.Range(ctx, Range{}))); n != v.LiveKeys {
		t.Errorf("bee has %d keys, want %d", n, v.LiveKeys)
	}
}
