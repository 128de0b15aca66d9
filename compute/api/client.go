package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
)

// ErrNoAgent is in the trail of every error that says nobody listens on the
// agent's socket: nothing was asked, and a caller may start the agent and ask
// again.
var ErrNoAgent = errors.New("no agent answers")

const (
	maxAnswer   = 64 << 20 // bytes of one JSON answer: some 50,000 VMs
	maxProblem  = 64 << 10 // bytes of a problem
	maxLine     = 1 << 20  // bytes of one line of a stream
	dialTimeout = 5 * time.Second
)

// A Client asks a host's agent. Make it with Dial. Its methods may be called
// from many goroutines; each ends when its context does. Their errors are
// *cloudpal.Error with the agent's kind and hint.
type Client struct {
	socket string
	http   *http.Client
}

// Dial returns a client of the agent that listens on a Unix socket. It
// connects only when asked something.
func Dial(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
			DisableCompression: true,
			IdleConnTimeout:    30 * time.Second,
			MaxIdleConns:       4,
		},
		// The agent never sends one: what looks like it is an answer to a
		// path that it cleaned up.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close lets go of connections that wait for another question.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Socket returns the path that the client was made with.
func (c *Client) Socket() string { return c.socket }

// connect opens the socket and says why it could not.
func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", c.socket)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, cloudpal.E("", cloudpal.Denied, fmt.Errorf("open %s: only root may", c.socket)).
			WithHint("run it again with sudo")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, cloudpal.E("", cloudpal.Missing, fmt.Errorf("%w on %s", ErrNoAgent, c.socket)).
			WithHint("start it: sudo cloudpal host")
	}
	return nil, err
}

// A question is one request on its way.
type question struct {
	op     string // for errors: "stop notes"
	method string
	path   string // escaped
	body   any    // nil: none
}

// send asks and returns an answer whose status is 2xx. The caller closes its
// body.
func (c *Client) send(ctx context.Context, q question) (*http.Response, error) {
	r, err := q.request(ctx)
	if err != nil {
		return nil, cloudpal.E(q.op, cloudpal.Invalid, err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, failure(ctx, q.op, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, refusal(q.op, resp)
	}
	return resp, nil
}

func (q question) request(ctx context.Context) (*http.Request, error) {
	var body io.Reader
	if q.body != nil {
		data, err := json.Marshal(q.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, "http://host"+q.path, body)
	if err == nil && body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

// tell sends q and expects no answer but success.
func (c *Client) tell(ctx context.Context, q question) error {
	resp, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// ask sends q and decodes the answer.
func ask[T any](ctx context.Context, c *Client, q question) (T, error) {
	var answer T
	resp, err := c.send(ctx, q)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	limited := &io.LimitedReader{R: resp.Body, N: maxAnswer}
	if err := json.NewDecoder(limited).Decode(&answer); err != nil {
		if limited.N == 0 {
			err = fmt.Errorf("the agent's answer is above %d MiB", maxAnswer>>20)
		}
		return answer, failure(ctx, q.op, err)
	}
	return answer, nil
}

// failure says that a question or its answer got lost.
func failure(ctx context.Context, op string, err error) error {
	var known *cloudpal.Error
	var wrapped *url.Error
	switch {
	case errors.As(err, &known):
		return cloudpal.E(op, "", known)
	case ctx.Err() != nil:
		return interrupted(ctx, op)
	case errors.As(err, &wrapped):
		err = wrapped.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		err = fmt.Errorf("the agent went away: %w", err)
	}
	return cloudpal.E(op, cloudpal.Other, err).WithHint("see whether the agent runs: cloudpal host status")
}

func interrupted(ctx context.Context, op string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return cloudpal.E(op, cloudpal.Timeout, ctx.Err())
	}
	return cloudpal.E(op, cloudpal.Other, ctx.Err())
}

// refusal reads why the agent said no. Its text has what was tried in it.
func refusal(op string, resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	var p Problem
	if json.Unmarshal(data, &p) != nil || p.Title == "" {
		return cloudpal.E(op, cloudpal.Other, fmt.Errorf("the agent answered %.100s", resp.Status)).
			WithHint("is it of the same version? cloudpal version and cloudpal host status tell")
	}
	return p.Err()
}

// segment makes a name a part of a path. What would not stay one is refused
// here: the server would see another path.
func segment(op, name string) (string, error) {
	if name == "" || name == "." || name == ".." {
		return "", cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("name %q", name))
	}
	return url.PathEscape(name), nil
}
