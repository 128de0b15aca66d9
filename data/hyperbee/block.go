package hyperbee

import (
	"encoding/binary"
	"math/bits"

	"github.com/tradle/cloudpal"
)

// What a block written by a stranger may hold. The tree's own limits follow
// from its order: a node has at most eight keys and, but for a leaf, one child
// more.
const (
	minKeys = 4
	maxKeys = 2 * minKeys

	maxDepth  = 32      // five children a node: 5^23 > 2^53
	maxLevels = 1 << 16 // levels in one block; an honest one has a few a depth, more only after refused swaps in a batch
)

const magic = "hyperbee"

// Metadata is what a bee's first block can carry beside the protocol's name.
// The fields are opaque to the bee; nil is "not there".
type Metadata struct {
	ContentFeed []byte // key of a log that the values point into
	UserData    []byte
}

// A Header is a bee's first block. Metadata is nil where the block has none.
type Header struct {
	Protocol string
	Metadata *Metadata
}

func (h Header) append(b []byte) []byte {
	b = appendField(b, 1, h.Protocol)
	if h.Metadata == nil {
		return b
	}
	var m []byte
	if h.Metadata.ContentFeed != nil {
		m = appendField(m, 1, h.Metadata.ContentFeed)
	}
	if h.Metadata.UserData != nil {
		m = appendField(m, 2, h.Metadata.UserData)
	}
	return appendField(b, 2, m)
}

func decodeHeader(raw []byte) (h Header, err error) {
	found := false
	fields := reader{rest: raw}
	for fields.next() {
		switch fields.tag {
		case 1:
			h.Protocol, found = string(fields.bytes()), true
		case 2:
			h.Metadata, err = decodeMetadata(fields.bytes())
			if err != nil {
				return Header{}, err
			}
		}
	}
	if fields.bad || !found {
		return Header{}, cloudpal.E("decode header", cloudpal.Corrupt, nil)
	}
	return h, nil
}

func decodeMetadata(raw []byte) (*Metadata, error) {
	m := new(Metadata)
	fields := reader{rest: raw}
	for fields.next() {
		switch fields.tag {
		case 1:
			m.ContentFeed = present(fields.bytes())
		case 2:
			m.UserData = present(fields.bytes())
		}
	}
	if fields.bad {
		return nil, cloudpal.E("decode metadata", cloudpal.Corrupt, nil)
	}
	return m, nil
}

// A block is an entry and the tree nodes that were written with it, as they
// stand in the log: index holds the nodes, still encoded. All alias the block.
type block struct {
	index, key, value []byte // value is nil where the block has none
}

func decodeBlock(raw []byte) (b block, err error) {
	fields := reader{rest: raw}
	for fields.next() {
		switch fields.tag {
		case 1:
			b.index = present(fields.bytes())
		case 2:
			b.key = present(fields.bytes())
		case 3:
			b.value = present(fields.bytes())
		}
	}
	if fields.bad || b.index == nil || b.key == nil {
		return block{}, errBlock
	}
	return b, nil
}

var errBlock = cloudpal.E("decode block", cloudpal.Corrupt, nil)

// A place is where a tree node stands: the level off of block seq.
type place struct {
	seq uint64
	off uint32
}

// A level is one decoded tree node: where its keys and its children stand.
type level struct {
	n, kids int
	keys    [maxKeys]uint64
	child   [maxKeys + 1]place
}

// level decodes the block's level off. The block stands at seq: a node refers
// to nothing younger than itself, so what does is damaged.
func (b block) level(seq uint64, off uint32, l *level) error {
	fields := reader{rest: b.index}
	for i := uint32(0); fields.next(); {
		if fields.tag != 1 {
			continue
		}
		raw := fields.bytes()
		if i == off && !fields.bad {
			return l.decode(raw, seq)
		}
		if i++; i >= maxLevels {
			break
		}
	}
	return errNode
}

var errNode = cloudpal.E("decode tree node", cloudpal.Corrupt, nil)

