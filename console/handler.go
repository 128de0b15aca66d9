package console

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// Handler answers GET and HEAD of "/" with the page that page returns for the
// request, and of nothing else. Where page fails, the visitor learns only that
// it did: page tells its owner why.
func Handler(page func(*http.Request) (Page, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		p, err := page(r)
		if err != nil {
			Show(w, http.StatusServiceUnavailable, Notice{"Your pal cannot say how it is.", "Look again in a moment."})
			return
		}
		Show(w, http.StatusOK, p)
	})
	return mux
}

// Show answers with a Page, a Form, an Added or a Notice, and with headers that
// let the browser run, load, frame and keep nothing.
func Show(w http.ResponseWriter, status int, v interface{ Render(io.Writer) error }) {
	var b bytes.Buffer
	if err := v.Render(&b); err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	for _, header := range headers {
		h.Set(header[0], header[1])
	}
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

var headers = [][2]string{
	{"Content-Type", "text/html; charset=utf-8"},
	{"Content-Security-Policy", "default-src 'none'; style-src '" + styleHash + "'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"},
	{"X-Content-Type-Options", "nosniff"},
	// Not no-referrer: with that, browsers send a form with "Origin: null", and
	// whoever takes it could not tell it from a stranger's.
	{"Referrer-Policy", "same-origin"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Embedder-Policy", "require-corp"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Cache-Control", "no-store"},
}

// Hosts lets through what is asked under one of the allowed names or addresses,
// each with its port unless that is 80. A name of the web that somebody has led
// to the pal's address (DNS rebinding) is none of them, and the browser would
// take the pal's page for one of that name.
func Hosts(next http.Handler, allowed ...string) http.Handler {
	known := map[string]bool{}
	for _, host := range allowed {
		known[canonical(host)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !known[canonical(r.Host)] {
			http.Error(w, "nothing is here under that name", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// canonical writes a host always the same way.
func canonical(host string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "80"
	}
	if a, err := netip.ParseAddr(name); err == nil {
		name = a.Unmap().String()
	}
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(name, ".")), port)
}
