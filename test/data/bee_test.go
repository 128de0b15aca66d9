package data_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/hypercore"
)

// A change of a bee; without a value it deletes the key.
type change struct {
	key   string
	value []byte
}

// changes are random ones over not too many keys, so that many are set again
// and deleted.
func changes(rng *rand.Rand, n int) (all []change) {
	for range n {
		c := change{key: fmt.Sprintf("key %03d", rng.IntN(300))}
		if rng.IntN(4) > 0 {
			c.value = fmt.Appendf(nil, "value %d", rng.IntN(1000))
		}
		all = append(all, c)
	}
	return all
}

// apply does them to a map.
func apply(m map[string]string, all []change) {
	for _, c := range all {
		if c.value == nil {
			delete(m, c.key)
		} else {
			m[c.key] = string(c.value)
		}
	}
}

// ourChanges does them to our bee, a third of them one by one.
func ourChanges(t testing.TB, bee *hyperbee.Bee, all []change) {
	t.Helper()
	ctx := context.Background()
	single := len(all) / 3
	for _, c := range all[:single] {
		if c.value == nil {
			must(t, bee.Delete(ctx, []byte(c.key)))
		} else {
			must(t, bee.Put(ctx, []byte(c.key), c.value))
		}
	}
	b := bee.Batch()
	defer b.Close()
	for _, c := range all[single:] {
		if c.value == nil {
			must(t, b.Delete(ctx, []byte(c.key)))
		} else {
			must(t, b.Put(ctx, []byte(c.key), c.value))
		}
	}
	must(t, b.Flush())
}

// theirChanges does them to the original's.
func theirChanges(p *peer, name string, all []change) {
	single := len(all) / 3
	for _, c := range all[:single] {
		if c.value == nil {
			p.do("del", q{"on": name, "key": []byte(c.key)})
		} else {
			p.do("put", q{"on": name, "key": []byte(c.key), "value": c.value})
		}
	}
	var entries []q
	for _, c := range all[single:] {
		entries = append(entries, q{"key": []byte(c.key), "value": c.value})
	}
	p.do("batch", q{"on": name, "entries": entries})
}

// An entry as the peer tells it.
type entry struct {
	Seq   uint64
	Key   []byte
	Value []byte
	Type  string
}

func (e entry) String() string { return fmt.Sprintf("%d %q=%q %s", e.Seq, e.Key, e.Value, e.Type) }

func theirEntries(p *peer, name string, args q) []string {
	p.t.Helper()
	args["on"] = name
	var all []string
	for _, e := range ask[struct{ Entries []entry }](p, "entries", args).Entries {
		all = append(all, e.String())
	}
	return all
}

func ourEntries(t testing.TB, bee *hyperbee.Bee, r hyperbee.Range) []string {
	t.Helper()
	var all []string
	for e, err := range bee.Range(soon(t), r) {
		must(t, err)
		all = append(all, entry{Seq: e.Seq, Key: e.Key, Value: e.Value}.String())
	}
	return all
}

// ourMap and theirMap are all that a bee has.
func ourMap(t testing.TB, bee *hyperbee.Bee) map[string]string {
	t.Helper()
	m := map[string]string{}
	for e, err := range bee.Range(soon(t), hyperbee.Range{}) {
		must(t, err)
		m[string(e.Key)] = string(e.Value)
	}
	return m
}

func theirMap(p *peer, name string) map[string]string {
	p.t.Helper()
	m := map[string]string{}
	for _, e := range ask[struct{ Entries []entry }](p, "entries", q{"on": name}).Entries {
		m[string(e.Key)] = string(e.Value)
	}
	return m
}

func sameMap(t testing.TB, who string, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s has %d entries that are not the %d wanted", who, len(got), len(want))
	}
}

