// Package secretstream encrypts a connection between two keys, as the
// JavaScript module @hyperswarm/secret-stream does, byte for byte. It runs over
// any io.ReadWriteCloser that delivers bytes in order: TCP, a pipe, a stream
// of something else.
//
//	conn, err := secretstream.Handshake(ctx, tcp, secretstream.Config{Initiator: true, Key: key})
//	if err != nil {
//		return err
//	}
//	defer conn.Close()
//	err = conn.WriteMessage([]byte("hello"))
//
// A Conn carries messages of 0 to MaxMessage bytes, whose borders are kept; who
// wants bytes takes its Stream. Each side learns the other's public key
// (RemoteKey) and knows that the other has the private one; with Config.Remote
// or Allow it talks to no other. Keys are Ed25519 keys. HandshakeHash is a value
// that only these two have, and only for this connection: what is signed or
// hashed together with it cannot be used on another.
//
// On the wire each frame has its length before it, in three bytes. The first
// are a Noise handshake, Noise_XX_Ed25519_ChaChaPoly_BLAKE2b, in which Ed25519
// means Diffie-Hellman on the Edwards curve. Then each side sends a header and
// after it messages, encrypted as by libsodium's secretstream:
//
//	initiator                                   responder
//	  e                                    ->
//	                                       <-   e, ee, s, es
//	  s, se | stream id, header | messages ->
//	                                       <-   stream id, header | messages
//
// What is left out: the datagrams beside the stream, which exist on UDX only.
//
// A stranger who connects costs at most a few KiB and HandshakeTimeout; a peer
// at most the largest message, and only when it sends one. A recorded handshake
// is of no use again, since both sides put a fresh key into each.
package secretstream

import (
	"context"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tradle/cloudpal"
)

// MaxMessage is the size of the largest message that a frame holds.
const MaxMessage = maxFrame - overhead

// The defaults of a Config's times.
const (
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultKeepAlive        = 5 * time.Second // hypercore's
	DefaultWriteTimeout     = time.Minute
)

// queueLimit is how many bytes QueueMessage gathers before it writes.
const queueLimit = 128 << 10

// A Config says who is who. The zero Config is a responder with a fresh key, to
// whom everybody may talk.
type Config struct {
	// Initiator is the side that speaks first. It need not be the one that
	// dialled, but the other must be none.
	Initiator bool
	// Key is who we are. Nil makes a fresh key.
	Key ed25519.PrivateKey
	// Remote is the only peer to talk to, where it is not nil.
	Remote *[32]byte
	// Allow is asked, where it is not nil, whether to talk to a peer that has
	// proved to have the key.
	Allow func(remote [32]byte) bool
	// Known uses the pattern IK in place of XX, which takes one message less: the
	// initiator must know the Remote. Both sides must agree on it.
	Known bool

	// HandshakeTimeout is how long the handshake may take, and again how long
	// the first ReadMessage waits for the peer's header. 0 is 10 s.
	HandshakeTimeout time.Duration
	// KeepAlive is how long nothing is sent before an empty message is, so that
	// the peer and what is between knows we are there. With it, empty messages
	// that arrive are taken for the peer's, and dropped. 0 is 5 s; negative
	// sends none and delivers all.
	KeepAlive time.Duration
	// ReadTimeout ends the connection when a ReadMessage has waited so long and
	// no byte arrived. 0 is never; else it should be a few times the peer's
	// KeepAlive.
	ReadTimeout time.Duration
	// WriteTimeout ends the connection when the peer has not taken what was
	// written for so long. 0 is 60 s; negative is never.
	WriteTimeout time.Duration
	// MaxMessage is the size of the largest message to accept. 0 is the
	// package's MaxMessage.
	MaxMessage int

	random io.Reader // tests set it; what ephemeral keys and headers are made of
}

// A Conn is an encrypted connection of messages. One goroutine may read while
// any number write.
type Conn struct {
	rw        io.ReadWriteCloser
	config    Config
	session   session
	born      time.Time
	readFrom  atomic.Int64 // when the read under way began, since born, or 0
	lastWrite atomic.Int64 // when a write ended last
	writeFrom atomic.Int64 // when the write under way began, or 0

	frames frameReader
	rx     stream
	ready  bool  // the peer's header is there
	ended  error // why nothing more can be read

	mu      sync.Mutex
	turn    sync.Cond // a write ended
	tx      stream
	out     []byte // encrypted, to be written
	spare   []byte // the buffer of the last write
	writing bool
	queued  uint64      // bytes that were ever put in out
	written uint64      // bytes of them that were written
	err     error       // why it ended
	over    atomic.Bool // err is set
	clock   *time.Timer
}

