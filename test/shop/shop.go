// Package shop is the least that can be paid by a payment.Method: orders, what became
// of them, and a place for webhooks. It does with a method what a mint does.
package shop

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment"
)

// A Shop takes orders.
type Shop struct {
	URL string // where webhooks go

	t      testing.TB
	method payment.Method

	mu     sync.Mutex
	orders map[string]payment.Order
	begun  map[string]payment.Started
	status map[string]payment.Status
	polls  map[string]int
}

// Open opens a shop until the test ends.
func Open(t testing.TB, method payment.Method) *Shop {
	t.Helper()
	s := &Shop{t: t, method: method, orders: map[string]payment.Order{}, begun: map[string]payment.Started{},
		status: map[string]payment.Status{}, polls: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(s.serveHook))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Begin takes an order, to be paid within the hour.
func (s *Shop) Begin(id string, a payment.Amount, now time.Time) payment.Started {
	s.t.Helper()
	o := payment.Order{ID: id, Amount: a, Expires: now.Add(time.Hour)}
	begun, err := s.method.Begin(s.t.Context(), o)
	if err != nil {
		s.t.Fatalf("begin %s: %v", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[id], s.begun[id], s.status[id] = o, begun, payment.Status{State: payment.Unpaid}
	return begun
}

// State is what the shop believes.
func (s *Shop) State(id string) payment.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status[id].State
}

// Hint is what it tells who pays.
func (s *Shop) Hint(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status[id].Hint
}

// Polls is how often it asked for an order.
func (s *Shop) Polls(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.polls[id]
}

// Look asks the method for an order, as a mint does now and then.
func (s *Shop) Look(ctx context.Context, id string) error {
	s.mu.Lock()
	o, begun := s.orders[id], s.begun[id]
	s.polls[id]++
	s.mu.Unlock()
	status, err := s.method.Poll(ctx, o, begun.Ref)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status[id] = status
	return nil
}

// serveHook answers as payment.Method says.
func (s *Shop) serveHook(w http.ResponseWriter, r *http.Request) {
	id, err := s.method.Hook(r)
	if err == nil && s.knows(id) {
		err = s.Look(r.Context(), id)
	}
	switch {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case errors.Is(err, cloudpal.Denied):
		w.WriteHeader(http.StatusForbidden)
	case errors.Is(err, cloudpal.Missing), errors.Is(err, cloudpal.Busy), errors.Is(err, cloudpal.Timeout):
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

func (s *Shop) knows(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.orders[id]
	return ok
}
