package oblivious

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

var noon = time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC)

var receiptKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))

// A clock is set by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// A town has a mint with a gateway, a relay and what both saw.
type town struct {
	*clock
	mint    http.HandlerFunc // answers what comes out of the gateway
	gateway *Gateway
	relay   *Relay

	gatewayURL, relayURL string
	atGateway, atRelay   *tap
}

// A tap has all bytes that came to a listener, and from which addresses.
type tap struct {
	net.Listener
	mu    sync.Mutex
	bytes bytes.Buffer
	from  []string
}

// Accept implements net.Listener.
func (t *tap) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.from = append(t.from, conn.RemoteAddr().String())
	return tapped{conn, t}, nil
}

type tapped struct {
	net.Conn
	tap *tap
}

// Read implements net.Conn.
func (t tapped) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.tap.mu.Lock()
	defer t.tap.mu.Unlock()
	t.tap.bytes.Write(b[:n])
	return n, err
}

// Write implements net.Conn.
func (t tapped) Write(b []byte) (int, error) {
	t.tap.mu.Lock()
	t.tap.bytes.Write(b)
	t.tap.mu.Unlock()
	return t.Conn.Write(b)
}

func (t *tap) saw() (string, []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes.String(), slices.Clone(t.from)
}

func listen(t *testing.T, h http.Handler) (string, *tap) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap := &tap{Listener: l}
	s := &http.Server{Handler: h}
	go s.Serve(tap)
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String(), tap
}

// from is a transport that has an address of its own.
func from(t *testing.T, addr string) *http.Transport {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	tr := &http.Transport{DialContext: d.DialContext, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

const (
	walletAddr = "127.0.0.77"
	relayAddr  = "127.0.0.88"
)

func receipts(ticket.Epoch) (ed25519.PrivateKey, error) { return receiptKey, nil }

func receiptPublic(context.Context, ticket.Epoch) (ed25519.PublicKey, error) {
	return receiptKey.Public().(ed25519.PublicKey), nil
}

// newTown has a mint that answers with what it was asked.
func newTown(t *testing.T) *town {
	w := &town{clock: &clock{at: noon}}
	w.mint = func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(rw, "%s %s from %q says %s", r.Method, r.URL, r.RemoteAddr, body)
	}
	w.gateway = NewGateway(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.mint(rw, r) }), receipts, w.now)
	// Behind one address, a mint can be started again.
	w.gatewayURL, w.atGateway = listen(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.gateway.ServeHTTP(rw, r) }))
	w.relay = NewRelay(w.gatewayURL, from(t, relayAddr), w.now)
	w.relayURL, w.atRelay = listen(t, w.relay)
	return w
}

func (w *town) wallet(t *testing.T) *Transport {
	return NewTransport(w.relayURL, from(t, walletAddr), receiptPublic, w.now)
}