// Handshake makes an encrypted connection of rw, which is the Conn's from now
// on: it is closed when the handshake fails, too. When ctx ends first, or
// HandshakeTimeout passes, the handshake fails; later, ctx has no meaning.
//
// Errors are of kind Denied when the peer is none that c allows, Timeout, or
// Invalid when what it said was no handshake.
func Handshake(ctx context.Context, rw io.ReadWriteCloser, c Config) (*Conn, error) {
	if err := c.check(); err != nil {
		rw.Close()
		return nil, cloudpal.E("secretstream.Handshake", cloudpal.Invalid, err)
	}
	c = c.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, c.HandshakeTimeout, errLate)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	conn := &Conn{rw: rw, config: c, born: time.Now()}
	err := conn.handshake()
	if !stop() || err != nil {
		rw.Close()
		return nil, handshakeError(ctx, err, context.Cause(ctx) == errLate)
	}
	conn.turn.L = &conn.mu
	conn.startClock()
	return conn, nil
}

var errLate = errors.New("too late")

// withDefaults returns c with all times and sizes set.
func (c Config) withDefaults() Config {
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = DefaultKeepAlive
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = DefaultWriteTimeout
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = MaxMessage
	}
	return c
}

// handshake takes the steps of the handshake.
func (c *Conn) handshake() error {
	c.frames = newFrameReader((*rawReader)(c))
	h, err := newHandshaker(&c.config, &c.frames, c.rw)
	if err != nil {
		return err
	}
	s, err := h.run(&c.tx)
	if err != nil {
		return err
	}
	c.session = *s
	c.session.tx = [32]byte{} // tx has what it needs
	c.config.Key = nil
	return nil
}

// A rawReader reads a Conn's encrypted bytes and notes how long it waits: a peer
// is silent only while we listen.
type rawReader Conn

func (r *rawReader) Read(b []byte) (int, error) {
	if r.config.ReadTimeout > 0 {
		r.readFrom.Store(max(int64(time.Since(r.born)), 1))
		defer r.readFrom.Store(0)
	}
	return r.rw.Read(b)
}

// HandshakeHash returns a value that this connection's two ends have, and
// nobody else.
func (c *Conn) HandshakeHash() [64]byte { return c.session.hash }

// Initiator reports whether we spoke first.
func (c *Conn) Initiator() bool { return c.config.Initiator }

// RemoteKey returns the peer's public key.
func (c *Conn) RemoteKey() [32]byte { return c.session.remote }

// ReadMessage waits for the next message. It is valid until the next call, and
// may be overwritten. After the peer closed the connection between two
// messages, the error is io.EOF itself; after Close, net.ErrClosed.
func (c *Conn) ReadMessage() ([]byte, error) {
	if c.over.Load() {
		return nil, c.fail(nil)
	}
	if c.ended != nil {
		return nil, c.ended
	}
	message, err := c.readMessage()
	if err != nil {
		c.ended = c.readFailed(err)
		return nil, c.ended
	}
	return message, nil
}

func (c *Conn) readMessage() ([]byte, error) {
	if !c.ready {
		if err := c.readHeader(); err != nil {
			return nil, err
		}
	}
	for {
		frame, err := c.frames.next(overhead, c.config.MaxMessage+overhead)
		if err != nil {
			return nil, err
		}
		message, err := c.rx.open(frame)
		if err != nil || len(message) > 0 || c.config.KeepAlive < 0 {
			return message, err
		}
	}
}

// readHeader reads the frame that the peer begins with. It must come in time,
// or a peer could hold a connection open and never begin.
func (c *Conn) readHeader() error {
	late := time.AfterFunc(c.config.HandshakeTimeout, func() { c.fail(timeoutError("ReadMessage")) })
	defer late.Stop()
	frame, err := c.frames.next(headerBody, headerBody)
	if err != nil {
		return err
	}
	frame = frame[blockSize-1:]
	want := streamID(&c.session.hash, !c.config.Initiator)
	if !equal(frame[:idSize], want[:]) {
		return errors.New("the header is not this connection's")
	}
	c.rx.init(c.session.rx, frame[idSize:])
	c.session.rx = [32]byte{}
	c.ready = true
	return nil
}

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

