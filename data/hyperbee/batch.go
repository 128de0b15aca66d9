package hyperbee

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/tradle/cloudpal"
)

// A Batch is a set of changes that Flush appends in one step: after a crash
// all are there, or none. It reads its own changes. The first change locks the
// bee for other writers until Flush or Close.
//
// A batch is for one goroutine, and can be used again after Flush or Close.
type Batch struct {
	bee *Bee

	locked bool
	broken error  // why the tree in memory is no longer one
	base   uint64 // log's length under the lock
	view   view
	root   *node // nil until the first change, and in an empty tree
	room
}

// A room is what a writer needs, and leaves to the next one.
type room struct {
	ops   []op
	slots []*child // of all ops
	herd  herd
	buf   []byte
}

// clear empties the room, and throws out what a large batch left in it.
func (r *room) clear() {
	clear(r.ops)
	clear(r.slots)
	r.ops, r.slots, r.buf = r.ops[:0], r.slots[:0], r.buf[:0]
	if cap(r.slots) > herdSize*2 {
		r.ops, r.slots = nil, nil
	}
	if cap(r.buf) > 1<<20 {
		r.buf = nil
	}
	r.herd.free()
}

// An op is one change, and which of slots are the tree nodes that it wrote.
type op struct {
	key      string
	value    []byte
	from, to int
}

// A Swap decides whether next may take prev's place. It is asked only where the
// key has a value already.
type Swap func(prev, next Entry) bool

// Batch returns a new, empty batch.
func (b *Bee) Batch() *Batch { return &Batch{bee: b} }

// Lock keeps other writers out until Flush or Close, also before the first
// change: what the batch reads from now on is what it will change.
func (b *Batch) Lock(ctx context.Context) error {
	if b.locked {
		return b.broken
	}
	if err := b.bee.lock(ctx); err != nil {
		return err
	}
	b.locked = true
	b.room, b.bee.tree.room = b.bee.tree.room, room{}
	if err := b.begin(ctx); err != nil {
		b.Close()
		return err
	}
	return nil
}

// begin finds out where the log ends, and gives an empty one its header.
func (b *Batch) begin(ctx context.Context) error {
	t := b.bee.tree
	if t.log.Length() == 0 {
		header := Header{magic, t.metadata}
		if _, err := t.log.Append(header.append(nil)); err != nil {
			return err
		}
	}
	b.view = b.bee.view()
	b.base = b.view.version
	b.view.batch = b
	return nil
}

// Close forgets the batch's changes and unlocks the bee.
func (b *Batch) Close() {
	if !b.locked {
		return
	}
	b.locked, b.broken, b.root, b.view = false, nil, nil, view{}
	b.room.clear()
	b.bee.tree.room, b.room = b.room, room{}
	b.bee.unlock()
}

// Len is the number of changes that Flush will append.
func (b *Batch) Len() int { return len(b.ops) }

// Put sets a key. A nil value is "none", which is still an entry; an empty one
// is empty. Both slices may be used again.
func (b *Batch) Put(ctx context.Context, key, value []byte) error {
	_, err := b.PutIf(ctx, key, value, nil)
	return err
}

// PutIf is Put where swap agrees. A key without a value is set unasked.
func (b *Batch) PutIf(ctx context.Context, key, value []byte, swap Swap) (bool, error) {
	if err := b.Lock(ctx); err != nil {
		return false, err
	}
	return b.put(ctx, b.bee.ownKey(key), bytes.Clone(value), swap)
}

// Delete removes a key. One that is not there is no error, and writes nothing.
func (b *Batch) Delete(ctx context.Context, key []byte) error {
	_, err := b.DeleteIf(ctx, key, nil)
	return err
}

// DeleteIf is Delete where swap agrees; next has no value. It reports whether
// it deleted something.
func (b *Batch) DeleteIf(ctx context.Context, key []byte, swap Swap) (bool, error) {
	if err := b.Lock(ctx); err != nil {
		return false, err
	}
	return b.delete(ctx, b.bee.ownKey(key), swap)
}

