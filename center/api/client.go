package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tradle/cloudpal"
)

// ErrUnreachable is in the trail of every error that says that no center
// answers at the address: nothing was asked.
var ErrUnreachable = errors.New("no center answers there")

// ErrOtherKey is in the trail of the error that says that somebody answers
// who is not the center of the address.
var ErrOtherKey = errors.New("who answers there has another key than the address says")

const (
	maxAnswer        = 1 << 20  // bytes of one JSON answer
	maxProblem       = 16 << 10 // bytes of a problem
	maxHeader        = 16 << 10 // bytes of an answer's header
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
)

// A Dialer connects. It is net.Dialer's, but for who must go around a tunnel
// of its own.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// A Client asks a center. Make it with Dial. Its methods may be called from
// many goroutines; each ends when its context does. Their errors are
// *cloudpal.Error with the center's kind and hint.
type Client struct {
	address Address
	http    *http.Client
}

// Dial returns a client of the center at a. The account's key is what the
// center knows its owner by; nil asks as a stranger. Through may be nil. Dial
// connects only when something is asked.
func Dial(a Address, account ed25519.PrivateKey, through Dialer) (*Client, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The center's key is compared with the address's, in place of names
		// and authorities.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return verify(a.Key, s) },
	}
	if account != nil {
		cert, err := Certificate(account)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{cert}
	}
	if through == nil {
		through = &net.Dialer{Timeout: dialTimeout}
	}
	return &Client{address: a, http: &http.Client{
		Transport: &http.Transport{
			DialContext:            through.DialContext,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    handshakeTimeout,
			DisableCompression:     true,
			IdleConnTimeout:        30 * time.Second,
			MaxIdleConns:           4,
			MaxResponseHeaderBytes: maxHeader,
		},
		// A center never sends one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// verify holds whoever answers to the key of the address. TLS 1.3 has proved
// that they have the private key.
func verify(want Fingerprint, s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 || !FingerprintOf(s.PeerCertificates[0]).Equal(want) {
		return ErrOtherKey
	}
	return nil
}

// Address returns what the client was made with.
func (c *Client) Address() Address { return c.address }

// Close lets go of connections that wait for another question.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Center describes the center. It needs no account.
func (c *Client) Center(ctx context.Context) (Center, error) {
	return ask[Center](ctx, c, question{op: "ask the center", method: http.MethodGet, path: "/v1/center"})
}

// Create asks for a pal and returns when it runs, locked. Sent again, it
// returns the same pal.
func (c *Client) Create(ctx context.Context, r CreateRequest) (Pal, error) {
	return ask[Pal](ctx, c, question{op: "make a pal", method: http.MethodPost, path: "/v1/pals", body: r})
}

// Pals lists the account's pals.
func (c *Client) Pals(ctx context.Context) ([]Pal, error) {
	return ask[[]Pal](ctx, c, question{op: "list pals", method: http.MethodGet, path: "/v1/pals"})
}

// Pal describes one pal.
func (c *Client) Pal(ctx context.Context, id ID) (Pal, error) {
	return onPal[Pal](ctx, c, http.MethodGet, "look at a pal", id, "", nil)
}

// Destroy removes a pal and all its data for good. One that is not there is
// cloudpal.NotExist.
func (c *Client) Destroy(ctx context.Context, id ID) error {
	q, err := palQuestion(http.MethodDelete, "destroy a pal", id, "", nil)
	if err != nil {
		return err
	}
	return c.tell(ctx, q)
}

// Wake returns when the pal's core runs.
func (c *Client) Wake(ctx context.Context, id ID) (Pal, error) {
	return onPal[Pal](ctx, c, http.MethodPost, "wake a pal", id, "/wake", struct{}{})
}

// Sleep puts a pal to sleep, or a napping one to another depth.
func (c *Client) Sleep(ctx context.Context, id ID, depth Depth) (Pal, error) {
	return onPal[Pal](ctx, c, http.MethodPost, "put a pal to sleep", id, "/sleep", SleepRequest{depth})
}

// Stop ends a pal's core in good order.
func (c *Client) Stop(ctx context.Context, id ID) (Pal, error) {
	return onPal[Pal](ctx, c, http.MethodPost, "stop a pal", id, "/stop", struct{}{})
}

// Lock asks the pal's core whether it is locked, and wakes or boots it for
// that.
func (c *Client) Lock(ctx context.Context, id ID) (Lock, error) {
	return onPal[Lock](ctx, c, http.MethodGet, "ask for a pal's lock", id, "/lock", nil)
}

// Unlock hands what was sealed to Lock.Key to the core, at most MaxUnlock
// bytes. The error is cloudpal.Denied where the core refuses it, and
// cloudpal.Exist where it is unlocked already.
func (c *Client) Unlock(ctx context.Context, id ID, sealed []byte) error {
	q, err := palQuestion(http.MethodPost, "unlock a pal", id, "/unlock", nil)
	if err != nil {
		return err
	}
	q.octets = sealed
	return c.tell(ctx, q)
}

// Events returns what happened to a pal after event number after, the oldest
// first. Where that is nothing it waits, for at most wait, which is at most
// MaxWait, and then returns none. A number that was not yet reached is one of
// an earlier core: all are returned.
func (c *Client) Events(ctx context.Context, id ID, after int64, wait time.Duration) ([]Event, error) {
	query := url.Values{"after": {strconv.FormatInt(after, 10)}, "wait": {wait.String()}}
	return onPal[[]Event](ctx, c, http.MethodGet, "ask what happened to a pal", id, "/events?"+query.Encode(), nil)
}

// A question is one request on its way.
type question struct {
	op     string // for errors
	method string
	path   string
	body   any    // JSON; nil: none
	octets []byte // in place of body
}

func onPal[T any](ctx context.Context, c *Client, method, op string, id ID, rest string, body any) (T, error) {
	q, err := palQuestion(method, op, id, rest, body)
	if err != nil {
		var none T
		return none, err
	}
	return ask[T](ctx, c, q)
}

// palQuestion is a question about one pal. What is no ID never becomes part of
// a path.
func palQuestion(method, op string, id ID, rest string, body any) (question, error) {
	if _, err := ParseID(string(id)); err != nil {
		return question{}, cloudpal.E(op, "", err)
	}
	return question{op: op, method: method, path: "/v1/pals/" + string(id) + rest, body: body}, nil
}

func (q question) request(ctx context.Context, a Address) (*http.Request, error) {
	var body io.Reader
	kind := "application/json"
	switch {
	case q.octets != nil:
		body, kind = bytes.NewReader(q.octets), "application/octet-stream"
	case q.body != nil:
		data, err := json.Marshal(q.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, a.URL().String()+q.path, body)
	if err == nil && body != nil {
		r.Header.Set("Content-Type", kind)
	}
	return r, err
}

// send asks and returns an answer whose status is 2xx. The caller closes its
// body.
func (c *Client) send(ctx context.Context, q question) (*http.Response, error) {
	r, err := q.request(ctx, c.address)
	if err != nil {
		return nil, cloudpal.E(q.op, cloudpal.Invalid, err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, failure(ctx, q.op, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, refused(q.op, resp)
	}
	return resp, nil
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
			err = fmt.Errorf("the center's answer is above %d MiB", maxAnswer>>20)
		}
		return answer, failure(ctx, q.op, err)
	}
	return answer, nil
}

// failure says that a question or its answer got lost.
func failure(ctx context.Context, op string, err error) error {
	var wrapped *url.Error
	var dial *net.OpError
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return cloudpal.E(op, cloudpal.Timeout, ctx.Err())
	case ctx.Err() != nil:
		return cloudpal.E(op, cloudpal.Other, ctx.Err())
	case errors.Is(err, ErrOtherKey):
		return cloudpal.E(op, cloudpal.Denied, ErrOtherKey).
			WithHint("do not go on: ask the center's operator, by another way, what its address is")
	case errors.As(err, &dial) && dial.Op == "dial":
		return cloudpal.E(op, cloudpal.Missing, fmt.Errorf("%w: %w", ErrUnreachable, dial.Err)).
			WithHint("is the center running, and does the address still lead to it?")
	case errors.As(err, &wrapped):
		err = wrapped.Err
	}
	return cloudpal.E(op, cloudpal.Other, fmt.Errorf("the center's answer got lost: %w", err)).WithHint("try it again")
}

// refused reads why the center said no.
func refused(op string, resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	var p Problem
	if json.Unmarshal(data, &p) != nil || p.Title == "" {
		return cloudpal.E(op, cloudpal.Other, fmt.Errorf("it answered %d", resp.StatusCode)).
			WithHint("is it a center, and of the same version?")
	}
	e := p.Err()
	if w := wanted(resp.Header); w != nil && resp.StatusCode == http.StatusPaymentRequired {
		e.Err = fmt.Errorf("%w: %w", e.Err, w)
	}
	return cloudpal.E(op, "", e)
}
