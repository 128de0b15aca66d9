package hyperdrive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
)

// A model is a drive as a map: what a name has is its content, after "*" where
// it is executable, or "->" and what a link leads to.
type model map[string]string

// children is what ReadDir lists.
func (m model) children(folder string) (list []string) {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		rest, ok := strings.CutPrefix(name, folder+"/")
		first, _, more := strings.Cut(rest, "/")
		if !ok || seen[first] {
			continue
		}
		seen[first] = true
		if more {
			first += "/"
		}
		list = append(list, first)
	}
	slices.Sort(list)
	return list
}

func (m model) below(folder string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(name, folder+"/") {
			names = append(names, name)
		}
	}
	return names
}

// TestModel does at random what can be done with a drive, and compares with
// maps, also what old versions have.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := corestore.Memory()
		defer s.Close()
		var o Options
		if rapid.Bool().Draw(t, "encrypted") {
			o.EncryptionKey = &[32]byte{7}
		}
		d, err := New(s, o)
		ok(t, err)
		defer d.Close()
		m := &modelled{d: d, now: model{}, versions: map[uint64]model{1: {}}}
		t.Repeat(map[string]func(*rapid.T){
			"put":      m.put,
			"writer":   m.writer,
			"link":     m.link,
			"delete":   m.delete,
			"batch":    m.batch,
			"reclaim":  m.reclaim,
			"truncate": m.truncate,
			"checkout": m.checkout,
			"diff":     m.diff,
			"read":     func(t *rapid.T) { compare(t, m.d, m.now, true) },
			"":         m.check,
		})
	})
}

func ok(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

type modelled struct {
	d        *Drive
	now      model
	versions map[uint64]model
	kept     uint64 // content of older versions may be reclaimed
}

var (
	nameGen = rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "a!", "a0", "é", "~"}), 1, 3).Draw(t, "parts")
		return "/" + strings.Join(parts, "/")
	})
	sizeGen = rapid.OneOf(rapid.IntRange(0, 100), rapid.SampledFrom([]int{100, 1000, 65536, 65537, 1<<20 + 1}))
)

func drawContent(t *rapid.T) []byte {
	return bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, sizeGen.Draw(t, "size"))
}

// done notes a version.
func (m *modelled) done() { m.versions[m.d.Version()] = maps.Clone(m.now) }

func (m *modelled) put(t *rapid.T) {
	name, data, exec := nameGen.Draw(t, "name"), drawContent(t), rapid.Bool().Draw(t, "executable")
	ok(t, m.d.Put(ctx, name, data, Attr{Executable: exec}))
	m.now[name] = modelFile(data, exec)
	m.done()
}

func modelFile(data []byte, exec bool) string {
	if exec {
		return "*" + string(data)
	}
	return string(data)
}

func (m *modelled) writer(t *rapid.T) {
	name, data := nameGen.Draw(t, "name"), drawContent(t)
	w, err := m.d.Writer(ctx, name, WriterOptions{Shared: rapid.Bool().Draw(t, "shared"), Deduplicate: rapid.Bool().Draw(t, "deduplicate")})
	if errors.Is(err, cloudpal.Timeout) {
		return
	}
	ok(t, err)
	_, err = w.Write(data)
	if rapid.Bool().Draw(t, "cancel") {
		w.Cancel()
		return
	}
	ok(t, errors.Join(err, w.Close()))
	m.now[name] = modelFile(data, false)
	m.done()
}

func (m *modelled) link(t *rapid.T) {
	name, target := nameGen.Draw(t, "name"), nameGen.Draw(t, "target")
	ok(t, m.d.Symlink(ctx, name, target))
	m.now[name] = "->" + target
	m.done()
}

func (m *modelled) delete(t *rapid.T) {
	name := nameGen.Draw(t, "name")
	ok(t, m.d.Delete(ctx, name))
	delete(m.now, name)
	m.done()
}

