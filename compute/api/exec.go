package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/tradle/cloudpal"
)

// ExecProtocol is what an exec request asks to upgrade to: after the answer
// 101 both ends speak the frames of package guest.
const ExecProtocol = "cloudpal-exec"

// maxHandshake bounds the answer to an upgrade, in bytes, before its body.
const maxHandshake = 64 << 10

// Exec starts a process in a VM; request is a guest.ExecRequest. It returns the
// connection that carries the guest's frames (package guest). The connection
// closes when ctx ends, and the guest then ends the process.
func (c *Client) Exec(ctx context.Context, name string, request any) (io.ReadWriteCloser, error) {
	q, err := vmQuestion(http.MethodPost, "exec", name, request)
	if err != nil {
		return nil, err
	}
	r, err := q.request(ctx)
	if err != nil {
		return nil, cloudpal.E(q.op, cloudpal.Invalid, err)
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, failure(ctx, q.op, err)
	}
	up := &upgraded{Conn: conn}
	up.release = context.AfterFunc(ctx, func() { conn.Close() })
	if err := up.shake(q.op, r); err != nil {
		up.Close()
		return nil, streamFailure(ctx, q.op, err)
	}
	return up, nil
}

// upgraded is a connection after 101. What came right behind the answer is in
// buf.
type upgraded struct {
	net.Conn
	buf     *bufio.Reader
	release func() bool
	once    sync.Once
	err     error
}

func (u *upgraded) shake(op string, r *http.Request) error {
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", ExecProtocol)
	if err := r.Write(u.Conn); err != nil {
		return err
	}
	limit := &io.LimitedReader{R: u.Conn, N: maxHandshake}
	u.buf = bufio.NewReader(limit)
	resp, err := http.ReadResponse(u.buf, r)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return refusal(op, resp)
	}
	if !strings.EqualFold(resp.Header.Get("Upgrade"), ExecProtocol) {
		return fmt.Errorf("the agent switched to %.40q", resp.Header.Get("Upgrade"))
	}
	limit.N = 1<<63 - 1
	return nil
}

func (u *upgraded) Read(p []byte) (int, error) { return u.buf.Read(p) }

// CloseWrite says that no more will be written.
func (u *upgraded) CloseWrite() error {
	half, ok := u.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

func (u *upgraded) Close() error {
	u.once.Do(func() {
		u.release()
		u.err = u.Conn.Close()
	})
	return u.err
}
