package mint

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/crowd"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

const (
	maxHeader = 16 << 10 // bytes of a request's header

	headerTimeout   = 10 * time.Second // the TLS handshake included
	bodyTimeout     = 30 * time.Second
	answerTimeout   = 40 * time.Second
	idleTimeout     = 90 * time.Second
	shutdownTimeout = 10 * time.Second

	choreEvery = 30 * time.Second
)

// Serve answers on a listener until ctx ends, by the certificate's TLS, and does the
// mint's chores.
func (m *Mint) Serve(ctx context.Context, l net.Listener, cert tls.Certificate, handler http.Handler) error {
	var chores sync.WaitGroup
	defer chores.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	chores.Go(func() { m.housekeeping(ctx) })
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler: handler,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
			// A ticket of TLS would tell that two connections are one client's.
			SessionTicketsDisabled: true,
		},
		Protocols:                    &protocols,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  headerTimeout + bodyTimeout,
		WriteTimeout:                 headerTimeout + bodyTimeout + answerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		BaseContext:                  func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		// It names addresses.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() {
		served <- server.ServeTLS(crowd.New(maxConns, maxSourceConns).Listener(l), "", "")
	}()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	}
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

// housekeeping does the chores, now and then.
func (m *Mint) housekeeping(ctx context.Context) {
	every := time.NewTicker(choreEvery)
	defer every.Stop()
	for {
		if err := m.chores(ctx); err != nil && ctx.Err() == nil {
			m.Logger.Warn("a chore is left for later", "err", err)
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// A call is a request on its way, with its body.
type call struct {
	*http.Request
	body []byte
	out  http.ResponseWriter
}

// Handler serves the interface that package api describes.
func (m *Mint) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(call) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := read(w, r)
			var v any
			if err == nil {
				v, err = answer(call{r, body, w})
			}
			m.answer(w, r, v, err)
		})
	}
	center := func(pattern string, answer func(call, ticket.CenterID) (any, error)) {
		handle(pattern, func(q call) (any, error) {
			who, err := api.VerifyRequest(q.Request, q.body, m.Now())
			if err != nil {
				return nil, refuse(cloudpal.Denied, "sign the request with the center's key (RFC 9421), and check the clock")
			}
			return answer(q, who)
		})
	}
	handle("GET /v1/mint", func(call) (any, error) { return m.Describe(), nil })
	handle("GET /v1/manifests/{epoch}", func(q call) (any, error) {
		return onEpoch(q, func(e ticket.Epoch) ([]byte, error) { return m.Bundle(q.Context(), e) })
	})
	handle("POST /v1/quotes", func(q call) (any, error) {
		if !m.gate.quotes.Allow(q.RemoteAddr, m.Now()) {
			return nil, refuse(cloudpal.Busy, "ask for fewer quotes")
		}
		return take(q, m.Quote)
	})
	handle("GET /v1/quotes/{id}", func(q call) (any, error) { return m.Look(q.Context(), q.PathValue("id")) })
	handle("POST /v1/quotes/{id}/pay", func(q call) (any, error) {
		if !m.gate.quotes.Allow(q.RemoteAddr, m.Now()) {
			return nil, refuse(cloudpal.Busy, "pay less often")
		}
		return take(q, func(ctx context.Context, r api.PayRequest) (api.Quote, error) {
			return m.Pay(ctx, q.PathValue("id"), r)
		})
	})
	handle("POST /v1/free", func(q call) (any, error) {
		if !m.gate.quotes.Allow(q.RemoteAddr, m.Now()) {
			return nil, refuse(cloudpal.Busy, "ask for fewer quotes")
		}
		return take(q, m.Free)
	})
	handle("POST /v1/issue", func(q call) (any, error) { return take(q, m.Issue) })
	handle("POST /v1/swap", func(q call) (any, error) { return take(q, m.Swap) })
	handle("POST /v1/refunds", func(q call) (any, error) { return take(q, m.Refund) })
	handle("POST /v1/disputes", func(q call) (any, error) { return take(q, m.Dispute) })
	handle("POST /v1/restore", func(q call) (any, error) { return take(q, m.Restore) })
	handle("GET /v1/centers", func(q call) (any, error) { return m.Centers(q.Context()) })
	handle("GET /v1/counters/{epoch}", func(q call) (any, error) {
		return onEpoch(q, func(e ticket.Epoch) (api.Counters, error) { return m.Counters(q.Context(), e) })
	})
	handle("GET /v1/leaves/{key}/{kind}/{hour}", m.serveLeaves)
	center("POST /v1/deposits", func(q call, who ticket.CenterID) (any, error) {
		return take(q, func(ctx context.Context, r api.DepositRequest) (api.Receipt, error) { return m.Deposit(ctx, who, r) })
	})
	center("GET /v1/disputes", func(q call, who ticket.CenterID) (any, error) { return m.Disputes(q.Context(), who) })
	center("POST /v1/disputes/{id}", func(q call, who ticket.CenterID) (any, error) {
		return take(q, func(ctx context.Context, r api.AnswerRequest) (api.Dispute, error) {
			return m.Answer(ctx, who, q.PathValue("id"), r)
		})
	})
	center("GET /v1/account", m.serveAccount)
	mux.HandleFunc("POST /v1/hooks/{method}", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, api.MaxBody)
		m.answer(w, r, nil, m.Hook(r, r.PathValue("method")))
	})
	return m.guard(mux)
}

