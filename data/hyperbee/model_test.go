package hyperbee

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/storage"
)

// A model is what a bee is meant to be: a map, kept for each version, and the
// list of what was done.
type model struct {
	bee  *Bee
	core *hypercore.Core

	now      map[string]string // key to "seq value"
	versions map[uint64]map[string]string
	history  []string // by block, from 1
	keys     *rapid.Generator[string]
	batching bool
}

func newModel(t *rapid.T, store *storage.Store) *model {
	core, err := hypercore.Create(store, hypercore.Options{})
	check(t, err)
	o := Options{SkipEqual: rapid.Bool().Draw(t, "skip equal")}
	if rapid.Bool().Draw(t, "tiny cache") {
		o.CacheBytes = 2000
	}
	n := rapid.SampledFrom([]int{3, 30, 300}).Draw(t, "keys")
	return &model{
		bee: New(core, o), core: core,
		now:      map[string]string{},
		versions: map[uint64]map[string]string{1: {}},
		keys:     rapid.Map(rapid.IntRange(0, n), func(i int) string { return fmt.Sprintf("%.*x", i%3, i*2654435761) + string(rune('a'+i%7)) }),
	}
}

func check(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func describe(e Entry) string { return fmt.Sprintf("%d %q %v", e.Seq, e.Value, e.Value == nil) }

// set and unset do to the model what was done to the bee as block seq.
func (m *model) set(seq uint64, k string, v []byte) {
	e := Entry{seq, []byte(k), v}
	m.now[k] = describe(e)
	what := "put "
	if m.batching && v == nil {
		what = "any " // the format does not tell
	}
	m.history = append(m.history, what+k+" "+describe(e))
}

func (m *model) unset(seq uint64, k string) {
	delete(m.now, k)
	m.history = append(m.history, "del "+k+" "+describe(Entry{Seq: seq}))
}

func (m *model) keep() { m.versions[m.bee.Version()] = maps.Clone(m.now) }

func drawValue(t *rapid.T) []byte {
	switch n := rapid.IntRange(-2, 3).Draw(t, "value"); n {
	case -2:
		return nil
	case -1:
		return []byte{}
	default:
		return fmt.Append(nil, n)
	}
}

// write makes one random change, of a bee or a batch whose next block is seq,
// and reports whether it is to be written.
func (m *model) write(t *rapid.T, w conditional, seq uint64) bool {
	k := m.keys.Draw(t, "key")
	old, there := m.now[k]
	allow := rapid.IntRange(0, 4).Draw(t, "allow") > 0
	asked := false
	swap := func(prev, next Entry) bool {
		asked = true
		if describe(prev) != old || next.Seq != seq || string(next.Key) != k || string(prev.Key) != k {
			t.Fatalf("swap of %q at %d sees %s and %s, want %s", k, seq, show(prev), show(next), old)
		}
		return allow
	}
	if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
		done, err := w.DeleteIf(ctx, []byte(k), swap)
		check(t, err)
		if done != (there && allow) || asked != there {
			t.Fatalf("delete of %q: done %v, asked %v; it is there: %v, allowed: %v", k, done, asked, there, allow)
		}
		if done {
			m.unset(seq, k)
		}
		return done
	}
	v := drawValue(t)
	done, err := w.PutIf(ctx, []byte(k), v, swap)
	check(t, err)
	same := there && m.bee.tree.skipEqual && sameText(old, v)
	if done != (!there || (allow && !same)) || asked != there {
		t.Fatalf("put of %q: done %v, asked %v; it is there: %v, allowed: %v, the same: %v", k, done, asked, there, allow, same)
	}
	if done {
		m.set(seq, k, v)
	}
	return done
}

// sameText reports whether the value of what describe made is v.
func sameText(described string, v []byte) bool {
	_, rest, _ := bytes.Cut([]byte(described), []byte(" "))
	return string(rest) == fmt.Sprintf("%q %v", v, v == nil)
}

func (m *model) Change(t *rapid.T) {
	m.write(t, m.bee, max(1, m.core.Length()))
	m.keep()
}

func (m *model) Batch(t *rapid.T) {
	b := m.bee.Batch()
	before, kept := maps.Clone(m.now), len(m.history)
	check(t, b.Lock(ctx))
	m.batching = true
	defer func() { m.batching = false }()
	seq := m.core.Length()
	for range rapid.IntRange(0, 30).Draw(t, "changes") {
		if m.write(t, b, seq) {
			seq++
		}
		k := m.keys.Draw(t, "read")
		m.expect(t, k, m.now)(b.Get(ctx, []byte(k)))
	}
	m.sameRange(t, b, m.now)
	if rapid.IntRange(0, 4).Draw(t, "give up") == 0 {
		b.Close()
		m.now, m.history = before, m.history[:kept]
		return
	}
	check(t, b.Flush())
	m.keep()
}

// expect checks what Get of k returned.
func (m *model) expect(t *rapid.T, k string, in map[string]string) func(Entry, error) {
	return func(e Entry, err error) {
		want, there := in[k]
		if !there && errors.Is(err, cloudpal.NotExist) {
			return
		}
		check(t, err)
		if !there || describe(e) != want || string(e.Key) != k {
			t.Fatalf("get %q is %s, want %s (%v)", k, describe(e), want, there)
		}
	}
}

func (m *model) Get(t *rapid.T) {
	k := m.keys.Draw(t, "key")
	m.expect(t, k, m.now)(m.bee.Get(ctx, []byte(k)))
}

func (m *model) Range(t *rapid.T) { m.sameRange(t, m.bee, m.now) }

