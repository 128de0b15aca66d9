package signing

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// patience is how long a Client waits for a signer that is not there, as when
// another is just taking its place.
const patience = 10 * time.Second

// maxIdle is how many connections a Client keeps for the next questions.
const maxIdle = 8

// A Client is a Signer in another process.
type Client struct {
	socket string

	mu     sync.Mutex
	idle   []net.Conn
	closed bool
}

var _ Signer = (*Client)(nil)

// NewClient returns a client of the signer that answers on a Unix socket, which
// need not be there yet.
func NewClient(socket string) *Client { return &Client{socket: socket} }

// Generate implements Signer.
func (c *Client) Generate(ctx context.Context, class ticket.Class, d ticket.Denomination, e ticket.Epoch) (*ticket.Key, error) {
	const op = "have a ticket key made"
	want := keyName{class, d, e}
	answer, err := c.ask(ctx, op, generate, appendName(nil, want))
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(answer)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err)
	}
	if len(keys) != 1 || (keyName{keys[0].Class, keys[0].Denomination, keys[0].Epoch}) != want {
		return nil, cloudpal.E(op, cloudpal.Corrupt, errFrame)
	}
	return keys[0], nil
}

// Public implements Signer.
func (c *Client) Public(ctx context.Context) ([]*ticket.Key, error) {
	const op = "ask for the ticket keys"
	answer, err := c.ask(ctx, op, public, nil)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(answer)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err)
	}
	return keys, nil
}

// Sign implements Signer.
func (c *Client) Sign(ctx context.Context, id ticket.KeyID, blinded [][]byte) ([][]byte, error) {
	const op = "have tickets signed"
	body, err := appendBlocks(append([]byte(nil), id[:]...), blinded)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	answer, err := c.ask(ctx, op, sign, body)
	if err != nil {
		return nil, err
	}
	signatures, err := parseBlocks(answer)
	if err != nil || len(signatures) != len(blinded) {
		return nil, cloudpal.E(op, cloudpal.Corrupt, errFrame)
	}
	return signatures, nil
}

// Drop implements Signer.
func (c *Client) Drop(ctx context.Context, e ticket.Epoch) error {
	_, err := c.ask(ctx, "have ticket keys destroyed", drop, binary.BigEndian.AppendUint32(nil, uint32(e)))
	return err
}

// Close ends the connections. Questions that are on their way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.forget()
	return nil
}

// ask asks once, and again as long as nobody answers.
func (c *Client) ask(ctx context.Context, op string, kind byte, body []byte) ([]byte, error) {
	until := time.Now().Add(patience)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		answer, lost, err := c.try(ctx, kind, body)
		if !lost {
			return answer, tell(op, err)
		}
		if ctx.Err() != nil || time.Now().After(until) || !sleep(ctx, pause) {
			return nil, cloudpal.E(op, cloudpal.Missing, errors.Join(context.Cause(ctx), err)).
				WithHint("the signer does not answer: see that cloudpal mint signer runs, and as which user")
		}
	}
}

// tell gives an error that the signer answered with the op it was met in.
func tell(op string, err error) error {
	if err == nil {
		return nil
	}
	return cloudpal.E(op, "", err)
}

// try asks once. It reports whether the connection was lost before there was
// an answer.
func (c *Client) try(ctx context.Context, kind byte, body []byte) (answer []byte, lost bool, err error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, !errors.Is(err, net.ErrClosed), err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	got, answer, err := exchange(conn, kind, body)
	if !stop() || err != nil {
		c.forget() // the others lead to the same signer, which is gone
		return nil, true, errors.Join(err, conn.Close())
	}
	c.keep(conn)
	if got != done {
		return nil, false, kindOf(answer)
	}
	return answer, false, nil
}

// answerWithin bounds how long a signer can take for one question: a full batch, on
// one slow core, behind others.
const answerWithin = time.Minute

func exchange(conn net.Conn, kind byte, body []byte) (byte, []byte, error) {
	if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return 0, nil, err
	}
	if err := writeFrame(conn, kind, body); err != nil {
		return 0, nil, err
	}
	return readFrame(conn)
}

// connect takes an idle connection, or makes one.
func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, net.ErrClosed
	}
	if n := len(c.idle); n > 0 {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return conn, nil
	}
	c.mu.Unlock()
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.socket)
}

func (c *Client) keep(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) == maxIdle {
		conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

// forget closes the connections that wait.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle {
		conn.Close()
	}
	c.idle = nil
}

// sleep waits, and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// kinds are those that an answer can be.
var kinds = []cloudpal.Kind{cloudpal.NotExist, cloudpal.Exist, cloudpal.Invalid, cloudpal.Corrupt, cloudpal.Denied,
	cloudpal.Busy, cloudpal.NoSpace, cloudpal.Exhausted, cloudpal.Timeout}

func kindOf(answer []byte) cloudpal.Kind {
	for _, k := range kinds {
		if string(answer) == string(k) {
			return k
		}
	}
	return cloudpal.Other
}