func post(t *testing.T, by http.RoundTripper, path, body string) (int, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://mint.example"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Cookie", "who=ann")
	resp, err := by.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// What each of the two saw: the relay the address and nothing of what was said, the
// mint what was said and nothing of the address.
func TestWhoKnowsWhat(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	var header http.Header
	echo := w.mint
	w.mint = func(rw http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		echo(rw, r)
	}
	const secret = `{"inputs":["a-ticket-of-anns"]}`
	status, answer, err := post(t, w.wallet(t), "/v1/swap", secret)
	if err != nil || status != 200 || answer != `POST /v1/swap from "" says `+secret {
		t.Fatalf("got %d, %q, %v", status, answer, err)
	}

	saw, callers := w.atRelay.saw()
	for _, word := range []string{"a-ticket", "swap", "inputs", "says", "mint.example", "ann"} {
		if strings.Contains(saw, word) {
			t.Errorf("the relay saw %q", word)
		}
	}
	if !strings.Contains(saw, requestType) || !strings.HasPrefix(callers[0], walletAddr) {
		t.Errorf("the relay saw something else: %q from %q", saw, callers)
	}
	saw, callers = w.atGateway.saw()
	if strings.Contains(saw, walletAddr) || strings.Contains(saw, "Forwarded") || strings.Contains(saw, "Go-http-client") {
		t.Errorf("the gateway saw who asks: %q", saw)
	}
	for _, c := range callers {
		if !strings.HasPrefix(c, relayAddr) {
			t.Errorf("the gateway was called from %s", c)
		}
	}
	if len(header) != 1 || header.Get("Content-Type") != "application/json" {
		t.Errorf("the mint saw the fields %v", header)
	}
}

// What a relay can see of lengths is the same for all that is small.
func TestLengthsSayLittle(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for n := range 30 {
		r := httptest.NewRequest("POST", "/v1/swap", nil)
		b, err := encodeRequest(r, make([]byte, n*100))
		if err != nil {
			t.Fatal(err)
		}
		seen[len(b)] = true
		b, err = encodeResponse(200, http.Header{}, make([]byte, n*100))
		if err != nil {
			t.Fatal(err)
		}
		seen[len(b)] = true
	}
	if len(seen) != 1 {
		t.Errorf("60 small messages have the lengths %v", seen)
	}
}

func TestOnlyWhatWalletsAsk(t *testing.T) {
	t.Parallel()
	for call, want := range map[string]bool{
		"POST /v1/swap": true, "POST /v1/refunds": true, "POST /v1/restore": true, "POST /v1/issue": true,
		"GET /v1/manifests/83": true, "GET /v1/leaves/00/spent/7": true, "GET /v1/mint": true,
		"POST /v1/deposits": false, "GET /v1/account": false, "POST /v1/hooks/card": false, "POST /v1/quotes": false,
		"POST /v1/oblivious": false, "GET /v1/swap": false, "PUT /v1/swap": false, "POST /v1/swap/": false, "POST /v1/swapx": false,
		"GET /v1/manifests/../account": false, "GET /v1/manifests//v1/account": false, "GET /v1/manifests/..": false,
		"GET /v1/manifests/%2e%2e/account": false, `GET /v1/manifests/..\account`: false,
	} {
		method, path, _ := strings.Cut(call, " ")
		if got := isAllowed(method, path); got != want {
			t.Errorf("%s is allowed: %v, want %v", call, got, want)
		}
	}
	w := newTown(t)
	if _, _, err := post(t, w.wallet(t), "/v1/deposits", "{}"); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a wallet sends what centers ask: %v", err)
	}
	// One that does all the same is told, and the mint not asked.
	w.mint = func(http.ResponseWriter, *http.Request) { t.Error("the mint was asked") }
	b := appendVarint(nil, knownRequest)
	for _, part := range []string{"POST", "https", "mint.example", "/v1/deposits"} {
		b = appendBytes(b, []byte(part))
	}
	for what, want := range map[string]int{string(b): 403, "\x00\x01": 400, string(unhex(t, exampleRequest)): 403} {
		resp, err := askOpen(t, w.gateway, []byte(what))
		if err != nil || resp.StatusCode != want {
			t.Errorf("%q is answered %+v (%v), want status %d", what, resp, err, want)
		}
	}
}

// askOpen seals anything for a gateway.
func askOpen(t testing.TB, g *Gateway, request []byte) (*http.Response, error) {
	t.Helper()
	sealed, talk, err := sealRequest(configOf(t, g), request)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", Path, bytes.NewReader(sealed))
	r.Header.Set("Content-Type", requestType)
	rec := httptest.NewRecorder()
	g.ServeHTTP(rec, r)
	if rec.Code != 200 {
		return nil, fmt.Errorf("status %d", rec.Code)
	}
	response, err := talk.openResponse(rec.Body.Bytes())
	if err != nil {
		return nil, err
	}
	return decodeResponse(response)
}