func (m *model) drawRange(t *rapid.T) (r Range) {
	bounds := []*[]byte{nil, &r.GT, &r.GTE}
	if p := bounds[rapid.IntRange(0, 2).Draw(t, "low")]; p != nil {
		*p = []byte(m.keys.Draw(t, "from"))
	}
	bounds = []*[]byte{nil, &r.LT, &r.LTE}
	if p := bounds[rapid.IntRange(0, 2).Draw(t, "high")]; p != nil {
		*p = []byte(m.keys.Draw(t, "to"))
	}
	r.Reverse = rapid.Bool().Draw(t, "reverse")
	r.Limit = rapid.IntRange(0, 5).Draw(t, "limit")
	return r
}

func inRange(r Range, k string) bool {
	return (r.GT == nil || k > string(r.GT)) && (r.GTE == nil || k >= string(r.GTE)) &&
		(r.LT == nil || k < string(r.LT)) && (r.LTE == nil || k <= string(r.LTE))
}

// keysIn are the keys in a range, in its order.
func keysIn[V any](r Range, in map[string]V) (keys []string) {
	keys = slices.Sorted(maps.Keys(in))
	keys = slices.DeleteFunc(keys, func(k string) bool { return !inRange(r, k) })
	if r.Reverse {
		slices.Reverse(keys)
	}
	if r.Limit > 0 && len(keys) > r.Limit {
		keys = keys[:r.Limit]
	}
	return keys
}

func (m *model) sameRange(t *rapid.T, s Store, in map[string]string) {
	r := m.drawRange(t)
	var got, want []string
	for e, err := range s.Range(ctx, r) {
		check(t, err)
		got = append(got, string(e.Key)+" "+describe(e))
	}
	for _, k := range keysIn(r, in) {
		want = append(want, k+" "+in[k])
	}
	if !slices.Equal(got, want) {
		t.Fatalf("range %+v is\n%q, want\n%q", r, got, want)
	}
}

func (m *model) drawVersion(t *rapid.T) uint64 {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.versions))).Draw(t, "version")
}

func (m *model) Checkout(t *rapid.T) {
	version := m.drawVersion(t)
	old := m.bee.Checkout(version)
	defer old.Close()
	m.sameRange(t, old, m.versions[version])
	k := m.keys.Draw(t, "key")
	m.expect(t, k, m.versions[version])(old.Get(ctx, []byte(k)))
}

func (m *model) Diff(t *rapid.T) {
	l, r := m.drawVersion(t), m.drawVersion(t)
	left, right := m.bee.Checkout(l), m.bee.Checkout(r)
	defer left.Close()
	defer right.Close()
	within := m.drawRange(t)
	within.Reverse = false
	differing := map[string]string{}
	for k := range m.versions[l] {
		differing[k] = m.versions[l][k] + " | " + m.versions[r][k]
	}
	for k := range m.versions[r] {
		differing[k] = m.versions[l][k] + " | " + m.versions[r][k]
	}
	maps.DeleteFunc(differing, func(k, _ string) bool { return m.versions[l][k] == m.versions[r][k] })
	var got, want []string
	for d, err := range left.Diff(ctx, right, within) {
		check(t, err)
		got = append(got, describeDifference(d))
	}
	for _, k := range keysIn(within, differing) {
		want = append(want, k+" "+differing[k])
	}
	if !slices.Equal(got, want) {
		t.Fatalf("diff of %d and %d in %+v is\n%q, want\n%q", l, r, within, got, want)
	}
}

func describeDifference(d Difference) string {
	key, left, right := d.Left.Key, "", ""
	if d.Left.Seq > 0 {
		left = describe(d.Left)
	}
	if d.Right.Seq > 0 {
		key, right = d.Right.Key, describe(d.Right)
	}
	return string(key) + " " + left + " | " + right
}

func (m *model) History(t *rapid.T) {
	s := Span{
		Since:   uint64(rapid.IntRange(0, len(m.history)+2).Draw(t, "since")),
		Until:   uint64(rapid.IntRange(0, len(m.history)+2).Draw(t, "until")),
		Reverse: rapid.Bool().Draw(t, "reverse"),
		Limit:   rapid.IntRange(0, 5).Draw(t, "limit"),
	}
	from, to := max(1, s.Since), uint64(len(m.history)+1)
	if s.Until > 0 {
		to = min(to, s.Until)
	}
	var got, want []string
	for o, err := range m.bee.History(ctx, s) {
		check(t, err)
		what := "put "
		if o.Deleted {
			what = "del "
		}
		got = append(got, what+string(o.Key)+" "+describe(o.Entry))
	}
	if from < to {
		want = slices.Clone(m.history[from-1 : to-1])
	}
	if s.Reverse {
		slices.Reverse(want)
	}
	if s.Limit > 0 && len(want) > s.Limit {
		want = want[:s.Limit]
	}
	same := func(got, want string) bool { return got == want || "any "+got[4:] == want }
	if !slices.EqualFunc(got, want, same) {
		t.Fatalf("history %+v is\n%q, want\n%q", s, got, want)
	}
}

func (m *model) Truncate(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "rarely") > 0 || m.core.Length() == 0 {
		return
	}
	version := m.drawVersion(t)
	check(t, m.core.Truncate(version))
	m.now = maps.Clone(m.versions[version])
	m.history = m.history[:version-1]
	maps.DeleteFunc(m.versions, func(v uint64, _ map[string]string) bool { return v > version })
}

// TestModel does random things to a bee and to a map, and compares.
func TestModel(t *testing.T) {
	store := storage.Memory()
	defer store.Close()
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, store)
		defer m.core.Close()
		t.Repeat(map[string]func(*rapid.T){
			"change": m.Change, "change again": m.Change, "batch": m.Batch,
			"get": m.Get, "range": m.Range, "checkout": m.Checkout, "diff": m.Diff, "history": m.History,
			"truncate": m.Truncate,
		})
	})
}