func timeoutError(method string) error {
	return cloudpal.E("secretstream."+method, cloudpal.Timeout, errors.New("the peer is silent"))
}

// readFailed ends the connection after an error of reading, and returns why it
// ended: that may be an older reason, of which err is only a consequence.
func (c *Conn) readFailed(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil {
			return c.err
		}
		return io.EOF // it can still be written to
	case errors.Is(err, errFrameSize), errors.Is(err, errCipher):
		return c.fail(cloudpal.E("secretstream.ReadMessage", cloudpal.Invalid, err))
	}
	return c.fail(cloudpal.E("secretstream.ReadMessage", "", err))
}

// WriteMessage sends a message. When it returns, the operating system has it,
// together with all that was queued before. Messages that several goroutines
// send at a time leave in one write.
func (c *Conn) WriteMessage(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.queueLocked(message); err != nil {
		return err
	}
	return c.flushLocked()
}

// QueueMessage is WriteMessage without the writing, which is left to Flush or
// the next WriteMessage; it writes itself when 128 KiB have gathered.
func (c *Conn) QueueMessage(message []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.queueLocked(message); err != nil {
		return err
	}
	if len(c.out) < queueLimit {
		return nil
	}
	return c.flushLocked()
}

// Flush writes what is queued.
func (c *Conn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

// queueLocked encrypts a message behind those that wait. The box that it is
// encrypted in begins before the frame, so what is there is kept aside.
func (c *Conn) queueLocked(message []byte) error {
	if c.err != nil {
		return c.err
	}
	if len(message) > MaxMessage {
		return cloudpal.E("secretstream.WriteMessage", cloudpal.Invalid, errors.New("larger than 16 MiB"))
	}
	if len(c.out) == 0 {
		c.out = append(c.out[:0], emptyRoom[:]...)
	}
	from := len(c.out)
	c.out = appendLength(c.out, len(message)+overhead)
	start := from + lengthSize + 1 - blockSize
	c.out = append(append(append(c.out, 0), message...), emptyRoom[:tagSize]...)
	var before [blockSize - 1]byte
	copy(before[:], c.out[start:])
	c.tx.seal(c.out[start:])
	copy(c.out[start:], before[:])
	c.queued += uint64(len(c.out) - from)
	return nil
}

// emptyRoom is what stands before the first frame in out; it is not written.
var emptyRoom [blockSize]byte

// flushLocked waits until all that was queued is written: by who writes now,
// and, when there is none, by itself.
func (c *Conn) flushLocked() error {
	for target := c.queued; c.err == nil && c.written < target; {
		if c.writing {
			c.turn.Wait()
		} else {
			c.writeLocked()
		}
	}
	return c.err
}

// writeLocked writes what is queued now. Others can queue more meanwhile.
func (c *Conn) writeLocked() {
	out := c.out
	c.out, c.writing = c.spare[:0], true
	c.mu.Unlock()
	err := c.writeRaw(out[len(emptyRoom):])
	c.mu.Lock()
	c.writing = false
	c.written += uint64(len(out) - len(emptyRoom))
	if c.spare = out; cap(out) > 4*queueLimit {
		c.spare = nil
	}
	if err != nil {
		c.failLocked(cloudpal.E("secretstream.WriteMessage", "", err))
	}
	c.turn.Broadcast()
}

// writeRaw writes in pieces, each of which has WriteTimeout.
func (c *Conn) writeRaw(b []byte) error {
	for len(b) > 0 {
		now := int64(time.Since(c.born))
		c.writeFrom.Store(max(now, 1))
		n, err := c.rw.Write(b[:min(len(b), 2*queueLimit)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	c.writeFrom.Store(0)
	c.lastWrite.Store(max(int64(time.Since(c.born)), 1))
	return nil
}

// Close ends the connection. Reads and writes under way return net.ErrClosed,
// as do later ones.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	return nil
}

// CloseWrite tells the peer that nothing more will come, where the connection
// underneath can, as TCP can: what was written is delivered, and messages can
// still be read. Where it cannot, it does nothing.
func (c *Conn) CloseWrite() error {
	if half, ok := c.rw.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// fail ends the connection for a reason, unless it has ended for another, and
// returns the reason.
func (c *Conn) fail(reason error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failLocked(reason)
}

func (c *Conn) failLocked(reason error) error {
	if c.err == nil {
		c.err = reason
		c.over.Store(true)
		c.clock.Stop()
		c.rw.Close()
		c.turn.Broadcast()
	}
	return c.err
}
