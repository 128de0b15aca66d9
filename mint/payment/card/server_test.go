package card

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	someKey    = "sk_test_a-secret"
	someSecret = "whsec_another-secret"
)

// A server does what Stripe's documentation says that its API does, and what a test
// tells it to do wrong.
type server struct {
	*httptest.Server
	t   *testing.T
	now func() time.Time

	mu       sync.Mutex
	sessions map[string]*page
	keys     map[string]saved // by Idempotency-Key
	asked    []string
	trouble  func(w http.ResponseWriter, r *http.Request) bool // answers before anything is done
	failing  int                                               // posts that begin and fail, of which the failure is saved
	lose     int                                               // posts that are done, and their answers lost
	done     map[string]int                                    // captures and cancels
}

type saved struct {
	params string
	status int
	body   []byte
}

// A page is a Checkout Session with its PaymentIntent and Charge.
type page struct {
	ID, Order, Currency string
	Amount, Expires     int64
	Status              string // of the session
	Intent              string // its status; empty: there is none yet
	Failed, Disputed    bool
	Refunded            int64
	Fingerprint         string
	Available           bool
	Disputes            []string // their statuses
}

func newServer(t *testing.T, now func() time.Time) *server {
	s := &server{t: t, now: now, sessions: map[string]*page{}, keys: map[string]saved{}, done: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/checkout/sessions", s.once(s.open))
	mux.HandleFunc("GET /v1/checkout/sessions/{id}", s.get)
	mux.HandleFunc("GET /v1/payment_intents/{id}", s.getIntent)
	mux.HandleFunc("POST /v1/payment_intents/{id}/{what}", s.once(s.move))
	mux.HandleFunc("GET /v1/disputes", s.disputes)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.URL.Path)
		trouble := s.trouble
		s.mu.Unlock()
		if trouble != nil && trouble(w, r) {
			return
		}
		if r.Header.Get("Authorization") != "Bearer "+someKey || r.Header.Get("Stripe-Version") == "" {
			refuse(w, http.StatusUnauthorized, "invalid_request_error", "")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func refuse(w http.ResponseWriter, status int, kind, code string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"type": kind, "code": code, "message": "no"}})
}

