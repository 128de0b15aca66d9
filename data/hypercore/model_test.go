package hypercore_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// A model is what a log is, put plainly.
type model struct {
	fork   uint64
	blocks []modelBlock
	snaps  []modelSnap
}

type modelBlock struct {
	value string
	here  bool
}

// A modelSnap is a snapshot and what it must have.
type modelSnap struct {
	core   *hypercore.Core
	fork   uint64
	blocks []modelBlock // here is false where it may be gone
}

// A machine drives a log and its model.
type machine struct {
	fs     vfs.FS
	store  *storage.Store
	core   *hypercore.Core
	pair   manifest.KeyPair
	secret *hypercore.Encryption
	model  model
}

func newMachine(t *rapid.T) *machine {
	m := &machine{fs: vfs.NewMem(), pair: manifest.NewKeyPair([32]byte{7})}
	if rapid.Bool().Draw(t, "encrypted") {
		m.secret = &hypercore.Encryption{Key: [32]byte{9}}
	}
	m.openStore(t)
	core, err := hypercore.Create(m.store, m.options())
	if err != nil {
		t.Fatal(err)
	}
	m.core = core
	return m
}

func (m *machine) options() hypercore.Options {
	return hypercore.Options{KeyPair: &m.pair, Encryption: m.secret}
}

