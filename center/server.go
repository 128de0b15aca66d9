package center

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	host "github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/crowd"
)

const (
	maxJSON   = 4 << 10  // bytes of a request's JSON
	maxHeader = 16 << 10 // bytes of a request's header

	headerTimeout   = 10 * time.Second // the TLS handshake included
	bodyTimeout     = 60 * time.Second
	answerTimeout   = changeTimeout + 2*relayTimeout
	idleTimeout     = 90 * time.Second
	shutdownTimeout = 5 * time.Second
)

// tlsConfig takes a client's certificate as the wrapping of its key: no
// authority vouches for anyone.
func (c *Center) tlsConfig() (*tls.Config, error) {
	cert, err := api.Certificate(c.key)
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := api.PeerKey(&s)
			return err
		},
	}, err
}

// Serve answers on all listeners until ctx ends. What clients wait for ends
// then; pals go on.
func (c *Center) Serve(ctx context.Context, listeners ...net.Listener) error {
	config, err := c.tlsConfig()
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler:   c.Handler(),
		TLSConfig: config,
		Protocols: &protocols,
		// "OPTIONS *" is refused like all that is not described.
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		BaseContext:                  func(net.Listener) context.Context { return serving },
		// It names addresses.
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, len(listeners))
	guests := crowd.New(maxConns, maxSourceConns)
	for _, l := range listeners {
		go func() { served <- server.ServeTLS(guests.Listener(l), "", "") }()
	}
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	stop()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if server.Shutdown(ending) != nil {
		err = errors.Join(err, server.Close())
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// A call is a request on its way, and who asks.
type call struct {
	http.ResponseWriter
	*http.Request
	who api.Fingerprint // zero: a stranger
}

// Handler serves the interface that package center/api describes.
func (c *Center) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(call) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := answer(call{w, r, account(r)}); err != nil {
				c.fail(w, r, err)
			}
		})
	}
	owned := func(pattern string, answer func(call) error) {
		handle(pattern, func(q call) error {
			if q.who == (api.Fingerprint{}) {
				return refuse(cloudpal.Denied, "show the certificate of an account")
			}
			return answer(q)
		})
	}
	onPal := func(pattern string, answer func(call, *pal) error) {
		owned(pattern, func(q call) error {
			p, err := c.find(q.who, q.PathValue("id"))
			if err != nil {
				return err
			}
			return answer(q, p)
		})
	}
	handle("GET /v1/center", func(q call) error { return q.reply(c.describe()) })
	owned("GET /v1/pals", c.serveList)
	owned("POST /v1/pals", c.serveCreate)
	onPal("GET /v1/pals/{id}", c.serveLook)
	onPal("DELETE /v1/pals/{id}", func(q call, p *pal) error {
		if err := c.destroy(q.Context(), p); err != nil {
			return err
		}
		q.WriteHeader(http.StatusNoContent)
		return nil
	})
	onPal("POST /v1/pals/{id}/wake", func(q call, p *pal) error {
		v, err := c.run(q.Context(), p)
		return c.changed(q, p, v, err)
	})
	onPal("POST /v1/pals/{id}/sleep", c.serveSleep)
	onPal("POST /v1/pals/{id}/stop", func(q call, p *pal) error {
		v, err := c.change(q.Context(), p, func(ctx context.Context, vm string) (host.VM, error) {
			return c.host.Stop(ctx, vm, host.StopRequest{})
		})
		return c.changed(q, p, v, err)
	})
	onPal("GET /v1/pals/{id}/lock", func(q call, p *pal) error {
		l, err := c.lock(q.Context(), p)
		if err != nil {
			return err
		}
		return q.reply(l)
	})
	onPal("POST /v1/pals/{id}/unlock", c.serveUnlock)
	onPal("GET /v1/pals/{id}/events", c.serveEvents)
	if c.till != nil {
		c.serveTabs(owned, handle)
	}
	return c.guard(mux)
}