// TestBee has one bee written by both kinds in turn, out of one primary key, and
// everything asked of it that both can answer.
func TestBee(t *testing.T) {
	primary := corestore.PrimaryKey{5}
	us, them := openOurs(t, t.TempDir(), &primary), startPeer(t)
	them.do("store", q{"as": "store", "dir": t.TempDir(), "primaryKey": hex.EncodeToString(primary[:])})
	log := us.log("bee")
	bee := hyperbee.New(log, hyperbee.Options{})
	them.do("core", q{"as": "log", "on": "store", "name": "bee"})
	them.do("bee", q{"as": "bee", "on": "log"})
	them.do("follow", q{"on": "log"})
	us.dial(them.listen("store"))
	them.do("peers", q{"on": "log", "count": 1})

	rng := rand.New(rand.NewPCG(6, 7))
	want := map[string]string{}
	versions := map[uint64]map[string]string{}
	for turn := range 8 {
		all := changes(rng, 90)
		apply(want, all)
		if turn%2 == 0 {
			ourChanges(t, bee, all)
			them.wait("log", log.Length(), 0, true)
		} else {
			theirChanges(them, "bee", all)
			await(t, log, ask[coreInfo](them, "info", q{"on": "log"}).Length, 0, true)
		}
		versions[bee.Version()] = maps.Clone(want)
		sameMap(t, "our bee", ourMap(t, bee), want)
		sameMap(t, "JavaScript's", theirMap(them, "bee"), want)
		if h := them.treeHash("log", log.Length()); h != hashOf(log) {
			t.Fatalf("tree hashes differ: JavaScript's %s, ours %s", h, hashOf(log))
		}
	}
	sameRanges(t, bee, them)
	sameHistory(t, bee, them)
	for v, then := range versions {
		name := fmt.Sprint("at", v)
		them.do("checkout", q{"as": name, "on": "bee", "version": v})
		sameMap(t, "our checkout", ourMap(t, bee.Checkout(v)), then)
		sameMap(t, "JavaScript's checkout", theirMap(them, name), then)
		sameDiff(t, bee, them, v)
	}
}

func sameRanges(t *testing.T, bee *hyperbee.Bee, them *peer) {
	for _, r := range []struct {
		ours   hyperbee.Range
		theirs q
	}{
		{hyperbee.Range{}, q{}},
		{hyperbee.Range{Reverse: true}, q{"reverse": true}},
		{hyperbee.Range{Limit: 7}, q{"limit": 7}},
		{hyperbee.Range{GTE: []byte("key 100"), LT: []byte("key 200")}, q{"gte": []byte("key 100"), "lt": []byte("key 200")}},
		{hyperbee.Range{GT: []byte("key 100"), LTE: []byte("key 200"), Reverse: true, Limit: 9}, q{"gt": []byte("key 100"), "lte": []byte("key 200"), "reverse": true, "limit": 9}},
		{hyperbee.Range{GT: []byte("z")}, q{"gt": []byte("z")}},
	} {
		ours, theirs := ourEntries(t, bee, r.ours), theirEntries(them, "bee", r.theirs)
		if !slices.Equal(ours, theirs) {
			t.Errorf("range %v: ours %d entries, JavaScript's %d, or not the same", r.theirs, len(ours), len(theirs))
		}
	}
	for i := range 300 {
		key := fmt.Appendf(nil, "key %03d", i)
		theirs := ask[struct{ Entry *entry }](them, "lookup", q{"on": "bee", "key": key}).Entry
		ours, err := bee.Get(soon(t), key)
		if theirs == nil != (err != nil) {
			t.Errorf("%s: JavaScript %v, we %v", key, theirs, err)
		} else if theirs != nil && (theirs.Seq != ours.Seq || !bytes.Equal(theirs.Value, ours.Value)) {
			t.Errorf("%s: JavaScript %v, we %v", key, theirs, ours)
		}
	}
}

