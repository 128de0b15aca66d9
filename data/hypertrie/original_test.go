package hypertrie_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypertrie"
)

// A step is one line that testdata/original.js reads.
type step struct {
	Op      string  `json:"op"`
	Key     string  `json:"key"`
	Value   *string `json:"value,omitempty"` // in hex
	Flags   uint64  `json:"flags,omitempty"`
	Hidden  bool    `json:"hidden,omitempty"`
	Ops     []step  `json:"ops,omitempty"`
	Version uint64  `json:"version,omitempty"`
	Other   uint64  `json:"other,omitempty"`
	Shallow bool    `json:"shallow,omitempty"`
	Below   bool    `json:"below,omitempty"`
	Reverse bool    `json:"reverse,omitempty"`
}

// original runs steps on the JavaScript hypertrie, and returns what it answered
// and its log.
func original(t *testing.T, options string, steps []step) (answers []string, blocks [][]byte) {
	t.Helper()
	modules, err := filepath.Abs("../../test/data/node_modules")
	must(t, err)
	if _, err := os.Stat(filepath.Join(modules, "hypertrie")); err != nil {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("the JavaScript originals are not installed: make setup-test")
		}
		t.Skip("the JavaScript originals are not installed: make setup-test")
	}
	var in bytes.Buffer
	for _, s := range steps {
		line, err := json.Marshal(s)
		must(t, err)
		in.Write(append(line, '\n'))
	}
	node := exec.CommandContext(t.Context(), "node", "testdata/original.js", t.TempDir(), options)
	node.Env = append(os.Environ(), "NODE_PATH="+modules)
	node.Stdin, node.Stderr = &in, os.Stderr
	out, err := node.Output()
	must(t, err)
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if block, ok := strings.CutPrefix(lines.Text(), "block "); ok {
			b, err := hex.DecodeString(block)
			must(t, err)
			blocks = append(blocks, b)
			continue
		}
		answers = append(answers, lines.Text())
	}
	return answers, blocks
}

// A jsonEntry is an entry as original.js writes it.
type jsonEntry struct {
	Seq   uint64  `json:"seq"`
	Key   string  `json:"key"`
	Value *string `json:"value"`
	Flags uint64  `json:"flags"`
}

// jsonOf is nil for an entry that is none.
func jsonOf(e hypertrie.Entry) *jsonEntry {
	if e.Seq == 0 {
		return nil
	}
	out := &jsonEntry{Seq: e.Seq, Key: e.Key, Flags: e.Flags}
	if e.Value != nil {
		text := hex.EncodeToString(e.Value)
		out.Value = &text
	}
	return out
}

// value is a step's; nil is none.
func (s step) value() []byte {
	if s.Value == nil {
		return nil
	}
	b, err := hex.DecodeString(*s.Value)
	if err != nil {
		panic(err) // we have made it
	}
	return b
}

// perform does what original.js does.
func perform(t *testing.T, trie *hypertrie.Trie, steps []step) (answers []string) {
	t.Helper()
	for _, s := range steps {
		answer, err := do(t.Context(), trie, s)
		must(t, err)
		line, err := json.Marshal(answer)
		must(t, err)
		answers = append(answers, string(line))
	}
	return answers
}

func do(ctx context.Context, trie *hypertrie.Trie, s step) (any, error) {
	at := trie
	if s.Version > 0 {
		at = trie.Checkout(s.Version)
		defer at.Close()
	}
	switch at := maybeHidden(at, s); s.Op {
	case "put", "del", "batch":
		return nil, write(ctx, trie, s)
	case "get":
		e, err := at.Get(ctx, s.Key)
		if errors.Is(err, cloudpal.NotExist) {
			err = nil
		}
		return jsonOf(e), err
	case "list":
		return collect(at.List(ctx, s.Key, hypertrie.List{Shallow: s.Shallow, Below: s.Below, Reverse: s.Reverse}))
	case "diff":
		other := trie.Checkout(s.Other)
		defer other.Close()
		return differences(at.Diff(ctx, maybeHidden(other, s), s.Key))
	case "history":
		return collect(at.History(ctx, hypertrie.Span{Reverse: s.Reverse}))
	}
	return nil, fmt.Errorf("unknown %s", s.Op)
}

