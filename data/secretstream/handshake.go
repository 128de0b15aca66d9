package secretstream

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"io"

	"github.com/flynn/noise"
	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal"
)

// suite is what @hyperswarm/secret-stream's handshake is made of. The Noise
// framework itself is flynn/noise's: it takes a curve of its user's, and its
// BLAKE2b has 64 bytes, as noise-handshake's has.
var suite = noise.NewCipherSuite(edwards{}, noise.CipherChaChaPoly, noise.HashBLAKE2b)

const (
	idSize     = 32
	headerBody = idSize + headerSize // the first frame after the handshake
)

// xxSizes and ikSizes are the sizes of the handshake's messages. Payloads are
// always empty, so there is one size for each.
var (
	xxSizes = []int{32, 96, 64}
	ikSizes = []int{96, 48}
)

var errDenied = errors.New("not the peer to talk to")

// A session is what a handshake ends with.
type session struct {
	tx, rx [32]byte
	hash   [64]byte
	remote [32]byte
}

// A handshaker takes the steps of one handshake.
type handshaker struct {
	c      *Config
	state  *noise.HandshakeState
	frames *frameReader
	w      io.Writer
	random io.Reader
	out    []byte // what is to be written
}

// newHandshaker prepares a handshake.
func newHandshaker(c *Config, frames *frameReader, w io.Writer) (*handshaker, error) {
	h := &handshaker{c: c, frames: frames, w: w, random: c.random}
	if h.random == nil {
		h.random = rand.Reader
	}
	key := c.Key
	if key == nil {
		var err error
		if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	n := noise.Config{CipherSuite: suite, Random: h.random, Pattern: noise.HandshakeXX,
		Initiator: c.Initiator, StaticKeypair: keypair(key)}
	if c.Known {
		n.Pattern = noise.HandshakeIK
		if c.Initiator {
			n.PeerStatic = c.Remote[:]
		}
	}
	var err error
	h.state, err = noise.NewHandshakeState(n)
	return h, err
}

// check refuses a Config that cannot work.
func (c *Config) check() error {
	if c.Key != nil && len(c.Key) != ed25519.PrivateKeySize {
		return errors.New("a key of the wrong size")
	}
	if c.Known && c.Initiator && c.Remote == nil {
		return errors.New("an initiator with Known must know the Remote")
	}
	if c.MaxMessage < 0 || c.MaxMessage > MaxMessage {
		return errors.New("MaxMessage must be 0 to 16 MiB - 18")
	}
	return nil
}

// run takes all steps, up to having written the own header's frame; the tx
// stream is ready then.
func (h *handshaker) run(tx *stream) (*session, error) {
	sizes := xxSizes
	if h.c.Known {
		sizes = ikSizes
	}
	for i, size := range sizes {
		s, err := h.step(i%2 == 0 == h.c.Initiator, size)
		if err != nil {
			return nil, err
		}
		if s != nil {
			return s, h.begin(s, tx)
		}
	}
	return nil, errors.New("the handshake does not end")
}

// step sends a message or waits for one. It returns the session after the
// last.
func (h *handshaker) step(send bool, size int) (*session, error) {
	if send {
		return h.send(size)
	}
	frame, err := h.frames.next(size, size)
	if err != nil {
		return nil, noEOF(err)
	}
	_, first, second, err := h.state.ReadMessage(nil, frame[blockSize-1:])
	if err != nil {
		return nil, err
	}
	return h.end(first, second)
}

// send sends the next message, unless it is the last: that one goes out with
// the header.
func (h *handshaker) send(size int) (*session, error) {
	var first, second *noise.CipherState
	var err error
	h.out = appendLength(h.out, size)
	if h.out, first, second, err = h.state.WriteMessage(h.out, nil); err != nil {
		return nil, err
	}
	if first != nil {
		return h.end(first, second)
	}
	return nil, h.flush()
}

func (h *handshaker) flush() error {
	_, err := h.w.Write(h.out)
	h.out = h.out[:0]
	return err
}

// known asks, as soon as the peer's key is proved, whether to talk to it: an
// initiator so tells no stranger who it is.
func (h *handshaker) known() error {
	key := h.state.PeerStatic()
	if len(key) == 0 {
		return nil
	}
	if h.c.Remote != nil && subtle.ConstantTimeCompare(key, h.c.Remote[:]) != 1 {
		return errDenied
	}
	return nil
}

// end makes the session, when there is one. The first key is the initiator's
// to send with.
func (h *handshaker) end(first, second *noise.CipherState) (*session, error) {
	if err := h.known(); err != nil || first == nil {
		return nil, err
	}
	if !h.c.Initiator {
		first, second = second, first
	}
	s := &session{tx: first.UnsafeKey(), rx: second.UnsafeKey()}
	copy(s.hash[:], h.state.ChannelBinding())
	copy(s.remote[:], h.state.PeerStatic())
	if h.c.Allow != nil && !h.c.Allow(s.remote) {
		return nil, errDenied
	}
	return s, nil
}

// begin starts what we send: a frame with the stream's id and header.
func (h *handshaker) begin(s *session, tx *stream) error {
	var header [headerSize]byte
	if _, err := io.ReadFull(h.random, header[:]); err != nil {
		return err
	}
	tx.init(s.tx, header[:])
	id := streamID(&s.hash, h.c.Initiator)
	h.out = append(appendLength(h.out, headerBody), id[:]...)
	h.out = append(h.out, header[:]...)
	return h.flush()
}

// appendLength appends what precedes a frame of a size.
func appendLength(b []byte, size int) []byte {
	return append(b, byte(size), byte(size>>8), byte(size>>16))
}

// names are the namespaces of the streams' ids: of what the initiator sends,
// and the responder.
var names = namespaces("hyperswarm/secret-stream")

func namespaces(name string) (n [2][32]byte) {
	hash := blake2b.Sum256([]byte(name))
	for i := range n {
		n[i] = blake2b.Sum256(append(hash[:], byte(i)))
	}
	return n
}

// streamID is what the sender of a stream begins it with.
func streamID(hash *[64]byte, initiator bool) (id [32]byte) {
	h, err := blake2b.New256(hash[:])
	if err != nil {
		panic(err) // a key of 64 bytes is the longest allowed
	}
	name := &names[1]
	if initiator {
		name = &names[0]
	}
	h.Write(name[:])
	h.Sum(id[:0])
	return id
}

// handshakeError says what went wrong in a handshake, by what the caller can
// do about it.
func handshakeError(ctx context.Context, err error, late bool) error {
	const op = "secretstream.Handshake"
	switch {
	case late:
		return cloudpal.E(op, cloudpal.Timeout, nil).WithHint("is it a hypercore peer that listens there?")
	case ctx.Err() != nil:
		return cloudpal.E(op, "", context.Cause(ctx))
	case errors.Is(err, errDenied):
		return cloudpal.E(op, cloudpal.Denied, err)
	case errors.Is(err, io.EOF), errors.Is(err, errCut):
		return cloudpal.E(op, cloudpal.Other, errors.New("the peer hung up"))
	}
	return cloudpal.E(op, cloudpal.Invalid, err)
}
