package pal

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
)

const (
	hostConns    = 16               // connections of the host at a time
	hostTimeout  = 30 * time.Second // for an unlock to arrive
	maxHeader    = 16 << 10         // bytes of a request's header
	shutdownTime = 2 * time.Second
)

// serveHost answers the host at an address, and nobody else, until ctx ends or
// stop.
func (c *Core) serveHost(ctx context.Context, at netip.AddrPort) (stop func() error, err error) {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	m.HandleFunc("GET /v1/lock", func(w http.ResponseWriter, _ *http.Request) { reply(w, c.lock.describe()) })
	m.HandleFunc("POST /v1/unlock", c.serveUnlock)
	m.HandleFunc("POST /v1/countersign", c.serveCountersign)
	return serve(ctx, at, hostConns, c.Log, only(c.uplink.Gateway, m))
}

// only refuses who does not ask from that address. So does the firewall; this
// is for a host that asks from a guest of its own.
func only(from netip.Addr, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if remote(r) != from {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (c *Core) serveUnlock(w http.ResponseWriter, r *http.Request) {
	sealed, err := io.ReadAll(http.MaxBytesReader(w, r.Body, identity.MaxUnlock))
	if err != nil {
		fail(w, readError(err))
		return
	}
	c.busy("unlock")
	defer c.idle("unlock")
	if err := c.lock.unlock(r.Context(), sealed); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// busy keeps the VM awake for a job, for as long as any may take.
func (c *Core) busy(job string) {
	if c.Self == nil {
		return
	}
	if err := c.Self.Busy(job, 5*time.Minute); err != nil {
		c.Log.Warn("the VM was not told to stay awake", "err", err)
	}
}

func (c *Core) idle(job string) {
	if c.Self != nil {
		c.Self.Idle(job) // it ends by itself, too
	}
}

// serve answers HTTP at an address with room for so many connections. No
// connection outlives its request: a later word about it, by either end,
// would wake a pal that sleeps.
func serve(ctx context.Context, at netip.AddrPort, room int, logger *slog.Logger, h http.Handler) (stop func() error, err error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	l, err := lc.Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	s := &http.Server{
		Handler: h, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: hostTimeout, WriteTimeout: 5 * time.Minute,
		ErrorLog: log.New(quiet{logger}, "", 0),
	}
	s.SetKeepAlivesEnabled(false)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(netutil.LimitListener(l, room)) }()
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		err := s.Shutdown(ctx)
		if err != nil {
			err = s.Close()
		}
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

// quiet keeps what a server says to itself: addresses are in it.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(b []byte) (int, error) {
	q.log.Warn("a server had a fault")
	return len(b), nil
}

func remote(r *http.Request) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr().Unmap()
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(v) // a client that is gone is no trouble of ours
}

// readError is what is wrong with a request's body.
func readError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return tooLarge{err}
	}
	return cloudpal.E("read a request", cloudpal.Invalid, err)
}

type tooLarge struct{ error }

func (tooLarge) Unwrap() error { return cloudpal.Invalid }

// fail tells a stranger the kind of an error.
func fail(w http.ResponseWriter, err error) {
	status := statusOf(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(problem(err, status))
}

func statusOf(err error) int {
	var large tooLarge
	if errors.As(err, &large) {
		return http.StatusRequestEntityTooLarge
	}
	switch cloudpal.KindOf(err) {
	case cloudpal.Invalid:
		return http.StatusBadRequest
	case cloudpal.Denied:
		return http.StatusForbidden
	case cloudpal.NotExist:
		return http.StatusNotFound
	case cloudpal.Exist:
		return http.StatusConflict
	case cloudpal.Busy:
		return http.StatusTooManyRequests
	case cloudpal.Timeout:
		return http.StatusServiceUnavailable
	case cloudpal.NoSpace:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}