func (l *level) decode(raw []byte, seq uint64) error {
	l.n, l.kids = 0, 0
	fields := reader{rest: raw}
	for fields.next() {
		var ok bool
		switch fields.tag {
		case 1:
			ok = l.decodeKeys(fields.bytes(), seq)
		case 2:
			ok = l.decodeChildren(fields.bytes(), seq)
		default:
			ok = true
		}
		if !ok {
			return errNode
		}
	}
	if fields.bad || (l.kids != 0 && (l.kids != l.n+1 || l.n == 0)) {
		return errNode
	}
	return nil
}

func (l *level) decodeKeys(raw []byte, seq uint64) bool {
	for len(raw) > 0 {
		key, n := uvarint(raw)
		if n <= 0 || l.n == maxKeys || key == 0 || key > seq {
			return false
		}
		l.keys[l.n] = key
		l.n++
		raw = raw[n:]
	}
	return true
}

func (l *level) decodeChildren(raw []byte, seq uint64) bool {
	for len(raw) > 0 {
		at, n := uvarint(raw)
		if n <= 0 || l.kids > maxKeys || at == 0 || at > seq {
			return false
		}
		off, m := uvarint(raw[n:])
		if m <= 0 || off >= maxLevels {
			return false
		}
		l.child[l.kids] = place{at, uint32(off)}
		l.kids++
		raw = raw[n+m:]
	}
	return true
}

// holds reports whether one of the block's nodes has the key that stands at
// seq: with no value, that tells an entry without one from a deletion.
func (b block) holds(seq uint64) bool {
	levels := reader{rest: b.index}
	for levels.next() {
		if levels.tag != 1 {
			continue
		}
		lists := reader{rest: levels.bytes()}
		for lists.next() {
			if lists.tag == 1 && contains(lists.bytes(), seq) {
				return true
			}
		}
	}
	return false
}

func contains(packed []byte, want uint64) bool {
	for len(packed) > 0 {
		v, n := uvarint(packed)
		if n <= 0 {
			return false
		}
		if v == want {
			return true
		}
		packed = packed[n:]
	}
	return false
}

func (b block) deleted(seq uint64) bool { return b.value == nil && !b.holds(seq) }

// A reader goes through the fields of a protobuf message. Nothing is copied.
// bad is set, and next ends, at the first byte that is not one.
type reader struct {
	rest []byte
	tag  uint64
	val  []byte
	wire uint8
	bad  bool
}

func (r *reader) next() bool {
	if len(r.rest) == 0 || r.bad {
		return false
	}
	prefix, n := uvarint(r.rest)
	if n <= 0 {
		return r.fail()
	}
	r.rest = r.rest[n:]
	r.tag, r.wire, r.val = prefix>>3, uint8(prefix&7), nil
	switch r.wire {
	case 0:
		if _, n = uvarint(r.rest); n <= 0 {
			return r.fail()
		}
		return r.take(0, n)
	case 1:
		return r.take(0, 8)
	case 2:
		size, n := uvarint(r.rest)
		if n <= 0 || size > uint64(len(r.rest)-n) {
			return r.fail()
		}
		return r.take(n, n+int(size))
	case 5:
		return r.take(0, 4)
	}
	return r.fail()
}

func (r *reader) take(from, to int) bool {
	if to > len(r.rest) {
		return r.fail()
	}
	r.val, r.rest = r.rest[from:to:to], r.rest[to:]
	return true
}

func (r *reader) fail() bool {
	r.bad = true
	return false
}

// bytes returns the field's content, and marks the message bad where the field
// is of another type.
func (r *reader) bytes() []byte {
	if r.wire != 2 {
		r.bad = true
		return nil
	}
	return r.val
}

// uvarint is binary.Uvarint, with the one-byte case first and refusing numbers
// that no JavaScript program can have written.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	v, n := binary.Uvarint(b)
	if v >= 1<<53 {
		return 0, -1
	}
	return v, n
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func appendField[T []byte | string](b []byte, tag byte, content T) []byte {
	b = binary.AppendUvarint(append(b, tag<<3|2), uint64(len(content)))
	return append(b, content...)
}

// present makes an empty slice of one that is nil: nil stands for "not there".
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
