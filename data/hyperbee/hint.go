package hyperbee

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/protocol"
)

// Names and numbers of the original's extension.
const (
	hintName = "hyperbee"
	hintStep = 128                 // blocks that one message tells
	hintRun  = 2048                // blocks that are read until one asks again
	hintMost = hintRun + hintStep  // blocks that are told of one question
	hintRoom = 2 * hintMost        // blocks that are fetched because of hints, at a time
	hintWait = 32                  // questions that wait
	hintPath = 3 * maxDepth        // numbers in the place of a question
	hintSize = 64<<10 + maxDepth*8 // bytes of a question
)

// ShareHints has the bee hint, and be hinted, at the blocks that an operation
// will need, until stop is called. A reader who has to wait for a block tells
// its peers what it looks for; they walk the same way in what they have, and
// answer with all the blocks on it, which it then fetches at once. So a key or
// a range takes about two journeys to a peer that is far away, and not one for
// each tree node.
//
// It is what the original does unasked, under the same name. r is the
// replicator of the bee's core: what one asks is told to all peers who have the
// core's key, and what they ask costs this side at most half a processor.
func (b *Bee) ShareHints(r *protocol.Replicator) (stop func()) {
	core, ok := b.tree.log.(*hypercore.Core)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &hints{core: core, ctx: ctx}
	h.extension = r.RegisterExtension(hintName, h.receive)
	b.tree.hints.Store(h)
	return func() {
		b.tree.hints.CompareAndSwap(h, nil)
		h.extension.Close()
		cancel()
		h.mu.Lock()
		h.stopped = true
		h.mu.Unlock()
		h.working.Wait()
	}
}

// hints are what a bee and its peers tell each other.
type hints struct {
	core      *hypercore.Core
	extension *protocol.Extension
	ctx       context.Context // until stop
	working   sync.WaitGroup

	mu        sync.Mutex
	stopped   bool
	owed      int // blocks that peers may still tell: an answer to what nobody asked is none
	fetching  int // blocks
	questions []asked
	answering bool
}

// asked is a peer's question.
type asked struct {
	question
	from *protocol.Peer
}

// wrap puts a message's length before it: the original registers its messages
// without an encoding, which makes them buffers in a message.
func wrap(message []byte) []byte { return compact.AppendBuffer(nil, message) }

// ask sends a question to all peers.
func (h *hints) ask(q question) {
	h.mu.Lock()
	h.owed = min(h.owed+hintMost, hintRoom)
	h.mu.Unlock()
	h.extension.Broadcast(wrap(q.append(nil)))
}

// receive takes a peer's message.
func (h *hints) receive(from *protocol.Peer, message []byte) {
	d := compact.NewDecoder(message)
	m, err := decodeHint(d.Buffer())
	if d.Err() != nil || err != nil {
		return // as the original does
	}
	if len(m.blocks) > 0 {
		h.told(m.blocks)
	}
	for _, q := range m.questions {
		h.enqueue(asked{q, from})
	}
}

// told begins to fetch blocks that a peer says will be needed.
func (h *hints) told(blocks []uint64) {
	slices.Sort(blocks)
	length := h.core.Length()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := 0; i < len(blocks) && !h.stopped; {
		start, end := blocks[i], blocks[i]+1
		for i++; i < len(blocks) && blocks[i] <= end; i++ {
			end = blocks[i] + 1
		}
		n := int(end - start)
		if end > length || n > h.owed || h.fetching+n > hintRoom || h.core.HasAll(start, end) {
			continue
		}
		h.owed -= n
		h.fetching += n
		h.working.Go(func() {
			_ = h.core.Download(h.ctx, hypercore.Range{Start: start, End: end}) // who needs it asks, and hears why not
			h.mu.Lock()
			h.fetching -= n
			h.mu.Unlock()
		})
	}
}

// enqueue has a question answered, where not too many wait: it was only a
// hint.
func (h *hints) enqueue(q asked) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped || len(h.questions) >= hintWait {
		return
	}
	h.questions = append(h.questions, q)
	if !h.answering {
		h.answering = true
		h.working.Go(h.answerAll)
	}
}

func (h *hints) answerAll() {
	for {
		h.mu.Lock()
		if len(h.questions) == 0 || h.stopped {
			h.answering = false
			h.mu.Unlock()
			return
		}
		q := h.questions[0]
		h.questions = h.questions[1:]
		h.mu.Unlock()
		begun := time.Now()
		h.answer(q.question, func(blocks []uint64) {
			_ = h.extension.Send(q.from, wrap(appendTold(nil, blocks))) // one who does not listen goes without
		})
		select {
		case <-h.ctx.Done():
		case <-time.After(time.Since(begun)):
		}
	}
}

