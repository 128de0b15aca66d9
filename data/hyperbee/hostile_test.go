package hyperbee

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

// encodeBlock writes a block as decodeBlock reads it, whatever sense it makes.
func encodeBlock(levels []level, key, value []byte) []byte {
	var index []byte
	for _, l := range levels {
		var keys, kids, both []byte
		for _, k := range l.keys[:l.n] {
			keys = binary.AppendUvarint(keys, k)
		}
		for _, c := range l.child[:l.kids] {
			kids = binary.AppendUvarint(binary.AppendUvarint(kids, c.seq), uint64(c.off))
		}
		if len(keys) > 0 {
			both = appendField(both, 1, keys)
		}
		if len(kids) > 0 {
			both = appendField(both, 2, kids)
		}
		index = appendField(index, 1, both)
	}
	b := appendField(appendField(nil, 1, index), 2, key)
	if value != nil {
		b = appendField(b, 3, value)
	}
	return b
}

// TestDecodeBad has blocks that are none, each in its own way.
func TestDecodeBad(t *testing.T) {
	long := bytes.Repeat([]byte{0xff}, 9)
	blocks := map[string][]byte{
		"empty":                {},
		"no key":               appendField(nil, 1, []byte{}),
		"no index":             appendField(nil, 2, []byte("k")),
		"cut short":            {0x0a, 0x05, 0x01},
		"huge length":          append(append([]byte{0x0a}, long...), 0x01),
		"endless number":       append([]byte{0x0a}, bytes.Repeat([]byte{0xff}, 20)...),
		"key of another type":  {0x0a, 0x00, 0x10, 0x01},
		"group":                {0x0a, 0x00, 0x12, 0x00, 0x1b},
		"fixed field cut":      {0x0a, 0x00, 0x12, 0x00, 0x21, 0x01},
		"number past 2^53 - 1": append([]byte{0x0a, 0x00, 0x12, 0x00, 0x20}, binary.AppendUvarint(nil, 1<<53)...),
	}
	for name, raw := range blocks {
		if _, err := decodeBlock(raw); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Corrupt)
		}
	}
	unknown := append(encodeBlock(nil, []byte("k"), nil), 0x20, 0x07, 0x2a, 0x01, 'x', 0x35, 1, 2, 3, 4, 0x39, 1, 2, 3, 4, 5, 6, 7, 8)
	if b, err := decodeBlock(unknown); err != nil || string(b.key) != "k" {
		t.Errorf("fields of a later version: %q, %v", b.key, err)
	}
}

func TestLevelBad(t *testing.T) {
	nine := appendField(nil, 1, bytes.Repeat([]byte{1}, 9))
	levels := map[string][]byte{
		"too many keys":       nine,
		"key 0":               appendField(nil, 1, []byte{0}),
		"key younger":         appendField(nil, 1, []byte{6}),
		"child 0":             appendField(appendField(nil, 1, []byte{1}), 2, []byte{0, 0, 1, 0}),
		"child younger":       appendField(appendField(nil, 1, []byte{1}), 2, []byte{6, 0, 1, 0}),
		"one child too few":   appendField(appendField(nil, 1, []byte{1}), 2, []byte{1, 0}),
		"one child too many":  appendField(appendField(nil, 1, []byte{1}), 2, []byte{1, 0, 1, 0, 1, 0}),
		"half a child":        appendField(appendField(nil, 1, []byte{1}), 2, []byte{1, 0, 1}),
		"children, no keys":   appendField(nil, 2, []byte{1, 0}),
		"eleven children":     appendField(appendField(nil, 1, []byte{1}), 2, bytes.Repeat([]byte{1, 0}, 11)),
		"offset out of sight": appendField(appendField(nil, 1, []byte{1}), 2, append([]byte{1, 0, 1}, binary.AppendUvarint(nil, maxLevels)...)),
	}
	for name, raw := range levels {
		b := block{index: appendField(nil, 1, raw)}
		var l level
		if err := b.level(5, 0, &l); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Corrupt)
		}
	}
	var l level
	if err := (block{index: appendField(nil, 1, []byte{})}).level(5, 1, &l); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("a level that is not there: got %v, want %v", err, cloudpal.Corrupt)
	}
}

// exercise does everything that reads a log, and some that writes: whatever the
// blocks are, it ends, and lists no key twice.
func exercise(t *testing.T, l *list) {
	t.Helper()
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b := New(l, Options{CacheBytes: 1 << 20})
	old := b.Checkout(l.Length() / 2)
	for _, r := range []Range{{}, {Reverse: true}, {GT: []byte("c"), LTE: []byte("p")}, {GTE: []byte("c"), LT: []byte("p"), Reverse: true}} {
		seen := map[string]bool{}
		for e, err := range b.Range(short, r) {
			if err == nil && seen[string(e.Key)] {
				t.Fatalf("range %+v lists %q twice", r, e.Key)
			}
			seen[string(e.Key)] = true
		}
		n := 0
		for range b.Diff(short, old, r) {
			n++
		}
		for range old.Diff(short, b, r) {
			n++
		}
		if n > 4*len(l.blocks)+2 {
			t.Fatalf("diff of a log of %d blocks has %d entries", len(l.blocks), n)
		}
	}
	for range b.History(short, Span{}) {
	}
	for c := range 26 {
		key := []byte{'a' + byte(c)}
		b.Get(short, key)
		if c%3 == 0 {
			b.Put(short, key, nil)
		}
		if c%3 == 1 {
			b.Delete(short, key)
		}
	}
	if short.Err() != nil {
		t.Fatal("it does not end")
	}
}

