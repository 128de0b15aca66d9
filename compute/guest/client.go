package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what is read of an answer, in bytes: a guest may be hostile.
const maxAnswer = 64 << 10

// maxLogLine is a LogEntry in JSON, with its data in base64.
const maxLogLine = 2*MaxLogData + 1024

// A Client is the host's end of the control protocol with one guest. Its
// methods may be called from many goroutines.
type Client struct {
	addr   string
	dialer net.Dialer
	http   *http.Client
}

// dial returns a client of what answers at addr, by way of d.
func dial(addr netip.AddrPort, d net.Dialer) *Client {
	return &Client{addr: addr.String(), dialer: d, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "tcp", addr.String())
			},
			// A connection kept open would have to survive the guest's
			// sleep.
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close ends what is under way.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// helloInterval is how long to wait for an answer before the hello is sent
// again.
const helloInterval = 25 * time.Millisecond

// Hello hands the guest the time and fresh entropy, and returns when it has
// said that it took them, or when ctx ends.
func (c *Client) Hello(ctx context.Context, h *Hello) error {
	conn, err := c.dialer.DialContext(ctx, "udp", c.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	defer stop()
	for ctx.Err() == nil {
		h.Time = time.Now()
		// An error here is an earlier datagram's: nobody listens yet.
		_, _ = conn.Write(h.Marshal())
		if awaitAnswer(ctx, conn, h) {
			return nil
		}
	}
	return context.Cause(ctx)
}

// awaitAnswer waits for helloInterval at most.
func awaitAnswer(ctx context.Context, conn net.Conn, h *Hello) bool {
	end := time.Now().Add(helloInterval)
	buf := make([]byte, AnswerSize+1)
	for ctx.Err() == nil {
		conn.SetReadDeadline(end)
		n, err := conn.Read(buf)
		switch {
		case err == nil && h.IsAnswer(buf[:n]):
			return true
		case errors.Is(err, net.ErrClosed), isTimeout(err):
			return false
		case err != nil:
			// Refused: its kernel is up, vminit is not.
			pause(ctx, time.Until(end))
			return false
		}
	}
	return false
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Status asks for the state of the guest's process.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.ask(ctx, http.MethodGet, "/status", nil, &s)
}

// Wait returns when the guest's process has ended.
func (c *Client) Wait(ctx context.Context) (e Exit, err error) {
	return e, c.ask(ctx, http.MethodGet, "/wait", nil, &e)
}

// Usage asks for the guest's own counters.
func (c *Client) Usage(ctx context.Context) (u Usage, err error) {
	return u, c.ask(ctx, http.MethodGet, "/usage", nil, &u)
}

// Listening returns when the guest has all the given TCP ports open, or its
// process has ended.
func (c *Client) Listening(ctx context.Context, ports []uint16) error {
	if len(ports) == 0 {
		return nil
	}
	q := make([]string, len(ports))
	for i, p := range ports {
		q[i] = strconv.Itoa(int(p))
	}
	return c.ask(ctx, http.MethodGet, "/listening?ports="+strings.Join(q, ","), nil, nil)
}

// Signal sends a signal to the guest's process: "SIGHUP".
func (c *Client) Signal(ctx context.Context, name string) error {
	return c.ask(ctx, http.MethodPost, "/signal?name="+url.QueryEscape(name), nil, nil)
}

// Stop sends the guest's process its stop signal, and SIGKILL after timeout,
// and returns how it ended.
func (c *Client) Stop(ctx context.Context, timeout time.Duration) (e Exit, err error) {
	return e, c.ask(ctx, http.MethodPost, "/stop?timeout="+timeout.String(), nil, &e)
}

// PrepareSuspend has the guest write back and drop what it caches, so that its
// snapshot is small, and returns its wishes. It says them at once, and again
// when it is done: where it takes longer than ctx, they are known all the same,
// and told is set.
func (c *Client) PrepareSuspend(ctx context.Context) (w Wishes, told bool, err error) {
	resp, err := c.do(ctx, http.MethodPost, "/prepare-suspend", nil)
	if err != nil {
		return w, false, err
	}
	defer resp.Body.Close()
	answers := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	for {
		var next Wishes
		err := answers.Decode(&next)
		if err == io.EOF && told {
			return w, told, nil
		}
		if err = errors.Join(err, next.check()); err != nil {
			return w, told, fmt.Errorf("the guest's answer: %w", err)
		}
		w, told = next, true
	}
}

// Wishes asks what the guest wishes of its sleep.
func (c *Client) Wishes(ctx context.Context) (w Wishes, err error) {
	err = c.ask(ctx, http.MethodGet, "/wishes", nil, &w)
	return w, errors.Join(err, w.check())
}

// PowerOff has the guest unmount its disks and end its VM.
func (c *Client) PowerOff(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, "/poweroff", nil, nil)
}

// Logs calls each with what the guest's process wrote from offset on, until it
// has ended and all is read, or ctx ends.
func (c *Client) Logs(ctx context.Context, from int64, each func(LogEntry) error) error {
	resp, err := c.do(ctx, http.MethodGet, "/logs?from="+strconv.FormatInt(from, 10), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4096), maxLogLine)
	for lines.Scan() {
		e, err := parseLogEntry(lines.Bytes())
		if err != nil {
			return err
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return lines.Err()
}

func parseLogEntry(line []byte) (LogEntry, error) {
	var e LogEntry
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("the guest's log: %w", err)
	}
	if e.Stream != Stderr {
		e.Stream = Stdout
	}
	if e.Offset < 0 || len(e.Data) > MaxLogData {
		return e, errors.New("the guest's log makes no sense")
	}
	return e, nil
}

// Exec starts a process in the guest and returns the connection that carries
// its frames. It closes when ctx ends.
func (c *Client) Exec(ctx context.Context, r ExecRequest) (io.ReadWriteCloser, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	req, err := c.request(ctx, http.MethodPost, "/exec", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", ExecProtocol)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the guest: %w", err)
	}
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return stream, nil
}

// ask sends a request and reads the JSON answer into v, if any.
func (c *Client) ask(ctx context.Context, method, path string, body io.Reader, v any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the guest's answer: %w", err)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("the guest's answer: %w", err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the guest: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp, nil
}

func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, "http://guest"+path, body)
}

// A Refusal is the guest's answer that it will not or cannot.
type Refusal struct {
	Status int    // HTTP
	Text   string // the guest's words, cut to a line's length
}

func (r *Refusal) Error() string { return "the guest refuses: " + r.Text }

func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	return &Refusal{resp.StatusCode, strings.TrimSpace(strings.ToValidUTF8(string(text), "?"))}
}
