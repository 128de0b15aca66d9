package api

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

// serve answers by TLS, and returns a client that knows the server's key.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := Certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	at := l.Addr().(*net.TCPAddr)
	c, err := Dial(Address{Host: "127.0.0.1", Port: uint16(at.Port), Key: FingerprintOf(cert.Leaf)}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A center may be anybody's: its answers are bounded, and its words are not
// repeated.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	for what, h := range map[string]http.HandlerFunc{
		"no JSON": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "\x1b[31mcrimson") },
		"endless JSON": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"version":"`)
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil {
					return
				}
			}
		},
		"a long header": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://198.51.100.1/", http.StatusTemporaryRedirect)
		},
		"no problem": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, "\x1b[31mcrimson")
		},
		"a made-up problem": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			io.WriteString(w, `{"title":"\u001b[31mcrimson"}`)
		},
		"nothing": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := serve(t, h).Center(ctx)
		cancel()
		if !errors.Is(err, cloudpal.Other) || strings.Contains(err.Error(), "crimson") || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: %q, want %v in a line", what, err, cloudpal.Other)
		}
	}
}

func TestClientGivesUpInTime(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Pals(ctx); !errors.Is(err, cloudpal.Timeout) {
		t.Errorf("got %v, want %v", err, cloudpal.Timeout)
	}
}

// What is no id never becomes part of a path.
func TestNoIDIsNotSent(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("%s is asked", r.URL) })
	if _, err := c.Pal(t.Context(), "../center"); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("got %v, want %v", err, cloudpal.Invalid)
	}
	if err := c.Destroy(t.Context(), ""); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("got %v, want %v", err, cloudpal.Invalid)
	}
}
