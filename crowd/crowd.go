// Package crowd keeps some of many strangers from taking the room of all: it bounds
// the connections of a server, and how often it is asked, in all and by each source.
// Whom it counts is in memory, while that matters, and nowhere else.
package crowd

import (
	"net"
	"net/netip"
	"sync"
)

// A Crowd counts the connections of some listeners together. A source of them is an
// IPv4 address or an IPv6 /64.
type Crowd struct {
	most, each int

	mu    sync.Mutex
	all   int
	count map[netip.Prefix]int
}

// New returns a crowd of at most so many connections, and so many of each source.
func New(most, each int) *Crowd {
	return &Crowd{most: most, each: each, count: map[netip.Prefix]int{}}
}

// Count returns how many there are.
func (c *Crowd) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// Listener returns l, which turns away connections above the bounds.
func (c *Crowd) Listener(l net.Listener) net.Listener { return listener{l, c} }

type listener struct {
	net.Listener
	crowd *Crowd
}

// Accept waits for a connection that may stay.
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := source(c.RemoteAddr().String(), 64)
		if l.crowd.enter(from) {
			return &guest{Conn: c, leave: sync.OnceFunc(func() { l.crowd.leave(from) })}, nil
		}
		c.Close()
	}
}

// source returns who is counted together: an IPv4 address, so many bits of an IPv6
// one, or all whose address tells neither.
func source(remote string, bits int) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

func (c *Crowd) enter(from netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.most || c.count[from] >= c.each {
		return false
	}
	c.all++
	c.count[from]++
	return true
}

func (c *Crowd) leave(from netip.Prefix) {
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
