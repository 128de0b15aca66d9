package merkle_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
)

// A writer has a whole tree and its blocks.
type writer struct {
	nodes  merkle.Nodes
	head   merkle.Head
	blocks [][]byte
}

func write(t testing.TB, fork uint64, blocks [][]byte) *writer {
	t.Helper()
	var b merkle.Batch
	b.Reset(merkle.Head{Fork: fork})
	for _, block := range blocks {
		b.Append(block)
	}
	w := &writer{nodes: merkle.Nodes{}, head: b.Head(), blocks: blocks}
	w.nodes.Add(b.Nodes()...)
	return w
}

// blocksNamed returns the blocks that the vectors are made of.
func blocksNamed(n uint64) (blocks [][]byte) {
	for i := range n {
		blocks = append(blocks, fmt.Appendf(nil, "block-%d", i))
	}
	return blocks
}

func (w *writer) sign(t *testing.T, m manifest.Manifest, pair manifest.KeyPair) {
	t.Helper()
	signature, err := m.Sign(m.Key(), pair, w.head)
	if err != nil {
		t.Fatal(err)
	}
	w.head.Signature = signature
}

// at returns the head that the log had at a length.
func (w *writer) at(t testing.TB, length uint64) merkle.Head {
	t.Helper()
	h, err := merkle.Truncate(w.nodes, w.head, length, w.head.Fork)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// answer proves what a request asks for, with the block.
func (w *writer) answer(req merkle.Request) (merkle.Proof, error) {
	p, err := merkle.Prove(w.nodes, w.head, req)
	if err == nil && p.Block != nil {
		p.Block.Value = w.blocks[p.Block.Index]
	}
	return p, err
}

// above returns the node some steps up.
func above(i, steps uint64) uint64 {
	for range steps {
		i = flat.Parent(i)
	}
	return i
}

// lists returns all lists of nodes in a proof.
func lists(p *merkle.Proof) (all []*[]merkle.Node) {
	if p.Block != nil {
		all = append(all, &p.Block.Nodes)
	}
	if p.Hash != nil {
		all = append(all, &p.Hash.Nodes)
	}
	if p.Seek != nil {
		all = append(all, &p.Seek.Nodes)
	}
	if p.Upgrade != nil {
		all = append(all, &p.Upgrade.Nodes, &p.Upgrade.Additional)
	}
	return all
}

// A mirror is a reader's copy of a tree: what it has been sent and could verify.
type mirror struct {
	nodes    merkle.Nodes
	head     merkle.Head
	manifest *manifest.Manifest // nil where signatures are not checked

	fork   *merkle.Fork // while it is told apart from what is here
	forked merkle.Verified
}

// receive takes an answer as a replicator does.
func (m *mirror) receive(p merkle.Proof) error {
	switch {
	case m.fork != nil && !m.fork.Done():
		if err := m.fork.Narrow(m.nodes, p); err != nil || !m.fork.Done() {
			return err
		}
		return m.adopt()
	case p.Fork > m.head.Fork:
		v, err := merkle.Verify(merkle.Nodes{}, merkle.Head{Fork: p.Fork}, p)
		if err == nil {
			err = m.checkSigned(v)
		}
		if err != nil {
			return err
		}
		m.forked = v
		if m.fork, err = merkle.Part(m.nodes, m.head.Length, v); err != nil || !m.fork.Done() {
			return err
		}
		return m.adopt()
	}
	v, err := merkle.Verify(m.nodes, m.head, p)
	if err == nil {
		err = m.checkSigned(v)
	}
	if err == nil {
		m.head = v.Head
		m.nodes.Add(v.Nodes...)
	}
	return err
}

func (m *mirror) checkSigned(v merkle.Verified) error {
	if m.manifest == nil || !v.Upgraded {
		return nil
	}
	return m.manifest.Verify(m.manifest.Key(), v.Head)
}

// adopt goes over to another fork, of which it keeps what both have.
func (m *mirror) adopt() error {
	m.truncate(m.fork.Common())
	m.nodes.Add(m.forked.Nodes...)
	m.nodes.Add(m.fork.Nodes()...)
	m.head = m.forked.Head
	return nil
}

func (m *mirror) truncate(length uint64) {
	for i := range m.nodes {
		if i >= 2*length {
			delete(m.nodes, i)
		}
	}
	for _, i := range merkle.AppendSevered(nil, length, m.head.Length) {
		delete(m.nodes, i)
	}
}

// fetch asks for a part and takes the answer.
func (m *mirror) fetch(w *writer, req merkle.Request) error {
	p, err := w.answer(req)
	if err != nil {
		return err
	}
	return m.receive(p)
}

func TestEmptyTree(t *testing.T) {
	var b merkle.Batch
	if got, want := b.Hash(), merkle.TreeHash(nil); got != want || b.Length() != 0 || len(b.Nodes()) != 0 {
		t.Errorf("got %x, want %x", got, want)
	}
	p, err := merkle.Prove(merkle.Nodes{}, merkle.Head{Fork: 3}, merkle.Request{ID: 9, Block: &merkle.NodeRequest{}})
	if err != nil || p.ID != 9 || p.Fork != 3 || p.Block != nil {
		t.Errorf("got %v, %v, want a proof of nothing", p, err)
	}
	if v, err := merkle.Verify(merkle.Nodes{}, merkle.Head{Fork: 3}, p); err != nil || v.Upgraded || len(v.Nodes) != 0 {
		t.Errorf("got %v, %v, want nothing verified", v, err)
	}
}

// TestHeadIsOwned checks that a head stays as it is when the batch goes on.
func TestHeadIsOwned(t *testing.T) {
	var b merkle.Batch
	b.Append([]byte("a"))
	one := b.Head()
	hash := one.Hash()
	b.Append([]byte("b"))
	b.Reset(one)
	b.Append([]byte("c"))
	if one.Hash() != hash || one.Length != 1 {
		t.Errorf("the head has changed to %v", one)
	}
}

// TestAppendNodeRefuses has nodes that do not follow on the tree.
func TestAppendNodeRefuses(t *testing.T) {
	for _, n := range []merkle.Node{
		{Index: 4}, {Index: 8}, {Index: 12}, {Index: 1}, {Index: 5},
		{Index: 10, Size: compact.MaxUint}, {Index: 10, Size: math.MaxUint64},
		{Index: math.MaxUint64}, {Index: 1 << 60},
	} {
		var b merkle.Batch
		for _, block := range blocksNamed(5) {
			b.Append(block)
		}
		if err := b.AppendNode(n); !errors.Is(err, merkle.ErrProof) || b.Length() != 5 {
			t.Errorf("node %d of %d bytes: got %v, want %v", n.Index, n.Size, err, merkle.ErrProof)
		}
	}
}

// TestRequestsThatCannotBe asks what no tree of 13 blocks can answer.
func TestRequestsThatCannotBe(t *testing.T) {
	w := write(t, 0, blocksNamed(13))
	node := func(i, n uint64) *merkle.NodeRequest { return &merkle.NodeRequest{Index: i, Nodes: n} }
	up := func(start, length uint64) *merkle.UpgradeRequest {
		return &merkle.UpgradeRequest{Start: start, Length: length}
	}
	for name, req := range map[string]merkle.Request{
		"a block beyond the end":     {Block: node(13, 0)},
		"the last number of all":     {Block: node(math.MaxUint64, 0)},
		"a block and half of 2^64":   {Block: node(1<<63+2, 0)},
		"too far up":                 {Block: node(0, 4)},
		"as far up as there is":      {Block: node(0, math.MaxUint64)},
		"a node over the edge":       {Hash: node(27, 0)},
		"a node beyond":              {Hash: node(26, 0)},
		"the node with all ones":     {Hash: node(math.MaxUint64, 0)},
		"a block and a hash":         {Block: node(0, 0), Hash: node(0, 0)},
		"an upgrade by nothing":      {Upgrade: up(3, 0)},
		"an upgrade too far":         {Upgrade: up(3, 11)},
		"an upgrade from the end":    {Upgrade: up(13, 1)},
		"an upgrade that overflows":  {Upgrade: up(3, math.MaxUint64)},
		"a block after the upgrade":  {Block: node(9, 0), Upgrade: up(3, 5)},
		"a node over the start":      {Hash: node(7, 0), Upgrade: up(5, 8)},
		"a seek and a new block":     {Block: node(9, 0), Seek: &merkle.SeekRequest{Bytes: 1}, Upgrade: up(3, 10)},
		"a seek that is elsewhere":   {Block: node(9, 1), Seek: &merkle.SeekRequest{Bytes: 1}},
		"a seek beyond":              {Block: node(9, 1), Seek: &merkle.SeekRequest{Bytes: math.MaxUint64}},
		"more padding than bytes":    {Block: node(9, 1), Seek: &merkle.SeekRequest{Bytes: 65, Padding: 8}},
		"much more padding":          {Seek: &merkle.SeekRequest{Bytes: 65, Padding: math.MaxUint64}, Upgrade: up(0, 13)},
		"much more padding, below 3": {Hash: node(8, 2), Seek: &merkle.SeekRequest{Bytes: 30, Padding: 1 << 62}},
	} {
		if p, err := merkle.Prove(w.nodes, w.head, req); !errors.Is(err, merkle.ErrRequest) || !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %+v, %v, want %v", name, p, err, merkle.ErrRequest)
		}
	}
}

