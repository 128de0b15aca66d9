package merkle_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/merkle"
)

// drawBlocks draws a log, some of whose blocks are empty.
func drawBlocks(t *rapid.T, least, most int) [][]byte {
	return rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 40), least, most).Draw(t, "blocks")
}

// drawMirror draws a reader of the first blocks of a log, who has fetched some
// of them.
func drawMirror(t *rapid.T, tb testing.TB, w *writer) *mirror {
	m := &mirror{nodes: merkle.Nodes{}, head: merkle.Head{Fork: w.head.Fork}}
	length := rapid.Uint64Range(0, w.head.Length).Draw(t, "reader's length")
	if length == 0 {
		return m
	}
	m.head = w.at(tb, length)
	m.nodes.Add(m.head.Roots...)
	for _, i := range rapid.SliceOfN(rapid.Uint64Range(0, length-1), 0, 8).Draw(t, "held") {
		if err := m.fetchBlock(w, i); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
	}
	return m
}

// fetchBlock asks for a block as a replicator does.
func (m *mirror) fetchBlock(w *writer, i uint64) error {
	nodes, err := merkle.Missing(m.nodes, i, m.head.Length)
	if err != nil {
		return err
	}
	return m.fetch(w, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: nodes}})
}

// drawRequest draws what a reader may ask: parts of what it has a head of, or
// an upgrade with or without a part of what is new.
func drawRequest(t *rapid.T, w *writer, m *mirror) (req merkle.Request) {
	req.Fork = w.head.Fork
	start, end := m.head.Length, m.head.Length // the blocks that are new
	if start < w.head.Length && rapid.Bool().Draw(t, "upgrade") {
		length := rapid.Uint64Range(1, w.head.Length-start).Draw(t, "upgrade by")
		req.Upgrade = &merkle.UpgradeRequest{Start: start, Length: length}
		end += length
	}
	kinds := []string{"nothing"}
	if start > 0 {
		kinds = append(kinds, "block", "hash", "hash and seek")
	}
	if end > start {
		kinds = append(kinds, "new block", "new hash", "new seek")
	}
	seek := func(first, end uint64) *merkle.SeekRequest {
		return &merkle.SeekRequest{Bytes: rapid.Uint64Range(byteOf(w, first), byteOf(w, end)).Draw(t, "byte")}
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "block":
		req.Block = m.want(t, 2*rapid.Uint64Range(0, start-1).Draw(t, "block"))
		req.Block.Index /= 2
	case "hash":
		req.Hash = m.want(t, drawNode(t, 0, start))
	case "hash and seek":
		req.Hash = m.want(t, drawNode(t, 0, start))
		first, last := flat.Span(above(req.Hash.Index, req.Hash.Nodes))
		if byteOf(w, first/2) < byteOf(w, last/2+1) {
			req.Seek = &merkle.SeekRequest{Bytes: rapid.Uint64Range(byteOf(w, first/2), byteOf(w, last/2+1)-1).Draw(t, "byte")}
		}
	case "new block":
		req.Block = &merkle.NodeRequest{Index: rapid.Uint64Range(start, end-1).Draw(t, "block")}
	case "new hash":
		req.Hash = &merkle.NodeRequest{Index: drawNode(t, start, end)}
	case "new seek":
		req.Seek = seek(start, end)
	}
	return req
}

// drawNode draws a node all of whose blocks are from first up to end.
func drawNode(t *rapid.T, first, end uint64) uint64 {
	i := 2 * rapid.Uint64Range(first, end-1).Draw(t, "leaf")
	for range rapid.IntRange(0, 6).Draw(t, "up") {
		l, r := flat.Span(flat.Parent(i))
		if l < 2*first || r >= 2*end {
			break
		}
		i = flat.Parent(i)
	}
	return i
}

// want asks for a node of the tree that the reader has: up to the first node
// that is here, or to one above.
func (m *mirror) want(t *rapid.T, i uint64) *merkle.NodeRequest {
	var steps []uint64
	for n := uint64(0); ; n++ {
		up := above(i, n)
		if flat.Contains(up, 2*m.head.Length) {
			break
		}
		if _, ok := m.nodes[up]; ok {
			steps = append(steps, n)
		}
	}
	return &merkle.NodeRequest{Index: i, Nodes: rapid.SampledFrom(steps).Draw(t, "nodes")}
}

