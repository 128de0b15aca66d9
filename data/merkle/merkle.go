// Package merkle is the Merkle tree over the blocks of a hypercore: how it
// grows, and how one peer proves to another what is in it.
//
// The tree is a flat tree (package flat): block n is node 2n, and a log of
// Length blocks has as many roots as Length has bits set. The tree hash, which
// the writer signs, is over the roots. A node covers its index, the bytes of
// all blocks below it, and a hash; leaf, parent and tree hashes start with
// different bytes, so that none can be taken for another.
//
// A writer grows a tree with a Batch:
//
//	var b merkle.Batch
//	b.Reset(head)
//	b.Append(blocks...)
//	store(b.Nodes())
//	head = b.Head() // and sign b.Hash()
//
// A reader asks for a part of the tree with a Request, which says what it has
// already; Prove makes the Proof from what is stored, and Verify checks it
// against what the reader has:
//
//	request {block 5, nodes 3}        Missing says 3: nodes 10, 9 and 11 are not here
//	proof   {block 5, nodes [8 13]}   the siblings on the way up to a node that is
//
//	request {upgrade {start 5, length 8}}
//	proof   {nodes that turn the roots of 5 blocks into those of 13, and a signature}
//
// Nothing here reads or writes files, waits, or knows keys: nodes come from a
// Reader, and the signature in Verified.Head is the caller's to check (package
// manifest) before anything of an upgrade is stored.
//
// A proof is a stranger's. Verify takes time and memory in proportion to the
// size of what it is given, never to a number in it; sizes that do not add up
// to what JavaScript can count are refused, and so is every node that is not
// needed. What the format cannot show: the lowest two nodes of a hash or seek
// answer are only known together, so a peer may say that one is larger and the
// other smaller than it is, and mislead a seek. Block answers have no such
// gap, and put such a size right when it is met.
package merkle

import (
	"encoding/binary"

	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal/data/blake2b8"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/flat"
)

// MaxLength is the largest number of blocks of a log: then all indexes are
// numbers that JavaScript can hold.
const MaxLength = 1 << 52

// A Hash is a BLAKE2b hash of 32 bytes.
type Hash [32]byte

// What is hashed in front of a leaf, a parent and the roots.
const (
	leafType   = 0
	parentType = 1
	rootType   = 2
)

// A Node is one of the tree. Size counts the bytes of the blocks below it as
// they are stored, so of an encrypted log with their padding.
type Node struct {
	Index, Size uint64
	Hash        Hash
}

// MinNodeLen is the length of the shortest encoded Node.
const MinNodeLen = 1 + 1 + len(Hash{})

// Append appends the node as messages and signatures have it.
func (n Node) Append(b []byte) []byte {
	b = compact.AppendUint(compact.AppendUint(b, n.Index), n.Size)
	return append(b, n.Hash[:]...)
}

// DecodeNode reads what Append has written.
func DecodeNode(d *compact.Decoder) Node {
	return Node{Index: d.Uint(), Size: d.Uint(), Hash: d.Fixed32()}
}

// MaxNodes is the largest number of nodes in a list that DecodeNodes reads. A
// list of an honest proof has at most two for each doubling of the length.
const MaxNodes = 128

// AppendNodes appends a list of nodes.
func AppendNodes(b []byte, nodes []Node) []byte {
	b = compact.AppendUint(b, uint64(len(nodes)))
	for _, n := range nodes {
		b = n.Append(b)
	}
	return b
}

// DecodeNodes reads a list of at most limit nodes.
func DecodeNodes(d *compact.Decoder, limit int) []Node {
	nodes := make([]Node, d.Count(limit, MinNodeLen))
	for i := range nodes {
		nodes[i] = DecodeNode(d)
	}
	return nodes
}

// A Reader has the nodes that are stored. Node returns ok false for one that is
// not; an error means that it could not look. It may block, and is called from
// one goroutine at a time.
type Reader interface {
	Node(index uint64) (n Node, ok bool, err error)
}

// Nodes are nodes in memory, by index; they are a Reader.
type Nodes map[uint64]Node

// Node implements Reader.
func (m Nodes) Node(index uint64) (Node, bool, error) {
	n, ok := m[index]
	return n, ok, nil
}

// Add puts nodes in.
func (m Nodes) Add(nodes ...Node) {
	for _, n := range nodes {
		m[n.Index] = n
	}
}

// atOnce is how many leaves are made at once.
const atOnce = 64

