// Package names is the DNS server of a pal's overlay. It knows the pal and its
// devices by name (laptop.pal) and by address, and asks others for the rest of
// the internet's names: by default over TLS, so that the center sees none of
// them.
//
// It answers nobody outside the overlay, keeps names and addresses that mean
// something only at home to itself, and never logs what is asked.
package names

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/tradle/cloudpal"
)

const (
	maxForwards = 256              // queries that wait for others' servers
	maxConns    = 128              // TCP connections of clients, for each address
	maxUDP      = 1232             // bytes of an answer by UDP, whatever is asked for (DNS flag day 2020)
	answerIn    = 4 * time.Second  // a stub resolver gives up after 5
	idleTCP     = 10 * time.Second // a client's connection with no query
)

// A Host is a name in the zone pal.
type Host struct {
	Name   string     // "laptop"; "pal" is the zone itself
	V4, V6 netip.Addr // either may be missing
}

// A Config says what a server serves.
type Config struct {
	Listen    []netip.AddrPort // where it answers, by UDP and TCP
	Network   []netip.Prefix   // the overlay's ranges, /24 or /64: who may ask, and whose addresses have names
	Hosts     func() []Host    // the zone as it is now; called for each query, by many at once
	Upstreams []Upstream       // who is asked for the rest, in this order; none: DefaultUpstreams
	Roots     *x509.CertPool   // who certifies upstreams; nil: the system's
	Log       *slog.Logger     // nil: nothing is logged
}

// A Server is a running DNS server.
type Server struct {
	zone    zone
	forward *forwarder
	log     *slog.Logger
	addrs   []netip.AddrPort
	running []*dns.Server
	cancel  context.CancelFunc
	ctx     context.Context // ends with the server: handlers of package dns get none
	tasks   sync.WaitGroup
}

// Listen starts a server. Port 0 of an address is any that is free for UDP and
// for TCP.
func Listen(c Config) (*Server, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if len(c.Upstreams) == 0 {
		c.Upstreams = DefaultUpstreams()
	}
	s := &Server{zone: newZone(c.Network, c.Hosts), log: c.Log}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.forward = newForwarder(c.Upstreams, c.Roots, c.Log)
	for _, at := range c.Listen {
		if err := s.listen(at); err != nil {
			s.Close()
			return nil, cloudpal.E(fmt.Sprintf("serve names on %v", at), "", err)
		}
	}
	return s, nil
}

// Addrs returns where the server answers, in the order of Config.Listen.
func (s *Server) Addrs() []netip.AddrPort { return slices.Clone(s.addrs) }

// Flush forgets what others' servers have said and the connections to them: all
// of it may be out of date when the machine has slept.
func (s *Server) Flush() { s.forward.flush() }

// Close ends the server. Who waits for an answer gets none.
func (s *Server) Close() error {
	s.cancel()
	var errs []error
	for _, d := range s.running {
		errs = append(errs, d.Shutdown())
	}
	s.tasks.Wait()
	s.forward.close()
	return errors.Join(errs...)
}

func (s *Server) listen(at netip.AddrPort) error {
	packets, conns, err := listenBoth(at)
	if err != nil {
		return err
	}
	s.addrs = append(s.addrs, conns.Addr().(*net.TCPAddr).AddrPort())
	idle := func() time.Duration { return idleTCP }
	s.serve(&dns.Server{PacketConn: packets, UDPSize: maxUDP})
	s.serve(&dns.Server{Listener: limited(conns, maxConns), ReadTimeout: answerIn, WriteTimeout: answerIn, IdleTimeout: idle})
	return nil
}

// listenBoth listens on the same port by UDP and TCP.
func listenBoth(at netip.AddrPort) (packets *net.UDPConn, conns *net.TCPListener, err error) {
	for range 10 {
		packets, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return nil, nil, err
		}
		port := packets.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		conns, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), port)))
		if err == nil {
			return packets, conns, nil
		}
		packets.Close()
		if at.Port() != 0 {
			break
		}
	}
	return nil, nil, err
}