func maybeHidden(trie *hypertrie.Trie, s step) *hypertrie.Trie {
	if s.Hidden {
		return trie.Hidden()
	}
	return trie
}

func write(ctx context.Context, trie *hypertrie.Trie, s step) error {
	var err error
	switch trie := maybeHidden(trie, s); s.Op {
	case "put":
		_, err = trie.PutIf(ctx, hypertrie.Entry{Key: s.Key, Value: s.value(), Flags: s.Flags}, nil)
	case "del":
		err = trie.Delete(ctx, s.Key)
	case "batch":
		b := trie.Batch()
		defer b.Close()
		for _, o := range s.Ops {
			if o.Op == "del" {
				err = errors.Join(err, b.Delete(ctx, o.Key))
				continue
			}
			_, e := b.PutIf(ctx, hypertrie.Entry{Key: o.Key, Value: o.value(), Flags: o.Flags}, nil)
			err = errors.Join(err, e)
		}
		err = errors.Join(err, b.Flush())
	}
	return err
}

func collect(entries iter.Seq2[hypertrie.Entry, error]) ([]*jsonEntry, error) {
	out := []*jsonEntry{}
	for e, err := range entries {
		if err != nil {
			return nil, err
		}
		out = append(out, jsonOf(e))
	}
	return out, nil
}

func differences(diff iter.Seq2[hypertrie.Difference, error]) ([][2]*jsonEntry, error) {
	var all []hypertrie.Difference
	for d, err := range diff {
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b hypertrie.Difference) int { return strings.Compare(a.Key, b.Key) })
	out := [][2]*jsonEntry{}
	for _, d := range all {
		out = append(out, [2]*jsonEntry{jsonOf(d.Left), jsonOf(d.Right)})
	}
	return out, nil
}

// A maker makes random steps.
type maker struct {
	*rand.Rand
	length   uint64
	deletes  bool
	versions bool
}

func (m *maker) key() string {
	parts := make([]string, 1+m.IntN(3))
	for i := range parts {
		parts[i] = fmt.Sprint(string("abøc"[m.IntN(2)]), m.IntN(8))
	}
	return strings.Join(parts, "/")
}

func (m *maker) put() step {
	s := step{Op: "put", Key: m.key()}
	if m.IntN(10) > 0 {
		text := hex.EncodeToString(make([]byte, m.IntN(4)))
		s.Value = &text
	}
	if m.IntN(4) == 0 {
		s.Flags = uint64(m.IntN(1000))
	}
	return s
}

func (m *maker) change() step {
	if m.deletes && m.IntN(3) == 0 {
		return step{Op: "del", Key: m.key()}
	}
	m.length++
	return m.put()
}

// next makes a step. Versions are of those that are sure to be there.
func (m *maker) next() step {
	var s step
	switch m.IntN(10) {
	case 0:
		s = step{Op: "batch"}
		for range 1 + m.IntN(8) {
			s.Ops = append(s.Ops, m.change())
		}
		return s // hidden and other keys are not of one batch of ours
	case 1:
		s = step{Op: "get", Key: m.key()}
	case 2:
		s = step{Op: "list", Key: m.prefix(), Shallow: m.IntN(2) == 0, Below: m.IntN(2) == 0, Reverse: m.IntN(2) == 0}
	case 3:
		if !m.versions {
			return m.next()
		}
		s = step{Op: "diff", Key: m.prefix(), Other: 1 + m.Uint64N(m.length)}
	default:
		s = m.change()
	}
	if m.versions && s.Op != "put" && s.Op != "del" && m.IntN(2) == 0 {
		s.Version = 1 + m.Uint64N(m.length)
	}
	s.Hidden = m.IntN(5) == 0
	return s
}

func (m *maker) prefix() string {
	key := m.key()
	return key[:max(0, strings.LastIndex(key, "/"))]
}