// byteOf returns how many bytes come before a block.
func byteOf(w *writer, block uint64) (n uint64) {
	for _, b := range w.blocks[:block] {
		n += uint64(len(b))
	}
	return n
}

// TestProveVerify has random logs, readers and requests: every answer is
// verified, and what it shows is what the writer has.
func TestProveVerify(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := write(t, rapid.Uint64Range(0, 3).Draw(rt, "fork"), drawBlocks(rt, 1, 40))
		m := drawMirror(rt, t, w)
		req := drawRequest(rt, w, m)
		p, err := w.answer(req)
		if err != nil {
			rt.Fatalf("prove %s: %v", describe(req), err)
		}
		v, err := merkle.Verify(m.nodes, m.head, p)
		if err != nil {
			rt.Fatalf("verify %s: %v", describe(p), err)
		}
		for _, n := range v.Nodes {
			if w.nodes[n.Index] != n {
				rt.Errorf("verified node %v, which is not the writer's %v", n, w.nodes[n.Index])
			}
		}
		if want := w.head.Hash(); v.Upgraded && (v.Head.Hash() != want || v.Head.Length != w.head.Length) {
			rt.Errorf("upgraded to %d blocks, hash %x, want %d, %x", v.Head.Length, v.Head.Hash(), w.head.Length, want)
		}
		if !v.Upgraded && !reflect.DeepEqual(v.Head, m.head) {
			rt.Errorf("the head has changed to %v", v.Head)
		}
	})
}

// TestChangedProofs changes one thing in an answer: it is refused, or its head is
// another one, which the writer has not signed, or it is as true as before: one
// that proves less, say.
func TestChangedProofs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := write(t, rapid.Uint64Range(0, 3).Draw(rt, "fork"), drawBlocks(rt, 1, 40))
		m := drawMirror(rt, t, w)
		p, err := w.answer(drawRequest(rt, w, m))
		if err != nil {
			rt.Fatal(err)
		}
		before := describe(p)
		change(rt, &p)
		if describe(p) == before {
			rt.Skip("nothing in it can be changed")
		}
		v, err := merkle.Verify(m.nodes, m.head, p)
		if err == nil && !w.refuses(v) && !w.agrees(p, v) {
			rt.Errorf("%s\nis changed to\n%s\nand good", before, describe(p))
		}
		if err != nil && !errors.Is(err, cloudpal.Invalid) {
			rt.Errorf("got %v, want %v", err, cloudpal.Invalid)
		}
	})
}

// refuses reports whether an upgrade is to a head that the writer has not signed.
func (w *writer) refuses(v merkle.Verified) bool {
	return v.Upgraded && (v.Head.Hash() != w.head.Hash() || v.Head.Length != w.head.Length || v.Head.Fork != w.head.Fork)
}

// agrees reports whether all that a proof shows is so.
func (w *writer) agrees(p merkle.Proof, v merkle.Verified) bool {
	if b := p.Block; b != nil && (b.Index >= w.head.Length || !bytes.Equal(b.Value, w.blocks[b.Index])) {
		return false
	}
	return !slices.ContainsFunc(v.Nodes, func(n merkle.Node) bool { return w.nodes[n.Index] != n })
}

