package hyperbee

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/tradle/cloudpal"
)

// A page is a tree node as it stands in the log. It never changes, so that all
// readers share it, but for the texts of its keys: a node only says in which
// blocks its keys stand, and each is read when first compared with.
type page struct {
	at    place
	n     int
	keys  [maxKeys]uint64
	kids  []place // none in a leaf
	texts atomic.Pointer[texts]

	first texts // what texts begins with, to allocate once

	hit  atomic.Bool // used since the cache last looked
	slot int32       // where the cache has it; guarded by the cache, -1 for nowhere
	size int64       // what the cache counts for it; guarded by the cache
}

// texts are the keys that are known, one after another, and where each ends.
// Never written to once shared. One that is empty is not known: the empty key,
// of which a tree has one at most, is read whenever it is compared with.
type texts struct {
	all  string
	ends [maxKeys]uint32
}

func (t *texts) at(i int) string {
	start := uint32(0)
	if i > 0 {
		start = t.ends[i-1]
	}
	return t.all[start:t.ends[i]]
}

func newPage(at place, l *level) *page {
	p := makePage(at, l.n, l.kids)
	p.keys = l.keys
	copy(p.kids, l.child[:l.kids])
	return p
}

// makePage allocates a page, with its children if it has any.
func makePage(at place, n, kids int) *page {
	if kids == 0 {
		return &page{at: at, n: n, slot: -1}
	}
	p := &struct {
		page
		room [maxKeys + 1]place
	}{page: page{at: at, n: n, slot: -1}}
	p.kids = p.room[:kids]
	return &p.page
}

func (p *page) len() int         { return p.n }
func (p *page) leaf() bool       { return len(p.kids) == 0 }
func (p *page) seq(i int) uint64 { return p.keys[i] }

// known is text where no block must be read for it, else "".
func (p *page) known(i int) string {
	if t := p.texts.Load(); t != nil {
		return t.at(i)
	}
	return ""
}

func (p *page) text(ctx context.Context, v *view, i int) (string, error) {
	if text := p.known(i); text != "" {
		return text, nil
	}
	b, err := v.block(ctx, p.keys[i])
	if err != nil {
		return "", err
	}
	p.learn(i, b.key)
	v.cache.grow(p, int64(len(b.key)))
	return p.known(i), nil
}

func (p *page) learn(i int, text []byte) {
	for {
		old := p.texts.Load()
		next := new(texts)
		var all strings.Builder
		for j := range p.n {
			switch {
			case j == i:
				all.Write(text)
			case old != nil:
				all.WriteString(old.at(j))
			}
			next.ends[j] = uint32(all.Len())
		}
		next.all = all.String()
		if p.texts.CompareAndSwap(old, next) {
			return
		}
	}
}

func (p *page) down(ctx context.Context, v *view, i int) (branch, error) {
	child, err := v.page(ctx, p.kids[i])
	if err != nil {
		return nil, err // a nil *page would make a branch that is not nil
	}
	return child, nil
}

// A branch is a tree node to walk over: a page, or a node that a batch has
// changed.
type branch interface {
	len() int // of its keys
	leaf() bool
	seq(i int) uint64                                         // block of key i
	text(ctx context.Context, v *view, i int) (string, error) // key i
	down(ctx context.Context, v *view, i int) (branch, error) // child i
}

// search finds key in a tree node: at i, or else i is the child to go on in.
// The order of comparisons is the original's, and so are the blocks it reads.
func search(ctx context.Context, v *view, n branch, key string) (i int, found bool, err error) {
	low, high := 0, n.len()
	for low < high {
		mid := (low + high) >> 1
		text, err := n.text(ctx, v, mid)
		if err != nil {
			return 0, false, err
		}
		switch {
		case key == text:
			return mid, true, nil
		case key < text:
			high = mid
		default:
			low = mid + 1
		}
	}
	return low, false, nil
}

// A view reads one version of a tree, for one operation of one goroutine.
type view struct {
	log     Log
	cache   *cache
	fork    uint64
	version uint64
	live    bool   // log may be cut meanwhile
	batch   *Batch // whose changes the view sees, or nil
	asker   *asker // of peers, or nil

	lastSeq uint64 // of the block read last: tree nodes next to each other often share one
	last    block
}

// block reads the block at seq.
func (v *view) block(ctx context.Context, seq uint64) (block, error) {
	if v.batch != nil && seq >= v.batch.base {
		return v.batch.block(seq), nil
	}
	if seq == v.lastSeq && seq != 0 {
		return v.last, nil
	}
	if v.live && seq >= v.log.Length() {
		return block{}, errCut // do not wait for what was cut off
	}
	if v.asker != nil {
		v.asker.reads(seq)
	}
	raw, err := v.log.Get(ctx, seq)
	if err != nil {
		return block{}, err
	}
	b, err := decodeBlock(raw)
	if err != nil {
		return block{}, err
	}
	v.lastSeq, v.last = seq, b
	return b, nil
}

var errCut = cloudpal.E("read block", cloudpal.NotExist, errors.New("the log is not that long"))

// page returns the tree node that stands at a place in the log.
func (v *view) page(ctx context.Context, at place) (*page, error) {
	if p := v.cache.get(v.fork, at); p != nil {
		return p, nil
	}
	b, err := v.block(ctx, at.seq)
	if err != nil {
		return nil, err
	}
	var l level
	if err := b.level(at.seq, at.off, &l); err != nil {
		return nil, err
	}
	p := newPage(at, &l)
	for i, seq := range p.keys[:p.n] {
		if seq == at.seq {
			p.learn(i, b.key)
		}
	}
	if v.log.Fork() == v.fork {
		v.cache.put(v.fork, p)
	}
	return p, nil
}

// root returns where the walk begins, or nil for an empty tree.
func (v *view) root(ctx context.Context) (branch, error) {
	if v.batch != nil && v.batch.root != nil {
		return v.batch.root, nil
	}
	if v.version < 2 {
		return nil, nil
	}
	p, err := v.page(ctx, place{v.version - 1, 0})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// get finds key.
func (v *view) get(ctx context.Context, key string) (Entry, error) {
	n, err := v.root(ctx)
	for depth := 0; err == nil && n != nil && depth < maxDepth; depth++ {
		if p, ok := n.(*page); ok && p.at.seq == v.lastSeq && string(v.last.key) == key {
			return v.answer()
		}
		i, found, err := search(ctx, v, n, key)
		if err != nil {
			return Entry{}, err
		}
		if found {
			return v.entry(ctx, n.seq(i))
		}
		if n.leaf() {
			return Entry{}, cloudpal.NotExist
		}
		if n, err = n.down(ctx, v, i); err != nil {
			return Entry{}, err
		}
	}
	if err == nil && n == nil {
		err = cloudpal.NotExist
	}
	if err == nil {
		err = errDeep
	}
	return Entry{}, err
}

var errDeep = cloudpal.E("walk tree", cloudpal.Corrupt, nil)

// answer is what the block read last says of its own key. Every write renews
// the whole path to its key, so a block on the path to a key that has it is
// the last one that was written for it, and the rest of the path need not be
// read.
func (v *view) answer() (Entry, error) {
	if v.last.deleted(v.lastSeq) {
		return Entry{}, cloudpal.NotExist
	}
	return Entry{v.lastSeq, v.last.key, v.last.value}, nil
}

func (v *view) entry(ctx context.Context, seq uint64) (Entry, error) {
	b, err := v.block(ctx, seq)
	if err != nil {
		return Entry{}, err
	}
	return Entry{seq, b.key, b.value}, nil
}
