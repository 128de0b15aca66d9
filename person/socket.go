package person

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"github.com/tradle/cloudpal"
)

// The agent answers on a Unix socket that only the home's owner, and root, can
// open:
//
//	GET    /v1/agent                 AgentStatus
//	GET    /v1/status                Status
//	POST   /v1/up                    UpRequest -> a line of JSON for each Step, then an end
//	POST   /v1/sleep                 SleepRequest; puts the pal to sleep
//	POST   /v1/stop                  ends the agent
//	POST   /v1/devices               AddRequest -> Changed
//	DELETE /v1/devices/{name}        -> Changed
//	PATCH  /v1/devices/{name}        RenameRequest -> Changed
//	POST   /v1/connect               ConnectRequest
//	POST   /v1/disconnect
//	POST   /v1/open                  -> Opened
//
// An error is a problem, with its text: both ends are the same person's.

// maxRequest bounds a request and an answer, in bytes.
const maxRequest = 1 << 20

// maxSocketPath is what the systems take, less the zero at the end.
const maxSocketPath = 103

// A ConnectRequest asks for a TUN device.
type ConnectRequest struct {
	Everything bool `json:"everything"` // not only what is sent to the person's devices
}

// An Opened is where the pal's page is to be seen, once and for a minute.
type Opened struct {
	URL string `json:"url"`
}

// end is the last line of a stream.
type end struct {
	End   bool     `json:"end"`
	Error *problem `json:"error,omitempty"`
}

// A problem is an error on its way to our own client.
type problem struct {
	Kind cloudpal.Kind `json:"kind"`
	Text string        `json:"text"`
	Hint string        `json:"hint,omitempty"`
}

func problemOf(err error) *problem {
	if err == nil {
		return nil
	}
	return &problem{cloudpal.KindOf(err), err.Error(), cloudpal.HintOf(err)}
}

// err makes it an error again: the kind is said in the text already.
func (p *problem) err() error {
	if p == nil {
		return nil
	}
	return &cloudpal.Error{Kind: p.Kind, Err: said{p.Kind, p.Text}, Hint: p.Hint}
}

type said struct {
	kind cloudpal.Kind
	text string
}

func (s said) Error() string        { return s.text }
func (s said) Is(target error) bool { return target == error(s.kind) }

// listen opens the socket. The caller holds the agent's lock: a socket that is
// there is of one that is gone.
func (h *Home) listen() (net.Listener, error) {
	path := h.path(socketName)
	if len(path) > maxSocketPath {
		return nil, cloudpal.E("listen on "+path, cloudpal.Invalid, errors.New("the path is too long for a socket")).
			WithHint("choose a shorter one with --home")
	}
	if err := h.root.Remove(socketName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	err = h.root.Chmod(socketName, 0o600)
	if err == nil && os.Geteuid() == 0 {
		err = h.root.Lchown(socketName, h.own.UID, h.own.GID)
	}
	if err != nil {
		l.Close()
	}
	return l, err
}

// handler answers clients. Stop ends the agent.
func (a *Agent) handler(stop func()) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/agent", answer(func(*http.Request, none) (*AgentStatus, error) { return a.self(), nil }))
	m.HandleFunc("GET /v1/status", answer(func(r *http.Request, _ none) (Status, error) { return a.status(r.Context()) }))
	m.HandleFunc("POST /v1/up", a.serveUp)
	m.HandleFunc("POST /v1/sleep", answer(func(r *http.Request, q SleepRequest) (none, error) { return none{}, a.sleep(r.Context(), q) }))
	m.HandleFunc("POST /v1/devices", answer(func(r *http.Request, q AddRequest) (Changed, error) { return a.add(r.Context(), q) }))
	m.HandleFunc("DELETE /v1/devices/{name}", answer(func(r *http.Request, _ none) (Changed, error) {
		return a.revoke(r.Context(), r.PathValue("name"))
	}))
	m.HandleFunc("PATCH /v1/devices/{name}", answer(func(r *http.Request, q RenameRequest) (Changed, error) {
		return a.rename(r.Context(), r.PathValue("name"), q.Name)
	}))
	m.HandleFunc("POST /v1/connect", answer(func(r *http.Request, q ConnectRequest) (none, error) { return none{}, a.connect(r.Context(), q) }))
	m.HandleFunc("POST /v1/disconnect", answer(func(r *http.Request, _ none) (none, error) { return none{}, a.disconnect() }))
	m.HandleFunc("POST /v1/open", answer(func(*http.Request, none) (Opened, error) { return a.page.open() }))
	m.HandleFunc("POST /v1/stop", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		stop()
	})
	return m
}

type none struct{}