// answer walks the way that a question asks for, in what is here, and tells the
// blocks on it.
func (h *hints) answer(q question, tell func([]uint64)) {
	if q.version < 2 || q.version > h.core.Length() {
		return
	}
	t := &trace{core: h.core, seen: map[uint64]bool{}, tell: tell}
	v := view{log: t, cache: newCache(1 << 20), fork: h.core.Fork(), version: q.version}
	// The way ends where a block is not here, or makes no sense.
	if q.isRange {
		_ = q.walk(h.ctx, &v, t)
	} else {
		_, _ = v.get(h.ctx, string(q.key))
	}
	t.flush()
}

// walk goes through the range that is asked for, from the place where the
// asker is.
func (q question) walk(ctx context.Context, v *view, t *trace) error {
	c := q.cursor(v)
	if len(q.path) == 0 {
		if err := c.seek(ctx); err != nil {
			return err
		}
	}
	for i := 0; i+2 < len(q.path); i += 3 {
		t.seen[q.path[i]] = true // the asker has it
		p, err := v.page(ctx, place{q.path[i], uint32(min(q.path[i+1], maxLevels))})
		if err != nil {
			return err
		}
		if q.path[i+2] > uint64(2*p.n) {
			return errNode
		}
		if err := c.push(p); err != nil {
			return err
		}
		c.stack[len(c.stack)-1].pos = int(q.path[i+2])
	}
	for n := uint64(0); q.limit == 0 || n < q.limit; n++ {
		if e, err := c.next(ctx); err != nil || e.Seq == 0 {
			return err
		}
	}
	return nil
}

func (q question) cursor(v *view) *cursor {
	c := &cursor{view: v, reverse: q.reverse, start: q.low, end: q.high}
	if q.reverse {
		c.start, c.end = q.high, q.low
	}
	return c
}

// A trace is a log that has what is here, and notes what is read of it.
type trace struct {
	core *hypercore.Core
	seen map[uint64]bool
	told int
	next []uint64
	tell func([]uint64)
}

var errEnough = errors.New("as many blocks as one answer has")

func (t *trace) Get(_ context.Context, index uint64) ([]byte, error) {
	block, err := t.core.Local(index)
	if err != nil || t.seen[index] {
		return block, err
	}
	if t.told == hintMost {
		return nil, errEnough
	}
	t.told++
	t.seen[index] = true
	if t.next = append(t.next, index); len(t.next) == hintStep {
		t.flush()
	}
	return block, nil
}

func (t *trace) flush() {
	if len(t.next) > 0 {
		t.tell(t.next)
		t.next = t.next[:0]
	}
}

func (t *trace) Length() uint64                   { return t.core.Length() }
func (t *trace) Fork() uint64                     { return t.core.Fork() }
func (t *trace) Append(...[]byte) (uint64, error) { return 0, errReadOnly }

// An asker asks the peers as soon as an operation has to wait, and again after
// so many blocks.
type asker struct {
	hints *hints
	question
	cursor *cursor // which has gone through a part of the question's range, or nil
	quiet  int     // blocks to read until it asks again
}

// asker returns what asks a question, or nil where nobody hints.
func (b *Bee) asker(q question, c *cursor) *asker {
	h := b.tree.hints.Load()
	if h == nil {
		return nil
	}
	return &asker{hints: h, question: q, cursor: c}
}

func (a *asker) reads(seq uint64) {
	if a.quiet > 0 {
		a.quiet--
		return
	}
	if a.hints.core.Has(seq) {
		return
	}
	q := a.question
	if a.cursor != nil && a.cursor.sought {
		if q.path = a.cursor.path(); len(q.path) == 0 {
			return // it is at its end
		}
	}
	a.hints.ask(q)
	a.quiet = hintRun
}

// path tells another cursor where this one is.
func (c *cursor) path() (path []uint64) {
	for i, f := range c.stack {
		p, ok := f.node.(*page)
		pos := f.pos
		if i == len(c.stack)-1 { // whose next step is the one that waits
			pos = c.back(pos)
		}
		if ok && pos >= 0 {
			path = append(path, p.at.seq, uint64(p.at.off), uint64(pos))
		}
	}
	return path
}

func (c *cursor) back(pos int) int {
	if c.reverse {
		return pos + 1
	}
	return pos - 1
}