func (m *machine) openStore(t *rapid.T) {
	s, err := storage.Open("store", storage.Options{FS: m.fs, Buffer: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
}

func (m *machine) close(t *rapid.T) {
	for _, s := range m.model.snaps {
		s.core.Close()
	}
	m.model.snaps = nil
	m.core.Close()
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Append(t *rapid.T) {
	n := rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(50, 300)).Draw(t, "blocks")
	var blocks [][]byte
	for i := range n {
		size := rapid.SampledFrom([]int{0, 1, 40, 700, 3000}).Draw(t, "size")
		b := fmt.Appendf(make([]byte, 0, size+30), "%d.%d.%d ", m.model.fork, len(m.model.blocks)+i, size)
		b = append(b, make([]byte, size)...)[:size]
		blocks = append(blocks, b)
		m.model.blocks = append(m.model.blocks, modelBlock{string(b), true})
		if n > 5 {
			continue
		}
	}
	length, err := m.core.Append(blocks...)
	if err != nil || length != uint64(len(m.model.blocks)) {
		t.Fatalf("append: got %d (%v), want %d", length, err, len(m.model.blocks))
	}
	for _, b := range blocks { // they are ours again
		for i := range b {
			b[i] = 'x'
		}
	}
}

func (m *machine) Truncate(t *rapid.T) {
	length := rapid.IntRange(0, len(m.model.blocks)).Draw(t, "length")
	more := rapid.Uint64Range(1, 3).Draw(t, "forks")
	m.model.fork += more
	if err := m.core.Truncate(uint64(length), m.model.fork); err != nil {
		t.Fatal(err)
	}
	m.model.blocks = m.model.blocks[:length]
}

func (m *machine) Clear(t *rapid.T) {
	start := rapid.IntRange(0, len(m.model.blocks)).Draw(t, "start")
	end := rapid.IntRange(start, len(m.model.blocks)).Draw(t, "end")
	if err := m.core.Clear(uint64(start), uint64(end)); err != nil {
		t.Fatal(err)
	}
	for i := start; i < end; i++ {
		m.model.blocks[i].here = false
		for _, s := range m.model.snaps {
			if i < len(s.blocks) {
				s.blocks[i].here = false
			}
		}
	}
}

func (m *machine) Snapshot(t *rapid.T) {
	if len(m.model.snaps) > 3 {
		m.model.snaps[0].core.Close()
		m.model.snaps = m.model.snaps[1:]
	}
	m.model.snaps = append(m.model.snaps, modelSnap{m.core.Snapshot(), m.model.fork, slices.Clone(m.model.blocks)})
}

func (m *machine) Session(t *rapid.T) {
	old := m.core
	m.core = old.Session(hypercore.SessionOptions{})
	old.Close()
}

func (m *machine) Reopen(t *rapid.T) {
	key := m.core.Key()
	m.close(t)
	m.openStore(t)
	core, err := hypercore.Open(m.store, key, m.options())
	if err != nil {
		t.Fatal(err)
	}
	m.core = core
}

// Check compares a log, whole, with its model.
func (m *machine) Check(t *rapid.T) {
	var bytes uint64
	contiguous, gap := uint64(0), false
	for i, b := range m.model.blocks {
		bytes += uint64(len(b.value))
		gap = gap || !b.here
		if !gap {
			contiguous++
		}
		wantBlock(t, m.core, uint64(i), b)
	}
	if m.core.Length() != uint64(len(m.model.blocks)) || m.core.Fork() != m.model.fork || m.core.ByteLength() != bytes || m.core.Contiguous() != contiguous {
		t.Fatalf("got length %d, fork %d, bytes %d, contiguous %d, want %d, %d, %d, %d",
			m.core.Length(), m.core.Fork(), m.core.ByteLength(), m.core.Contiguous(), len(m.model.blocks), m.model.fork, bytes, contiguous)
	}
	m.checkBitfield(t)
	m.checkSeek(t, bytes)
	for _, s := range m.model.snaps {
		m.checkSnapshot(t, s)
	}
}

func wantBlock(t *rapid.T, c *hypercore.Core, i uint64, want modelBlock) {
	got, err := c.Local(i)
	switch {
	case want.here && (err != nil || string(got) != want.value):
		t.Fatalf("block %d: got %.20q (%v), want %.20q", i, got, err, want.value)
	case !want.here && !errors.Is(err, cloudpal.NotExist):
		t.Fatalf("block %d, which is not here: got %.20q (%v)", i, got, err)
	case c.Has(i) != want.here:
		t.Fatalf("block %d: got here %v", i, c.Has(i))
	}
}

func (m *machine) checkSnapshot(t *rapid.T, s modelSnap) {
	if s.core.Length() != uint64(len(s.blocks)) || s.core.Fork() != s.fork {
		t.Fatalf("snapshot: got length %d, fork %d, want %d, %d", s.core.Length(), s.core.Fork(), len(s.blocks), s.fork)
	}
	for i, b := range s.blocks {
		got, err := s.core.Local(uint64(i))
		switch {
		case err == nil && string(got) != b.value:
			t.Fatalf("snapshot: block %d: got %.20q, want %.20q", i, got, b.value)
		case err != nil && (b.here || !errors.Is(err, cloudpal.NotExist)):
			t.Fatalf("snapshot: block %d: got %v, want %.20q", i, err, b.value)
		}
	}
}

func (m *machine) checkBitfield(t *rapid.T) {
	words := make([]uint32, len(m.model.blocks)/32+2)
	m.core.Bitfield(0, words)
	for i := range len(words) * 32 {
		want := i < len(m.model.blocks) && m.model.blocks[i].here
		if got := words[i/32]>>(i%32)&1 == 1; got != want {
			t.Fatalf("bit %d: got %v, want %v", i, got, want)
		}
	}
}

func (m *machine) checkSeek(t *rapid.T, bytes uint64) {
	at := rapid.Uint64Range(0, bytes).Draw(t, "byte")
	index, offset, err := m.core.Seek(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	var before uint64
	for _, b := range m.model.blocks[:index] {
		before += uint64(len(b.value))
	}
	if before+offset != at || index < uint64(len(m.model.blocks)) && offset > uint64(len(m.model.blocks[index].value)) {
		t.Fatalf("seek %d of %d: got block %d, offset %d", at, bytes, index, offset)
	}
}

// TestLogModel does what a writer can do to a log, at random, and compares it
// with a plain list of blocks.
func TestLogModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		defer func() { m.close(t) }()
		t.Repeat(map[string]func(*rapid.T){
			"": m.Check, "append": m.Append, "truncate": m.Truncate, "clear": m.Clear,
			"snapshot": m.Snapshot, "session": m.Session, "reopen": m.Reopen,
		})
		audit, err := m.core.Audit(t.Context(), nil)
		if err != nil || !audit.Good() {
			t.Fatalf("audit: %v %v", audit.Faults, err)
		}
	})
}