// answer makes a handler of a function from a request's JSON to an answer's.
func answer[Q, A any](f func(*http.Request, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := readJSON(r, &q); err != nil {
			refuse(w, cloudpal.E("read the request", cloudpal.Invalid, err))
			return
		}
		v, err := f(r, q)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
}

func readJSON(r *http.Request, q any) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil || len(data) == 0 {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(q)
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusConflict) // the kind is in the body
	json.NewEncoder(w).Encode(problemOf(err))
}

// serveUp tells of each step as it happens.
func (a *Agent) serveUp(w http.ResponseWriter, r *http.Request) {
	var q UpRequest
	if err := readJSON(r, &q); err != nil {
		refuse(w, cloudpal.E("read the request", cloudpal.Invalid, err))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	flush := http.NewResponseController(w).Flush
	err := a.up(r.Context(), q, func(s Step) {
		out.Encode(s)
		flush()
	})
	out.Encode(end{End: true, Error: problemOf(a.home.explain(err))})
}

// ErrNoAgent is in the trail of the error that says that no agent runs.
var ErrNoAgent = errors.New("no agent runs")

// A Client asks a home's agent.
type Client struct{ http *http.Client }

// Client returns a client of the home's agent. It connects only when it is
// asked something.
func (h *Home) Client() *Client {
	path := h.path(socketName)
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}}
}

// Agent asks for what the agent knows without asking anybody.
func (c *Client) Agent(ctx context.Context) (s AgentStatus, err error) {
	return s, c.ask(ctx, http.MethodGet, "/v1/agent", nil, &s)
}

// Status asks for the pal's status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.ask(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Up has the agent do what is left to do, until the pal answers. Each step is
// told as it happens.
func (c *Client) Up(ctx context.Context, q UpRequest, tell func(Step)) error {
	resp, err := c.send(ctx, http.MethodPost, "/v1/up", q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var line struct {
			Step
			end
		}
		if err := lines.Decode(&line); err != nil {
			return cloudpal.E("ask the agent", cloudpal.Other, errors.New("it ended in the middle")).
				WithHint("its log is agent.log in the home; run the command again, it goes on where it stopped")
		}
		if line.End {
			return line.Error.err()
		}
		tell(line.Step)
	}
}

// Sleep puts the pal to sleep.
func (c *Client) Sleep(ctx context.Context, q SleepRequest) error {
	return c.ask(ctx, http.MethodPost, "/v1/sleep", q, nil)
}

// Stop asks the agent to end.
func (c *Client) Stop(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, "/v1/stop", nil, nil)
}

// Add adds a device.
func (c *Client) Add(ctx context.Context, q AddRequest) (d Changed, err error) {
	return d, c.ask(ctx, http.MethodPost, "/v1/devices", q, &d)
}

// Revoke revokes a device.
func (c *Client) Revoke(ctx context.Context, name string) (d Changed, err error) {
	return d, c.ask(ctx, http.MethodDelete, "/v1/devices/"+url.PathEscape(name), nil, &d)
}

// Rename gives a device another name.
func (c *Client) Rename(ctx context.Context, name, to string) (d Changed, err error) {
	return d, c.ask(ctx, http.MethodPatch, "/v1/devices/"+url.PathEscape(name), RenameRequest{to}, &d)
}

// Connect leads this machine's traffic into the tunnel.
func (c *Client) Connect(ctx context.Context, q ConnectRequest) error {
	return c.ask(ctx, http.MethodPost, "/v1/connect", q, nil)
}

// Disconnect undoes Connect.
func (c *Client) Disconnect(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, "/v1/disconnect", nil, nil)
}

// Open returns where the pal's page is to be seen.
func (c *Client) Open(ctx context.Context) (o Opened, err error) {
	return o, c.ask(ctx, http.MethodPost, "/v1/open", nil, &o)
}

func (c *Client) ask(ctx context.Context, method, path string, q, into any) error {
	resp, err := c.send(ctx, method, path, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4*maxRequest)).Decode(into); err != nil {
		return cloudpal.E("ask the agent", timeoutOr(ctx, cloudpal.Other), err)
	}
	return nil
}

// send returns an answer whose status is 2xx.
func (c *Client) send(ctx context.Context, method, path string, q any) (*http.Response, error) {
	const op = "ask the agent"
	var body io.Reader
	if q != nil {
		data, err := json.Marshal(q)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, unanswered(ctx, op, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var p problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(&p); err != nil || p.Kind == "" {
		return nil, cloudpal.E(op, cloudpal.Other, errors.New("it answers "+resp.Status))
	}
	return nil, p.err()
}

func unanswered(ctx context.Context, op string, err error) error {
	switch {
	case ctx.Err() != nil:
		return cloudpal.E(op, timeoutOr(ctx, cloudpal.Other), ctx.Err())
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return cloudpal.E("", cloudpal.Missing, ErrNoAgent).WithHint("start it: cloudpal up")
	}
	return cloudpal.E(op, "", err)
}