// A question asks which blocks the way to a key has, or to all in a range.
type question struct {
	version   uint64
	key       []byte
	isRange   bool
	low, high bound
	limit     uint64 // 0 is none
	reverse   bool
	path      []uint64 // seq, level and position of each node on the way to where the asker is
}

// A hint is a message of a peer: what it asks, and what it tells.
type hint struct {
	blocks    []uint64
	questions []question
}

func decodeHint(raw []byte) (h hint, err error) {
	fields := reader{rest: raw}
	for fields.next() {
		var ok bool
		var q question
		switch fields.tag {
		case 1:
			h.blocks, ok = decodeTold(fields.bytes())
		case 2, 3:
			q, ok = decodeQuestion(fields.bytes(), fields.tag == 3)
			h.questions = append(h.questions, q)
		default:
			ok = true
		}
		if !ok || len(h.questions) > 2 {
			return hint{}, errHint
		}
	}
	if fields.bad {
		return hint{}, errHint
	}
	return h, nil
}

var errHint = cloudpal.E("decode a hint", cloudpal.Corrupt, nil)

func decodeTold(raw []byte) (blocks []uint64, ok bool) {
	fields := reader{rest: raw}
	for fields.next() {
		if fields.tag == 3 {
			if blocks, ok = decodeNumbers(fields.bytes(), hintMost); !ok {
				return nil, false
			}
		}
	}
	return blocks, !fields.bad
}

func decodeNumbers(raw []byte, most int) (all []uint64, ok bool) {
	for len(raw) > 0 {
		v, n := uvarint(raw)
		if n <= 0 || len(all) == most {
			return nil, false
		}
		all = append(all, v)
		raw = raw[n:]
	}
	return all, true
}

func decodeQuestion(raw []byte, isRange bool) (q question, ok bool) {
	if len(raw) > hintSize {
		return q, false
	}
	q.isRange = isRange
	ok = true
	fields := reader{rest: slices.Clone(raw)}
	for fields.next() && ok {
		switch {
		case fields.tag == 1:
			q.version, ok = fields.number()
		case !isRange && fields.tag == 2:
			q.key = fields.bytes()
		case isRange && fields.tag == 2 && q.low.key == nil:
			q.low = bound{present(fields.bytes()), true}
		case isRange && fields.tag == 3:
			q.low = bound{present(fields.bytes()), false}
		case isRange && fields.tag == 4 && q.high.key == nil:
			q.high = bound{present(fields.bytes()), true}
		case isRange && fields.tag == 5:
			q.high = bound{present(fields.bytes()), false}
		case isRange && fields.tag == 6:
			q.limit, ok = fields.number()
		case isRange && fields.tag == 7:
			var n uint64
			n, ok = fields.number()
			q.reverse = n != 0
		case isRange && fields.tag == 8:
			q.path, ok = decodeNumbers(fields.bytes(), hintPath)
		}
	}
	return q, ok && !fields.bad
}

// number returns the field's number.
func (r *reader) number() (uint64, bool) {
	v, n := uvarint(r.val)
	return v, r.wire == 0 && n > 0
}

// append encodes a question as a message.
func (q question) append(b []byte) []byte {
	m := appendNumber(nil, 1, q.version)
	if !q.isRange {
		return appendField(b, 2, appendField(m, 2, q.key))
	}
	if q.low.key != nil {
		m = appendField(m, inOrOut(q.low, 2), q.low.key)
	}
	if q.high.key != nil {
		m = appendField(m, inOrOut(q.high, 4), q.high.key)
	}
	m = appendNumber(m, 6, q.limit)
	reverse := uint64(0)
	if q.reverse {
		reverse = 1
	}
	m = appendNumber(m, 7, reverse)
	if len(q.path) > 0 {
		m = appendField(m, 8, packed(q.path))
	}
	return appendField(b, 3, m)
}

// inOrOut is the tag of a bound: tag where it is a part of the range, or the
// one after.
func inOrOut(b bound, tag byte) byte {
	if b.incl {
		return tag
	}
	return tag + 1
}

// appendTold encodes blocks, of which there are some, as a message.
func appendTold(b []byte, blocks []uint64) []byte {
	low, high := uint64(math.MaxUint64), uint64(0)
	for _, i := range blocks {
		low, high = min(low, i), max(high, i)
	}
	m := appendNumber(appendNumber(nil, 1, low), 2, high+1)
	return appendField(b, 1, appendField(m, 3, packed(blocks)))
}

func packed(all []uint64) (b []byte) {
	for _, v := range all {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func appendNumber(b []byte, tag byte, v uint64) []byte {
	return binary.AppendUvarint(append(b, tag<<3), v)
}
