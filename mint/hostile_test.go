package mint

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/crowd"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// post sends bytes as they are.
func (h *house) post(path, kind, body string) (status int, p api.Problem) {
	h.Helper()
	base, by, err := api.Transport(h.address, nil)
	h.must(err)
	defer by.CloseIdleConnections()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, base+path, strings.NewReader(body))
	h.must(err)
	r.Header.Set("Content-Type", kind)
	resp, err := (&http.Client{Transport: by}).Do(r)
	h.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	h.must(err)
	if resp.StatusCode/100 != 2 {
		if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
			h.Errorf("%s: the problem came as %s: %s", path, got, data)
		}
		h.must(json.Unmarshal(data, &p))
	}
	return resp.StatusCode, p
}

// What is no request is refused, with what would be one, and nothing happens.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	h := newHouse(t, lite)
	ann := h.person("ann")
	have := ann.buy("day")[0]
	to := ann.hand(ticket.Paid, 82, 64)
	spend := have.Sign(ticket.SwapContract{Outputs: to.digest()})
	good, err := json.Marshal(api.SwapRequest{Inputs: [][]byte{spend.Append(nil)}, Outputs: api.Outputs(to.outputs)})
	h.must(err)
	swap := string(good)
	b64 := base64.StdEncoding.EncodeToString
	for _, bad := range []struct{ name, path, kind, body string }{
		{"no JSON", "/v1/swap", "application/json", "swap"},
		{"another type", "/v1/swap", "text/plain", swap},
		{"empty", "/v1/swap", "application/json", ""},
		{"truncated", "/v1/swap", "application/json", swap[:len(swap)/2]},
		{"two", "/v1/swap", "application/json", swap + swap},
		{"unknown field", "/v1/swap", "application/json", strings.Replace(swap, `"inputs"`, `"more":1,"inputs"`, 1)},
		{"huge", "/v1/swap", "application/json", `{"inputs":["` + strings.Repeat("A", 2<<20) + `"]}`},
		{"deep", "/v1/swap", "application/json", strings.Repeat("[", 100_000)},
		{"a spend cut short", "/v1/swap", "application/json", strings.Replace(swap, b64(spend.Append(nil)), b64(spend.Append(nil)[:400]), 1)},
		{"another type of token", "/v1/swap", "application/json", strings.Replace(swap, b64(spend.Append(nil)), b64(append([]byte{9, 9}, spend.Append(nil)[2:]...)), 1)},
		{"an unknown key", "/v1/swap", "application/json", strings.Replace(swap, b64(to.outputs[0].Key[:]), b64(make([]byte, 32)), 1)},
		{"a blinded zero", "/v1/swap", "application/json", strings.Replace(swap, b64(to.outputs[0].Blinded[:]), b64(make([]byte, 256)), 1)},
		{"a blinded message above the modulus", "/v1/swap", "application/json", strings.Replace(swap, b64(to.outputs[0].Blinded[:]), b64(bytes.Repeat([]byte{255}, 256)), 1)},
		{"an unknown pack", "/v1/quotes", "application/json", `{"method":"purse","pack":"none","lock":"` + b64(make([]byte, 32)) + `"}`},
		{"a short lock", "/v1/quotes", "application/json", `{"method":"purse","pack":"day","lock":"AA=="}`},
		{"no outputs", "/v1/restore", "application/json", `{"outputs":[]}`},
		{"a serial cut short", "/v1/refunds", "application/json", `{"serial":"AA==","units":1,"outputs":[],"payer":"","center":""}`},
		{"no payments", "/v1/disputes", "application/json", `{"center":"","tab":"","payments":[],"outputs":[],"public":"","payer":""}`},
	} {
		if status, p := h.post(bad.path, bad.kind, bad.body); status != http.StatusBadRequest || p.Hint == "" {
			t.Errorf("%s: got %d %+v, want 400 and a hint", bad.name, status, p)
		}
	}
	for path, want := range map[string]int{
		"/v1/deposits": http.StatusForbidden, "/v1/nothing": http.StatusNotFound, "/v1//swap": http.StatusNotFound, "/v1/swap/": http.StatusNotFound,
		"/v1/quotes/none/pay": http.StatusNotFound, "/v1/hooks/none": http.StatusNotFound,
	} {
		if status, p := h.post(path, "application/json", `{"voucher":"x"}`); status != want {
			t.Errorf("%s: got %d %+v, want %d", path, status, p, want)
		}
	}
	many := make([]ticket.Output, api.MaxOutputs+1)
	if _, err := h.client.Restore(t.Context(), many); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("too many outputs: %v", err)
	}
	reordered := ann.hand(ticket.Paid, 82, 4, 4, 4, 4, 16, 16, 16)
	split := have.Sign(ticket.SwapContract{Outputs: reordered.digest()})
	reordered.outputs[0], reordered.outputs[6] = reordered.outputs[6], reordered.outputs[0]
	if _, err := h.client.Swap(t.Context(), []ticket.Spend{split}, reordered.outputs); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("reordered outputs: %v", err)
	}
	// After all that, the ticket is as good as ever.
	_, err = h.client.Swap(t.Context(), []ticket.Spend{spend}, to.outputs)
	h.must(err)
	h.check()
}