func sameHistory(t *testing.T, bee *hyperbee.Bee, them *peer) {
	theirs := ask[struct{ Entries []entry }](them, "history", q{"on": "bee"}).Entries
	i := 0
	for h, err := range bee.History(soon(t), hyperbee.Span{}) {
		must(t, err)
		kind := map[bool]string{true: "del", false: "put"}[h.Deleted]
		got := entry{h.Seq, h.Key, h.Value, kind}.String()
		if i >= len(theirs) || got != theirs[i].String() {
			t.Fatalf("history, at %d: ours %s, JavaScript's differs", i, got)
		}
		i++
	}
	if i != len(theirs) {
		t.Errorf("our history has %d changes, JavaScript's %d", i, len(theirs))
	}
}

func sameDiff(t *testing.T, bee *hyperbee.Bee, them *peer, since uint64) {
	t.Helper()
	theirs := ask[struct {
		Changes []struct{ Left, Right *entry }
	}](them, "diff", q{"on": "bee", "version": since}).Changes
	var want, got []string
	text := func(e *entry) string {
		if e == nil {
			return "-"
		}
		return e.String()
	}
	for _, c := range theirs {
		want = append(want, text(c.Left)+" <- "+text(c.Right))
	}
	of := func(e hyperbee.Entry) *entry {
		if e.Seq == 0 {
			return nil
		}
		return &entry{Seq: e.Seq, Key: e.Key, Value: e.Value}
	}
	for d, err := range bee.Diff(soon(t), bee.Checkout(since), hyperbee.Range{}) {
		must(t, err)
		got = append(got, text(of(d.Left))+" <- "+text(of(d.Right)))
	}
	if !slices.Equal(got, want) {
		t.Errorf("what changed since %d: ours has %d, JavaScript's %d, or not the same", since, len(got), len(want))
	}
}

// TestSparseBee reads a few keys of a large bee that is elsewhere: only the way
// to them comes.
func TestSparseBee(t *testing.T) {
	const keys = 4000
	us, them := newOurs(t), theirStore(t)
	info := ask[coreInfo](them, "core", q{"as": "theirs", "on": "store", "name": "bee"})
	them.do("bee", q{"as": "bee", "on": "theirs"})
	log := us.log("bee")
	mine := hyperbee.New(log, hyperbee.Options{})
	b := mine.Batch()
	defer b.Close()
	var entries []q
	for i := range keys {
		key, value := fmt.Appendf(nil, "key %04d", i*7919%keys), fmt.Appendf(nil, "value %d", i)
		must(t, b.Put(context.Background(), key, value))
		entries = append(entries, q{"key": key, "value": value})
	}
	must(t, b.Flush())
	them.do("batch", q{"on": "bee", "entries": entries})
	if info := ask[coreInfo](them, "info", q{"on": "theirs"}); info.Length != log.Length() {
		t.Fatalf("JavaScript's bee has %d blocks, ours %d", info.Length, log.Length())
	}
	them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
	them.do("bee", q{"as": "far", "on": "log"})
	farLog := us.theirs(info.Key)
	far := hyperbee.New(farLog, hyperbee.Options{})
	us.dial(them.listen("store"))
	await(t, farLog, keys+1, 0, false)
	them.wait("log", keys+1, 0, false)
	for _, i := range []int{0, 17, 3999} {
		key, want := fmt.Appendf(nil, "key %04d", i*7919%keys), fmt.Sprintf("value %d", i)
		e, err := far.Get(soon(t), key)
		if err != nil || string(e.Value) != want {
			t.Errorf("we read %q (%v), want %q", e.Value, err, want)
		}
		if got := ask[struct{ Entry *entry }](them, "lookup", q{"on": "far", "key": key}).Entry; got == nil || string(got.Value) != want {
			t.Errorf("JavaScript reads %v, want %q", got, want)
		}
	}
	got := 0
	for i := range farLog.Length() {
		if farLog.Has(i) {
			got++
		}
	}
	if got > 40 {
		t.Errorf("three keys took %d of %d blocks", got, farLog.Length())
	}
}