// serve runs d, and returns when it can be shut down.
func (s *Server) serve(d *dns.Server) {
	started := make(chan struct{})
	d.NotifyStartedFunc = func() { close(started) }
	d.Handler = dns.HandlerFunc(s.handle)
	s.running = append(s.running, d)
	ended := make(chan struct{})
	s.tasks.Go(func() {
		defer close(ended)
		if err := d.ActivateAndServe(); err != nil && s.ctx.Err() == nil {
			s.log.Error("the name server ended", "err", err)
		}
	})
	select {
	case <-started:
	case <-ended:
	}
}

func (s *Server) handle(w dns.ResponseWriter, query *dns.Msg) {
	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.RecursionAvailable = true
	reply.Compress = true
	s.answer(remote(w), query, reply)
	w.Write(finish(query, reply, w.RemoteAddr().Network() == "udp")) // a client that is gone is no trouble of ours
}

func remote(w dns.ResponseWriter) netip.Addr {
	from, _ := netip.ParseAddrPort(w.RemoteAddr().String())
	return from.Addr().Unmap()
}

// answer fills in reply, which SetReply has made.
func (s *Server) answer(from netip.Addr, query, reply *dns.Msg) {
	if !s.zone.has(from) {
		reply.Rcode = dns.RcodeRefused
		return
	}
	if query.Opcode != dns.OpcodeQuery || len(query.Question) != 1 {
		reply.Rcode = dns.RcodeNotImplemented
		return
	}
	if opt := query.IsEdns0(); opt != nil && opt.Version() != 0 {
		reply.Rcode = dns.RcodeBadVers
		return
	}
	q := query.Question[0]
	if q.Qclass != dns.ClassINET || !asksData(q.Qtype) {
		reply.Rcode = dns.RcodeNotImplemented
		return
	}
	if s.zone.answer(q, reply) || special(q, reply) {
		return
	}
	if !query.RecursionDesired {
		reply.Rcode = dns.RcodeRefused
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, answerIn)
	defer cancel()
	got := s.forward.resolve(ctx, query)
	if got == nil || s.rebinds(got) {
		reply.Rcode = dns.RcodeServerFailure
		return
	}
	reply.Rcode, reply.Answer, reply.Ns = got.Rcode, got.Answer, got.Ns
}

// asksData tells a query for records from one for a zone, for everything there
// is (RFC 8482) or for nothing real.
func asksData(t uint16) bool {
	return t != dns.TypeNone && t != dns.TypeOPT && (t < 128 || t > 255) && t != dns.TypeReserved
}

// rebinds reports whether somebody's name leads to an address of the overlay: a
// web page could then speak to the pal as if it were its own server.
func (s *Server) rebinds(m *dns.Msg) bool {
	return slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		return slices.ContainsFunc(addrsIn(rr), func(ip net.IP) bool {
			a, _ := netip.AddrFromSlice(ip)
			return s.zone.has(a.Unmap())
		})
	})
}

func addrsIn(rr dns.RR) (ips []net.IP) {
	switch rr := rr.(type) {
	case *dns.A:
		return []net.IP{rr.A}
	case *dns.AAAA:
		return []net.IP{rr.AAAA}
	case *dns.HTTPS:
		return addrsIn(&rr.SVCB)
	case *dns.SVCB:
		for _, v := range rr.Value {
			switch v := v.(type) {
			case *dns.SVCBIPv4Hint:
				ips = append(ips, v.Hint...)
			case *dns.SVCBIPv6Hint:
				ips = append(ips, v.Hint...)
			}
		}
	}
	return ips
}

// finish says how much the server takes, and returns the answer cut to what the
// client takes.
func finish(query, reply *dns.Msg, udp bool) []byte {
	size := dns.MinMsgSize
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(maxUDP, opt.Do())
		size = min(max(size, int(opt.UDPSize())), maxUDP)
	}
	if !udp {
		size = dns.MaxMsgSize
	}
	reply.Truncate(size)
	b, err := reply.Pack()
	if err != nil { // records of somebody's that cannot be written as they were read
		failed := new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
		failed.RecursionAvailable = true
		b, _ = failed.Pack()
	}
	return b
}

// limited is a listener with at most n connections; who comes beyond them
// waits.
func limited(l net.Listener, n int) net.Listener {
	return &limit{Listener: l, room: make(chan struct{}, n), closed: make(chan struct{})}
}

type limit struct {
	net.Listener
	room   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limit) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.room })}, nil
}

func (l *limit) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