func configOf(t testing.TB, g *Gateway) Config {
	t.Helper()
	rec := httptest.NewRecorder()
	g.ServeHTTP(rec, httptest.NewRequest("GET", KeysPath, nil))
	keys, err := parseKeys(rec.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	c, err := keys.best(receiptKey.Public().(ed25519.PublicKey), g.now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The same sealed bytes, sent again by anybody, are the same call again.
func TestReplayIsTheSameCall(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	asked := map[string]int{}
	w.mint = func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked[string(body)]++
		rw.Write([]byte("signed " + string(body)))
	}
	if _, _, err := post(t, w.wallet(t), "/v1/swap", "x"); err != nil {
		t.Fatal(err)
	}
	saw, _ := w.atRelay.saw()
	_, rest, _ := strings.Cut(saw, "POST /v1/oblivious")
	_, rest, _ = strings.Cut(rest, "\r\n\r\n")
	_, err := askAgain(t, w, rest[:4096+headSize+keySize+16])
	if err != nil || len(asked) != 1 || asked["x"] != 2 {
		t.Errorf("the mint was asked %v (%v)", asked, err)
	}
}

func askAgain(t *testing.T, w *town, sealed string) ([]byte, error) {
	t.Helper()
	resp, err := http.Post(w.relayURL+Path, requestType, strings.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != responseType {
		t.Errorf("got %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	return io.ReadAll(resp.Body)
}

// A key is everybody's for a day, opens for another, and is gone then.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	first := configOf(t, w.gateway)
	w.pass(keyLife - time.Second)
	if again := configOf(t, w.gateway); again.ID != first.ID {
		t.Error("a key lasts less than a day")
	}
	w.pass(2 * time.Second)
	second := configOf(t, w.gateway)
	if second.ID == first.ID || bytes.Equal(second.Public.Bytes(), first.Public.Bytes()) {
		t.Error("a key lasts more than a day")
	}
	if w.gateway.key(first.ID) == nil {
		t.Error("a key does not open what is on its way when the next comes")
	}
	w.pass(keyLife)
	if w.gateway.key(first.ID) != nil {
		t.Error("a key opens after two days")
	}
	// A wallet notices by the keys' expiry.
	wallet := w.wallet(t)
	for range 3 {
		if _, _, err := post(t, wallet, "/v1/swap", "x"); err != nil {
			t.Error(err)
		}
		w.pass(keyLife)
	}
}

// A mint that is started again has other keys: wallets and relays find out by
// themselves.
func TestMintStartsAgain(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	wallet := w.wallet(t)
	if _, _, err := post(t, wallet, "/v1/swap", "1"); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	w.gateway = NewGateway(w.mint, receipts, w.now)
	if _, answer, err := post(t, wallet, "/v1/swap", "2"); err != nil || !strings.HasSuffix(answer, "says 2") {
		t.Errorf("got %q, %v", answer, err)
	}
	// Twice in a moment, it takes a moment: else garbage could have the keys got anew
	// for each who asks.
	w.gateway = NewGateway(w.mint, receipts, w.now)
	if _, _, err := post(t, wallet, "/v1/swap", "3"); !errors.Is(err, cloudpal.Busy) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v", err, cloudpal.Busy)
	}
	w.pass(freshAgain)
	if _, _, err := post(t, wallet, "/v1/swap", "4"); err != nil {
		t.Error(err)
	}
}

// A mint cannot give a wallet a key of its own: what one asks for, all are shown.
func TestRelayShowsAllTheSameKeys(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	get := func() string {
		resp, err := http.Get(w.relayURL + KeysPath)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	first := get()
	w.gateway = NewGateway(w.mint, receipts, w.now) // has another key for the next who asks
	for range 3 {
		if again := get(); again != first {
			t.Errorf("another is shown %s", again)
		}
	}
	w.pass(keyLife)
	if get() == first {
		t.Error("keys are shown that are over")
	}
}

// A relay cannot put a key of its own in the place of the mint's.
func TestRelayCannotRead(t *testing.T) {
	t.Parallel()
	good := func() Keys {
		rec := httptest.NewRecorder()
		NewGateway(nil, receipts, func() time.Time { return noon }).ServeHTTP(rec, httptest.NewRequest("GET", KeysPath, nil))
		k, err := parseKeys(rec.Body.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	mine, err := kem().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Keys) time.Time{
		"its own key": func(k *Keys) time.Time { k.Configs = Config{1, mine.PublicKey()}.append(nil); return noon },
		"another signer": func(k *Keys) time.Time {
			k.Signature = ed25519.Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), k.Text())
			return noon
		},
		"no signature":     func(k *Keys) time.Time { k.Signature = nil; return noon },
		"another epoch":    func(k *Keys) time.Time { k.Epoch++; return noon },
		"a longer life":    func(k *Keys) time.Time { k.Expires = k.Expires.Add(time.Hour); return noon },
		"old keys":         func(k *Keys) time.Time { return noon.Add(keyLife) },
		"keys of tomorrow": func(k *Keys) time.Time { return noon.Add(-2 * keyLife) },
	} {
		k := good()
		at := change(&k)
		relay, _ := listen(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != KeysPath {
				t.Errorf("%s: something was sent", what)
			}
			json.NewEncoder(rw).Encode(k)
		}))
		wallet := NewTransport(relay, http.DefaultTransport, receiptPublic, func() time.Time { return at })
		if _, _, err := post(t, wallet, "/v1/swap", "x"); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s: got %v, want %v", what, err, cloudpal.Denied)
		}
	}
}

