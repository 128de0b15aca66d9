package center

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	host "github.com/tradle/cloudpal/compute/api"
)

// connect opens a TLS connection to the center, as any program may.
func (p *place) connect(config *tls.Config) (*tls.Conn, error) {
	config.InsecureSkipVerify = true
	return tls.Dial("tcp", p.address.HostPort(), config)
}

// send sends a request as it is, and returns the answer's status and problem.
func (p *place) send(account ed25519.PrivateKey, request string) (int, api.Problem) {
	p.t.Helper()
	config := &tls.Config{}
	if account != nil {
		cert, err := api.Certificate(account)
		if err != nil {
			p.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	conn, err := p.connect(config)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, request)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		p.t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	var problem api.Problem
	data, _ := io.ReadAll(resp.Body)
	json.Unmarshal(data, &problem)
	return resp.StatusCode, problem
}

func request(line, header, body string) string {
	return line + " HTTP/1.1\r\nHost: x\r\n" + header + "\r\n" + body
}

// Another account's pal and none at all cannot be told apart, whatever is
// tried with them, and a stranger learns nothing.
func TestForeignIsAbsent(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	made := create(t, p.as(newAccount(t)), 1)
	bob := newAccount(t)
	p.house.took()
	for _, c := range []struct{ method, rest, kind, body string }{
		{"GET", "", "", ""}, {"DELETE", "", "", ""},
		{"POST", "/wake", "application/json", "{}"},
		{"POST", "/sleep", "application/json", `{"depth":"disk"}`},
		{"POST", "/sleep", "application/json", `nonsense`},
		{"POST", "/stop", "", ""}, {"GET", "/lock", "", ""},
		{"POST", "/unlock", "application/octet-stream", "x"}, {"POST", "/unlock", "text/html", "x"},
		{"GET", "/events?after=0", "", ""}, {"GET", "/events?after=x", "", ""},
	} {
		ask := func(account ed25519.PrivateKey, id api.ID) (int, api.Problem) {
			header := fmt.Sprintf("Content-Type: %s\r\nContent-Length: %d\r\n", c.kind, len(c.body))
			return p.send(account, request(c.method+" /v1/pals/"+string(id)+c.rest, header, c.body))
		}
		status, foreign := ask(bob, made.ID)
		_, absent := ask(bob, api.NewID())
		if status != http.StatusNotFound || foreign != absent {
			t.Errorf("%s %s: foreign is %+v, absent %+v", c.method, c.rest, foreign, absent)
		}
		if status, problem := ask(nil, made.ID); status != http.StatusForbidden || problem.Title != string(cloudpal.Denied) {
			t.Errorf("%s %s by a stranger: %d %+v", c.method, c.rest, status, problem)
		}
	}
	if asked := p.house.took(); asked != "" {
		t.Errorf("for them the host was asked %q", asked)
	}
}

// Paths that could mean two things mean nothing.
func TestPathTricks(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	account := newAccount(t)
	id := string(create(t, p.as(account), 1).ID)
	for _, line := range []string{
		"GET //v1/pals", "GET /v1//pals", "GET /v1/pals/", "GET /v1/../v1/pals", "GET /v1/pals/.", "GET /v1/./pals",
		"GET /v1/pals/" + strings.ToUpper(id), "GET /v1/pals/" + id + "/", "GET /v1/pals/%2e%2e/pals",
		"GET /v1/pals/" + id[:23] + "%61", "GET /v1/pals/" + id + "%2Flock", "GET /v1/pals/" + id + "%00",
		"GET /v1/pals/..%2f..%2fvms", "GET /v1/vms", "GET /", "GET https://center/v1/pals", "OPTIONS *",
		"PUT /v1/pals/" + id, "PATCH /v1/pals/" + id, "GET /v1/pals/" + id + "/unlock", "TRACE /v1/center",
	} {
		if status, problem := p.send(account, request(line, "", "")); status != http.StatusNotFound || problem.Title != string(cloudpal.NotExist) {
			t.Errorf("%s: %d %+v, want 404 and a problem", line, status, problem)
		}
	}
	for what, req := range map[string]string{
		"two lengths":           request("POST /v1/pals", "Content-Length: 1\r\nContent-Length: 2\r\n", "xx"),
		"a header of 64 KiB":    request("GET /v1/center", "X: "+strings.Repeat("x", 64<<10)+"\r\n", ""),
		"a broken chunk":        request("POST /v1/pals", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", "zz\r\n"),
		"an unknown encoding":   request("POST /v1/pals", "Transfer-Encoding: gzip\r\n", ""),
		"a header without name": "GET /v1/center HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n",
		"no host":               "GET /v1/center HTTP/1.1\r\n\r\n",
	} {
		if status, _ := p.send(account, req); status < 400 || status >= 500 && status != http.StatusNotImplemented {
			t.Errorf("%s: %d, want a refusal", what, status)
		}
	}
}

// What is wrong in a request is refused with its kind, and nothing of the
// operator's comes back.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	account := newAccount(t)
	id := string(create(t, p.as(account), 1).ID)
	good := `{"wireGuard":"` + strings.Repeat("A", 42) + `E="}`
	for what, c := range map[string]struct{ line, kind, body string }{
		"no JSON":              {"POST /v1/pals", "application/json", "nonsense"},
		"nothing":              {"POST /v1/pals", "application/json", ""},
		"another type":         {"POST /v1/pals", "text/plain", good},
		"an unknown field":     {"POST /v1/pals", "application/json", `{"wireGuard":"","name":"ann"}`},
		"two values":           {"POST /v1/pals", "application/json", good + good},
		"a short key":          {"POST /v1/pals", "application/json", `{"wireGuard":"AAAA"}`},
		"a key of zeros":       {"POST /v1/pals", "application/json", `{"wireGuard":"` + strings.Repeat("A", 43) + `="}`},
		"no key":               {"POST /v1/pals", "application/json", `{}`},
		"too much":             {"POST /v1/pals", "application/json", `{"wireGuard":"` + strings.Repeat("A", maxJSON) + `"}`},
		"no depth":             {"POST /v1/pals/" + id + "/sleep", "application/json", `{"depth":"deep"}`},
		"an event's number":    {"GET /v1/pals/" + id + "/events?after=-1", "", ""},
		"no number":            {"GET /v1/pals/" + id + "/events?after=1e3", "", ""},
		"no time":              {"GET /v1/pals/" + id + "/events?wait=ever", "", ""},
		"a time that is long":  {"GET /v1/pals/" + id + "/events?wait=61s", "", ""},
		"a time before now":    {"GET /v1/pals/" + id + "/events?wait=-1s", "", ""},
		"octets as text":       {"POST /v1/pals/" + id + "/unlock", "text/plain", "x"},
		"a key that is no key": {"POST /v1/pals", "application/json", `{"wireGuard":[1,2]}`},
	} {
		header := fmt.Sprintf("Content-Type: %s\r\nContent-Length: %d\r\n", c.kind, len(c.body))
		status, problem := p.send(account, request(c.line, header, c.body))
		if status != http.StatusBadRequest || problem.Title != string(cloudpal.Invalid) || problem.Hint == "" {
			t.Errorf("%s: %d %+v, want 400, and what to do", what, status, problem)
		}
	}
	p.house.set(func(v *host.VM) { v.State = "cold" })
	status, problem := p.send(account, request("POST /v1/pals/"+id+"/sleep", "Content-Type: application/json\r\nContent-Length: 2\r\n", "{}"))
	if status != http.StatusBadRequest || strings.Contains(problem.Hint, "operator") {
		t.Errorf("put to sleep when sealed: %d %+v", status, problem)
	}
}

// The host's troubles are the operator's to read, in the log, and nobody
// else's.
func TestTroubleIsNotTold(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	account := newAccount(t)
	id := string(create(t, p.as(account), 1).ID)
	p.house.client.Close()
	p.Center.host = host.Dial(t.TempDir() + "/nobody")
	status, problem := p.send(account, request("GET /v1/pals/"+id, "", ""))
	if status != http.StatusServiceUnavailable || problem != (api.Problem{Title: string(cloudpal.Missing), Status: status}) {
		t.Errorf("got %d %+v, want the kind alone", status, problem)
	}
	if !strings.Contains(p.log.String(), "nobody") {
		t.Errorf("the log says nothing of it:\n%s", p.log)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	old := &tls.Config{MaxVersion: tls.VersionTLS12}
	if _, err := p.connect(old); err == nil {
		t.Error("it speaks TLS 1.2")
	}
	conn, err := p.connect(&tls.Config{NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := conn.ConnectionState()
	if s.Version != tls.VersionTLS13 || s.NegotiatedProtocol == "h2" {
		t.Errorf("TLS %x with %q, want 1.3 with HTTP/1.1", s.Version, s.NegotiatedProtocol)
	}
	if _, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey); !ok || len(s.PeerCertificates[0].Subject.Names) != 0 {
		t.Errorf("its certificate is %v of %q", s.PeerCertificates[0].PublicKeyAlgorithm, s.PeerCertificates[0].Subject)
	}
	// An account's key is an Ed25519 one, and its owner has it.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := api.Certificate(newAccount(t))
	if err != nil {
		t.Fatal(err)
	}
	stolen := tls.Certificate{Certificate: mine.Certificate, PrivateKey: newAccount(t)}
	for what, cert := range map[string]tls.Certificate{
		"an ECDSA key":      {Certificate: [][]byte{der}, PrivateKey: key},
		"another's account": stolen,
	} {
		if err := p.handshake(cert); err == nil {
			t.Errorf("it lets in %s", what)
		}
	}
	if err := p.handshake(mine); err != nil {
		t.Errorf("it does not let in an account: %v", err)
	}
}

// handshake shows a certificate. The answer to it comes after the client's part
// of a TLS 1.3 handshake.
func (p *place) handshake(cert tls.Certificate) error {
	conn, err := p.connect(&tls.Config{
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, request("GET /v1/center", "", ""))
	_, err = http.ReadResponse(bufio.NewReader(conn), nil)
	return err
}

// The client holds whoever answers to the key of the address.
func TestAnotherCenterIsNotTaken(t *testing.T) {
	t.Parallel()
	p, other := newPlace(t), newPlace(t)
	a := p.address
	a.Port = other.address.Port
	c, err := api.Dial(a, newAccount(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Pals(t.Context())
	if !errors.Is(err, api.ErrOtherKey) || !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v", err, api.ErrOtherKey)
	}
	a.Port = 1
	nobody, err := api.Dial(a, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	if _, err := nobody.Center(t.Context()); !errors.Is(err, api.ErrUnreachable) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v", err, api.ErrUnreachable)
	}
}

// Who asks too often is refused, and others are not.
func TestRates(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	greedy, modest := newAccount(t), p.as(newAccount(t))
	id := string(create(t, p.as(greedy), 1).ID)
	line := request("POST /v1/pals/"+id+"/wake", "Content-Type: application/json\r\nContent-Length: 2\r\n", "{}")
	refused := 0
	for range changeBurst + 10 {
		if status, problem := p.send(greedy, line); status == http.StatusTooManyRequests && problem.Title == string(cloudpal.Busy) {
			refused++
		}
	}
	if refused == 0 || refused > 11 { // to be made was a change, too
		t.Errorf("of %d wakes at once %d were refused", changeBurst+10, refused)
	}
	create(t, modest, 1)
}

// A slow unlock keeps only the same pal's others out.
func TestOneUnlockOfAPal(t *testing.T) {
	t.Parallel()
	p, answerWith := withCore(t, "127.77.0.4")
	answerWith(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	account := newAccount(t)
	id := create(t, p.as(account), 1).ID
	other := create(t, p.as(account), 2).ID
	cert, err := api.Certificate(account)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := p.connect(&tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	io.WriteString(slow, request("POST /v1/pals/"+string(id)+"/unlock", "Content-Type: application/octet-stream\r\nContent-Length: 2\r\n", "x"))
	c := p.as(account)
	eventually(t, "the slow one is under way", func() bool { return len(p.unlocks) == 1 })
	if err := c.Unlock(t.Context(), id, []byte("x")); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("a second one of the same pal: %v, want %v", err, cloudpal.Busy)
	}
	if err := c.Unlock(t.Context(), other, []byte("x")); err != nil {
		t.Errorf("another pal meanwhile: %v", err)
	}
	io.WriteString(slow, "x")
	if resp, err := http.ReadResponse(bufio.NewReader(slow), nil); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("the slow one, at last: %v %v", resp, err)
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	who := func(n int) (f api.Fingerprint) { f[0], f[1], f[2] = 1, byte(n), byte(n>>8); return f }
	t.Run("at once", func(t *testing.T) {
		g := newGate()
		var leave func()
		for n := range maxAtOnce {
			var ok bool
			if leave, ok = g.enter(who(1), false, false, now); !ok {
				t.Fatalf("request %d is refused", n)
			}
		}
		if _, ok := g.enter(who(1), false, false, now); ok {
			t.Error("one more is let in")
		}
		leave()
		if _, ok := g.enter(who(1), false, false, now); !ok {
			t.Error("one that left makes no room")
		}
	})
	t.Run("forgets", func(t *testing.T) {
		g := newGate()
		at := now
		for n := range maxAccounts {
			at = at.Add(time.Second / totalRate)
			leave, ok := g.enter(who(n), false, false, at)
			if !ok {
				t.Fatalf("account %d is refused", n)
			}
			leave()
		}
		if _, ok := g.enter(who(maxAccounts), false, false, at); ok {
			t.Error("more accounts are remembered than may be")
		}
		if leave, ok := g.enter(who(maxAccounts+1), true, false, at); !ok {
			t.Error("an account with a pal is refused because of those without")
		} else {
			leave()
		}
		later := at.Add(forgetAfter + time.Second)
		if _, ok := g.enter(who(maxAccounts), false, false, later); !ok || len(g.visitors) > 2 {
			t.Errorf("%d accounts are remembered later", len(g.visitors))
		}
	})
}

// Slow clients are cut off: in the handshake, in the header, in the body.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes as long as the deadlines")
	}
	p := newPlace(t)
	raw, err := net.Dial("tcp", p.address.HostPort())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	head, err := p.connect(&tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer head.Close()
	io.WriteString(head, "GET /v1/center HTTP/1.1\r\nHost:")
	for what, c := range map[string]net.Conn{"the handshake": raw, "the header": head} {
		c.SetReadDeadline(time.Now().Add(headerTimeout + 10*time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who is slow in %s is not cut off", what)
		}
	}
}

// Who waits for events is answered when the center ends, and not before.
func TestWaitsEndWithTheCenter(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := p.as(newAccount(t))
	id := create(t, c, 1).ID
	waited := make(chan error, 1)
	go func() {
		_, err := c.Events(t.Context(), id, 1, api.MaxWait)
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	began := time.Now()
	p.end()
	if err := <-waited; err == nil {
		t.Error("the wait ended well, with nothing to tell")
	}
	if d := time.Since(began); d > shutdownTimeout/2 {
		t.Errorf("it ended after %v", d)
	}
}

func TestGateRefillsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		for range createBurst {
			if !g.create() {
				t.Fatal("a burst is refused")
			}
		}
		if g.create() {
			t.Error("more than a burst is let in")
		}
		time.Sleep(time.Duration(float64(time.Second)/createRate) + time.Millisecond)
		if !g.create() {
			t.Error("it never fills up again")
		}
	})
}
