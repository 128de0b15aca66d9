package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// paths are the ways to the peer: a Bind that can send one packet to many
// places.
//
// As long as nobody has answered, and whenever WireGuard begins a handshake, a
// packet goes to every candidate. The peer takes the first copy and drops the
// others as replays; WireGuard takes the place from where it answered as its
// endpoint.
type paths struct {
	conn.Bind

	mu         sync.Mutex
	candidates []conn.Endpoint
}

// everywhereText is the endpoint that stands for all candidates in WireGuard's
// configuration.
const everywhereText = "everywhere"

// everywhere is the endpoint of a peer that has not answered yet.
type everywhere struct{}

func (everywhere) ClearSrc()           {}
func (everywhere) SrcToString() string { return "" }
func (everywhere) DstToString() string { return everywhereText }
func (everywhere) DstToBytes() []byte  { return nil }
func (everywhere) DstIP() netip.Addr   { return netip.Addr{} }
func (everywhere) SrcIP() netip.Addr   { return netip.Addr{} }

// set replaces the candidates.
func (p *paths) set(endpoints []netip.AddrPort) error {
	if len(endpoints) > MaxEndpoints {
		return fmt.Errorf("%d endpoints are more than %d", len(endpoints), MaxEndpoints)
	}
	var all []conn.Endpoint
	for _, e := range endpoints {
		if !e.IsValid() || e.Port() == 0 {
			return fmt.Errorf("%v is no endpoint", e)
		}
		c, err := p.Bind.ParseEndpoint(netip.AddrPortFrom(e.Addr().Unmap(), e.Port()).String())
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.candidates = all
	return nil
}

// remember makes an endpoint a candidate, until the next set.
func (p *paths) remember(e netip.AddrPort) {
	c, err := p.Bind.ParseEndpoint(e.String())
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, have := range p.candidates {
		if have.DstToString() == c.DstToString() {
			return
		}
	}
	if len(p.candidates) > MaxEndpoints {
		p.candidates = p.candidates[:MaxEndpoints]
	}
	p.candidates = append(p.candidates[:len(p.candidates):len(p.candidates)], c)
}

func (p *paths) all() []conn.Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.candidates
}

// ParseEndpoint also knows everywhere.
func (p *paths) ParseEndpoint(s string) (conn.Endpoint, error) {
	if s == everywhereText {
		return everywhere{}, nil
	}
	return p.Bind.ParseEndpoint(s)
}

// Open opens the sockets. What they receive has no source address of ours in
// its endpoint: the kernel chooses it for each packet that is sent, so that a
// packet leaves from where the machine is now.
func (p *paths) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, port, err := p.Bind.Open(port)
	for i, receive := range fns {
		fns[i] = func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := receive(packets, sizes, eps)
			for _, e := range eps[:n] {
				if e != nil {
					e.ClearSrc()
				}
			}
			return n, err
		}
	}
	return fns, port, err
}

// Send sends to one endpoint, or to all candidates.
func (p *paths) Send(bufs [][]byte, e conn.Endpoint) error {
	_, lost := e.(everywhere)
	if !lost && !isInitiation(bufs) {
		return p.Bind.Send(bufs, e)
	}
	var errs []error
	sent := false
	try := func(to conn.Endpoint) {
		err := p.Bind.Send(bufs, to)
		errs = append(errs, err)
		sent = sent || err == nil
	}
	if !lost {
		try(e)
	}
	for _, c := range p.all() {
		if lost || c.DstToString() != e.DstToString() {
			try(c)
		}
	}
	switch {
	case sent:
		return nil // that this machine has no IPv6, say, is no error
	case errs == nil:
		return errors.New("it is not known where the peer is")
	}
	return errors.Join(errs...)
}

// isInitiation reports whether there is a handshake initiation: message type 1,
// of 148 bytes (WireGuard paper, section 5.4.2).
func isInitiation(bufs [][]byte) bool {
	return len(bufs) == 1 && len(bufs[0]) == 148 && bufs[0][0] == 1
}
