package api

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// testKey is test-key-ed25519 of RFC 9421, appendix B.1.4.
func testKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(ed25519.PrivateKey)
}

// rfcRequest is the request that RFC 9421, appendix B.2 signs.
func rfcRequest(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequest("POST", "https://example.com/foo?param=Value&Pet=dog", strings.NewReader(`{"hello": "world"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Date", "Tue, 20 Apr 2021 02:07:55 GMT")
	r.Header.Set("Content-Type", "application/json")
	return r
}

// TestSignatureBase signs what RFC 9421, appendix B.2.6 signs.
func TestSignatureBase(t *testing.T) {
	t.Parallel()
	const params = `("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`
	const want = `"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ` + params
	d, err := httpsfv.UnmarshalDictionary([]string{"sig-b26=" + params})
	if err != nil {
		t.Fatal(err)
	}
	input, _ := d.Get("sig-b26")
	base, err := signatureBase(rfcRequest(t), input.(httpsfv.InnerList))
	if err != nil || base != want {
		t.Errorf("got %s (%v), want %s", base, err, want)
	}
	got := base64.StdEncoding.EncodeToString(ed25519.Sign(testKey(t), []byte(base)))
	if want := "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="; got != want {
		t.Errorf("got the signature %s, want %s", got, want)
	}
}

// TestComponents has the examples of RFC 9421, section 2.2.
func TestComponents(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ url, name, want string }{
		{"https://www.example.com/path?param=value", "@authority", "www.example.com"},
		{"https://WWW.Example.com:443/path", "@authority", "www.example.com"},
		{"https://www.example.com:8443/path", "@authority", "www.example.com:8443"},
		{"https://www.example.com/path?param=value", "@path", "/path"},
		{"https://www.example.com", "@path", "/"},
		{"https://www.example.com/a%20b/%2F", "@path", "/a%20b/%2F"},
		{"https://www.example.com/path?param=value&foo=bar&baz=batman", "@query", "?param=value&foo=bar&baz=batman"},
		{"https://www.example.com/path?queryString", "@query", "?queryString"},
		{"https://www.example.com/path", "@query", "?"},
	} {
		r, err := http.NewRequest("GET", c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := component(r, c.name); got != c.want || err != nil {
			t.Errorf("%s of %s: got %q (%v), want %q", c.name, c.url, got, err, c.want)
		}
	}
	r := rfcRequest(t)
	r.Header["X-Many"] = []string{" one ", "two"}
	if got, err := component(r, "x-many"); got != "one, two" || err != nil {
		t.Errorf("a field of two lines is %q (%v)", got, err)
	}
	if _, err := component(r, "x-none"); err == nil {
		t.Error("a field that there is not has a value")
	}
}

// TestContentDigest has the examples of RFC 9530, appendix B.
func TestContentDigest(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"{\"hello\": \"world\"}\n": "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
		`{"hello": "world"}`:       "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
	} {
		if got := contentDigest([]byte(body)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

var signedAt = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

const someBody = `{"spend":"AAAA"}`

// signed is a request as a center sends it, and as a mint gets it.
func signed(t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if err := SignRequest(r, testKey(t), signedAt); err != nil {
		t.Fatal(err)
	}
	got := httptest.NewRequest(method, url, strings.NewReader(body))
	got.Header = r.Header
	return got
}

func TestSignRequest(t *testing.T) {
	t.Parallel()
	want := ticket.CenterID(testKey(t).Public().(ed25519.PublicKey))
	for _, r := range []*http.Request{
		signed(t, "POST", "https://mint.example/v1/deposits", someBody),
		signed(t, "POST", "https://mint.example:443/v1/deposits", someBody),
		signed(t, "GET", "https://mint.example/v1/account?after=7", ""),
	} {
		body, _ := io.ReadAll(r.Body)
		for _, off := range []time.Duration{0, -signatureSkew, signatureLife, signatureLife + signatureSkew} {
			if got, err := VerifyRequest(r, body, signedAt.Add(off)); got != want || err != nil {
				t.Errorf("%s %s after %v: %v, by %x", r.Method, r.URL, off, err, got)
			}
		}
	}
}

// TestSignedOverHTTP: what net/http does to a request on its way changes nothing.
func TestSignedOverHTTP(t *testing.T) {
	t.Parallel()
	verified := make(chan error, 1)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, err := VerifyRequest(r, body, signedAt)
		verified <- err
	}))
	defer s.Close()
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/deposits", someBody}, {"GET", "/v1/account?after=0", ""}, {"POST", "/v1/disputes/a%2Fb", "{}"},
	} {
		r, err := http.NewRequest(c.method, s.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.body == "" {
			r.Body, r.GetBody = nil, nil
		} else {
			r.Header.Set("Content-Type", "application/json")
		}
		if err := SignRequest(r, testKey(t), signedAt); err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := <-verified; err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
		}
	}
}

// What is changed on the way, said of another's key, or cut away, is refused.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	input := func(r *http.Request, old, new string) {
		text := r.Header.Get("Signature-Input")
		changed := strings.Replace(text, old, new, 1)
		if changed == text {
			panic("nothing to change: " + old)
		}
		r.Header.Set("Signature-Input", changed)
	}
	for what, change := range map[string]func(r *http.Request) []byte{
		"another method":      func(r *http.Request) []byte { r.Method = "PUT"; return nil },
		"another host":        func(r *http.Request) []byte { r.Host = "other.example"; return nil },
		"another path":        func(r *http.Request) []byte { r.URL.Path = "/v1/refunds"; return nil },
		"another question":    func(r *http.Request) []byte { r.URL.RawQuery = "after=8"; return nil },
		"another type":        func(r *http.Request) []byte { r.Header.Set("Content-Type", "text/plain"); return nil },
		"another body":        func(r *http.Request) []byte { return []byte(`{"spend":"AAAB"}`) },
		"no body":             func(r *http.Request) []byte { return []byte{} },
		"another digest":      func(r *http.Request) []byte { r.Header.Set("Content-Digest", contentDigest([]byte("x"))); return nil },
		"no digest":           func(r *http.Request) []byte { r.Header.Del("Content-Digest"); return nil },
		"two digests":         func(r *http.Request) []byte { r.Header.Add("Content-Digest", contentDigest([]byte("x"))); return nil },
		"only a SHA-512":      func(r *http.Request) []byte { r.Header.Set("Content-Digest", sha512Digest(someBody)); return nil },
		"no signature":        func(r *http.Request) []byte { r.Header.Del("Signature"); return nil },
		"no input":            func(r *http.Request) []byte { r.Header.Del("Signature-Input"); return nil },
		"two signatures":      func(r *http.Request) []byte { r.Header.Add("Signature", r.Header.Get("Signature")); return nil },
		"another label":       func(r *http.Request) []byte { input(r, "center=", "sig1="); return nil },
		"later created":       func(r *http.Request) []byte { input(r, "created=1", "created=2"); return nil },
		"later expired":       func(r *http.Request) []byte { input(r, "expires=1", "expires=2"); return nil },
		"no times":            func(r *http.Request) []byte { input(r, "created=", "made="); return nil },
		"another algorithm":   func(r *http.Request) []byte { input(r, "ed25519", "hmac-sha256"); return nil },
		"another tag":         func(r *http.Request) []byte { input(r, "cloudpal-mint", "web-bot-auth"); return nil },
		"less signed":         func(r *http.Request) []byte { input(r, `"content-digest"`, ``); return nil },
		"in another order":    func(r *http.Request) []byte { input(r, `"@method" "@authority"`, `"@authority" "@method"`); return nil },
		"a component twice":   func(r *http.Request) []byte { input(r, `"@path"`, `"@path" "@path"`); return nil },
		"one with parameters": func(r *http.Request) []byte { input(r, `"@query"`, `"@query";req`); return nil },
		"a number as a name":  func(r *http.Request) []byte { input(r, `"@query"`, `7`); return nil },
		"another key":         func(r *http.Request) []byte { input(r, `keyid="`, `keyid="A`); return nil },
		"a key of a few bytes": func(r *http.Request) []byte {
			input(r, "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=", "AAAA")
			return nil
		},
		"no list at all":       func(r *http.Request) []byte { r.Header.Set("Signature-Input", "center=1"); return nil },
		"a short signature":    func(r *http.Request) []byte { r.Header.Set("Signature", "center=:AAAA:"); return nil },
		"text for a signature": func(r *http.Request) []byte { r.Header.Set("Signature", `center="a"`); return nil },
		"garbage":              func(r *http.Request) []byte { r.Header.Set("Signature-Input", "\x00(((("); return nil },
		"very much": func(r *http.Request) []byte {
			r.Header.Set("Signature-Input", strings.Repeat("a=1,", 1000))
			return nil
		},
	} {
		r := signed(t, "POST", "https://mint.example/v1/deposits?after=7", someBody)
		body := []byte(someBody)
		if other := change(r); other != nil {
			body = other
		}
		if id, err := VerifyRequest(r, body, signedAt); !errors.Is(err, cloudpal.Denied) || id != (ticket.CenterID{}) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	r := signed(t, "POST", "https://mint.example/v1/deposits", someBody)
	for _, off := range []time.Duration{-signatureSkew - time.Second, signatureLife + signatureSkew + time.Second, 1e6 * time.Hour, -1e6 * time.Hour} {
		if _, err := VerifyRequest(r, []byte(someBody), signedAt.Add(off)); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("after %v: %v", off, err)
		}
	}
}

