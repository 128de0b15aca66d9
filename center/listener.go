package center

import (
	"net"
	"net/netip"
	"sync"
)

// Connections at a time: of all, and of one source, which is an IPv4 address
// or an IPv6 /64.
const (
	maxConns       = 2048
	maxSourceConns = 64
)

// A listener turns away connections above the bounds. Who it counts is in
// memory, while they are connected, and nowhere else.
type listener struct {
	net.Listener
	*crowd
}

// A crowd counts the connections of some listeners together.
type crowd struct {
	mu    sync.Mutex
	all   int
	count map[netip.Prefix]int
}

func newCrowd() *crowd { return &crowd{count: map[netip.Prefix]int{}} }

// Accept waits for a connection that may stay.
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := source(c.RemoteAddr())
		if l.enter(from) {
			return &guest{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		c.Close()
	}
}

// source is who is counted together.
func source(a net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := ap.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

func (c *crowd) enter(from netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= maxConns || c.count[from] >= maxSourceConns {
		return false
	}
	c.all++
	c.count[from]++
	return true
}

func (c *crowd) leave(from netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.count[from]--; c.count[from] == 0 {
		delete(c.count, from)
	}
}

// A guest is a connection that is counted until it is closed.
type guest struct {
	net.Conn
	leave func()
}

func (g *guest) Close() error {
	defer g.leave()
	return g.Conn.Close()
}
