package protomux

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
)

const (
	// maxBatch is how large a batch is when it is sent before Uncork, as the
	// original's.
	maxBatch = 8 << 20
	// replyBatch is the same for the batch of answers to a batch, which nobody
	// has asked to hold back.
	replyBatch = 64 << 10
	// maxMessage is the largest message of a secretstream.
	maxMessage = 1<<24 - 1 - 17
	// writeSize is how much is written at a time, after which waiters are told.
	writeSize = 64 << 10
	// keepSize is the largest buffer that is kept for the next time.
	keepSize = 1 << 20
	// stall is how long the queue stands still before nobody waits who must
	// not.
	stall = 100 * time.Millisecond

	lengthSize = 4 // before each message in the queue; for us only
)

// outgoing is what is to be written: whole messages, each after its length, and
// behind them the batch that Cork has begun.
type outgoing struct {
	wake    sync.Cond // there is something to write
	out     []byte
	spare   []byte // the buffer that out will be next
	queued  int    // bytes in out and being written
	moved   time.Time
	idle    bool // write waits for something to do
	flushed bool // all was written, and nothing more will be

	corked   int
	replying bool   // the outermost cork is that of answers to a batch
	batch    []byte // empty, or the batch as it will be sent
	current  uint64 // the channel of the batch's last item
}

// Send sends a message; its payload is the parts one after the other, which
// may be used again when it returns. It waits while too much is queued. A
// message of more than 16 MiB is refused; the error of a closed channel is why
// it was closed, net.ErrClosed after Close.
func (c *Channel) Send(typ uint64, payload ...[]byte) error {
	m := c.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := c.waitLocked(); err != nil {
		return err
	}
	size := sizeOf(typ, payload)
	if size > maxMessage-batchRoom {
		return errTooLarge
	}
	m.sendLocked(c.id, typ, size, payload)
	return nil
}

var errTooLarge error = cloudpal.E("protomux.Send", cloudpal.Invalid, errors.New("a message larger than 16 MiB"))

// sizeOf returns the size of a message without its channel.
func sizeOf(typ uint64, payload [][]byte) int {
	size := compact.UintLen(typ)
	for _, p := range payload {
		size += len(p)
	}
	return size
}

// waitLocked waits until something can be sent, or returns why nothing can.
func (c *Channel) waitLocked() error {
	m := c.mux
	if m.queued >= m.limits.Queue {
		m.waitQueueLocked(false)
	}
	switch {
	case m.err != nil:
		return m.err
	case m.ending:
		return ErrEnded
	case c.closed && c.reason == nil:
		return net.ErrClosed
	case c.closed:
		return c.reason
	}
	return nil
}

// A Batch gathers messages of one channel, to send them as one frame. Unlike
// what Cork gathers, it is its maker's alone, and can be used again after Send.
// It is not for several goroutines at a time.
type Batch struct {
	c     *Channel
	items []byte
}

// batchRoom is what a batch's header takes at most.
const batchRoom = 2 + 9

// Batch returns an empty Batch for the channel.
func (c *Channel) Batch() *Batch { return &Batch{c: c} }

// Add adds a message, of which it keeps a copy.
func (b *Batch) Add(typ uint64, payload ...[]byte) {
	b.items = appendItem(b.items, typ, sizeOf(typ, payload), payload)
}

// Len returns how many bytes the messages take together; at 16 MiB they can no
// longer be sent.
func (b *Batch) Len() int { return len(b.items) }

// Send sends the messages, and waits as Channel.Send does. The Batch is empty
// then, also after an error.
func (b *Batch) Send() error {
	defer func() { b.items = reuse(b.items) }()
	if b.Len() == 0 {
		return nil
	}
	if b.Len() > maxMessage-batchRoom {
		return errTooLarge
	}
	m := b.c.mux
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := b.c.waitLocked(); err != nil {
		return err
	}
	m.sendBatchLocked() // what was corked before goes before
	start := m.beginLocked()
	m.out = append(compact.AppendUint(append(m.out, 0, controlBatch), b.c.id), b.items...)
	m.endLocked(start)
	return nil
}

// Cork holds back what is sent on all channels until Uncork, to send it as one
// batch (or more, of 8 MiB). Calls nest.
func (m *Mux) Cork() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.corkLocked(false)
}

func (m *Mux) corkLocked(replying bool) {
	if m.corked++; m.corked == 1 || !replying {
		m.replying = replying
	}
}

// Uncork ends what Cork began.
func (m *Mux) Uncork() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.corked == 0 {
		panic("protomux: Uncork without Cork")
	}
	if m.corked--; m.corked == 0 {
		m.sendBatchLocked()
	}
}

// Queued returns how many bytes wait to be written, the corked ones not
// counted.
func (m *Mux) Queued() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.queued
}

// sendLocked queues a message of a channel; size is that of type and payload.
func (m *Mux) sendLocked(id, typ uint64, size int, payload [][]byte) {
	if m.corked > 0 && m.openBatchLocked(id, size) {
		m.batch = appendItem(m.batch, typ, size, payload)
		return
	}
	start := m.beginLocked()
	m.out = appendParts(compact.AppendUint(compact.AppendUint(m.out, id), typ), payload)
	m.endLocked(start)
}

// appendItem appends a message as a batch has it.
func appendItem(b []byte, typ uint64, size int, payload [][]byte) []byte {
	return appendParts(compact.AppendUint(compact.AppendUint(b, uint64(size)), typ), payload)
}