// change changes one thing in a proof, except what only informs: the request's
// number, a seek's bytes, and the signature.
func change(t *rapid.T, p *merkle.Proof) {
	changes := []func(){func() { p.Fork++ }}
	if p.Block != nil {
		changes = append(changes,
			func() { p.Block.Index = mutate(t, p.Block.Index) },
			func() { p.Block.Value = append(slices.Clone(p.Block.Value), 0) },
			func() {
				if len(p.Block.Value) > 0 {
					p.Block.Value = slices.Clone(p.Block.Value)
					p.Block.Value[0] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
				}
			})
	}
	if p.Hash != nil {
		changes = append(changes, func() { p.Hash.Index = mutate(t, p.Hash.Index) })
	}
	if p.Upgrade != nil {
		changes = append(changes,
			func() { p.Upgrade.Start = mutate(t, p.Upgrade.Start) },
			func() { p.Upgrade.Length = mutate(t, p.Upgrade.Length) })
	}
	for _, list := range lists(p) {
		*list = slices.Clone(*list)
		at := rapid.IntRange(0, len(*list)).Draw(t, "at")
		changes = append(changes, func() {
			*list = slices.Insert(*list, at, merkle.Node{Index: rapid.Uint64().Draw(t, "index"), Size: 1})
		})
		if at == len(*list) {
			continue
		}
		n := &(*list)[at]
		changes = append(changes,
			func() { n.Index = mutate(t, n.Index) },
			func() { n.Size = mutate(t, n.Size) },
			func() { n.Hash[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit") },
			func() { *list = slices.Delete(*list, at, at+1) },
			func() { *list = slices.Insert(*list, at, *n) },
			func() { *list = append((*list)[at:], (*list)[:at]...) },
		)
	}
	rapid.SampledFrom(changes).Draw(t, "change")()
}

// mutate returns another number, mostly one nearby.
func mutate(t *rapid.T, n uint64) uint64 {
	return rapid.OneOf(
		rapid.Just(n+1), rapid.Just(n-1), rapid.Just(n^1<<63), rapid.Just(^n), rapid.Just(2*n+2),
		rapid.Uint64().Filter(func(v uint64) bool { return v != n }),
	).Draw(t, "number")
}

// TestSeek seeks with all nodes, and then as a reader who asks for more until
// the block is found.
func TestSeek(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		blocks := drawBlocks(rt, 1, 40)
		padding := rapid.SampledFrom([]uint64{0, 8}).Draw(rt, "padding")
		for i := range blocks {
			blocks[i] = append(blocks[i], make([]byte, padding)...)
		}
		w := write(t, 0, blocks)
		total := w.head.Bytes() - padding*w.head.Length
		at := rapid.Uint64Range(0, total).Draw(rt, "byte")
		want := position(blocks, at, padding)

		got, err := merkle.Seek(w.nodes, w.head, at, padding)
		if err != nil || !got.Found() || got.Start != want.Start || got.Offset != want.Offset {
			rt.Fatalf("byte %d: got %+v, %v, want %+v", at, got, err, want)
		}
		m := drawMirror(rt, t, w)
		m.seek(rt, w, at, padding, want)
		if _, err := merkle.Seek(w.nodes, w.head, total+1, padding); !errors.Is(err, cloudpal.NotExist) {
			rt.Errorf("after the end: got %v, want %v", err, cloudpal.NotExist)
		}
	})
}

// position finds a byte by counting. A byte that starts after empty blocks is in
// the first that is not empty, but byte 0 is in block 0.
func position(blocks [][]byte, at, padding uint64) merkle.Position {
	if at == 0 {
		return merkle.Position{}
	}
	for i, b := range blocks {
		size := uint64(len(b)) - padding
		if at < size {
			return merkle.Position{Start: uint64(i), Offset: at}
		}
		at -= size
	}
	return merkle.Position{Start: uint64(len(blocks))}
}