// once is what Stripe does of idempotency keys: what began is answered the same for a
// day, failures too; other parameters under the same key are an error.
func (s *server) once(do func(form url.Values, r *http.Request) (int, any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			refuse(w, http.StatusBadRequest, "invalid_request_error", "")
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		key, params := r.Header.Get("Idempotency-Key"), r.URL.Path+"?"+r.PostForm.Encode()
		if key == "" {
			s.t.Errorf("%s has no idempotency key", r.URL.Path)
		}
		if old, ok := s.keys[key]; ok {
			if old.params != params {
				refuse(w, http.StatusBadRequest, "idempotency_error", "")
				return
			}
			w.Header().Set("Idempotent-Replayed", "true")
			w.WriteHeader(old.status)
			w.Write(old.body)
			return
		}
		status, answer := http.StatusInternalServerError, any(map[string]any{"error": map[string]string{"type": "api_error"}})
		if s.failing > 0 {
			s.failing--
		} else {
			status, answer = do(r.PostForm, r)
		}
		body, err := json.Marshal(answer)
		if err != nil {
			s.t.Error(err)
		}
		s.keys[key] = saved{params, status, body}
		if s.lose > 0 {
			s.lose--
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
		w.Write(body)
	}
}

func (s *server) open(f url.Values, _ *http.Request) (int, any) {
	amount, err := strconv.ParseInt(f.Get("line_items[0][price_data][unit_amount]"), 10, 64)
	expires, err2 := strconv.ParseInt(f.Get("expires_at"), 10, 64)
	left := time.Unix(expires, 0).Sub(s.now())
	switch {
	case err != nil, err2 != nil, f.Get("mode") != "payment", f.Get("success_url") == "", f.Get("line_items[0][quantity]") != "1",
		f.Get("line_items[0][price_data][product_data][name]") == "", left < 30*time.Minute, left > 24*time.Hour:
		return http.StatusBadRequest, map[string]any{"error": map[string]string{"type": "invalid_request_error"}}
	case f.Get("payment_intent_data[capture_method]") != "manual", f.Get("payment_intent_data[metadata][order]") != f.Get("client_reference_id"):
		s.t.Errorf("a page is opened with %v", f)
	}
	p := &page{
		ID: fmt.Sprintf("cs_test_%d", len(s.sessions)+1), Order: f.Get("client_reference_id"), Amount: amount, Expires: expires,
		Currency: f.Get("line_items[0][price_data][currency]"), Status: "open",
	}
	s.sessions[p.ID] = p
	return http.StatusOK, s.shown(p, false)
}

func (s *server) shown(p *page, expanded bool) map[string]any {
	v := map[string]any{
		"id": p.ID, "object": "checkout.session", "url": s.URL + "/c/pay/" + p.ID, "status": p.Status, "payment_status": "unpaid",
		"client_reference_id": p.Order, "amount_total": p.Amount, "currency": p.Currency, "expires_at": p.Expires,
		"metadata": map[string]string{"order": p.Order}, "payment_intent": nil, "livemode": false,
	}
	if p.Intent == "succeeded" {
		v["payment_status"] = "paid"
	}
	if p.Intent != "" && expanded {
		v["payment_intent"] = s.intent(p, true)
	} else if p.Intent != "" {
		v["payment_intent"] = intentID(p)
	}
	return v
}

func intentID(p *page) string { return strings.Replace(p.ID, "cs_test", "pi", 1) }
func chargeID(p *page) string { return strings.Replace(p.ID, "cs_test", "ch", 1) }

func (s *server) intent(p *page, expanded bool) map[string]any {
	v := map[string]any{
		"id": intentID(p), "object": "payment_intent", "status": p.Intent, "amount": p.Amount, "amount_received": 0, "currency": p.Currency,
		"capture_method": "manual", "metadata": map[string]string{"order": p.Order}, "latest_charge": nil, "last_payment_error": nil,
	}
	if p.Failed {
		v["last_payment_error"] = map[string]string{"code": "card_declined", "decline_code": "insufficient_funds"}
	}
	if p.Intent == "succeeded" {
		v["amount_received"] = p.Amount
	}
	if p.Intent == "requires_capture" || p.Intent == "succeeded" || p.Intent == "canceled" {
		v["latest_charge"] = chargeID(p)
		if expanded {
			v["latest_charge"] = s.charge(p)
		}
	}
	return v
}

func (s *server) charge(p *page) map[string]any {
	v := map[string]any{
		"id": chargeID(p), "object": "charge", "amount": p.Amount, "amount_refunded": p.Refunded, "disputed": p.Disputed, "paid": true,
		"captured": p.Intent == "succeeded", "payment_intent": intentID(p), "metadata": map[string]string{"order": p.Order},
		"payment_method_details": map[string]any{"type": "card", "card": map[string]string{"brand": "visa", "last4": "4242", "fingerprint": p.Fingerprint}},
		"balance_transaction":    nil,
	}
	if p.Intent == "succeeded" {
		status := "pending"
		if p.Available {
			status = "available"
		}
		v["balance_transaction"] = map[string]any{"id": "txn_1", "status": status, "available_on": s.now().Add(48 * time.Hour).Unix()}
	}
	return v
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.sessions[r.PathValue("id")]
	if p == nil {
		refuse(w, http.StatusNotFound, "invalid_request_error", "resource_missing")
		return
	}
	json.NewEncoder(w).Encode(s.shown(p, r.URL.Query().Get("expand[]") == "payment_intent.latest_charge.balance_transaction"))
}

func (s *server) ofIntent(id string) *page {
	return s.sessions[strings.Replace(id, "pi", "cs_test", 1)]
}

func (s *server) getIntent(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ofIntent(r.PathValue("id"))
	if p == nil {
		refuse(w, http.StatusNotFound, "invalid_request_error", "resource_missing")
		return
	}
	json.NewEncoder(w).Encode(s.intent(p, false))
}

// move captures or cancels.
func (s *server) move(_ url.Values, r *http.Request) (int, any) {
	p := s.ofIntent(r.PathValue("id"))
	if p == nil {
		return http.StatusNotFound, map[string]any{}
	}
	if p.Intent != "requires_capture" {
		return http.StatusBadRequest, map[string]any{"error": map[string]string{"code": "payment_intent_unexpected_state"}}
	}
	s.done[r.PathValue("what")+" "+p.Order]++
	switch r.PathValue("what") {
	case "capture":
		p.Intent = "succeeded"
	case "cancel":
		p.Intent = "canceled"
	}
	return http.StatusOK, s.intent(p, false)
}

func (s *server) disputes(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := []map[string]any{}
	for _, p := range s.sessions {
		if chargeID(p) == r.URL.Query().Get("charge") {
			for _, status := range p.Disputes {
				data = append(data, map[string]any{"id": "dp_1", "object": "dispute", "status": status, "charge": chargeID(p), "payment_intent": intentID(p)})
			}
		}
	}
	json.NewEncoder(w).Encode(map[string]any{"object": "list", "data": data, "has_more": false})
}

// become changes a page.
func (s *server) become(id string, change func(*page)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.sessions[id])
}

// pay is what a person does at the page: the money is reserved.
func (s *server) pay(id, fingerprint string) {
	s.become(id, func(p *page) { p.Status, p.Intent, p.Fingerprint = "complete", "requires_capture", fingerprint })
}

func (s *server) did(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done[what]
}

// event is a webhook's body, about a page or what hangs on it.
func (s *server) event(kind, id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.sessions[id]
	var object any
	switch {
	case strings.HasPrefix(kind, "charge.dispute."):
		object = map[string]any{"id": "dp_1", "object": "dispute", "charge": chargeID(p), "payment_intent": intentID(p), "metadata": map[string]string{}, "status": "needs_response"}
	case strings.HasPrefix(kind, "charge."):
		object = s.charge(p)
	case strings.HasPrefix(kind, "payment_intent."):
		object = s.intent(p, false)
	default:
		object = s.shown(p, false)
	}
	b, err := json.Marshal(map[string]any{
		"id": "evt_1", "object": "event", "api_version": version, "created": s.now().Unix(), "type": kind, "livemode": false,
		"data": map[string]any{"object": object},
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func signature(secret, body string, at time.Time) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s,v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

// ring delivers a webhook, and returns the status that it is answered with.
func ring(t *testing.T, url, body, sig string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("Stripe-Signature", sig)
	resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
