package crowd

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxSources bounds the sources that are remembered.
const maxSources = 1 << 16

// Rates bound how often each source asks. One is an IPv4 address or an IPv6 /48:
// smaller networks are free to have many of.
type Rates struct {
	each  rate.Limit
	burst int

	mu      sync.Mutex
	sources map[netip.Prefix]*rate.Limiter
}

// NewRates returns bounds of so many questions a second, and so many at once.
func NewRates(each rate.Limit, burst int) *Rates {
	return &Rates{each: each, burst: burst, sources: map[netip.Prefix]*rate.Limiter{}}
}

// Allow reports whether who asks from an address, as http.Request.RemoteAddr has it,
// may ask now.
func (r *Rates) Allow(remote string, now time.Time) bool {
	from := source(remote, 48)
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.sources[from]
	if l == nil {
		if len(r.sources) >= maxSources {
			r.forgetLocked(now)
		}
		l = rate.NewLimiter(r.each, r.burst)
		r.sources[from] = l
	}
	return l.AllowN(now, 1)
}

// forgetLocked forgets sources that asked nothing for a while, or all where that is
// not enough.
func (r *Rates) forgetLocked(now time.Time) {
	for from, l := range r.sources {
		if l.TokensAt(now) >= float64(r.burst) {
			delete(r.sources, from)
		}
	}
	if len(r.sources) >= maxSources {
		clear(r.sources)
	}
}