// Get is Bee.Get, over the batch's changes.
func (b *Batch) Get(ctx context.Context, key []byte) (Entry, error) {
	if !b.locked {
		return b.bee.Get(ctx, key)
	}
	v := b.view
	return b.bee.strip(v.get(ctx, string(b.bee.fullKey(key))))
}

// BySeq is Bee.BySeq, over the batch's changes.
func (b *Batch) BySeq(ctx context.Context, seq uint64) (Entry, error) {
	if !b.locked || seq < b.base {
		return b.bee.BySeq(ctx, seq)
	}
	if seq >= b.base+uint64(len(b.ops)) {
		return Entry{}, cloudpal.NotExist
	}
	o := &b.ops[seq-b.base]
	return b.bee.strip(Entry{seq, []byte(o.key), o.value}, nil)
}

// Peek is Bee.Peek, over the batch's changes.
func (b *Batch) Peek(ctx context.Context, r Range) (Entry, error) {
	return peek(b.Range(ctx, r))
}

// Range is Bee.Range, over the batch's changes. The batch must not change
// while it runs.
func (b *Batch) Range(ctx context.Context, r Range) iter.Seq2[Entry, error] {
	if !b.locked {
		return b.bee.Range(ctx, r)
	}
	return func(yield func(Entry, error) bool) {
		v := b.view
		b.bee.walk(ctx, &v, r, yield)
	}
}

// block is a change that is not in the log yet, as the view reads it.
func (b *Batch) block(seq uint64) block {
	if i := seq - b.base; i < uint64(len(b.ops)) {
		return block{key: []byte(b.ops[i].key), value: b.ops[i].value}
	}
	return block{key: []byte{}}
}

// next is the number of the block that the next change will be.
func (b *Batch) next() uint64 { return b.base + uint64(len(b.ops)) }

func (b *Batch) loadRoot(ctx context.Context) (*node, error) {
	if b.root != nil || b.view.version < 2 {
		return b.root, nil
	}
	p, err := b.view.page(ctx, place{b.view.version - 1, 0})
	if err != nil {
		return nil, err
	}
	b.root = b.herd.thaw(p)
	return b.root, nil
}

// append notes a change and which tree nodes it wrote.
func (b *Batch) append(root *node, key string, value []byte) {
	seq, from := b.next(), len(b.slots)
	b.place(root, seq, from)
	b.slots[from] = &child{seq: seq, node: root}
	b.ops = append(b.ops, op{key, value, from, len(b.slots)})
	b.root = root
}

// place gives n and all changed nodes below it their levels in block seq, in
// the order in which a reader walking down meets them.
func (b *Batch) place(n *node, seq uint64, from int) (off int) {
	off = len(b.slots) - from
	b.slots = append(b.slots, nil)
	n.changed = false
	for _, c := range n.children {
		if c.node == nil || !c.node.changed {
			continue
		}
		c.seq = seq
		at := b.place(c.node, seq, from)
		c.off = uint32(at)
		b.slots[from+at] = c
	}
	return off
}

// Flush appends the batch's changes, if any, and unlocks the bee. They are in
// the log's database when it returns; to survive a power cut the log must be
// synced.
func (b *Batch) Flush() error {
	if !b.locked {
		return nil
	}
	defer b.Close()
	if b.broken != nil {
		return b.broken
	}
	if len(b.ops) == 0 {
		return nil
	}
	t := b.bee.tree
	if n := t.log.Length(); n != b.base || t.log.Fork() != b.view.fork {
		return errForeign(b.base, n)
	}
	length, err := t.log.Append(b.encode()...)
	if err != nil {
		return err
	}
	if want := b.next(); length != want {
		return errForeign(want, length)
	}
	b.keep()
	return nil
}

func errForeign(want, length uint64) error {
	return cloudpal.E(fmt.Sprintf("append to bee of length %d", want), cloudpal.Busy,
		fmt.Errorf("log has length %d: something else appends to it", length))
}