// TestHints has one side tell the other which blocks it will need.
func TestHints(t *testing.T) {
	const keys = 1000
	us, them := newOurs(t), theirStore(t)
	ctx := context.Background()
	info := ask[coreInfo](them, "core", q{"as": "theirs", "on": "store", "name": "bee"})
	them.do("bee", q{"as": "bee", "on": "theirs"})
	log := us.log("bee")
	mine := hyperbee.New(log, hyperbee.Options{})
	b := mine.Batch()
	defer b.Close()
	var entries []q
	for i := range keys {
		key := fmt.Appendf(nil, "key %04d", i*7919%keys)
		must(t, b.Put(ctx, key, []byte("x")))
		entries = append(entries, q{"key": key, "value": []byte("x")})
	}
	must(t, b.Flush())
	them.do("batch", q{"on": "bee", "entries": entries})
	them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
	farLog := us.theirs(info.Key)
	far := hyperbee.New(farLog, hyperbee.Options{})
	hint(t, us, mine, log)
	hint(t, us, far, farLog)
	us.dial(them.listen("store"))
	await(t, farLog, keys+1, 0, false)
	them.wait("log", keys+1, 0, false)

	// JavaScript asks, we tell.
	e, err := mine.Get(ctx, []byte("key 0123"))
	must(t, err)
	type told struct{ Blocks []uint64 }
	way := ask[told](them, "hints", q{"on": "log", "version": keys + 1, "key": []byte("key 0123"), "count": 4}).Blocks
	if !slices.Contains(way, e.Seq) || !slices.Contains(way, keys) || len(way) > 40 {
		t.Errorf("of a key in block %d we tell JavaScript of %v", e.Seq, way)
	}
	part := ask[told](them, "hints", q{"on": "log", "range": q{
		"version": keys + 1, "gte": []byte("key 0100"), "lt": []byte("key 0200"), "reverse": true,
	}, "count": 100}).Blocks
	// We ask, JavaScript tells.
	r := hyperbee.Range{GTE: []byte("key 0100"), LT: []byte("key 0200")}
	for e, err := range far.Range(soon(t), r) {
		must(t, err)
		if string(e.Key) != "key 0100" {
			t.Errorf("the first key is %q", e.Key)
		}
		break
	}
	for e, err := range mine.Range(ctx, r) { // as theirs, block for block
		must(t, err)
		if !slices.Contains(part, e.Seq) {
			t.Errorf("of the range we do not tell JavaScript of block %d", e.Seq)
		}
		until(t, "what JavaScript told us of", func() bool { return farLog.Has(e.Seq) })
	}
	if farLog.Info().Blocks == keys+1 {
		t.Error("all blocks came")
	}
}

// hint has a bee of our store hint.
func hint(t testing.TB, us *ours, b *hyperbee.Bee, log *hypercore.Core) {
	t.Helper()
	r, ok := us.Replicator(log)
	if !ok {
		t.Fatal("the store does not replicate the log")
	}
	t.Cleanup(b.ShareHints(r))
}

// TestSubBee has parts of a bee that have a name.
func TestSubBee(t *testing.T) {
	us, them := newOurs(t), theirStore(t)
	log := us.log("bee")
	bee := hyperbee.New(log, hyperbee.Options{})
	ctx := context.Background()
	sub := bee.Sub("people").Sub("old")
	must(t, bee.Put(ctx, []byte("a"), []byte("top")))
	must(t, sub.Put(ctx, []byte("ann"), []byte("81")))
	must(t, sub.Put(ctx, []byte("bob"), []byte("78")))
	them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
	them.do("bee", q{"as": "bee", "on": "log"})
	them.do("sub", q{"as": "people", "on": "bee", "name": "people"})
	them.do("sub", q{"as": "old", "on": "people", "name": "old"})
	them.dial(us.listen(), "store")
	them.wait("log", 4, 0, false)
	if got, want := theirEntries(them, "old", q{}), ourEntries(t, sub, hyperbee.Range{}); !slices.Equal(got, want) {
		t.Errorf("JavaScript's part has %v, ours %v", got, want)
	}
	if got := theirEntries(them, "bee", q{}); len(got) != 3 {
		t.Errorf("JavaScript's whole has %v", got)
	}
}