func (m *modelled) batch(t *rapid.T) {
	b := m.d.Batch()
	after := maps.Clone(m.now)
	for range rapid.IntRange(0, 12).Draw(t, "changes") {
		name := nameGen.Draw(t, "name")
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			ok(t, b.Delete(name))
			delete(after, name)
			continue
		}
		data := drawContent(t)
		if rapid.Bool().Draw(t, "stream") {
			_, err := b.ReadFrom(ctx, name, bytes.NewReader(data), Attr{})
			ok(t, err)
		} else {
			ok(t, b.Put(ctx, name, data, Attr{}))
		}
		after[name] = modelFile(data, false)
	}
	if rapid.IntRange(0, 3).Draw(t, "cancel") == 0 {
		b.Cancel()
		return
	}
	ok(t, b.Flush(ctx))
	m.now = after
	m.done()
}

func (m *modelled) reclaim(t *rapid.T) {
	m.kept = max(m.kept, rapid.SampledFrom(slices.Sorted(maps.Keys(m.versions))).Draw(t, "since"))
	ok(t, m.d.Reclaim(ctx, m.kept))
}

func (m *modelled) truncate(t *rapid.T) {
	v := rapid.SampledFrom(slices.Sorted(maps.Keys(m.versions))).Draw(t, "version")
	if rapid.IntRange(0, 3).Draw(t, "really") > 0 || v < m.kept || m.d.Database().Length() == 0 {
		return
	}
	ok(t, m.d.Truncate(ctx, v))
	m.now = maps.Clone(m.versions[v])
	maps.DeleteFunc(m.versions, func(later uint64, _ model) bool { return later > v })
}

func (m *modelled) checkout(t *rapid.T) {
	v := rapid.SampledFrom(slices.Sorted(maps.Keys(m.versions))).Draw(t, "version")
	old := m.d.Checkout(v)
	defer old.Close()
	compare(t, old, m.versions[v], v >= m.kept)
}

func (m *modelled) diff(t *rapid.T) {
	v := rapid.SampledFrom(slices.Sorted(maps.Keys(m.versions))).Draw(t, "version")
	before := m.versions[v]
	changed := map[string]bool{}
	for c, err := range m.d.Diff(ctx, v, "") {
		ok(t, err)
		changed[c.Name] = true
		if _, was := before[c.Name]; was != (c.Before != nil) {
			t.Fatalf("%s was there before: %v, and the difference says %v", c.Name, was, c.Before)
		}
		if _, is := m.now[c.Name]; is != (c.Now != nil) {
			t.Fatalf("%s is there now: %v, and the difference says %v", c.Name, is, c.Now)
		}
	}
	for name := range mapUnion(before, m.now) {
		a, was := before[name]
		b, is := m.now[name]
		if (a != b || was != is) && !changed[name] {
			t.Fatalf("%s has changed since version %d, which the difference does not say", name, v)
		}
	}
}

func mapUnion(a, b model) model {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}

func (m *modelled) check(t *rapid.T) { compare(t, m.d, m.now, false) }

func compare(t *rapid.T, d *Drive, want model, content bool) {
	var names []string
	for e, err := range d.List(ctx, "") {
		ok(t, err)
		names = append(names, e.Name)
		if !content {
			continue
		}
		if got := modelOf(t, d, e); got != want[e.Name] {
			t.Fatalf("%s has %.20q, %d bytes; want %.20q, %d", e.Name, got, len(got), want[e.Name], len(want[e.Name]))
		}
	}
	same(t, "List", names, want.below(""))
	for _, folder := range []string{"", "/a", "/a/b"} {
		names = nil
		for c, err := range d.ReadDir(ctx, folder) {
			ok(t, err)
			names = append(names, childName(c))
		}
		slices.Sort(names)
		same(t, "ReadDir "+folder, names, want.children(folder))
	}
}

func modelOf(t *rapid.T, d *Drive, e Entry) string {
	if e.IsLink() {
		return "->" + e.Linkname
	}
	limited, cancel := context.WithTimeout(ctx, 20*time.Second) // what is gone is not waited for
	defer cancel()
	r, err := d.EntryReader(limited, e)
	ok(t, err)
	defer r.Close()
	var buf bytes.Buffer
	_, err = buf.ReadFrom(r)
	ok(t, err)
	return modelFile(buf.Bytes(), e.Executable)
}

func same(t *rapid.T, what string, got, want []string) {
	if !slices.Equal(got, want) {
		t.Fatal(fmt.Sprintf("%s: got %q, want %q", what, got, want))
	}
}
