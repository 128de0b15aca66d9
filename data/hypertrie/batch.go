package hypertrie

import (
	"context"
	"errors"
	"fmt"

	"github.com/tradle/cloudpal"
)

// A Batch makes many changes in one step of the log: all of them, or none. It
// sees its own changes. It keeps other writers waiting from its first use until
// it is flushed or closed. It is for one goroutine.
type Batch struct {
	trie   *Trie
	locked bool
	view   view
	head   *node
	base   uint64  // the block that the first node will be
	nodes  []*node // in the order of their blocks
}

// Batch returns a new batch.
func (t *Trie) Batch() *Batch { return &Batch{trie: t} }

var errReadOnly = cloudpal.E("write to a trie", cloudpal.Denied, errors.New("it is an old version"))

// begin waits for other writers, the first time.
func (b *Batch) begin(ctx context.Context) error {
	if b.locked {
		return nil
	}
	if b.trie.version > 0 {
		return errReadOnly
	}
	select {
	case b.trie.shared.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.locked = true
	b.view = b.trie.view()
	b.base = b.view.version
	var err error
	if b.head, err = b.view.head(ctx); err != nil {
		b.Close()
		return err
	}
	b.view.batch = b
	return nil
}

// Close gives up what was not flushed. A batch that is closed begins anew.
func (b *Batch) Close() {
	if !b.locked {
		return
	}
	b.locked, b.nodes, b.head = false, nil, nil
	<-b.trie.shared.lock
}

// Len returns how many blocks the batch will append.
func (b *Batch) Len() int { return len(b.nodes) }

// node returns one of the batch's; nil where it empties the trie.
func (b *Batch) node(seq uint64) *node {
	at := seq - b.base
	if at >= uint64(len(b.nodes)) || b.nodes[at].key == "" {
		return nil
	}
	return b.nodes[at]
}

// Get is Trie.Get, with the batch's changes.
func (b *Batch) Get(ctx context.Context, key string) (Entry, error) {
	n, err := b.find(ctx, key)
	switch {
	case err != nil:
		return Entry{}, cloudpal.E("get a key", "", err)
	case n == nil:
		return Entry{}, cloudpal.E("get a key", cloudpal.NotExist, nil)
	}
	return n.entry(), nil
}

func (b *Batch) find(ctx context.Context, key string) (*node, error) {
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	want, err := b.view.want(key, false)
	if err != nil {
		return nil, err
	}
	n, _, err := b.locate(ctx, want)
	return n, err
}

// Put is Trie.Put.
func (b *Batch) Put(ctx context.Context, key string, value []byte) error {
	_, err := b.PutIf(ctx, Entry{Key: key, Value: value}, nil)
	return err
}

// PutIf is Trie.PutIf.
func (b *Batch) PutIf(ctx context.Context, e Entry, swap Swap) (bool, error) {
	const op = "set a key"
	if e.Flags > MaxFlags {
		return false, cloudpal.E(op, cloudpal.Invalid, errors.New("its flags are too large"))
	}
	key, err := normal(e.Key)
	if err == nil {
		err = b.begin(ctx)
	}
	if err != nil {
		return false, cloudpal.E(op, "", err)
	}
	n := newNode(key, e.Value, e.Flags<<flagBits|b.trie.hidden, b.view.hash)
	n.seq = b.base + uint64(len(b.nodes))
	prev, err := b.build(ctx, n, 0)
	if err != nil {
		return false, cloudpal.E(op, "", err)
	}
	if swap != nil && !swap(entryOf(prev), n.entry()) {
		return false, nil
	}
	b.append(n)
	return true, nil
}

func entryOf(n *node) Entry {
	if n == nil {
		return Entry{}
	}
	return n.entry()
}

func (b *Batch) append(n *node) {
	b.nodes = append(b.nodes, n)
	b.head = b.node(n.seq)
}

// build fills a new node's trie: with references to all nodes that the newest
// one leads to, as seen from the new one, but that of block without. It returns
// the node that had the key, or nil.
func (b *Batch) build(ctx context.Context, n *node, without uint64) (prev *node, err error) {
	head := b.head
	for i := 0; head != nil && i < n.length(); i++ {
		parting := parts(n, head, i)
		if parting && head.seq != without {
			if err := n.link(i, head.path(i), head.seq); err != nil {
				return nil, err
			}
		}
		if err := b.copyBucket(ctx, n, head, i, without); err != nil {
			return nil, err
		}
		if parting {
			if head, err = b.view.find(ctx, head, n, i); err != nil {
				return nil, err
			}
		}
	}
	return head, nil
}

// copyBucket takes over a step's references, but those to nodes that n stands
// for.
func (b *Batch) copyBucket(ctx context.Context, n, head *node, i int, without uint64) error {
	for v, seq := range head.bucket(i) {
		if seq == 0 || seq == without || v == n.path(i) && !ends(i) {
			continue
		}
		if ends(i) {
			other, err := b.view.follow(ctx, head, i, v, seq)
			if err != nil {
				return err
			}
			if other == nil || !other.collides(n, i) {
				continue
			}
		}
		if err := n.link(i, v, seq); err != nil {
			return err
		}
	}
	return nil
}

// Delete is Trie.Delete.
func (b *Batch) Delete(ctx context.Context, key string) error {
	_, err := b.DeleteIf(ctx, key, nil)
	return err
}

// DeleteIf is Trie.DeleteIf.
func (b *Batch) DeleteIf(ctx context.Context, key string, swap Swap) (bool, error) {
	done, err := b.deleteIf(ctx, key, swap)
	if err != nil {
		return false, cloudpal.E("delete a key", "", err)
	}
	return done, nil
}

func (b *Batch) deleteIf(ctx context.Context, key string, swap Swap) (bool, error) {
	if err := b.begin(ctx); err != nil {
		return false, err
	}
	want, err := b.view.want(key, false)
	if err != nil {
		return false, err
	}
	n, closest, err := b.locate(ctx, want)
	if err != nil || n == nil {
		return false, err
	}
	if swap != nil && !swap(n.entry(), Entry{Key: want.key}) {
		return false, nil
	}
	return true, b.splice(ctx, n, closest)
}

// locate finds a key's node, and which block has the node nearest to it: the one
// that parts from it last. It is 0 where there is no other.
func (b *Batch) locate(ctx context.Context, want *node) (n *node, closest uint64, err error) {
	n = b.head
	for i := 0; n != nil && i < want.length(); i++ {
		if !parts(n, want, i) {
			if other := firstOther(n.bucket(i), want.path(i), i); other != 0 {
				closest = other
			}
			continue
		}
		closest = n.seq
		if n, err = b.view.find(ctx, n, want, i); err != nil {
			return nil, 0, err
		}
	}
	return n, closest, nil
}

// firstOther returns the first reference of another value, or to a node whose
// hash collides.
func firstOther(bucket []uint64, value, i int) uint64 {
	for v, seq := range bucket {
		if seq != 0 && (v != value || ends(i)) {
			return seq
		}
	}
	return 0
}

// splice removes a node: it writes the one nearest to it again, without a
// reference to it; or one without a key, where there is no other.
func (b *Batch) splice(ctx context.Context, gone *node, closest uint64) error {
	var near *node
	var err error
	if closest != 0 {
		if near, err = b.view.node(ctx, closest); err != nil {
			return err
		}
	}
	if near == nil {
		near = newNode("", nil, gone.flags&flagHidden, b.view.hash)
	}
	again := *near
	again.trie = nil
	again.seq = b.base + uint64(len(b.nodes))
	if _, err := b.build(ctx, &again, gone.seq); err != nil {
		return err
	}
	b.append(&again)
	return nil
}

// Flush appends the batch to the log, and closes it.
func (b *Batch) Flush() error {
	defer b.Close()
	if len(b.nodes) == 0 {
		return nil
	}
	var blocks [][]byte
	if b.trie.log.Length() == 0 {
		blocks = append(blocks, b.trie.shared.header.encode())
	}
	for _, n := range b.nodes {
		blocks = append(blocks, n.encode())
	}
	length, err := b.trie.log.Append(blocks...)
	if err != nil {
		return cloudpal.E("write to a trie", "", err)
	}
	if want := b.base + uint64(len(b.nodes)); length != want {
		return cloudpal.E("write to a trie", cloudpal.Corrupt,
			fmt.Errorf("something else has written to the log: it has %d blocks, not %d", length, want))
	}
	return nil
}