// TestProveWithoutNodes checks that a sparse log says what it does not have.
func TestProveWithoutNodes(t *testing.T) {
	w := write(t, 0, blocksNamed(13))
	delete(w.nodes, 6)
	for _, req := range []merkle.Request{
		{Block: &merkle.NodeRequest{Index: 2, Nodes: 1}},
		{Hash: &merkle.NodeRequest{Index: 6}},
		{Upgrade: &merkle.UpgradeRequest{Start: 3, Length: 10}},
	} {
		if _, err := merkle.Prove(w.nodes, w.head, req); !errors.Is(err, cloudpal.NotExist) {
			t.Errorf("%+v: got %v, want %v", req, err, cloudpal.NotExist)
		}
	}
	if _, err := merkle.Prove(w.nodes, w.head, merkle.Request{Block: &merkle.NodeRequest{Index: 3}}); err != nil {
		t.Errorf("a block that needs no node: %v", err)
	}
}

// brokenReader cannot read.
type brokenReader struct{}

var errDisk = errors.New("the disk is gone")

func (brokenReader) Node(uint64) (merkle.Node, bool, error) { return merkle.Node{}, false, errDisk }

func TestReaderErrors(t *testing.T) {
	w := write(t, 0, blocksNamed(13))
	req := merkle.Request{Block: &merkle.NodeRequest{Index: 2, Nodes: 1}}
	p, err := w.answer(req)
	if err != nil {
		t.Fatal(err)
	}
	_, prove := merkle.Prove(brokenReader{}, w.head, req)
	_, seekProof := merkle.Prove(brokenReader{}, w.head, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 13}, Seek: &merkle.SeekRequest{Bytes: 30}})
	_, verify := merkle.Verify(brokenReader{}, w.head, p)
	_, missing := merkle.Missing(brokenReader{}, 2, 13)
	_, seek := merkle.Seek(brokenReader{}, w.head, 30, 0)
	_, offset := merkle.Offset(brokenReader{}, w.head, 6)
	_, truncate := merkle.Truncate(brokenReader{}, w.head, 5, 1)
	_, part := merkle.Part(brokenReader{}, 13, merkle.Verified{Head: w.head})
	for i, err := range []error{prove, seekProof, verify, missing, seek, offset, truncate, part} {
		if !errors.Is(err, errDisk) {
			t.Errorf("function %d: got %v, want %v", i, err, errDisk)
		}
	}
}

