package hyperbee

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
)

// far returns a bee in a store, and the same in another store that is connected
// with it and has no block of it.
func far(t *testing.T, fill func(b *Bee)) (here, there *Bee) {
	t.Helper()
	ours, theirs := corestore.Memory(), corestore.Memory()
	t.Cleanup(func() { must(t, ours.Close()); must(t, theirs.Close()) })
	writer, err := ours.Get("bee")
	must(t, err)
	t.Cleanup(func() { must(t, writer.Close()) })
	here = New(writer, Options{})
	fill(here)
	reader, err := theirs.GetKey(writer.Key())
	must(t, err)
	t.Cleanup(func() { must(t, reader.Close()) })
	there = New(reader, Options{ReadOnly: true})
	for b, s := range map[*Bee]*corestore.Store{here: ours, there: theirs} {
		r, ok := s.Replicator(b.tree.log.(*hypercore.Core))
		if !ok {
			t.Fatal("no replicator")
		}
		t.Cleanup(b.ShareHints(r))
	}
	joined, cancel := context.WithCancel(ctx)
	done := make(chan error, 2)
	left, right := net.Pipe()
	go func() { done <- ours.Replicate(joined, left, corestore.ReplicateOptions{Initiator: true}) }()
	go func() { done <- theirs.Replicate(joined, right, corestore.ReplicateOptions{}) }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	soon(t, "the length", func() bool {
		_, err := reader.Update(ctx)
		must(t, err)
		return reader.Length() == writer.Length()
	})
	return here, there
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// touched returns the blocks that an operation on a bee with all blocks reads.
func touched(t *testing.T, b *Bee, do func(v *view)) (seqs []uint64) {
	t.Helper()
	v := view{cache: newCache(1 << 20), fork: 0, version: b.Version()}
	tr := &trace{core: b.tree.log.(*hypercore.Core), seen: map[uint64]bool{}, tell: func(s []uint64) { seqs = append(seqs, s...) }}
	v.log = tr
	do(&v)
	tr.flush()
	return seqs
}

func shuffled(n int) func(b *Bee) {
	return func(b *Bee) {
		batch := b.Batch()
		defer batch.Close()
		for i := range n {
			if err := batch.Put(ctx, fmt.Appendf(nil, "%05d", i*7919%n), fmt.Append(nil, i)); err != nil {
				panic(err)
			}
		}
		if err := batch.Flush(); err != nil {
			panic(err)
		}
	}
}

// TestHintOfRange reads one entry of a range: all that the range needs comes.
func TestHintOfRange(t *testing.T) {
	for name, r := range map[string]Range{
		"all":     {},
		"a part":  {GT: []byte("00100"), LTE: []byte("00400")},
		"reverse": {GTE: []byte("00300"), LT: []byte("00700"), Reverse: true},
		"limited": {GTE: []byte("00500"), Limit: 100},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := far(t, shuffled(1000))
			core := there.tree.log.(*hypercore.Core)
			next := 0
			for _, err := range there.Range(ctx, r) {
				must(t, err)
				if next++; next == 1 {
					break
				}
			}
			need := touched(t, here, func(v *view) { here.walk(ctx, v, r, func(Entry, error) bool { return true }) })
			soon(t, "the blocks of the range", func() bool {
				return !slices.ContainsFunc(need, func(i uint64) bool { return !core.Has(i) })
			})
			if name != "all" && core.Info().Blocks == core.Length() {
				t.Error("all blocks came, also those outside of the range")
			}
		})
	}
}

// TestHintGoesOn reads a range that takes more than one answer tells.
func TestHintGoesOn(t *testing.T) {
	const keys = 2*hintMost + 500
	here, there := far(t, shuffled(keys))
	for _, reverse := range []bool{false, true} {
		want := keysOf(t, here.Range(ctx, Range{Reverse: reverse}))
		if got := keysOf(t, there.Range(ctx, Range{Reverse: reverse})); !slices.Equal(got, want) {
			t.Errorf("%d keys, want %d", len(got), len(want))
		}
	}
}

// TestHintOfKey asks for a key, and gets the whole way to it, though the blocks
// after the first are not asked for.
func TestHintOfKey(t *testing.T) {
	here, there := far(t, shuffled(3000))
	core := there.tree.log.(*hypercore.Core)
	key := []byte("01234")
	need := touched(t, here, func(v *view) { v.get(ctx, string(key)) })
	if len(need) < 5 {
		t.Fatalf("the way has %d blocks", len(need))
	}
	h := there.tree.hints.Load()
	h.ask(question{version: there.Version(), key: key})
	soon(t, "the way", func() bool { return core.Info().Blocks == uint64(len(need)) })
	for _, i := range need {
		if !core.Has(i) {
			t.Errorf("block %d is not here", i)
		}
	}
}

// TestUnaskedHints fetches nothing because of what nobody asked for, and asks
// for what makes no sense.
func TestUnaskedHints(t *testing.T) {
	here, there := far(t, shuffled(300))
	core := there.tree.log.(*hypercore.Core)
	h := there.tree.hints.Load()
	h.told([]uint64{1, 2, 3})
	h.receive(nil, []byte{0xff, 0xff})
	h.mu.Lock()
	fetching := h.fetching
	h.owed = hintMost
	h.mu.Unlock()
	if fetching != 0 {
		t.Errorf("%d blocks are being fetched that were not asked for", fetching)
	}
	h.told([]uint64{1 << 50, 299, 300, 301, 302}) // those that the log does not have are left out, with what is told beside them
	h.told([]uint64{298})
	soon(t, "block 298", func() bool { return core.Has(298) })
	if core.Info().Blocks != 1 {
		t.Errorf("%d blocks came", core.Info().Blocks)
	}
	// A peer that asks without end makes no queue.
	flood := here.tree.hints.Load()
	for range 10 * hintWait {
		flood.receive(nil, wrap(question{version: 5000, isRange: true}.append(nil)))
	}
	flood.mu.Lock()
	defer flood.mu.Unlock()
	if len(flood.questions) > hintWait {
		t.Errorf("%d questions wait", len(flood.questions))
	}
}

func FuzzHint(f *testing.F) {
	f.Add(question{version: 7, key: []byte("k")}.append(nil))
	f.Add(question{version: 7, isRange: true, low: bound{[]byte("a"), false}, high: bound{[]byte("b"), true}, limit: 3, reverse: true, path: []uint64{6, 0, 1}}.append(nil))
	f.Add(appendTold(nil, []uint64{9, 1, 300}))
	b, _ := newBee(f)
	shuffled(300)(b)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decodeHint(raw)
		if err != nil {
			return
		}
		h := &hints{core: b.tree.log.(*hypercore.Core), ctx: ctx}
		for _, q := range m.questions {
			told := 0
			h.answer(q, func(blocks []uint64) { told += len(blocks) })
			if told > hintMost {
				t.Errorf("%d blocks told", told)
			}
			if len(raw) > hintSize {
				continue
			}
			again, err := decodeHint(q.append(nil))
			if err != nil || len(again.questions) != 1 || fmt.Sprint(again.questions[0]) != fmt.Sprint(q) {
				t.Errorf("%+v came back as %+v, %v", q, again.questions, err)
			}
		}
		if len(m.blocks) > 0 {
			again, err := decodeHint(appendTold(nil, m.blocks))
			if err != nil || !slices.Equal(again.blocks, m.blocks) {
				t.Errorf("%v came back as %v, %v", m.blocks, again.blocks, err)
			}
		}
	})
}