func appendParts(b []byte, parts [][]byte) []byte {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// openBatchLocked readies the batch for an item of a channel. It reports false
// for one that fits in no batch.
func (m *Mux) openBatchLocked(id uint64, size int) bool {
	full := maxBatch
	if m.replying {
		full = replyBatch
	}
	if len(m.batch) >= full || len(m.batch)+size > maxMessage-2*batchRoom {
		m.sendBatchLocked()
	}
	if size > maxMessage-2*batchRoom {
		return false
	}
	if len(m.batch) == 0 {
		m.batch = compact.AppendUint(append(m.batch, 0, controlBatch), id)
	} else if id != m.current {
		m.batch = compact.AppendUint(append(m.batch, 0), id)
	}
	m.current = id
	return true
}

// sendBatchLocked queues the batch, if there is one.
func (m *Mux) sendBatchLocked() {
	if len(m.batch) == 0 {
		return
	}
	start := m.beginLocked()
	m.out = append(m.out, m.batch...)
	m.endLocked(start)
	m.batch = reuse(m.batch)
}

// reuse returns an empty slice for the next time.
func reuse(b []byte) []byte {
	if cap(b) > keepSize {
		return nil
	}
	return b[:0]
}

// sendControlLocked queues a control message that has only an id.
func (m *Mux) sendControlLocked(typ, id uint64) {
	if m.err == nil && !m.ending {
		m.sendLocked(0, typ, 1+compact.UintLen(id), [][]byte{compact.AppendUint(nil, id)})
	}
}

// sendOpenLocked queues the message that opens a channel.
func (m *Mux) sendOpenLocked(c *Channel) {
	b := compact.AppendString(compact.AppendUint(nil, c.id), c.o.Protocol)
	b = append(compact.AppendBuffer(b, c.o.ID), c.o.Handshake...)
	m.sendLocked(0, controlOpen, 1+len(b), [][]byte{b})
}

// beginLocked begins a message in the queue, endLocked ends it.
func (m *Mux) beginLocked() (start int) {
	start = len(m.out)
	m.out = append(m.out, 0, 0, 0, 0)
	return start
}

func (m *Mux) endLocked(start int) {
	size := len(m.out) - start - lengthSize
	binary.LittleEndian.PutUint32(m.out[start:], uint32(size))
	m.queued += lengthSize + size
	if m.idle {
		m.idle = false
		m.wake.Signal()
	}
}

// waitQueueLocked waits until there is room in the queue. When reading waits
// for it, it does so only while the queue moves; see Waiting in the package's
// comment. When handlers begin to run meanwhile, that is looked at anew.
func (m *Mux) waitQueueLocked(reading bool) {
	for m.err == nil && m.queued >= m.limits.Queue {
		if !reading && !m.handling || m.queued >= m.limits.Backlog {
			m.waitLocked()
			continue
		}
		rest := stall - time.Since(m.moved)
		if rest <= 0 {
			return
		}
		alarm := time.AfterFunc(rest, m.changed.Broadcast)
		m.waitLocked()
		alarm.Stop()
	}
}

// waitLocked waits for a change.
func (m *Mux) waitLocked() {
	m.waiting++
	m.changed.Wait()
	m.waiting--
}

// changedLocked wakes who waits for one.
func (m *Mux) changedLocked() {
	if m.waiting > 0 {
		m.changed.Broadcast()
	}
}

// waitPairedLocked waits until not too much is kept for channels that are not
// decided on.
func (m *Mux) waitPairedLocked() {
	for m.err == nil && m.unpaired > m.limits.Unpaired {
		m.waitLocked()
	}
}

// write writes what is queued until the connection ends.
func (m *Mux) write() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		for len(m.out) == 0 && !m.ending && m.err == nil {
			m.idle = true
			m.wake.Wait()
		}
		m.idle = false
		if m.err != nil {
			return
		}
		if len(m.out) == 0 {
			m.finishLocked()
			return
		}
		m.writeLocked()
	}
}

// writeLocked writes all that is queued now.
func (m *Mux) writeLocked() {
	b := m.out
	m.out, m.moved = m.spare[:0], time.Now()
	m.mu.Unlock()
	err := m.writeAll(b)
	if err != nil {
		m.Destroy(err)
	}
	m.mu.Lock()
	m.spare = reuse(b)
}

// writeAll writes messages, and tells how it gets on.
func (m *Mux) writeAll(b []byte) error {
	write, flush := m.conn.WriteMessage, func() error { return nil }
	if q, ok := m.conn.(queuer); ok {
		write, flush = q.QueueMessage, q.Flush
	}
	done := 0
	for len(b) > 0 {
		size := lengthSize + int(binary.LittleEndian.Uint32(b))
		if err := write(b[lengthSize:size]); err != nil {
			return err
		}
		b = b[size:]
		if done += size; done < writeSize && len(b) > 0 {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		m.wrote(done)
		done = 0
	}
	return nil
}

// A queuer is a Conn that can write many messages at once.
type queuer interface {
	QueueMessage(message []byte) error
	Flush() error
}

// wrote notes that bytes of the queue were written.
func (m *Mux) wrote(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queued -= n
	m.moved = time.Now()
	m.changedLocked()
}

// finishLocked ends our direction of the connection after the last message.
func (m *Mux) finishLocked() {
	m.flushed = true
	m.mu.Unlock()
	defer m.mu.Lock()
	half, ok := m.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		m.conn.Close()
	}
}