// TestWrongSizeIsPutRight has a peer that lies about the sizes of two nodes of a
// hash answer, which the format cannot show, and then a block whose path meets
// one of them.
func TestWrongSizeIsPutRight(t *testing.T) {
	w := write(t, 0, blocksNamed(8))
	m := &mirror{nodes: merkle.Nodes{}, head: w.head}
	m.nodes.Add(w.head.Roots...)
	lie, err := w.answer(merkle.Request{Hash: &merkle.NodeRequest{Index: 1, Nodes: 2}})
	if err != nil {
		t.Fatal(err)
	}
	lie.Hash.Nodes[0].Size++
	lie.Hash.Nodes[1].Size--
	if err := m.receive(lie); err != nil || m.nodes[1].Size != w.nodes[1].Size+1 {
		t.Fatalf("the lie is found out at once: %v", err)
	}
	if err := m.fetch(w, merkle.Request{Block: &merkle.NodeRequest{Index: 0, Nodes: 1}}); err != nil {
		t.Fatal(err)
	}
	if m.nodes[1] != w.nodes[1] {
		t.Errorf("got %v, want %v", m.nodes[1], w.nodes[1])
	}
}

// TestPrologue has a log whose first five blocks the manifest fixes.
func TestPrologue(t *testing.T) {
	w := write(t, 0, blocksNamed(13))
	prologue := &merkle.Prologue{Hash: w.at(t, 5).Hash(), Length: 5}
	w.head.Prologue = prologue
	p, err := w.answer(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: 0, Length: 2}})
	if err != nil || p.Upgrade.Start != 0 || p.Upgrade.Length != 5 {
		t.Fatalf("got %+v, %v, want an upgrade to the prologue", p.Upgrade, err)
	}
	empty := merkle.Head{Prologue: prologue}
	v, err := merkle.Verify(merkle.Nodes{}, empty, p)
	if err != nil || v.Head.Length != 13 || v.Head.Prologue != prologue || v.Head.Hash() != w.head.Hash() {
		t.Fatalf("got %+v, %v", v.Head, err)
	}

	other := merkle.Head{Prologue: &merkle.Prologue{Hash: merkle.Hash{1}, Length: 5}}
	if _, err := merkle.Verify(merkle.Nodes{}, other, p); !errors.Is(err, merkle.ErrChecksum) {
		t.Errorf("another prologue: got %v, want %v", err, merkle.ErrChecksum)
	}
	w.head.Prologue = nil
	for _, length := range []uint64{2, 13} {
		p, err := w.answer(merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: length}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := merkle.Verify(merkle.Nodes{}, empty, p); !errors.Is(err, merkle.ErrProof) {
			t.Errorf("an upgrade to %d: got %v, want %v", length, err, merkle.ErrProof)
		}
	}
	w.head.Prologue = prologue
	if p, err := w.answer(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: 5, Length: 1}}); err != nil || p.Upgrade.Length != 1 {
		t.Errorf("after the prologue: got %+v, %v", p.Upgrade, err)
	}
}