func sha512Digest(body string) string {
	sum := sha512.Sum512([]byte(body))
	return "sha-512=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	r, _ := http.NewRequest("POST", "https://mint.example/", io.MultiReader(strings.NewReader("x")))
	if err := SignRequest(r, testKey(t), signedAt); err == nil {
		t.Error("a body that can be read once is signed")
	}
	r, _ = http.NewRequest("POST", "https://mint.example/", bytes.NewReader(make([]byte, MaxBody+1)))
	if err := SignRequest(r, testKey(t), signedAt); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a body that no mint takes: %v", err)
	}
}

// FuzzVerifyRequest: nothing that is made up is by anybody.
func FuzzVerifyRequest(f *testing.F) {
	good := signed(f, "POST", "https://mint.example/v1/deposits", someBody)
	f.Add(good.Header.Get("Signature-Input"), good.Header.Get("Signature"), good.Header.Get("Content-Digest"), []byte(someBody))
	f.Add(`center=();created=1`, `center=:AA==:`, `sha-256=:AA==:`, []byte{})
	f.Fuzz(func(t *testing.T, input, signature, digest string, body []byte) {
		r := httptest.NewRequest("POST", "https://mint.example/v1/deposits", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Signature-Input", input)
		r.Header.Set("Signature", signature)
		r.Header.Set("Content-Digest", digest)
		if _, err := VerifyRequest(r, body, signedAt); err == nil && string(body) != someBody {
			t.Errorf("%q %q is taken for a signature over %q", input, signature, body)
		}
	})
}