// TestReaderModel has a reader get a writer's blocks in any order, clear some, be
// closed and opened, and follow to other forks: it has what it got and nothing
// else, and all of it proves.
func TestReaderModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newMachine(t)
		defer func() { w.close(t) }()
		fs := vfs.NewMem()
		openReader := func() (*storage.Store, *hypercore.Core) {
			s, err := storage.Open("store", storage.Options{FS: fs, Buffer: 256 << 10})
			if err != nil {
				t.Fatal(err)
			}
			c, err := hypercore.Open(s, w.core.Key(), hypercore.Options{Encryption: w.secret})
			if err != nil {
				t.Fatal(err)
			}
			return s, c
		}
		store, reader := openReader()
		defer func() { reader.Close(); store.Close() }()
		got := map[uint64]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"append": w.Append,
			"clear": func(t *rapid.T) {
				start := rapid.Uint64Range(0, reader.Length()).Draw(t, "start")
				end := rapid.Uint64Range(start, reader.Length()).Draw(t, "end")
				if err := reader.Clear(start, end); err != nil {
					t.Fatal(err)
				}
				for i := start; i < end; i++ {
					delete(got, i)
				}
			},
			"upgrade": func(t *rapid.T) {
				if w.core.Length() == 0 || reader.Fork() != w.core.Fork() || reader.Length() == w.core.Length() {
					t.Skip()
				}
				request(t, w.core, reader, merkle.Request{Manifest: true, Upgrade: &merkle.UpgradeRequest{
					Start: reader.Length(), Length: w.core.Length() - reader.Length()}})
			},
			"block": func(t *rapid.T) {
				if reader.Length() == 0 || reader.Fork() != w.core.Fork() {
					t.Skip()
				}
				for range rapid.IntRange(1, 40).Draw(t, "blocks") {
					i := rapid.Uint64Range(0, reader.Length()-1).Draw(t, "block")
					missing, err := reader.Missing(i)
					if err != nil {
						t.Fatal(err)
					}
					request(t, w.core, reader, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
					got[i] = true
				}
			},
			"truncate": func(t *rapid.T) {
				w.Truncate(t)
				h := w.core.Head()
				common := min(h.Length, reader.Length())
				if len(h.Roots) == 0 || reader.Length() == 0 {
					common = 0
				}
				if _, ok := reader.Manifest(); !ok {
					m, _ := w.core.Manifest()
					if err := reader.ApplyManifest(m.Append(nil)); err != nil {
						t.Fatal(err)
					}
				}
				common = rapid.Uint64Range(0, common).Draw(t, "common")
				if err := reader.Reorg(h, h.Roots, common, reader.Fork()); err != nil {
					t.Fatal(err)
				}
				for i := range got {
					if i >= common {
						delete(got, i)
					}
				}
			},
			"reopen": func(t *rapid.T) {
				reader.Close()
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				store, reader = openReader()
			},
			"": func(t *rapid.T) {
				for i := range w.core.Length() + 1 {
					want := modelBlock{here: got[i]}
					if want.here {
						want.value = w.model.blocks[i].value
					}
					wantBlock(t, reader, i, want)
				}
			},
		})
		audit, err := reader.Audit(t.Context(), nil)
		if err != nil || !audit.Good() || audit.Blocks != uint64(len(got)) {
			t.Fatalf("audit: %+v %v", audit, err)
		}
	})
}

// request has a reader take what a writer answers.
func request(t *rapid.T, writer, reader *hypercore.Core, q merkle.Request) {
	q.Fork = writer.Fork()
	p, err := writer.Prove(q)
	if err != nil {
		t.Fatalf("prove %+v: %v", q, err)
	}
	if _, err := reader.Apply(p); err != nil {
		t.Fatalf("apply the answer to %+v: %v", q, err)
	}
}