// seek finds a byte as a replicator does: first with the upgrade, then by hashes.
func (m *mirror) seek(t *rapid.T, w *writer, at, padding uint64, want merkle.Position) {
	seek := &merkle.SeekRequest{Bytes: at, Padding: padding}
	if start := m.head.Length; start < w.head.Length {
		up := &merkle.UpgradeRequest{Start: start, Length: w.head.Length - start}
		if err := m.fetch(w, merkle.Request{Upgrade: up, Seek: seek}); err != nil {
			t.Fatal(err)
		}
	}
	for rounds := 0; ; rounds++ {
		got, err := merkle.Seek(m.nodes, m.head, at, padding)
		if err != nil || rounds > 8 {
			t.Fatalf("byte %d: got %+v, %v after %d rounds", at, got, err, rounds)
		}
		if got.Found() {
			if got.Start != want.Start || got.Offset != want.Offset {
				t.Errorf("byte %d: got %+v, want %+v", at, got, want)
			}
			return
		}
		if want.Start < got.Start || want.Start > got.End {
			t.Fatalf("byte %d: got %+v, want %+v in it", at, got, want)
		}
		i := rapid.Uint64Range(got.Start, got.End-1).Draw(t, "of")
		nodes, err := merkle.Missing(m.nodes, i, m.head.Length)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.fetch(w, merkle.Request{Hash: &merkle.NodeRequest{Index: 2 * i, Nodes: nodes}, Seek: seek}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSparseSeekProof has one who answers seeks from a log of which they do not
// have all: what they find can be verified, and is not wrong.
func TestSparseSeekProof(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := write(t, 0, drawBlocks(rt, 1, 40))
		server := drawMirror(rt, t, w)
		if server.head.Bytes() == 0 {
			rt.Skip("nothing to seek in")
		}
		at := rapid.Uint64Range(0, server.head.Bytes()-1).Draw(rt, "byte")
		p, err := merkle.Prove(server.nodes, server.head, merkle.Request{
			Seek:    &merkle.SeekRequest{Bytes: at},
			Upgrade: &merkle.UpgradeRequest{Length: server.head.Length},
		})
		if err != nil {
			rt.Fatal(err)
		}
		v, err := merkle.Verify(merkle.Nodes{}, merkle.Head{}, p)
		if err != nil || v.Head.Hash() != server.head.Hash() {
			rt.Fatalf("got %v, %v", v.Head, err)
		}
	})
}

// TestFork has a reader of one fork who is told of another, and finds how many
// blocks they share.
func TestFork(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		blocks := drawBlocks(rt, 1, 40)
		old := write(t, 0, blocks)
		keep := rapid.IntRange(0, len(blocks)).Draw(rt, "keep")
		more := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 8), 0, 20).Draw(rt, "more")
		for i := range more {
			more[i] = append(more[i], "a block of the other fork"...)
		}
		w := write(t, 1, append(blocks[:keep:keep], more...))
		if w.head.Length == 0 {
			rt.Skip("the other fork is empty")
		}
		m := drawMirror(rt, t, old)
		want := min(uint64(keep), m.head.Length)

		length := m.head.Length
		if err := m.fetch(w, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: w.head.Length}}); err != nil {
			rt.Fatal(err)
		}
		for rounds := 0; !m.fork.Done(); rounds++ {
			if m.fork.Common() > want || rounds > 8 {
				rt.Fatalf("got %d blocks in common after %d rounds, want %d", m.fork.Common(), rounds, want)
			}
			first, end, nodes := m.fork.Want()
			if first >= end || end > length {
				rt.Fatalf("wants one of the blocks from %d up to %d, and has %d", first, end, length)
			}
			i := rapid.Uint64Range(first, end-1).Draw(rt, "of")
			if err := m.fetch(w, merkle.Request{Hash: &merkle.NodeRequest{Index: 2 * i, Nodes: nodes}}); err != nil {
				rt.Fatal(err)
			}
		}
		if m.fork.Common() > want {
			rt.Errorf("got %d blocks in common, want %d", m.fork.Common(), want)
		}
		for i, n := range m.nodes {
			if w.nodes[i] != n {
				rt.Errorf("node %d is not the other fork's", i)
			}
		}
		for i := range w.head.Length {
			if err := m.fetchBlock(w, i); err != nil {
				rt.Fatalf("block %d of the other fork: %v", i, err)
			}
		}
	})
}

// TestForkWithAllNodes finds exactly what is shared where the reader has all.
func TestForkWithAllNodes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		blocks := drawBlocks(rt, 1, 40)
		m := &mirror{}
		old := write(t, 0, blocks)
		m.nodes, m.head = old.nodes, old.head
		keep := rapid.IntRange(0, len(blocks)).Draw(rt, "keep")
		more := rapid.IntRange(1, 20).Draw(rt, "more")
		forked := blocks[:keep:keep]
		for range more {
			forked = append(forked, []byte("a block of the other fork, longer than all of this one"))
		}
		w := write(t, 1, forked)
		if err := m.fetch(w, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: w.head.Length}}); err != nil {
			rt.Fatal(err)
		}
		for !m.fork.Done() {
			first, end, nodes := m.fork.Want()
			i := rapid.Uint64Range(first, end-1).Draw(rt, "of")
			if err := m.fetch(w, merkle.Request{Hash: &merkle.NodeRequest{Index: 2 * i, Nodes: nodes}}); err != nil {
				rt.Fatal(err)
			}
		}
		if m.fork.Common() != uint64(keep) {
			rt.Errorf("got %d blocks in common, want %d", m.fork.Common(), keep)
		}
	})
}

