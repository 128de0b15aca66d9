package console_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/tradle/cloudpal/console"
)

func show(p console.Page) http.Handler {
	return console.Handler(func(*http.Request) (console.Page, error) { return p, nil })
}

func ask(h http.Handler, method, url string) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, url, nil))
	return w.Result()
}

func TestHandlerAnswersOnlyForThePage(t *testing.T) {
	h := show(ordinary())
	for request, want := range map[string]int{
		"GET http://pal/": 200, "HEAD http://pal/": 200, "GET http://pal/?x=y": 200,
		"GET http://pal/index.html": 404, "GET http://pal/html/style.css": 404, "GET http://pal/favicon.ico": 404,
		"POST http://pal/": 405, "DELETE http://pal/": 405,
	} {
		method, url, _ := strings.Cut(request, " ")
		if got := ask(h, method, url).StatusCode; got != want {
			t.Errorf("%s: got %d, want %d", request, got, want)
		}
	}
}

func TestHandlerTellsBrowsersToTrustNothing(t *testing.T) {
	r := ask(show(ordinary()), "GET", "http://pal/")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		"Content-Type":                 "text/html; charset=utf-8",
		"Content-Length":               strconv.Itoa(len(body)),
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "same-origin",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Embedder-Policy": "require-corp",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-store",
		"Access-Control-Allow-Origin":  "",
	} {
		if got := r.Header.Get(header); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	policy := r.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "script") {
		t.Errorf("got the policy %q", policy)
	}
	for _, needed := range []string{"base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'", "img-src data:"} {
		if !strings.Contains(policy, needed) {
			t.Errorf("the policy %q lacks %s", policy, needed)
		}
	}
}

func TestHandlerTellsStrangersNoErrors(t *testing.T) {
	h := console.Handler(func(*http.Request) (console.Page, error) { return console.Page{}, errors.New("read /pal/secret") })
	r := ask(h, "GET", "http://pal/")
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusServiceUnavailable || strings.Contains(string(body), "secret") || !strings.Contains(string(body), "Look again in a moment.") {
		t.Errorf("got %d, %s", r.StatusCode, body)
	}
}

func TestHostsKeepsOthersNamesOut(t *testing.T) {
	h := console.Hosts(show(ordinary()), "pal", "10.83.17.1", "fd5c:91ab:7e20:4d11::1", "127.0.0.1:41234", "[::1]:41234")
	for host, want := range map[string]int{
		"pal": 200, "PAL": 200, "pal.": 200, "pal:80": 200, "10.83.17.1": 200, "10.83.17.1:80": 200,
		"[fd5c:91ab:7e20:4d11::1]": 200, "[fd5c:91ab:7e20:4d11:0:0:0:1]:80": 200, "127.0.0.1:41234": 200, "[::1]:41234": 200,
		"": 421, "evil.example": 421, "pal.evil.example": 421, "evil.example:80": 421, "pal:8080": 421, "pal:": 421,
		"127.0.0.1": 421, "localhost:41234": 421, "10.83.17.1.evil.example": 421, "[pal]:80x": 421, "10.83.17.2": 421,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: got %d, want %d", host, w.Code, want)
		}
	}
}

func FuzzHosts(f *testing.F) {
	h := console.Hosts(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "pal", "10.83.17.1")
	for _, seed := range []string{"pal", "[::1]:80", "pal:80:80", "10.83.17.1%eth0", "\xff:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if name := strings.ToLower(host); w.Code == http.StatusOK && !strings.Contains(name, "pal") && !strings.Contains(name, "10.83.17.1") && !strings.Contains(name, "a53:1101") {
			t.Errorf("%q was let in", host)
		}
	})
}