// TestStale has answers that come too late.
func TestStale(t *testing.T) {
	w := write(t, 2, blocksNamed(13))
	p, err := w.answer(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: 5, Length: 8}})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []merkle.Head{w.at(t, 8), w.at(t, 3), {Fork: 1, Length: 5}} {
		if _, err := merkle.Verify(w.nodes, h, p); !errors.Is(err, merkle.ErrStale) {
			t.Errorf("at length %d, fork %d: got %v, want %v", h.Length, h.Fork, err, merkle.ErrStale)
		}
	}
}

// TestHostileProofs has numbers that must not be believed.
func TestHostileProofs(t *testing.T) {
	w := write(t, 0, blocksNamed(13))
	five := w.at(t, 5)
	node := func(i, size uint64) merkle.Node { return merkle.Node{Index: i, Size: size} }
	many := make([]merkle.Node, 1<<16)
	for i := range many {
		many[i] = node(flat.Sibling(above(0, uint64(min(i, 62)))), 1)
	}
	for name, p := range map[string]merkle.Proof{
		"a block at the end of all":  {Block: &merkle.BlockProof{Index: math.MaxUint64}},
		"a block at 2^63":            {Block: &merkle.BlockProof{Index: 1 << 63}},
		"a block after the last":     {Block: &merkle.BlockProof{Index: merkle.MaxLength}},
		"a path without an end":      {Block: &merkle.BlockProof{Nodes: many}},
		"the node with all ones":     {Hash: &merkle.HashProof{Index: math.MaxUint64, Nodes: []merkle.Node{node(math.MaxUint64, 0)}}},
		"a hash without nodes":       {Hash: &merkle.HashProof{Index: 3}},
		"another hash":               {Hash: &merkle.HashProof{Index: 3, Nodes: []merkle.Node{node(1, 1)}}},
		"sizes that overflow":        {Hash: &merkle.HashProof{Index: 0, Nodes: []merkle.Node{node(0, math.MaxUint64), node(2, 2)}}},
		"sizes that are too large":   {Hash: &merkle.HashProof{Index: 0, Nodes: []merkle.Node{node(0, compact.MaxUint), node(2, 1)}}},
		"a path in a circle":         {Hash: &merkle.HashProof{Index: 0, Nodes: []merkle.Node{node(0, 1), node(2, 1), node(2, 1)}}},
		"its own sibling":            {Hash: &merkle.HashProof{Index: 0, Nodes: []merkle.Node{node(0, 1), node(0, 1)}}},
		"a block and a hash":         {Block: &merkle.BlockProof{}, Hash: &merkle.HashProof{}},
		"a seek beside the path":     {Block: &merkle.BlockProof{}, Seek: &merkle.SeekProof{Nodes: []merkle.Node{node(8, 1)}}},
		"an upgrade by nothing":      {Upgrade: &merkle.UpgradeProof{Start: 5}},
		"an upgrade that overflows":  {Upgrade: &merkle.UpgradeProof{Start: 5, Length: math.MaxUint64}},
		"an upgrade to the last":     {Upgrade: &merkle.UpgradeProof{Start: 5, Length: merkle.MaxLength - 5, Nodes: many}},
		"an upgrade without nodes":   {Upgrade: &merkle.UpgradeProof{Start: 5, Length: 3}},
		"additional at the end":      {Upgrade: &merkle.UpgradeProof{Start: 5, Length: 1, Nodes: []merkle.Node{node(10, 1)}, Additional: []merkle.Node{node(math.MaxUint64, 1)}}},
		"additional before the end":  {Upgrade: &merkle.UpgradeProof{Start: 5, Length: 1, Nodes: []merkle.Node{node(10, 1)}, Additional: []merkle.Node{node(2, 1)}}},
		"many additional":            {Upgrade: &merkle.UpgradeProof{Start: 5, Length: 1, Nodes: []merkle.Node{node(10, 1)}, Additional: many}},
		"a total that is too large":  {Upgrade: &merkle.UpgradeProof{Start: 5, Length: 3, Nodes: []merkle.Node{node(10, 1), node(13, compact.MaxUint)}}},
		"a node that is not needed":  {Upgrade: &merkle.UpgradeProof{Start: 5, Length: 1, Nodes: []merkle.Node{node(10, 1), node(12, 1)}}},
		"a block that hangs nowhere": {Block: &merkle.BlockProof{Index: 7}, Upgrade: &merkle.UpgradeProof{Start: 5, Length: 1, Nodes: []merkle.Node{node(10, 1)}}},
	} {
		if _, err := merkle.Verify(w.nodes, five, p); !errors.Is(err, merkle.ErrProof) {
			t.Errorf("%s: got %v, want %v", name, err, merkle.ErrProof)
		}
	}
	bad := merkle.Proof{Block: &merkle.BlockProof{Index: 4, Value: []byte("another")}}
	if _, err := merkle.Verify(w.nodes, five, bad); !errors.Is(err, merkle.ErrChecksum) {
		t.Errorf("another block: got %v, want %v", err, merkle.ErrChecksum)
	}
}

