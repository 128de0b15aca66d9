package btcpay

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	someStore  = "9CiNzKoANXxmk5ayZngSXrHTiVvvgCrwrpFQd4m2K776"
	someKey    = "a-key-of-the-api"
	someSecret = "a-secret-of-the-webhook"
)

// A server does what the documentation of the Greenfield API says that a BTCPay
// Server does, for one store, and what a test tells it to do wrong.
type server struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	invoices []*record // the newest first, as they are listed
	asked    []string
	trouble  func(w http.ResponseWriter, r *http.Request) bool // answers in its place, before anything is done
	lose     bool                                              // does what is asked, and loses the answer
}

// A record is an invoice.
type record struct {
	ID, Amount, Currency, Order string
	Expires, Monitors           int
	Status, More                string
	Due                         string
	Payments                    []string // their statuses
}

func newServer(t *testing.T) *server {
	s := &server{t: t}
	mux := http.NewServeMux()
	root := "/api/v1/stores/" + someStore + "/invoices"
	mux.HandleFunc("POST "+root, s.create)
	mux.HandleFunc("GET "+root, s.list)
	mux.HandleFunc("GET "+root+"/{id}", s.get)
	mux.HandleFunc("GET "+root+"/{id}/payment-methods", s.ways)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.URL.RequestURI())
		trouble := s.trouble
		s.mu.Unlock()
		if trouble != nil && trouble(w, r) {
			return
		}
		if r.Header.Get("Authorization") != "token "+someKey {
			w.WriteHeader(http.StatusUnauthorized)
			json.NewEncoder(w).Encode(map[string]string{"code": "unauthenticated", "message": "Authentication is required for accessing this endpoint"})
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) create(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Amount, Currency string
		Metadata         map[string]any
		Checkout         struct{ ExpirationMinutes, MonitoringMinutes int }
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Amount == "" || q.Checkout.ExpirationMinutes < 1 {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	if len(q.Metadata) != 1 {
		s.t.Errorf("an invoice says %v", q.Metadata)
	}
	s.mu.Lock()
	i := &record{
		ID: fmt.Sprintf("Inv%d", len(s.invoices)+1), Amount: q.Amount, Currency: q.Currency, Order: q.Metadata["orderId"].(string),
		Expires: q.Checkout.ExpirationMinutes, Monitors: q.Checkout.MonitoringMinutes, Status: "New", More: "None", Due: "0.0001",
	}
	s.invoices = slices.Insert(s.invoices, 0, i)
	lose := s.lose
	s.lose = false
	s.mu.Unlock()
	if lose {
		panic(http.ErrAbortHandler)
	}
	json.NewEncoder(w).Encode(s.shown(i))
}

func (s *server) shown(i *record) map[string]any {
	return map[string]any{
		"id": i.ID, "storeId": someStore, "amount": i.Amount, "paidAmount": "0", "currency": i.Currency, "type": "Standard",
		"checkoutLink": s.URL + "/i/" + i.ID, "createdTime": 1764500000, "expirationTime": 1764503600, "monitoringExpiration": 1764590000,
		"status": i.Status, "additionalStatus": i.More, "availableStatusesForManualMarking": []string{"Settled", "Invalid"},
		"archived": false, "metadata": map[string]any{"orderId": i.Order}, "checkout": map[string]any{}, "receipt": map[string]any{},
	}
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []map[string]any{}
	for _, i := range s.invoices {
		if want := r.URL.Query()["orderId"]; len(want) == 0 || slices.Contains(want, i.Order) {
			list = append(list, s.shown(i))
		}
	}
	json.NewEncoder(w).Encode(list)
}

func (s *server) find(id string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.invoices {
		if i.ID == id {
			return i
		}
	}
	return nil
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	i := s.find(r.PathValue("id"))
	if i == nil {
		w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(w).Encode(map[string]string{"code": "invoice-not-found", "message": "The invoice was not found"})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	json.NewEncoder(w).Encode(s.shown(i))
}

func (s *server) ways(w http.ResponseWriter, r *http.Request) {
	i := s.find(r.PathValue("id"))
	if i == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var payments []map[string]any
	for _, status := range i.Payments {
		payments = append(payments, map[string]any{"id": "tx-0", "receivedDate": 1764500000, "value": "0.0001", "fee": "0", "status": status, "destination": "bc1q"})
	}
	json.NewEncoder(w).Encode([]map[string]any{
		{"paymentMethodId": "BTC-CHAIN", "currency": "BTC", "due": i.Due, "amount": "0.0001", "payments": payments, "activated": true},
		{"paymentMethodId": "BTC-LN", "currency": "BTC", "due": i.Due, "amount": "0.0001", "payments": []any{}, "activated": true},
	})
}

// become sets an invoice's statuses, such as "Expired PaidLate".
func (s *server) become(id, status string) {
	i := s.find(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	i.Status, i.More, _ = strings.Cut(status, " ")
	if i.More == "" {
		i.More = "None"
	}
}

// event is a webhook's body.
func event(id, kind string) string {
	b, err := json.Marshal(map[string]any{
		"deliveryId": "Dx1", "webhookId": "Wh1", "originalDeliveryId": "Dx1", "isRedelivery": false,
		"type": kind, "timestamp": 1764500000, "storeId": someStore, "invoiceId": id,
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func signature(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// ring delivers a webhook, and returns the status that it is answered with.
func ring(t *testing.T, url, body, sig string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("BTCPay-Sig", sig)
	resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
