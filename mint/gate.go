package mint

import (
	"net/http"

	"github.com/tradle/cloudpal/crowd"
)

// What strangers can have.
const (
	maxConns       = 2048
	maxSourceConns = 128
	maxWorks       = 64   // requests that are worked on at once
	maxWaits       = 1024 // and that wait for that

	quotesPerSecond = 2 // of one source: each may be an order at a payment service
	quotesAtOnce    = 60
)

// A gate keeps a crowd from taking the room of all.
type gate struct {
	works, waits chan struct{}
	quotes       *crowd.Rates
}

func newGate() *gate {
	return &gate{works: make(chan struct{}, maxWorks), waits: make(chan struct{}, maxWaits), quotes: crowd.NewRates(quotesPerSecond, quotesAtOnce)}
}

// enter waits for room to work on a request, for as long as that is asked for, and
// reports whether there is.
func (g *gate) enter(r *http.Request) (leave func(), ok bool) {
	select {
	case g.waits <- struct{}{}:
	default:
		return nil, false
	}
	defer func() { <-g.waits }()
	select {
	case g.works <- struct{}{}:
		return func() { <-g.works }, true
	case <-r.Context().Done():
		return nil, false
	}
}