// account is the fingerprint of the key that the other side has shown, or zero.
func account(r *http.Request) api.Fingerprint {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return api.Fingerprint{}
	}
	return api.FingerprintOf(r.TLS.PeerCertificates[0])
}

// guard stands before all answers: it refuses paths that could mean two
// things, holds everyone to the rates, and gives every request its deadlines.
func (c *Center) guard(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, pattern := mux.Handler(r)
		if pattern == "" || r.URL.RawPath != "" || r.URL.Host != "" || path.Clean(r.URL.Path) != r.URL.Path {
			fail(w, cloudpal.NotExist)
			return
		}
		who := account(r)
		works := r.Method != http.MethodGet || path.Base(pattern) == "lock"
		leave, ok := c.gate.enter(who, c.knows(who), works, time.Now())
		if !ok {
			fail(w, refuse(cloudpal.Busy, "ask less often"))
			return
		}
		defer leave()
		defer c.survive(w, pattern)
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		deadlines, last := http.NewResponseController(w), lastMoment()
		_ = deadlines.SetWriteDeadline(last)
		_ = deadlines.SetReadDeadline(last)
		mux.ServeHTTP(w, r.WithContext(ctx))
	})
}

// lastMoment is when a connection is cut whose request began now: after all
// that is done for a request has ended.
func lastMoment() time.Time { return time.Now().Add(answerTimeout + bodyTimeout) }

// knows reports whether an account has a pal.
func (c *Center) knows(who api.Fingerprint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pals {
		if p.Owner == who {
			return true
		}
	}
	return false
}

// survive keeps a defect of ours from ending the connection without a word.
func (c *Center) survive(w http.ResponseWriter, pattern string) {
	if p := recover(); p != nil {
		c.log.Error("a defect", "request", pattern, "panic", p, "stack", string(debug.Stack()))
		fail(w, cloudpal.Other)
	}
}

// fail tells the other side the kind of err, and the operator all, where it is
// the center's trouble.
func (c *Center) fail(w http.ResponseWriter, r *http.Request, err error) {
	var known refusal
	if !errors.As(err, &known) && r.Context().Err() == nil {
		c.log.Warn("a request failed", "request", r.Pattern, "err", err)
	}
	fail(w, err)
}

func (q call) reply(v any) error {
	q.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(q.ResponseWriter).Encode(v)
}

// Header is the answer's: a call has two.
func (q call) Header() http.Header { return q.ResponseWriter.Header() }

// body reads a request's body of that media type and at most so many bytes,
// in time.
func (q call) body(kind string, most int64) ([]byte, error) {
	if got := q.Request.Header.Get("Content-Type"); got != kind {
		return nil, refuse(cloudpal.Invalid, "send the content type "+kind)
	}
	// The deadline must not outlast the body: it would cut off who waits for
	// the answer.
	deadlines := http.NewResponseController(q.ResponseWriter)
	_ = deadlines.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer func() { _ = deadlines.SetReadDeadline(lastMoment()) }()
	data, err := io.ReadAll(http.MaxBytesReader(q.ResponseWriter, q.Body, most))
	if err != nil {
		return nil, refuse(cloudpal.Invalid, fmt.Sprintf("send at most %d bytes, in good time", most))
	}
	return data, nil
}

func readJSON[T any](q call) (v T, err error) {
	data, err := q.body("application/json", maxJSON)
	if err != nil {
		return v, err
	}
	if err := decode(data, &v); err != nil {
		return v, refuse(cloudpal.Invalid, "send the JSON that the interface describes")
	}
	return v, nil
}

func (c *Center) serveList(q call) error {
	list := []api.Pal{}
	for _, p := range c.owned(q.who) {
		v, err := c.look(q.Context(), p)
		if errors.Is(err, cloudpal.NotExist) {
			continue // it went just now
		}
		if err != nil {
			return err
		}
		list = append(list, v)
	}
	return q.reply(list)
}

