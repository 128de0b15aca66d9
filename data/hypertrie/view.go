package hypertrie

import (
	"context"
	"strings"
	"sync"
)

// A view is what one operation reads: the blocks of the log before a version.
type view struct {
	*shared
	log     Log
	fork    uint64
	version uint64
	hidden  uint64
	batch   *Batch // whose nodes come after those of the log; or nil
}

// view begins an operation.
func (t *Trie) view() view {
	v := view{shared: t.shared, log: t.log, fork: t.fork, version: t.version, hidden: t.hidden}
	if t.version == 0 {
		v.fork = t.log.Fork()
		v.version = max(1, t.log.Length())
	}
	return v
}

// head returns the newest node, from which all others are found; nil where there
// are none.
func (v *view) head(ctx context.Context) (*node, error) {
	if v.version < 2 {
		return nil, nil
	}
	return v.node(ctx, v.version-1)
}

// node returns the node of a block; nil where it is that of an emptied trie.
func (v *view) node(ctx context.Context, seq uint64) (*node, error) {
	if v.batch != nil && seq >= v.batch.base {
		return v.batch.node(seq), nil
	}
	if n, ok := v.cache.get(v.fork, seq); ok {
		return n, nil
	}
	raw, err := v.log.Get(ctx, seq)
	if err != nil {
		return nil, err
	}
	n, err := decodeNode(raw, seq, v.hash)
	if err == nil {
		v.cache.put(v.fork, seq, n)
	}
	return n, err
}

// follow returns a node that another one refers to, from step i with value v. It
// must belong there. It is nil where it is that of an emptied trie: the original
// leaves such references.
func (v *view) follow(ctx context.Context, from *node, i, value int, seq uint64) (*node, error) {
	n, err := v.node(ctx, seq)
	if err != nil || n == nil {
		return nil, err
	}
	if i >= n.length() || n.path(i) != value%values || !from.shares(n, i) {
		return nil, corrupt("a trie refers to a node that does not belong there")
	}
	return n, nil
}

// shares reports whether two nodes have the same path before step i: the hashes
// and, as far as they have ended, the parts.
func (n *node) shares(o *node, i int) bool {
	if n.flags&flagHidden != o.flags&flagHidden {
		return i == 0
	}
	whole := max(i-1, 0) / 32
	if len(n.parts) < whole || len(o.parts) < whole {
		return false
	}
	for p := range whole {
		if n.parts[p] != o.parts[p] {
			return false
		}
	}
	for j := whole*32 + 1; j < i; j++ {
		if n.path(j) != o.path(j) {
			return false
		}
	}
	return true
}

// find returns the node that a step leads to, of those with the value that want
// has there; nil where there is none.
func (v *view) find(ctx context.Context, from, want *node, i int) (*node, error) {
	seqs, value := from.bucket(i), want.path(i)
	for ; value < len(seqs) && seqs[value] != 0; value += values {
		n, err := v.follow(ctx, from, i, value, seqs[value])
		if err != nil || n != nil && (!ends(i) || !n.collides(want, i)) {
			return n, err
		}
	}
	return nil, nil
}

// parts reports whether two nodes that are the same up to step i part there.
func parts(a, b *node, i int) bool {
	return a.path(i) != b.path(i) || ends(i) && a.collides(b, i)
}

// get returns the node of a key, or where prefix is set one of those below it;
// nil where there is none.
func (v *view) get(ctx context.Context, key string, prefix bool) (*node, error) {
	want, err := v.want(key, prefix)
	if err != nil {
		return nil, err
	}
	length := want.length()
	if prefix {
		length--
	}
	n, err := v.head(ctx)
	for i := 0; i < length && n != nil && err == nil; i++ {
		if parts(n, want, i) {
			n, err = v.find(ctx, n, want, i)
		}
	}
	return n, err
}

// want returns a node that has the path that is looked for.
func (v *view) want(key string, prefix bool) (*node, error) {
	if prefix && strings.Trim(key, "/") == "" {
		return newNode("", nil, v.hidden, v.hash), nil
	}
	key, err := normal(key)
	if err != nil {
		return nil, err
	}
	return newNode(key, nil, v.hidden, v.hash), nil
}

// A cache has nodes by their blocks, up to so many, of one fork of the log.
type cache struct {
	mu   sync.Mutex
	max  int
	fork uint64
	m    map[uint64]*node
}

func newCache(max int) *cache { return &cache{max: max, m: map[uint64]*node{}} }

func (c *cache) get(fork, seq uint64) (*node, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fork != c.fork {
		return nil, false
	}
	n, ok := c.m[seq]
	return n, ok
}

// put keeps a node, and drops any other where there is no room. What was read
// of an older fork than the cache's is not kept.
func (c *cache) put(fork, seq uint64, n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fork < c.fork {
		return
	}
	if fork > c.fork {
		c.fork = fork
		clear(c.m)
	}
	for old := range c.m {
		if len(c.m) < c.max {
			break
		}
		delete(c.m, old)
	}
	c.m[seq] = n
}