// guard stands before all answers: it refuses paths that could mean two things, keeps
// the crowd out, and gives every request its deadline.
func (m *Mint) guard(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, pattern := mux.Handler(r)
		if pattern == "" || r.URL.RawPath != "" || r.URL.Host != "" || path.Clean(r.URL.Path) != r.URL.Path {
			fail(w, refuse(cloudpal.NotExist, "there is no such thing to ask a mint"))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), bodyTimeout+answerTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		leave, ok := m.gate.enter(r)
		if !ok {
			fail(w, refuse(cloudpal.Busy, "the mint has more to do than it can: ask again later"))
			return
		}
		defer leave()
		defer m.survive(w, pattern)
		mux.ServeHTTP(w, r)
	})
}

// survive keeps a defect of ours from ending the connection without a word.
func (m *Mint) survive(w http.ResponseWriter, pattern string) {
	if p := recover(); p != nil {
		m.Logger.Error("a defect", "request", pattern, "panic", p, "stack", string(debug.Stack()))
		fail(w, cloudpal.Other)
	}
}

// read reads a request's body: JSON, and not too much of it.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPost {
		return nil, nil
	}
	if r.Header.Get("Content-Type") != "application/json" {
		return nil, refuse(cloudpal.Invalid, "send the content type application/json")
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxBody))
	if err != nil {
		return nil, refuse(cloudpal.Invalid, "send at most 1 MiB, in good time")
	}
	return data, nil
}

// take reads the JSON that an answer needs: exactly one value, with no field that is
// not known.
func take[Q, A any](q call, answer func(context.Context, Q) (A, error)) (any, error) {
	var v Q
	if err := decode(q.body, &v); err != nil {
		return nil, refuse(cloudpal.Invalid, "send the JSON that the interface describes")
	}
	return answer(q.Context(), v)
}

func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func onEpoch[A any](q call, answer func(ticket.Epoch) (A, error)) (any, error) {
	n, err := strconv.ParseUint(q.PathValue("epoch"), 10, 32)
	if err != nil {
		return nil, refuse(cloudpal.NotExist, "an epoch is a number")
	}
	return answer(ticket.Epoch(n))
}

func (m *Mint) serveLeaves(q call) (any, error) {
	key, err := hex.DecodeString(q.PathValue("key"))
	hour, err2 := strconv.ParseInt(q.PathValue("hour"), 10, 64)
	if err != nil || err2 != nil || len(key) != len(ticket.KeyID{}) {
		return nil, refuse(cloudpal.NotExist, "name a key in hex and an hour since 1970")
	}
	leaves, err := m.Leaves(q.Context(), ticket.KeyID(key), api.Kind(q.PathValue("kind")), hour)
	var b []byte
	for _, l := range leaves {
		b = append(b, l[:]...)
	}
	return b, err
}

func (m *Mint) serveAccount(q call, who ticket.CenterID) (any, error) {
	var after int64
	if s := q.URL.Query().Get("after"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return nil, refuse(cloudpal.Invalid, "after is a deposit's number")
		}
		after = n
	}
	return m.Account(q.Context(), who, after)
}

// answer sends what a request is answered with: octets as they are, all else as
// JSON. It tells the operator what is the mint's own trouble: never what was asked.
func (m *Mint) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		if p := problemOf(err); p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
			m.Logger.Warn("a request failed", "request", r.Pattern, "err", err)
		}
		fail(w, err)
		return
	}
	if b, ok := v.([]byte); ok {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(b)
		return
	}
	if v == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, err error) {
	p := problemOf(err)
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}