func (c *Center) serveCreate(q call) error {
	r, err := readJSON[api.CreateRequest](q)
	if err != nil {
		return err
	}
	if len(r.WireGuard) != 32 || [32]byte(r.WireGuard) == [32]byte{} {
		return refuse(cloudpal.Invalid, "a WireGuard public key has 32 bytes")
	}
	p, err := c.create(q.Context(), q.who, r.WireGuard)
	if err != nil {
		return err
	}
	return q.reply(p)
}

func (c *Center) serveLook(q call, p *pal) error {
	v, err := c.look(q.Context(), p)
	if err != nil {
		return err
	}
	return q.reply(v)
}

// changed answers a change of the pal with the pal as it now is.
func (c *Center) changed(q call, p *pal, v host.VM, err error) error {
	if err != nil {
		return withoutVM(err)
	}
	return q.reply(c.view(c.now(p), v))
}

// withoutVM tells a pal that has no VM from one that is not there.
func withoutVM(err error) error {
	var known refusal
	if errors.Is(err, cloudpal.NotExist) && !errors.As(err, &known) {
		return refuse(cloudpal.Missing, "the pal's core is to be made anew: wake it")
	}
	return err
}

func (c *Center) serveSleep(q call, p *pal) error {
	r, err := readJSON[api.SleepRequest](q)
	if err != nil {
		return err
	}
	switch r.Depth {
	case "", api.DepthArmed, api.DepthMemory, api.DepthDisk, api.DepthSealed:
	default:
		return refuse(cloudpal.Invalid, "a depth is armed, memory, disk or sealed")
	}
	v, err := c.change(q.Context(), p, func(ctx context.Context, vm string) (host.VM, error) {
		return c.host.Suspend(ctx, vm, host.SuspendRequest{Depth: host.Depth(r.Depth)})
	})
	if errors.Is(err, cloudpal.Invalid) {
		return refuse(cloudpal.Invalid, "only a pal that is awake or naps can be put to sleep")
	}
	return c.changed(q, p, v, err)
}

// maxUnlocks bounds unlocks under way: each is in memory. Of one pal there is
// one, so that nobody takes the room of all.
const maxUnlocks = 64

func (c *Center) serveUnlock(q call, p *pal) error {
	for _, room := range []chan struct{}{p.unlocks, c.unlocks} {
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
		default:
			return refuse(cloudpal.Busy, "another unlock is under way; try it again")
		}
	}
	sealed, err := q.body("application/octet-stream", api.MaxUnlock)
	if err != nil {
		return err
	}
	if err := c.unlock(q.Context(), p, sealed); err != nil {
		return err
	}
	q.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *Center) serveEvents(q call, p *pal) error {
	after, wait, err := eventsQuery(q.URL.Query().Get("after"), q.URL.Query().Get("wait"))
	if err != nil {
		return err
	}
	if err := c.ready(p); err != nil {
		return err
	}
	list, err := c.host.Events(q.Context(), p.vm(), after, wait)
	if err != nil {
		return withoutVM(err)
	}
	events := make([]api.Event, 0, len(list))
	for _, e := range list {
		events = append(events, api.Event{
			N: e.N, Time: e.Time, What: api.What(e.What), Reason: outward(e.Reason), Depth: api.Depth(e.Depth), Slept: e.Slept,
		})
	}
	return q.reply(events)
}

// eventsQuery reads from which event on, and how long to wait for it.
func eventsQuery(after, wait string) (n int64, d time.Duration, err error) {
	if after != "" {
		if n, err = strconv.ParseInt(after, 10, 64); err != nil || n < 0 {
			return 0, 0, refuse(cloudpal.Invalid, "after is the number of an event")
		}
	}
	if wait != "" {
		if d, err = time.ParseDuration(wait); err != nil || d < 0 || d > api.MaxWait {
			return 0, 0, refuse(cloudpal.Invalid, "wait is a time up to "+api.MaxWait.String())
		}
	}
	return n, d, nil
}