// Whatever a relay answers, a wallet takes only what the mint sealed for its question.
func TestRelayLies(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	var answer func(http.ResponseWriter, *http.Request)
	relay, _ := listen(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == KeysPath {
			w.gateway.ServeHTTP(rw, r)
			return
		}
		answer(rw, r)
	}))
	sealed := func(rw http.ResponseWriter) { rw.Header().Set("Content-Type", responseType) }
	for what, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   cloudpal.Kind
	}{
		"an open answer":  {func(rw http.ResponseWriter, r *http.Request) { rw.Write([]byte("signed")) }, cloudpal.Other},
		"garbage":         {func(rw http.ResponseWriter, r *http.Request) { sealed(rw); rw.Write(make([]byte, 100)) }, cloudpal.Corrupt},
		"nothing":         {func(rw http.ResponseWriter, r *http.Request) { sealed(rw) }, cloudpal.Corrupt},
		"very much":       {func(rw http.ResponseWriter, r *http.Request) { sealed(rw); rw.Write(make([]byte, maxSealed+1)) }, cloudpal.Corrupt},
		"that it is busy": {func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(503) }, cloudpal.Busy},
		"that it is slow": {func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(504) }, cloudpal.Timeout},
		"another place": {func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "http://x/", http.StatusTemporaryRedirect)
		}, cloudpal.Other},
		"another's answer": {func(rw http.ResponseWriter, r *http.Request) {
			other, _, err := sealRequest(configOf(t, w.gateway), []byte{0})
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(other))
			w.gateway.ServeHTTP(rw, r)
		}, cloudpal.Corrupt},
		"that the key is gone": {func(rw http.ResponseWriter, r *http.Request) { refuseKey(rw) }, cloudpal.Busy},
	} {
		answer = c.answer
		wallet := NewTransport(relay, http.DefaultTransport, receiptPublic, w.now)
		if _, _, err := post(t, wallet, "/v1/swap", "x"); !errors.Is(err, c.want) {
			t.Errorf("a relay says %s: got %v, want %v", what, err, c.want)
		}
	}
}

func TestRelayLimits(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	ask := func(path, kind, addr string, body []byte) int {
		r := httptest.NewRequest("POST", path, bytes.NewReader(body))
		r.Header.Set("Content-Type", kind)
		r.RemoteAddr = addr
		rec := httptest.NewRecorder()
		w.relay.ServeHTTP(rec, r)
		return rec.Code
	}
	for what, c := range map[string]struct {
		path, kind string
		body       []byte
		want       int
	}{
		"another path":   {"/v1/swap", requestType, nil, 404},
		"an open call":   {Path, "application/json", nil, 415},
		"very much":      {Path, requestType, make([]byte, maxSealed+1), 413},
		"nothing":        {Path, requestType, nil, 400},
		"garbage":        {Path, requestType, make([]byte, 100), 422},
		"another's seal": {Path, requestType, unhex(t, exampleSealed), 422},
	} {
		if got := ask(c.path, c.kind, "203.0.113.1:5", c.body); got != c.want {
			t.Errorf("%s: got status %d, want %d", what, got, c.want)
		}
	}
	// One network is limited, and another not for it.
	codes := map[int]int{}
	for range burst + 1 {
		codes[ask(Path, requestType, "198.51.100.7:5", nil)]++
	}
	if codes[429] != 1 || ask(Path, requestType, "198.51.100.8:5", nil) == 429 {
		t.Errorf("got %v", codes)
	}
	for i := range burst {
		ask(Path, requestType, fmt.Sprintf("[2001:db8:1::%x]:5", i), nil)
	}
	if got := ask(Path, requestType, "[2001:db8:1:ffff::1]:5", nil); got != 429 {
		t.Errorf("a house with many addresses gets status %d", got)
	}
	w.pass(time.Second)
	if got := ask(Path, requestType, "198.51.100.7:5", nil); got == 429 {
		t.Error("a network that waited is refused")
	}
}

// A mint that is away or too slow is said so, and the relay is free again.
func TestGatewayAway(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	wallet := w.wallet(t)
	if _, _, err := post(t, wallet, "/v1/swap", "x"); err != nil {
		t.Fatal(err)
	}
	dead := NewRelay("http://127.0.0.1:1", http.DefaultTransport, w.now)
	r := httptest.NewRequest("POST", Path, strings.NewReader("x"))
	r.Header.Set("Content-Type", requestType)
	rec := httptest.NewRecorder()
	dead.ServeHTTP(rec, r)
	if rec.Code != http.StatusBadGateway {
		t.Errorf("a gateway that is away gives status %d", rec.Code)
	}
	// A wallet that gives up ends the mint's work too.
	ended := make(chan struct{})
	w.mint = func(rw http.ResponseWriter, r *http.Request) { <-r.Context().Done(); close(ended) }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	asked, _ := http.NewRequestWithContext(ctx, http.MethodPost, "https://mint.example/v1/swap", strings.NewReader("x"))
	if _, err := wallet.RoundTrip(asked); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	<-ended
	for range maxAtOnce { // all places get free
		w.relay.room <- struct{}{}
	}
}

