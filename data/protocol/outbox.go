package protocol

import (
	"slices"

	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/protomux"
)

// Limits on what waits to be sent to a peer that does not read.
const (
	maxQuestions = 1024
	maxIntervals = 1024
	maxExtension = 4 << 20 // bytes
)

// An interval is blocks from start up to end.
type interval struct{ start, end uint64 }

// An outbox holds what is to be sent to a peer, as facts rather than as messages:
// however slow the peer is, it hears the latest state once, and what waits is
// bounded by what it asked for.
type outbox struct {
	sync      bool
	close     bool
	drops     []interval
	news      []interval      // blocks that are here now
	pages     map[uint64]bool // of pageBits blocks, with more news
	wants     []uint64        // batches of wantBlocks
	unwants   []uint64
	questions []want
	cancels   []uint64
	requests  []*flight
	messages  [][]byte // of extensions, encoded
	bytes     int      // of them
	name      string   // of the extension message before
}

func (o *outbox) empty() bool {
	return !o.sync && !o.close && len(o.drops) == 0 && len(o.news) == 0 && len(o.pages) == 0 && len(o.wants) == 0 && len(o.unwants) == 0 &&
		len(o.questions) == 0 && len(o.cancels) == 0 && len(o.requests) == 0 && len(o.messages) == 0
}

// announce notes that blocks are here. Neighbours become one interval. Where
// there are too many, bitfields of the pages they are in tell the same.
func (o *outbox) announce(start, end uint64) {
	if n := len(o.news); n > 0 && start <= o.news[n-1].end && end >= o.news[n-1].start {
		last := &o.news[n-1]
		last.start, last.end = min(last.start, start), max(last.end, end)
		return
	}
	o.news = append(o.news, interval{start, end})
	if len(o.news) > maxIntervals {
		o.fold()
	}
}

// fold makes pages of the news that are within one.
func (o *outbox) fold() {
	kept := o.news[:0]
	for _, n := range o.news {
		page := n.start / pageBits
		if (n.end-1)/pageBits != page {
			kept = append(kept, n)
			continue
		}
		if o.pages == nil {
			o.pages = map[uint64]bool{}
		}
		o.pages[page] = true
	}
	o.news = kept
}

// withdraw notes that blocks are gone.
func (o *outbox) withdraw(start, end uint64) {
	kept := o.news[:0]
	var tails []interval
	for _, n := range o.news {
		if n.end > end && n.start < end {
			tails = append(tails, interval{max(n.start, end), n.end})
		}
		if n.start >= end {
			kept = append(kept, n)
		} else if n.start < start {
			kept = append(kept, interval{n.start, min(n.end, start)})
		}
	}
	o.news = append(kept, tails...)
	if n := len(o.drops); n > 0 && start <= o.drops[n-1].end && end >= o.drops[n-1].start {
		last := &o.drops[n-1]
		last.start, last.end = min(last.start, start), max(last.end, end)
		return
	}
	o.drops = append(o.drops, interval{start, end})
}

// cancel takes a request back, or tells the peer that no answer is needed.
func (o *outbox) cancel(f *flight) {
	if at := slices.Index(o.requests, f); at >= 0 {
		o.requests = slices.Delete(o.requests, at, at+1)
		return
	}
	o.cancels = append(o.cancels, f.id)
}

// take encodes all that waits, but for the answers to questions, which it
// returns. A prefix that is here makes the news within it one message.
func (o *outbox) take(m *mail, s syncState, contiguous uint64) []want {
	for _, batch := range o.unwants {
		m.add(typeUnwant, want{start: batch * wantBlocks, length: wantBlocks}.append(m.open()))
	}
	for _, batch := range o.wants {
		m.add(typeWant, want{start: batch * wantBlocks, length: wantBlocks}.append(m.open()))
	}
	for _, d := range o.drops {
		m.add(typeRange, span{start: d.start, length: d.end - d.start, drop: true}.append(m.open()))
	}
	o.takeNews(m, contiguous)
	if o.sync {
		m.add(typeSync, s.append(m.open()))
	}
	for _, id := range o.cancels {
		m.add(typeCancel, compact.AppendUint(m.open(), id))
	}
	for _, f := range o.requests {
		m.add(typeRequest, f.append(m.open()))
	}
	for _, message := range o.messages {
		m.add(typeExtension, append(m.open(), message...))
	}
	questions := o.questions
	for page := range o.pages {
		questions = append(questions, want{start: page * pageBits, length: pageBits})
	}
	clear(o.requests)
	*o = outbox{close: o.close, name: o.name, news: o.news[:0], cancels: o.cancels[:0], requests: o.requests[:0]}
	return questions
}

func (o *outbox) takeNews(m *mail, contiguous uint64) {
	inPrefix := false
	for _, n := range o.news {
		if n.start < contiguous {
			inPrefix = true
			n.start = contiguous
		}
		if n.start < n.end {
			m.add(typeRange, span{start: n.start, length: n.end - n.start}.append(m.open()))
		}
	}
	if inPrefix {
		m.add(typeRange, span{length: contiguous}.append(m.open()))
	}
}

// mail is messages that are encoded, and sent together as one.
type mail struct {
	batch   *protomux.Batch
	scratch []byte
}

// open returns a buffer for a message to be appended to.
func (m *mail) open() []byte { return m.scratch[:0] }

// add takes the buffer back, with a message in it.
func (m *mail) add(typ uint64, buf []byte) {
	m.scratch = buf
	m.batch.Add(typ, buf)
}

// data adds the answer to a request. Its block is copied once.
func (m *mail) data(p *merkle.Proof) {
	if p.Block == nil {
		m.add(typeData, appendProof(m.open(), p))
		return
	}
	buf := appendHead(m.open(), p)
	head := len(buf)
	buf = appendRest(buf, p)
	m.scratch = buf
	m.batch.Add(typeData, buf[:head], p.Block.Value, buf[head:])
}
