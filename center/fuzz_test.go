package center

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/tradle/cloudpal/center/api"
)

// FuzzRecord reads records as they may be after a disk went bad: what is taken
// is whole, and stays what it is.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"id":"aaaaaaaaaaaaaaaaaaaaaaaa","owner":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","wireGuard":"` +
		strings.Repeat("A", 43) + `=","hostPort":51820,"created":"2026-01-01T00:00:00Z","phase":"made"}`))
	f.Add([]byte(`{"id":"aaaaaaaaaaaaaaaaaaaaaaaa","phase":"going"}`))
	f.Add([]byte("{}{}"))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		if err := r.check(); err != nil {
			t.Errorf("took a record that is none: %v", err)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := parseRecord(again); err != nil || !reflect.DeepEqual(second, r) {
			t.Errorf("%+v is %+v when written and read again (%v)", r, second, err)
		}
	})
}

// FuzzBody sends bodies of all kinds: none does more than be refused.
func FuzzBody(f *testing.F) {
	f.Add("application/json", []byte(`{"wireGuard":"AAAA"}`))
	f.Add("application/json", []byte(`{"depth":"disk"}`))
	f.Add("application/json", []byte(`{"depth":"disk"}{}`))
	f.Add("application/octet-stream", []byte("\x00\xff"))
	f.Add("application/json; charset=utf-8", []byte("[[[[[[[["))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/v1/pals", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", kind)
		q := call{httptest.NewRecorder(), r, api.Fingerprint{1}}
		v, err := readJSON[api.CreateRequest](q)
		if err == nil && (kind != "application/json" || len(body) > maxJSON) {
			t.Errorf("took %d bytes of %q as %+v", len(body), kind, v)
		}
		if err != nil && problemOf(err).Status != http.StatusBadRequest {
			t.Errorf("a bad body is %v", err)
		}
	})
}

// FuzzPath asks for anything: no path but those described is answered, and none
// is led elsewhere.
func FuzzPath(f *testing.F) {
	for _, path := range []string{"/v1/pals", "/v1/pals/aaaaaaaaaaaaaaaaaaaaaaaa/lock", "//v1/center", "/v1/%63enter", "/v1/pals/../center", "*", "/v1/pals/a%2fb"} {
		f.Add(path)
	}
	c := &Center{pals: map[api.ID]*pal{}}
	h := c.Handler()
	f.Fuzz(func(t *testing.T, path string) {
		r, err := http.NewRequest(http.MethodGet, "https://center/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.URL, err = r.URL.Parse(path); err != nil {
			return
		}
		r.URL.Scheme, r.URL.Host, r.RequestURI = "", "", path
		w := httptest.NewRecorder()
		c.gate = newGate() // none is refused for coming too often
		h.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusNotFound, http.StatusForbidden:
		case http.StatusOK:
			if r.URL.EscapedPath() != "/v1/center" {
				t.Errorf("%q is answered as the center's description", path)
			}
		default:
			t.Errorf("%q is answered %d", path, w.Code)
		}
	})
}