func TestGatewayAnswersTooMuch(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.mint = func(rw http.ResponseWriter, r *http.Request) { rw.Write(make([]byte, MaxMessage)) }
	if status, _, err := post(t, w.wallet(t), "/v1/restore", "x"); err != nil || status != 500 {
		t.Errorf("got %d, %v", status, err)
	}
	w.mint = func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(409); rw.Write(make([]byte, 1<<20)) }
	if status, body, err := post(t, w.wallet(t), "/v1/restore", strings.Repeat("x", 1<<20)); err != nil || status != 409 || len(body) != 1<<20 {
		t.Errorf("a large one: got %d, %d bytes, %v", status, len(body), err)
	}
}

func TestKeysThatAreNone(t *testing.T) {
	t.Parallel()
	whole := Config{9, exampleKeys(t)(1).PublicKey()}.append(nil)
	list, err := parseConfigs(slices.Concat(unhex(t, "000300ffff"), whole)) // one of another suite before it
	if err != nil || len(list) != 1 || list[0].ID != 9 {
		t.Errorf("got %v, %v", list, err)
	}
	for n := 1; n < len(whole); n++ {
		if _, err := parseConfigs(whole[:n]); err == nil {
			t.Errorf("%d bytes of %d are taken for keys", n, len(whole))
		}
	}
	if _, err := parseKeys(bytes.Repeat([]byte(" "), maxKeys+1)); err == nil {
		t.Error("very much is taken for keys")
	}
}

// FuzzBinary: whatever is opened is a message or none, and what is taken for one is
// read again as the same.
func FuzzBinary(f *testing.F) {
	f.Add(unhex(f, exampleRequest))
	f.Add(unhex(f, "0140c8001d5468697320636f6e74656e7420636f6e7461696e732043524c462e0d0a0d07747261696c65720474657874"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRequest(b); err == nil {
			body, _ := io.ReadAll(r.Body)
			out := httptest.NewRequest("GET", "https://x/", nil)
			out.Method, out.URL.Host, out.URL.Path, out.URL.RawPath, out.URL.RawQuery = r.Method, r.Host, r.URL.Path, r.URL.RawPath, r.URL.RawQuery
			out.Header = r.Header
			again, err := encodeRequest(out, body)
			if err != nil {
				return
			}
			second, err := decodeRequest(again)
			if err != nil || second.Method != r.Method || second.URL.Path != r.URL.Path {
				t.Errorf("%q is %s %s, and then %v", b, r.Method, r.URL, err)
			}
		}
		if r, err := decodeResponse(b); err == nil && (r.StatusCode < 200 || r.StatusCode > 599) {
			t.Errorf("%q has the status %d", b, r.StatusCode)
		}
	})
}

// FuzzSealed: nothing that was not sealed for a key opens, and nothing breaks.
func FuzzSealed(f *testing.F) {
	keys := exampleKeys(f)
	f.Add(unhex(f, exampleSealed), unhex(f, exampleSealedRes), unhex(f, exampleConfig))
	f.Fuzz(func(t *testing.T, sealed, answer, config []byte) {
		b, talk, err := openRequest(keys, sealed)
		if err == nil && !bytes.Equal(sealed, unhex(t, exampleSealed)) {
			t.Errorf("%x opens as %x", sealed, b)
		}
		if err != nil {
			_, talk, _ = openRequest(func(byte) hpke.PrivateKey { return keys(1) }, unhex(t, exampleSealed))
		}
		if b, err := talk.openResponse(answer); err == nil && !bytes.Equal(answer, unhex(t, exampleSealedRes)) {
			t.Errorf("%x opens as %x", answer, b)
		}
		if list, err := parseConfigs(config); err == nil && len(list) == 1 {
			again, err := parseConfigs(list[0].append(nil))
			if err != nil || again[0].ID != list[0].ID {
				t.Errorf("a config is read as another: %v", err)
			}
		}
		parseKeys(config)
	})
}