// TestLikeTheOriginal does random steps here and there: the answers are the same,
// and so is every block.
func TestLikeTheOriginal(t *testing.T) {
	for _, c := range []struct {
		name, options string
		collide       bool // then the original cannot delete, and forgets the hash in its checkouts
		steps         int
	}{
		{"with deletions", `{}`, false, 4000},
		{"hashes that collide", `{"collide":true}`, true, 1500},
		{"with a header", `{"metadata":"some metadata","subtype":"a subtype"}`, false, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Log("seed", seed)
			m := &maker{Rand: rand.New(rand.NewPCG(seed, 0)), length: 1, deletes: !c.collide, versions: !c.collide}
			// A key that stays: a batch that empties the trie is another matter.
			steps := []step{{Op: "put", Key: "stays"}, {Op: "put", Key: "stays", Hidden: true}}
			for range c.steps {
				steps = append(steps, m.next())
			}
			steps = append(steps, step{Op: "history"}, step{Op: "history", Reverse: true})
			want, blocks := original(t, c.options, steps)

			core := newCore(t)
			var o hypertrie.Options
			if c.name == "with a header" {
				o.Header = hypertrie.Header{Metadata: []byte("some metadata"), Subtype: "a subtype"}
			}
			trie := hypertrie.New(core, o)
			if c.collide {
				hypertrie.Colliding(trie)
			}
			for i, got := range perform(t, trie, steps) {
				if got != want[i] {
					t.Fatalf("step %d, %+v: got\n%s\nwant\n%s", i, steps[i], got, want[i])
				}
			}
			if core.Length() != uint64(len(blocks)) {
				t.Fatalf("got %d blocks, want %d", core.Length(), len(blocks))
			}
			for i, want := range blocks {
				got, err := core.Get(t.Context(), uint64(i))
				must(t, err)
				// The original puts those that collide in the order in which it
				// happens to have read them.
				if !bytes.Equal(got, want) && !(c.collide && len(got) == len(want)) {
					t.Fatalf("block %d: got %x, want %x", i, got, want)
				}
			}
		})
	}
}

// TestEmptiedLikeTheOriginal deletes the last key, and sets one again.
func TestEmptiedLikeTheOriginal(t *testing.T) {
	steps := []step{
		{Op: "put", Key: "a/b"}, {Op: "del", Key: "a/b"}, {Op: "del", Key: "a/b"}, {Op: "get", Key: "a/b"}, {Op: "list"},
		{Op: "put", Key: "c"}, {Op: "del", Key: "x"}, {Op: "put", Key: "h", Hidden: true}, {Op: "del", Key: "c"},
		{Op: "list"}, {Op: "list", Hidden: true}, {Op: "del", Key: "h", Hidden: true}, {Op: "put", Key: "d"}, {Op: "list"},
	}
	want, blocks := original(t, "{}", steps)
	core := newCore(t)
	if got := perform(t, hypertrie.New(core, hypertrie.Options{}), steps); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for i, want := range blocks {
		got, err := core.Get(t.Context(), uint64(i))
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("block %d: got %x, want %x", i, got, want)
		}
	}
}

// TestReadsWhatTheOriginalCannot has a log of the original whose batch deleted
// the last key and went on.
func TestReadsWhatTheOriginalCannot(t *testing.T) {
	one := "01"
	_, blocks := original(t, "{}", []step{
		{Op: "put", Key: "a", Value: &one},
		{Op: "batch", Ops: []step{{Op: "del", Key: "a"}, {Op: "put", Key: "b", Value: &one}, {Op: "put", Key: "c", Value: &one}}},
	})
	core := newCore(t)
	_, err := core.Append(blocks...)
	must(t, err)
	trie := hypertrie.New(core, hypertrie.Options{})
	for _, write := range []func() error{
		func() error { return nil },
		func() error { return trie.Delete(t.Context(), "b") },
		func() error { return trie.Put(t.Context(), "b", nil) },
	} {
		must(t, write())
		if got := keys(t, trie, "", hypertrie.List{}); len(got) == 0 || !slices.Contains(got, "c") || slices.Contains(got, "a") {
			t.Errorf("got %v", got)
		}
	}
}