func TestNodeEncoding(t *testing.T) {
	w := write(t, 0, blocksNamed(13))
	b := merkle.AppendNodes(nil, w.head.Roots)
	d := compact.NewDecoder(b)
	if got := merkle.DecodeNodes(&d, merkle.MaxNodes); !slices.Equal(got, w.head.Roots) || d.Err() != nil || d.Len() != 0 {
		t.Errorf("got %v, %v, want %v", got, d.Err(), w.head.Roots)
	}
	d = compact.NewDecoder(b)
	if merkle.DecodeNodes(&d, 1); !errors.Is(d.Err(), compact.ErrLarge) {
		t.Errorf("got %v, want %v", d.Err(), compact.ErrLarge)
	}
}

func Example() {
	// A writer appends three blocks and stores the nodes.
	stored := merkle.Nodes{}
	var b merkle.Batch
	for _, block := range []string{"a", "bc", "def"} {
		b.Append([]byte(block))
	}
	stored.Add(b.Nodes()...)
	head := b.Head()

	// A reader who has nothing asks for all, with block 1.
	proof, err := merkle.Prove(stored, head, merkle.Request{
		Block:   &merkle.NodeRequest{Index: 1},
		Upgrade: &merkle.UpgradeRequest{Start: 0, Length: 3},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	proof.Block.Value = []byte("bc")

	// It verifies the answer, and would check the signature of the head now.
	mine := merkle.Nodes{}
	v, err := merkle.Verify(mine, merkle.Head{}, proof)
	if err != nil {
		fmt.Println(err)
		return
	}
	mine.Add(v.Nodes...)
	fmt.Println(v.Head.Length, "blocks of", v.Head.Bytes(), "bytes")
	fmt.Println(v.Head.Hash() == head.Hash())

	missing, err := merkle.Missing(mine, 0, v.Head.Length)
	fmt.Println("for block 0 are missing", missing, err)

	proof.Block.Value = []byte("bd")
	v, err = merkle.Verify(merkle.Nodes{}, merkle.Head{}, proof)
	fmt.Println(v.Head.Hash() == head.Hash(), err)
	// Output:
	// 3 blocks of 6 bytes
	// true
	// for block 0 are missing 0 <nil>
	// false <nil>
}

// TestLeaves hashes blocks of proofs together, of lengths in any order, and holds
// their leaves against those of one block.
func TestLeaves(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		proofs := make([]merkle.Proof, random.IntN(70))
		for i := range proofs {
			if random.IntN(10) == 0 {
				continue // it has none
			}
			value := make([]byte, 100*random.IntN(3))
			for j := range value {
				value[j] = byte(random.Uint32())
			}
			proofs[i].Block = &merkle.BlockProof{Index: random.Uint64N(merkle.MaxLength), Value: value}
		}
		nodes := make([]merkle.Node, len(proofs))
		merkle.Leaves(nodes, proofs)
		for i, p := range proofs {
			var want merkle.Node
			if p.Block != nil {
				want = merkle.Leaf(p.Block.Index, p.Block.Value)
			}
			if nodes[i] != want {
				t.Fatalf("proof %d of %d has leaf %v, not %v", i, len(proofs), nodes[i], want)
			}
		}
	}
}

// TestVerifyLeaf refuses a block that does not have the leaf, as Verify does.
func TestVerifyLeaf(t *testing.T) {
	var b merkle.Batch
	blocks := [][]byte{[]byte("one"), []byte("two"), []byte("three")}
	b.Append(blocks...)
	nodes := merkle.Nodes{}
	nodes.Add(b.Nodes()...)
	p := merkle.Proof{Block: &merkle.BlockProof{Index: 1, Value: blocks[1]}}
	if _, err := merkle.VerifyLeaf(nodes, b.Head(), p, merkle.Leaf(1, blocks[1])); err != nil {
		t.Errorf("its own leaf: %v", err)
	}
	for name, leaf := range map[string]merkle.Node{"another block's": merkle.Leaf(1, blocks[0]), "none": {}} {
		if _, err := merkle.VerifyLeaf(nodes, b.Head(), p, leaf); err == nil {
			t.Errorf("%s leaf is taken", name)
		}
	}
}

// TestAppendTogether grows trees by many blocks at once, and by one leaf after the
// other: they are the same.
func TestAppendTogether(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		var together, single merkle.Batch
		for range 1 + random.IntN(4) {
			size := random.IntN(300)
			blocks := make([][]byte, random.IntN(200))
			for i := range blocks {
				if random.IntN(100) == 0 {
					size = random.IntN(300)
				}
				blocks[i] = make([]byte, size)
				for j := range blocks[i] {
					blocks[i][j] = byte(random.Uint32())
				}
				if err := single.AppendNode(merkle.Leaf(single.Length(), blocks[i])); err != nil {
					t.Fatal(err)
				}
			}
			together.Append(blocks...)
			if got, want := together.Head(), single.Head(); !reflect.DeepEqual(got, want) {
				t.Fatalf("after %d blocks the head is %+v, not %+v", single.Length(), got, want)
			}
			if together.Bytes() != single.Bytes() {
				t.Fatalf("it has %d bytes, not %d", together.Bytes(), single.Bytes())
			}
		}
		got, want := merkle.Nodes{}, merkle.Nodes{}
		got.Add(together.Nodes()...)
		want.Add(single.Nodes()...)
		if len(together.Nodes()) != len(want) || !maps.Equal(got, want) {
			t.Fatalf("%d nodes were made of %d blocks, not %d, or others", len(together.Nodes()), single.Length(), len(want))
		}
	}
}