// TestBomb has trees that are small in the log and endless to walk: each node
// has the next one as all of its nine children.
func TestBomb(t *testing.T) {
	for _, differing := range []int{9, 2, 1} { // children of the second tree that are its own
		t.Run(fmt.Sprint(differing, " differ"), func(t *testing.T) {
			l := &list{blocks: [][]byte{Header{magic, nil}.append(nil)}}
			for c := range maxKeys {
				l.blocks = append(l.blocks, encodeBlock(nil, []byte{'b' + byte(c)}, []byte("v")))
			}
			for tree := range 2 {
				for depth := range maxDepth {
					n := level{n: maxKeys, kids: maxKeys + 1, keys: [maxKeys]uint64{1, 2, 3, 4, 5, 6, 7, 8}}
					below := uint64(len(l.blocks) - 1)
					for i := range n.child {
						n.child[i] = place{below, 0}
						if tree == 1 && i < maxKeys+1-differing {
							n.child[i] = place{below - maxDepth, 0}
						}
					}
					if depth == 0 {
						n.kids = 0
					}
					l.blocks = append(l.blocks, encodeBlock([]level{n}, []byte("z"), nil))
				}
			}
			start := time.Now()
			exercise(t, l)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestEndlessPath has a node that is its own child.
func TestEndlessPath(t *testing.T) {
	self := level{n: 1, kids: 2, keys: [maxKeys]uint64{1}, child: [maxKeys + 1]place{{2, 0}, {2, 0}}}
	l := &list{blocks: [][]byte{
		Header{magic, nil}.append(nil),
		encodeBlock(nil, []byte("m"), []byte("v")),
		encodeBlock([]level{self}, []byte("z"), nil),
	}}
	b := New(l, Options{})
	for _, key := range []string{"a", "p"} {
		if _, err := b.Get(ctx, []byte(key)); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("get %q: got %v, want %v", key, err, cloudpal.Corrupt)
		}
		if err := b.Put(ctx, []byte(key), nil); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("put %q: got %v, want %v", key, err, cloudpal.Corrupt)
		}
	}
	if err := b.Delete(ctx, []byte("m")); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("delete: got %v, want %v", err, cloudpal.Corrupt)
	}
	exercise(t, l)
}

// FuzzNode: what is decoded lies within its limits, and is itself again when
// encoded and decoded.
func FuzzNode(f *testing.F) {
	f.Add(Header{magic, &Metadata{[]byte("key"), nil}}.append(nil))
	f.Add(encodeBlock([]level{{n: 2, kids: 3, keys: [maxKeys]uint64{1, 300}, child: [maxKeys + 1]place{{1, 0}, {2, 1}, {70000, 2}}}, {}}, []byte("key"), []byte("value")))
	f.Add(encodeBlock([]level{{n: 1, keys: [maxKeys]uint64{1}}}, nil, nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if h, err := decodeHeader(raw); err == nil {
			again, err := decodeHeader(h.append(nil))
			if must(t, err); again.Protocol != h.Protocol {
				t.Errorf("header %q came back as %q", h.Protocol, again.Protocol)
			}
		}
		b, err := decodeBlock(raw)
		if err != nil {
			return
		}
		const seq = 1 << 40
		b.holds(seq)
		var levels []level
		for off := range uint32(64) {
			var l level
			if b.level(seq, off, &l) != nil {
				break
			}
			levels = append(levels, l)
		}
		again, err := decodeBlock(encodeBlock(levels, b.key, b.value))
		must(t, err)
		if !bytes.Equal(again.key, b.key) || !sameValue(again.value, b.value) {
			t.Errorf("block came back as %q: %q, was %q: %q", again.key, again.value, b.key, b.value)
		}
		for off := range levels {
			var l level
			must(t, again.level(seq, uint32(off), &l))
			if l.n != levels[off].n || l.kids != levels[off].kids || l.keys != levels[off].keys {
				t.Errorf("level %d came back as %v, was %v", off, l, levels[off])
			}
		}
	})
}

// hostile makes a log of what a fuzzer says: mostly blocks that decode, and
// refer to each other in ways of its own.
func hostile(script []byte) *list {
	take := func() int {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return int(b)
	}
	l := &list{blocks: [][]byte{Header{magic, nil}.append(nil)}}
	for len(script) > 0 && len(l.blocks) < 40 {
		seq := len(l.blocks)
		if what := take(); what >= 250 {
			n := min(len(script), what-200)
			l.blocks = append(l.blocks, bytes.Clone(script[:n]))
			script = script[n:]
			continue
		}
		levels := make([]level, take()%4)
		for i := range levels {
			levels[i] = hostileLevel(take, seq)
		}
		key := []byte{'a' + byte(take()%26)}
		value := []byte("v")
		if take()%4 == 0 {
			value = nil
		}
		l.blocks = append(l.blocks, encodeBlock(levels, key, value))
	}
	return l
}

func hostileLevel(take func() int, seq int) (l level) {
	l.n = take() % (maxKeys + 1)
	for i := range l.n {
		l.keys[i] = uint64(1 + take()%seq)
	}
	if take()%3 == 0 {
		return l
	}
	l.kids = l.n + 1
	for i := range l.kids {
		l.child[i] = place{uint64(1 + take()%seq), uint32(take() % 4)}
	}
	return l
}

// FuzzTree walks logs of hostile blocks.
func FuzzTree(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 1, 0, 0, 1, 5, 1, 0, 1, 2, 0, 1, 1, 7, 1})
	f.Add(bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, 60))
	f.Add(bytes.Repeat([]byte{2, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 0, 2, 0, 3, 0, 1, 0, 2, 0, 3, 0, 1, 0, 2, 0, 3, 0}, 30))
	f.Add(append([]byte{255}, bytes.Repeat([]byte{0x0a, 0xff, 0x12}, 40)...))
	f.Fuzz(func(t *testing.T, script []byte) { exercise(t, hostile(script)) })
}
