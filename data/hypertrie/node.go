package hypertrie

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/dchest/siphash"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tradle/cloudpal"
)

// A Header is the first block of a log.
type Header struct {
	Type     string // "hypertrie"
	Metadata []byte // for the user; nil is none
	Subtype  string // likewise
}

const headerType = "hypertrie"

// The fields of the messages.
const (
	headerTypeField     = 1
	headerMetadataField = 2
	headerSubtypeField  = 3

	nodeKeyField   = 1
	nodeValueField = 2
	nodeTrieField  = 3
	nodeSeqField   = 4
	nodeFlagsField = 5
)

func (h Header) encode() []byte {
	b := appendBytes(nil, headerTypeField, headerType)
	if h.Metadata != nil {
		b = appendBytes(b, headerMetadataField, h.Metadata)
	}
	if h.Subtype != "" {
		b = appendBytes(b, headerSubtypeField, h.Subtype)
	}
	return b
}

func decodeHeader(raw []byte) (h Header, err error) {
	err = fields(raw, func(field protowire.Number, b []byte, _ uint64) {
		switch field {
		case headerTypeField:
			h.Type = string(b)
		case headerMetadataField:
			h.Metadata = present(b)
		case headerSubtypeField:
			h.Subtype = string(b)
		}
	})
	if err == nil && h.Type != headerType {
		err = corrupt("the log is not a trie's")
	}
	return h, err
}

// The bits of a node's flags that are ours; those of the user are above.
const (
	flagHidden = 1
	flagBits   = 8
)

// terminal is what a key's path has where it ends.
const terminal = 4

// values is how many values a step of a path can have.
const values = 5

// maxBucket is how many references a step can have: the bits that the original
// reads of what says which there are.
const maxBucket = 31

// A node is a block of the log, but the header. It is not changed once it is
// made.
type node struct {
	seq   uint64
	key   string
	parts []string
	hash  []byte
	value []byte // nil is none
	flags uint64
	trie  []slot
}

// A slot has the nodes that part from this one at a step of the path: at
// place v those whose next value is v, and at v+5, v+10 and so on more of those
// whose part of the key has the same hash. 0 is none.
type slot struct {
	step int
	seqs []uint64
}

// newNode makes a node without a trie. The hash is over each part.
func newNode(key string, value []byte, flags uint64, hash func(string) [8]byte) *node {
	n := &node{key: key, value: value, flags: flags, parts: split(key)}
	n.hash = make([]byte, 0, 8*len(n.parts))
	for _, part := range n.parts {
		h := hash(part)
		n.hash = append(n.hash, h[:]...)
	}
	return n
}

// split returns the parts of a key.
func split(key string) []string {
	parts := strings.Split(key, "/")
	if parts[0] == "" {
		parts = parts[1:]
	}
	if n := len(parts); n > 0 && parts[n-1] == "" {
		parts = parts[:n-1]
	}
	return parts
}

// hash is SipHash-2-4 under a key of zeros.
func hash(part string) (h [8]byte) {
	binary.LittleEndian.PutUint64(h[:], siphash.Hash(0, 0, []byte(part)))
	return h
}

// length returns how many steps the node's path has: one for hidden or not, 32
// for each part, and one for the end.
func (n *node) length() int { return 4*len(n.hash) + 2 }

// path returns a step of the node's path.
func (n *node) path(i int) int {
	if i == 0 {
		return int(n.flags & flagHidden)
	}
	i--
	if i>>2 >= len(n.hash) {
		return terminal
	}
	return int(n.hash[i>>2]>>(2*(i&3))) & 3
}

// ends reports whether a step is the last of a part: there the parts themselves
// are compared, in case their hashes are equal.
func ends(i int) bool { return i > 0 && i&31 == 0 }

// collides reports whether two nodes of equal paths up to step i, the last of a
// part, have other parts there.
func (n *node) collides(o *node, i int) bool {
	part := (i - 1) / 32
	return part >= len(n.parts) || part >= len(o.parts) || n.parts[part] != o.parts[part]
}

// bucket returns the references of a step.
func (n *node) bucket(i int) []uint64 {
	at, ok := slices.BinarySearchFunc(n.trie, i, func(s slot, i int) int { return cmp.Compare(s.step, i) })
	if !ok {
		return nil
	}
	return n.trie[at].seqs
}

// parting returns the first step from i on that has references, or the node's
// length.
func (n *node) parting(i int) int {
	at, _ := slices.BinarySearchFunc(n.trie, i, func(s slot, i int) int { return cmp.Compare(s.step, i) })
	if at == len(n.trie) {
		return n.length()
	}
	return min(n.trie[at].step, n.length())
}

// link refers to another node, whose step i has value v, as far as it is not yet
// referred to there.
func (n *node) link(i, v int, seq uint64) error {
	at, ok := slices.BinarySearchFunc(n.trie, i, func(s slot, i int) int { return cmp.Compare(s.step, i) })
	if !ok {
		n.trie = slices.Insert(n.trie, at, slot{step: i})
	}
	seqs := n.trie[at].seqs
	v %= values
	for v < len(seqs) && seqs[v] != 0 {
		v += values
	}
	if slices.Contains(seqs, seq) {
		return nil
	}
	if v >= maxBucket {
		return cloudpal.E("", cloudpal.Exhausted, errors.New("too many keys have the same hash"))
	}
	for len(seqs) <= v {
		seqs = append(seqs, 0)
	}
	seqs[v] = seq
	n.trie[at].seqs = seqs
	return nil
}

