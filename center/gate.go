package center

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tradle/cloudpal/center/api"
)

// What one account may ask, and all together. A device's agent waits for
// events with one request a minute and asks some ten things at its start;
// these are far above it.
const (
	askRate, askBurst       = 20, 100 // questions a second of an account
	changeRate, changeBurst = 1, 30   // of them, those that make the host work
	createRate, createBurst = 0.5, 10 // new pals a second, of all
	totalRate, totalBurst   = 500, 1000

	maxAtOnce    = 12  // requests of an account at a time
	maxStrangers = 32  // of all that show no account
	maxTotal     = 512 // of all

	maxConns       = 2048
	maxSourceConns = 64 // of an IPv4 address or an IPv6 /64

	// maxAccounts bounds the accounts that are remembered. They cost nothing
	// to make, so those that were quiet are forgotten.
	maxAccounts = 4096
	forgetAfter = 2 * time.Minute // every burst has filled up again by then
)

// A gate lets in as much as the center can bear.
type gate struct {
	total   *rate.Limiter
	creates *rate.Limiter

	mu       sync.Mutex
	inside   int
	visitors map[api.Fingerprint]*visitor // the zero one stands for all strangers
}

// A visitor is an account that asked something of late.
type visitor struct {
	asks, changes *rate.Limiter
	inside        int
	last          time.Time
}

func newGate() *gate {
	return &gate{
		total:    rate.NewLimiter(totalRate, totalBurst),
		creates:  rate.NewLimiter(createRate, createBurst),
		visitors: map[api.Fingerprint]*visitor{},
	}
}

// enter lets a request in, or not. The caller calls leave when it is done.
// Known accounts, those with pals, are let in however many others there are.
func (g *gate) enter(who api.Fingerprint, known, change bool, now time.Time) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.visitor(who, known, now)
	most := maxAtOnce
	if who == (api.Fingerprint{}) {
		most = maxStrangers
	}
	if v == nil || v.inside >= most || g.inside >= maxTotal || !v.asks.AllowN(now, 1) ||
		change && !v.changes.AllowN(now, 1) || !g.total.AllowN(now, 1) {
		return nil, false
	}
	v.last = now
	v.inside++
	g.inside++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		v.inside--
		g.inside--
	}, true
}

// visitor finds an account among the visitors, or makes it one if there is
// room. The caller holds mu.
func (g *gate) visitor(who api.Fingerprint, known bool, now time.Time) *visitor {
	v := g.visitors[who]
	if v != nil {
		return v
	}
	if len(g.visitors) >= maxAccounts {
		g.forget(now)
	}
	if len(g.visitors) >= maxAccounts && !known && who != (api.Fingerprint{}) {
		return nil
	}
	v = &visitor{asks: rate.NewLimiter(askRate, askBurst), changes: rate.NewLimiter(changeRate, changeBurst)}
	g.visitors[who] = v
	return v
}

// forget drops visitors that are gone. The caller holds mu.
func (g *gate) forget(now time.Time) {
	for who, v := range g.visitors {
		if v.inside == 0 && now.Sub(v.last) > forgetAfter {
			delete(g.visitors, who)
		}
	}
}

// create lets a new pal be made, or not.
func (g *gate) create() bool { return g.creates.Allow() }