// A center's clock that is wrong by more than some minutes is told to it.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	h := newHouse(t, lite)
	c := h.till("center")
	for skew, want := range map[time.Duration]error{0: nil, time.Hour: cloudpal.Denied, -time.Hour: cloudpal.Denied} {
		late := h.client.As(c.key, func() time.Time { return h.now().Add(skew) })
		_, err := late.Account(t.Context(), 0)
		if !errors.Is(err, want) {
			t.Errorf("with a clock wrong by %v: got %v, want %v", skew, err, want)
		}
		if want != nil && !strings.Contains(cloudpal.HintOf(err), "clock") {
			t.Errorf("the hint is %q", cloudpal.HintOf(err))
		}
	}
}

// A signer that is away holds nothing up for good: who asks is told to ask again, and
// then gets what was bought.
func TestSignerGone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, lite)
	ann, lock := h.person("ann"), h.person("ann").lock()
	q, err := h.client.Quote(t.Context(), api.QuoteRequest{Method: "purse", Pack: "day", Lock: public(lock)})
	h.must(err)
	_, err = h.client.Pay(t.Context(), q.ID, "code")
	h.must(err)
	hand := ann.hand(ticket.Paid, 82, 64)
	here := h.Signer
	h.Signer = awaySigner{}
	_, err = h.client.Issue(t.Context(), q.ID, hand.outputs, lock)
	refusedAs(t, cloudpal.Missing, err)
	if hint := cloudpal.HintOf(err); !strings.Contains(hint, "nothing is lost") {
		t.Errorf("the hint is %q", hint)
	}
	h.Signer = here
	signed, err := h.client.Issue(t.Context(), q.ID, hand.outputs, lock)
	h.must(err)
	ann.finish(hand, signed)
}

type awaySigner struct{}

func (awaySigner) Sign(context.Context, ticket.KeyID, [][]byte) ([][]byte, error) {
	return nil, cloudpal.E("sign", cloudpal.Missing, nil)
}

// One source can ask for so many quotes and no more.
func TestTooManyQuotes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, lite)
	ann := h.person("ann")
	var err error
	for range quotesAtOnce + 100 {
		if _, err = h.client.Quote(t.Context(), api.QuoteRequest{Method: "purse", Pack: "day", Lock: public(ann.lock())}); err != nil {
			break
		}
	}
	refusedAs(t, cloudpal.Busy, err)
}

// The log has no ticket, no key of a quote, no secret and no address.
func TestLogIsQuiet(t *testing.T) {
	t.Parallel()
	h := newHouse(t, lite)
	var mu sync.Mutex
	var secrets [][]byte
	keep := func(b ...[]byte) { mu.Lock(); secrets = append(secrets, b...); mu.Unlock() }
	ann, c := h.person("ann"), h.till("center")
	have := ann.buy("day")[0]
	s := ann.pay(c, ann.lock(), have)
	serial, center := have.Serial(), c.id()
	keep(serial[:], center[:], have.Token.Authenticator[:32], s.spend.Signature[:])
	_, err := c.Deposit(t.Context(), s.contract, s.spend)
	h.must(err)
	h.Signer = awaySigner{}
	lock := ann.lock()
	q, err := h.client.Quote(t.Context(), api.QuoteRequest{Method: "purse", Pack: "day", Lock: public(lock)})
	h.must(err)
	_, err = h.client.Pay(t.Context(), q.ID, "the voucher's code")
	h.must(err)
	hand := ann.hand(ticket.Paid, 82, 64)
	keep(public(lock), hand.outputs[0].Blinded[:32], []byte(q.ID), []byte("the voucher's code"), []byte("127.0.0.1"))
	_, err = h.client.Issue(t.Context(), q.ID, hand.outputs, lock)
	refusedAs(t, cloudpal.Missing, err)
	_, err = h.client.Refund(t.Context(), c.refund(s, 3))
	refusedAs(t, cloudpal.Missing, err)
	log := h.logged()
	if !strings.Contains(log, "a request failed") {
		t.Fatalf("the operator was not told: %q", log)
	}
	for _, secret := range secrets {
		for _, form := range []string{string(secret), hexOf(secret), base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret)} {
			if strings.Contains(log, form) {
				t.Errorf("the log has %q:\n%s", form, log)
			}
		}
	}
}

func FuzzRequests(f *testing.F) {
	h := newHouse(f, lite)
	h.gate.quotes = crowd.NewRates(1<<30, 1<<30)
	handler := h.Handler()
	paths := []string{"/v1/quotes", "/v1/issue", "/v1/swap", "/v1/deposits", "/v1/refunds", "/v1/disputes", "/v1/restore", "/v1/free", "/v1/quotes/x/pay"}
	for i := range paths {
		f.Add(byte(i), []byte(`{"outputs":[{"key":"","blinded":""}],"inputs":[""],"quote":"x","units":18446744073709551615,"serial":"","seeds":["AA=="]}`))
	}
	c := h.till("center")
	f.Fuzz(func(t *testing.T, path byte, body []byte) {
		r, err := http.NewRequest(http.MethodPost, "https://mint.example"+paths[int(path)%len(paths)], bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if err := api.SignRequest(r, c.key, h.now()); err != nil {
			t.Skip()
		}
		r.URL.Host = ""
		w := &answerWriter{header: http.Header{}}
		handler.ServeHTTP(w, r)
		if w.status >= http.StatusInternalServerError {
			t.Errorf("%s %q: got %d", r.URL.Path, body, w.status)
		}
	})
}

// An answerWriter remembers the status.
type answerWriter struct {
	header http.Header
	status int
}

func (w *answerWriter) Header() http.Header { return w.header }
func (w *answerWriter) WriteHeader(s int)   { w.status = s }
func (w *answerWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return len(b), nil
}
