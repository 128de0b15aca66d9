package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/tradle/cloudpal/compute/guest"
)

// A self answers the programs of this guest, any of them: all are the tenant's.
type self struct {
	desk  *desk
	diary *diary
}

// maxSelfConns bounds how many connections PID 1 keeps for programs; more wait.
const maxSelfConns = 64

// serve listens at path for good.
func (s *self) serve(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// The last boot's, on the VM's disk.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
	}
	go server.Serve(&atMost{l, make(chan struct{}, maxSelfConns)})
	return nil
}

// An atMost accepts no more connections than it has room for.
type atMost struct {
	net.Listener
	room chan struct{}
}

func (l *atMost) Accept() (net.Conn, error) {
	l.room <- struct{}{}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &counted{Conn: conn, gone: sync.OnceFunc(func() { <-l.room })}, nil
}

type counted struct {
	net.Conn
	gone func()
}

func (c *counted) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

func (s *self) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /busy/{name}", s.busy)
	mux.HandleFunc("DELETE /busy/{name}", func(w http.ResponseWriter, r *http.Request) { s.desk.done(r.PathValue("name")) })
	mux.HandleFunc("PUT /wake/{name}", s.wake)
	mux.HandleFunc("DELETE /wake/{name}", func(w http.ResponseWriter, r *http.Request) { s.desk.letSleep(r.PathValue("name")) })
	mux.HandleFunc("GET /wishes", func(w http.ResponseWriter, r *http.Request) { reply(w, s.desk.wishes(time.Now())) })
	mux.HandleFunc("GET /resumes", s.resumes)
	mux.HandleFunc("POST /resumes/{n}", s.acknowledge)
	return mux
}

func (s *self) busy(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil || d <= 0 || d > guest.MaxBusy {
		http.Error(w, fmt.Sprintf("for=%.40q: say how long, as in ?for=10m, at most %v", r.URL.Query().Get("for"), guest.MaxBusy), http.StatusBadRequest)
		return
	}
	now := time.Now()
	noted(w, s.desk.keepAwake(r.PathValue("name"), now.Add(d), now))
}

func (s *self) wake(w http.ResponseWriter, r *http.Request) {
	at, err := time.Parse(time.RFC3339, r.URL.Query().Get("at"))
	if err != nil {
		http.Error(w, fmt.Sprintf("at=%.40q: say when, as in ?at=2030-01-31T03:00:00Z", r.URL.Query().Get("at")), http.StatusBadRequest)
		return
	}
	noted(w, s.desk.wakeAt(r.PathValue("name"), at, time.Now()))
}

func noted(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errFull):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// resumes streams until the reader is gone.
func (s *self) resumes(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc, enc := http.NewResponseController(w), json.NewEncoder(w)
	flushed := false
	err := s.diary.read(r.Context(), func() error {
		flushed = true
		return rc.Flush()
	}, func(e guest.Resume) error {
		if err := enc.Encode(e); err != nil {
			return err
		}
		return rc.Flush()
	})
	if !flushed {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func (s *self) acknowledge(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err == nil {
		err = s.diary.acknowledge(n)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}