// leaves sets nodes to those of blocks, which are equally long, but for their
// indexes. There are at most atOnce.
func leaves(nodes []Node, blocks [][]byte) {
	size := uint64(len(blocks[0]))
	var head [9]byte
	head[0] = leafType
	binary.LittleEndian.PutUint64(head[1:], size)
	var sums [atOnce][32]byte
	blake2b8.Sum256(sums[:len(blocks)], head[:], blocks)
	for i := range nodes {
		nodes[i] = Node{Size: size, Hash: sums[i]}
	}
}

// alike returns how many of the first blocks are equally long, at most atOnce.
func alike(blocks [][]byte) int {
	n := 1
	for n < min(len(blocks), atOnce) && len(blocks[n]) == len(blocks[0]) {
		n++
	}
	return n
}

// Leaf returns the node of a block. It hardly ever allocates.
func Leaf(block uint64, data []byte) Node {
	var n [1]Node
	leaves(n[:], [][]byte{data})
	n[0].Index = 2 * block
	return n[0]
}

// Leaves sets nodes to those of the blocks of proofs, for VerifyLeaf; there are as
// many of both. Blocks of one length that follow each other are hashed together,
// which is faster. Proofs without a block have none.
func Leaves(nodes []Node, proofs []Proof) {
	var blocks [atOnce][]byte
	for len(proofs) > 0 {
		n := 0
		for n < min(len(proofs), atOnce) && proofs[n].Block != nil {
			blocks[n] = proofs[n].Block.Value
			n++
		}
		if n == 0 {
			nodes, proofs = nodes[1:], proofs[1:]
			continue
		}
		n = alike(blocks[:n])
		leaves(nodes[:n], blocks[:n])
		for i := range n {
			nodes[i].Index = 2 * proofs[i].Block.Index
		}
		nodes, proofs = nodes[n:], proofs[n:]
	}
}

// Parent returns the node above two siblings, which may be given in either
// order. It does not allocate.
func Parent(a, b Node) Node {
	if a.Index > b.Index {
		a, b = b, a
	}
	n := Node{Index: flat.Parent(a.Index), Size: a.Size + b.Size}
	var in [1 + 8 + 2*len(Hash{})]byte
	in[0] = parentType
	binary.LittleEndian.PutUint64(in[1:], n.Size)
	copy(in[9:], a.Hash[:])
	copy(in[9+len(a.Hash):], b.Hash[:])
	n.Hash = blake2b.Sum256(in[:])
	return n
}

// parents hashes nodes above siblings together. It is what that takes.
type parents struct {
	in       [atOnce / 2][8 + 2*len(Hash{})]byte
	messages [atOnce / 2][]byte
	sums     [atOnce / 2][32]byte
}

// of sets nodes to those above pairs of siblings, each from left to right, of which
// there are at most half of atOnce.
func (s *parents) of(nodes []Node, pairs [][2]Node) {
	for i, p := range pairs {
		nodes[i] = Node{Index: flat.Parent(p[0].Index), Size: p[0].Size + p[1].Size}
		in := s.in[i][:]
		binary.LittleEndian.PutUint64(in, nodes[i].Size)
		copy(in[8:], p[0].Hash[:])
		copy(in[8+len(Hash{}):], p[1].Hash[:])
		s.messages[i] = in
	}
	n := len(pairs)
	blake2b8.Sum256(s.sums[:n], []byte{parentType}, s.messages[:n])
	for i := range nodes {
		nodes[i].Hash = s.sums[i]
	}
}

// TreeHash returns the hash over the roots of a tree, from left to right. It
// does not allocate.
func TreeHash(roots []Node) Hash {
	in := make([]byte, 0, 1+64*(len(Hash{})+16)) // a constant, so that it stays on the stack
	in = append(in, rootType)
	for _, n := range roots {
		in = append(in, n.Hash[:]...)
		in = binary.LittleEndian.AppendUint64(in, n.Index)
		in = binary.LittleEndian.AppendUint64(in, n.Size)
	}
	return blake2b.Sum256(in)
}

// A Head says all that a signature is about, and holds it. The zero Head is
// that of an empty log.
type Head struct {
	Fork, Length uint64
	Roots        []Node // from left to right
	Signature    []byte // as package manifest writes and checks it

	// Prologue is that of the manifest; nil for nearly all. Prove and Verify
	// heed it.
	Prologue *Prologue
}

// A Prologue is a start of the log that its manifest fixes: the tree hash that
// its first Length blocks must have. It needs no signature.
type Prologue struct {
	Hash   Hash
	Length uint64
}

// Bytes returns the bytes of all blocks.
func (h Head) Bytes() (n uint64) {
	for _, root := range h.Roots {
		n += root.Size
	}
	return n
}

// Hash returns the tree hash.
func (h Head) Hash() Hash { return TreeHash(h.Roots) }