// encode makes the blocks. All share one buffer.
func (b *Batch) encode() [][]byte {
	buf := b.buf[:0]
	if size := b.estimate(); cap(buf) < size {
		buf = make([]byte, 0, size)
	}
	ends := make([]int, len(b.ops))
	for i := range b.ops {
		if i < len(b.ops)-1 {
			b.pack(i)
		}
		buf = b.encodeOp(buf, &b.ops[i])
		ends[i] = len(buf)
	}
	b.buf = buf
	blocks := make([][]byte, len(ends))
	start := 0
	for i, end := range ends {
		blocks[i] = buf[start:end:end]
		start = end
	}
	return blocks
}

func (b *Batch) estimate() (size int) {
	for i := range b.ops {
		size += len(b.ops[i].key) + len(b.ops[i].value) + 16
	}
	last := b.ops[len(b.ops)-1]
	return size + 100*(last.to-last.from) + 20*len(b.ops)
}

// pack drops from op i, which is not the last of the batch, the tree nodes that
// a later op has written again, and its root in any case. The gaps are filled
// from the end, as the original does, which moves nodes that later blocks
// refer to: ops must be packed in order.
func (b *Batch) pack(i int) {
	o := &b.ops[i]
	seq := b.base + uint64(i)
	s := b.slots[o.from:o.to]
	s[0] = nil
	for j := 0; j < len(s); {
		if c := s[j]; c != nil && c.seq == seq {
			c.off = uint32(j)
			j++
			continue
		}
		s[j] = s[len(s)-1]
		s = s[:len(s)-1]
	}
	o.to = o.from + len(s)
}

func (b *Batch) encodeOp(buf []byte, o *op) []byte {
	slots := b.slots[o.from:o.to]
	size := 0
	for _, c := range slots {
		n := c.node.encodedLen()
		size += 1 + uvarintLen(uint64(n)) + n
	}
	buf = binary.AppendUvarint(append(buf, 1<<3|2), uint64(size))
	for _, c := range slots {
		buf = binary.AppendUvarint(append(buf, 1<<3|2), uint64(c.node.encodedLen()))
		buf = c.node.append(buf)
	}
	buf = appendField(buf, 2, o.key)
	if o.value != nil {
		buf = appendField(buf, 3, o.value)
	}
	return buf
}

func (n *node) listLens() (keys, children int) {
	for i := range n.keys {
		keys += uvarintLen(n.keys[i].seq)
	}
	for _, c := range n.children {
		children += uvarintLen(c.seq) + uvarintLen(uint64(c.off))
	}
	return keys, children
}

// encodedLen is the length of what append appends.
func (n *node) encodedLen() (size int) {
	keys, children := n.listLens()
	if keys > 0 {
		size += 1 + uvarintLen(uint64(keys)) + keys
	}
	if children > 0 {
		size += 1 + uvarintLen(uint64(children)) + children
	}
	return size
}

func (n *node) append(buf []byte) []byte {
	keys, children := n.listLens()
	if keys > 0 {
		buf = binary.AppendUvarint(append(buf, 1<<3|2), uint64(keys))
		for i := range n.keys {
			buf = binary.AppendUvarint(buf, n.keys[i].seq)
		}
	}
	if children > 0 {
		buf = binary.AppendUvarint(append(buf, 2<<3|2), uint64(children))
		for _, c := range n.children {
			buf = binary.AppendUvarint(buf, c.seq)
			buf = binary.AppendUvarint(buf, uint64(c.off))
		}
	}
	return buf
}

// keep makes the tree nodes that were written the pages that the next
// operation finds, instead of those that they came from.
func (b *Batch) keep() {
	if b.bee.tree.log.Fork() != b.view.fork {
		return
	}
	old := make([]place, 0, len(b.slots))
	pages := make([]*page, 0, len(b.slots))
	for i := range b.ops {
		o := &b.ops[i]
		for off, c := range b.slots[o.from:o.to] {
			at := place{b.base + uint64(i), uint32(off)}
			old = append(old, c.node.was)
			pages = append(pages, c.node.freeze(at))
		}
	}
	b.view.cache.replace(b.view.fork, old, pages)
}