// TestNarrowRefuses has wrong answers to what a fork wants.
func TestNarrowRefuses(t *testing.T) {
	old := write(t, 0, blocksNamed(8))
	changed := blocksNamed(8)
	changed[2] = []byte("changed")
	w := write(t, 1, changed)
	m := &mirror{nodes: old.nodes, head: old.head}
	if err := m.fetch(w, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 8}}); err != nil {
		t.Fatal(err)
	}
	answer := func(from *writer, index, nodes uint64) merkle.Proof {
		p, err := from.answer(merkle.Request{Hash: &merkle.NodeRequest{Index: index, Nodes: nodes}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		name string
		p    merkle.Proof
		want error
	}{
		{"nothing", merkle.Proof{}, merkle.ErrProof},
		{"too low", answer(w, 0, 2), merkle.ErrProof},
		{"only the node", answer(w, 7, 0), merkle.ErrProof},
		{"of the old tree", answer(old, 0, 3), merkle.ErrChecksum},
	} {
		if err := m.fork.Narrow(m.nodes, c.p); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	for _, i := range []uint64{14, 4} {
		if m.fork.Done() {
			t.Fatalf("done with %d blocks in common", m.fork.Common())
		}
		_, _, nodes := m.fork.Want()
		if err := m.receive(answer(w, i, nodes)); err != nil {
			t.Fatal(err)
		}
	}
	if !m.fork.Done() || m.fork.Common() != 2 {
		t.Errorf("got %d blocks in common, want 2", m.fork.Common())
	}
}

// TestTruncate checks that a store that deletes as it is told has just the nodes
// of the shorter log.
func TestTruncate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		blocks := drawBlocks(rt, 0, 40)
		w := write(t, 0, blocks)
		length := rapid.IntRange(0, len(blocks)).Draw(rt, "length")
		m := &mirror{nodes: w.nodes, head: w.head}
		h, err := merkle.Truncate(w.nodes, w.head, uint64(length), 7)
		if err != nil {
			rt.Fatal(err)
		}
		m.truncate(uint64(length))
		want := write(t, 7, blocks[:length])
		if !reflect.DeepEqual(m.nodes, want.nodes) || h.Hash() != want.head.Hash() || h.Fork != 7 || h.Length != want.head.Length {
			rt.Errorf("truncated from %d to %d: got nodes %v, want %v", len(blocks), length, m.nodes, want.nodes)
		}
		if _, err := merkle.Truncate(w.nodes, h, h.Length+1, 8); !errors.Is(err, merkle.ErrRequest) {
			rt.Errorf("got %v, want %v", err, merkle.ErrRequest)
		}
	})
}

// TestOffset counts the bytes before every node.
func TestOffset(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := write(t, 0, drawBlocks(rt, 1, 40))
		i := drawNode(rt, 0, w.head.Length)
		first, _ := flat.Span(i)
		if got, err := merkle.Offset(w.nodes, w.head, i); err != nil || got != byteOf(w, first/2) {
			rt.Errorf("node %d: got %d, %v, want %d", i, got, err, byteOf(w, first/2))
		}
		for _, beyond := range []uint64{2 * w.head.Length, flat.Parent(w.head.Roots[0].Index), 1 << 63, 1<<64 - 1} {
			if _, err := merkle.Offset(w.nodes, w.head, beyond); !errors.Is(err, merkle.ErrRequest) {
				rt.Errorf("node %d of %d blocks: got %v, want %v", beyond, w.head.Length, err, merkle.ErrRequest)
			}
		}
	})
}