func (n *node) entry() Entry {
	return Entry{Seq: n.seq, Key: n.key, Value: n.value, Flags: n.flags >> flagBits}
}

// encode returns the node's block.
func (n *node) encode() []byte {
	b := appendBytes(nil, nodeKeyField, n.key)
	if n.value != nil {
		b = appendBytes(b, nodeValueField, n.value)
	}
	b = appendBytes(b, nodeTrieField, n.encodeTrie())
	b = protowire.AppendVarint(protowire.AppendTag(b, nodeSeqField, protowire.VarintType), n.seq)
	return protowire.AppendVarint(protowire.AppendTag(b, nodeFlagsField, protowire.VarintType), n.flags)
}

// encodeTrie writes how many steps there are, and of each with references its
// number, which there are, and the references.
func (n *node) encodeTrie() []byte {
	if len(n.trie) == 0 {
		return []byte{0}
	}
	b := binary.AppendUvarint(nil, uint64(n.trie[len(n.trie)-1].step+1))
	for _, s := range n.trie {
		var which uint64
		for v, seq := range s.seqs {
			if seq != 0 {
				which |= 1 << v
			}
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(s.step)), which)
		for _, seq := range s.seqs {
			if seq != 0 {
				b = binary.AppendUvarint(b, seq)
			}
		}
	}
	return b
}

// decodeNode reads the block at seq. An emptied trie, which has an empty key, is
// a nil node.
func decodeNode(raw []byte, seq uint64, hash func(string) [8]byte) (*node, error) {
	var key, value, trie []byte
	var flags uint64
	err := fields(raw, func(field protowire.Number, b []byte, v uint64) {
		switch field {
		case nodeKeyField:
			key = present(b)
		case nodeValueField:
			value = present(b)
		case nodeTrieField:
			trie = b
		case nodeFlagsField:
			flags = v
		}
	})
	switch {
	case err != nil:
		return nil, err
	case key == nil:
		return nil, corrupt("a block has no key")
	case len(key) > MaxKey:
		return nil, corrupt("a key is too long")
	}
	text := strings.TrimPrefix(string(key), "/")
	if text == "" {
		return nil, nil
	}
	n := newNode(text, value, flags, hash)
	n.seq = seq
	n.trie, err = decodeTrie(trie, seq, n.length())
	return n, err
}

// decodeTrie reads what encodeTrie has written. References are to blocks before
// seq, and steps are in order; so whoever follows them comes to an end.
func decodeTrie(raw []byte, seq uint64, length int) (trie []slot, err error) {
	if len(raw) == 0 {
		return nil, nil
	}
	d := varints{raw}
	d.next() // how many steps there are
	for len(d.rest) > 0 {
		step, which := d.next(), d.next()
		if step >= uint64(length) || which>>maxBucket != 0 || len(trie) > 0 && uint64(trie[len(trie)-1].step) >= step {
			return nil, corrupt("a trie has steps that cannot be")
		}
		s := slot{step: int(step)}
		for ; which != 0; which >>= 1 {
			var ref uint64
			if which&1 != 0 {
				if ref = d.next(); ref == 0 || ref >= seq {
					return nil, corrupt("a trie refers to what was not there yet")
				}
				if s.step == 1 && len(s.seqs) == terminal {
					ref = 0 // an emptied trie: only it has a path that ends here
				}
			}
			s.seqs = append(s.seqs, ref)
		}
		if !ends(s.step) && len(s.seqs) > values {
			return nil, corrupt("a trie has hashes that collide before their end")
		}
		trie = append(trie, s)
	}
	return trie, nil
}

// varints reads numbers; what is none reads as 0, and ends the reading.
type varints struct{ rest []byte }

func (d *varints) next() uint64 {
	v, n := protowire.ConsumeVarint(d.rest)
	if n < 0 {
		d.rest = nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// fields calls f for each field of a message: with its bytes, or its number.
func fields(raw []byte, f func(field protowire.Number, b []byte, v uint64)) error {
	for len(raw) > 0 {
		field, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return corrupt("a block is no message")
		}
		raw = raw[n:]
		var b []byte
		var v uint64
		switch kind {
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(raw)
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(raw)
		default:
			n = protowire.ConsumeFieldValue(field, kind, raw)
		}
		if n < 0 {
			return corrupt("a block is no message")
		}
		raw = raw[n:]
		f(field, b, v)
	}
	return nil
}

func appendBytes[T []byte | string](b []byte, field protowire.Number, v T) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// present makes an empty slice of one that is nil: nil stands for "not there".
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func corrupt(trouble string) error {
	return cloudpal.E("read a trie", cloudpal.Corrupt, errors.New(trouble))
}
