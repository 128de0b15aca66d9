package mint

import (
	"net"
	"net/http"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// What strangers can have. A source is an IPv4 address or an IPv6 /64; it is in
// memory, while it asks, and nowhere else.
const (
	maxConns       = 2048
	maxSourceConns = 128
	maxWorks       = 64   // requests that are worked on at once
	maxWaits       = 1024 // and that wait for that
	maxSources     = 50_000

	quotesPerSecond = 2 // of one source: each may be an order at a payment service
	quotesAtOnce    = 60
)

// A gate keeps a crowd from taking the room of all.
type gate struct {
	works, waits chan struct{}
	quotes       rate.Limit // of one source

	mu      sync.Mutex
	sources map[netip.Prefix]*rate.Limiter
}

func newGate() *gate {
	return &gate{works: make(chan struct{}, maxWorks), waits: make(chan struct{}, maxWaits), quotes: quotesPerSecond, sources: map[netip.Prefix]*rate.Limiter{}}
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

// quote reports whether a source may ask for another quote.
func (g *gate) quote(remote string) bool {
	from := source(remote)
	g.mu.Lock()
	l := g.sources[from]
	if l == nil {
		if len(g.sources) >= maxSources {
			clear(g.sources)
		}
		l = rate.NewLimiter(g.quotes, quotesAtOnce)
		g.sources[from] = l
	}
	g.mu.Unlock()
	return l.Allow()
}

// source is who is counted together.
func source(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := ap.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// A listener turns away connections above the bounds.
type listener struct {
	net.Listener

	mu    sync.Mutex
	all   int
	count map[netip.Prefix]int
}

// Accept waits for a connection that may stay.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := source(c.RemoteAddr().String())
		if l.enter(from) {
			return &visitor{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		c.Close()
	}
}

func (l *listener) enter(from netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConns || l.count[from] >= maxSourceConns {
		return false
	}
	l.all++
	l.count[from]++
	return true
}

func (l *listener) leave(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.count[from]--; l.count[from] == 0 {
		delete(l.count, from)
	}
}

// A visitor is a connection that is counted until it is closed.
type visitor struct {
	net.Conn
	leave func()
}

func (v *visitor) Close() error {
	defer v.leave()
	return v.Conn.Close()
}
