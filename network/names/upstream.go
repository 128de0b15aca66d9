package names

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/tradle/cloudpal"
)

// An Upstream is a server that is asked for the internet's names.
type Upstream struct {
	Addr netip.AddrPort
	TLS  string // the name in its certificate (RFC 7858); "": in the clear, by UDP and TCP
}

// DefaultUpstreams are Quad9's and Cloudflare's servers, over TLS.
func DefaultUpstreams() []Upstream {
	return []Upstream{
		{netip.MustParseAddrPort("9.9.9.9:853"), "dns.quad9.net"},
		{netip.MustParseAddrPort("[2620:fe::fe]:853"), "dns.quad9.net"},
		{netip.MustParseAddrPort("1.1.1.1:853"), "cloudflare-dns.com"},
		{netip.MustParseAddrPort("[2606:4700:4700::1111]:853"), "cloudflare-dns.com"},
	}
}

var hostForm = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$`)

// ParseUpstream reads tls://ADDRESS[:PORT]#NAME or udp://ADDRESS[:PORT]; ports
// are 853 and 53 if not given. The error is cloudpal.Invalid.
func ParseUpstream(text string) (Upstream, error) {
	op := fmt.Sprintf("name server %.80q", text)
	scheme, rest, _ := strings.Cut(text, "://")
	at, name, named := strings.Cut(rest, "#")
	port := uint16(853)
	if scheme == "udp" {
		port = 53
	}
	addr, err := addrPort(at, port)
	tls := scheme == "tls" && len(name) <= 253 && hostForm.MatchString(name)
	if err != nil || addr.Addr().Zone() != "" || !tls && (scheme != "udp" || named) {
		return Upstream{}, cloudpal.E(op, cloudpal.Invalid, nil).
			WithHint("write tls://9.9.9.9#dns.quad9.net, or udp://192.0.2.53")
	}
	return Upstream{addr, name}, nil
}

func addrPort(text string, port uint16) (netip.AddrPort, error) {
	if at, err := netip.ParseAddrPort(text); err == nil && at.Port() != 0 {
		return at, nil
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return netip.AddrPortFrom(a, port), err
}

// String returns what ParseUpstream reads.
func (u Upstream) String() string {
	if u.TLS == "" {
		return "udp://" + u.Addr.String()
	}
	return "tls://" + u.Addr.String() + "#" + u.TLS
}

const (
	maxIdle  = 4                // connections kept for the next query
	keepIdle = 10 * time.Second // and for how long: less than a pal stays awake for nothing
	failFor  = time.Minute      // how long a server that did not answer is asked last
	padding  = 128              // queries over TLS are a multiple of this long (RFC 8467, section 4.1)
)

// A server is an upstream and the connections to it.
type server struct {
	Upstream
	tls *tls.Config

	mu      sync.Mutex
	idle    []idleConn
	flushes int       // connections from before the last flush are not kept
	failed  time.Time // when it did not answer; zero: it answered the last time
}

type idleConn struct {
	*dns.Conn
	since time.Time
}

// ask returns the server's answer to m, or why there is none by the end of ctx.
func (s *server) ask(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	if s.TLS != "" {
		return s.askTLS(ctx, m)
	}
	got, err := s.askOnce(ctx, "udp", m)
	if err == nil && got.Truncated {
		return s.askOnce(ctx, "tcp", m)
	}
	return got, err
}

func (s *server) askOnce(ctx context.Context, network string, m *dns.Msg) (*dns.Msg, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, s.Addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return exchange(ctx, &dns.Conn{Conn: conn, UDPSize: maxUDP}, m)
}

// askTLS takes a connection that is there, or a new one. Of those that are
// there the server may have closed any.
func (s *server) askTLS(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	m = padded(m)
	for {
		conn, flushes := s.take()
		if conn == nil {
			break
		}
		got, err := exchange(ctx, conn, m)
		if err == nil {
			s.keep(conn, flushes)
			return got, nil
		}
		conn.Close()
		if ctx.Err() != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	flushes := s.flushes
	s.mu.Unlock()
	// No keep-alive, which would hold the pal awake.
	d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: -1}, Config: s.tls}
	raw, err := d.DialContext(ctx, "tcp", s.Addr.String())
	if err != nil {
		return nil, err
	}
	conn := &dns.Conn{Conn: raw}
	got, err := exchange(ctx, conn, m)
	if err != nil {
		conn.Close()
		return nil, err
	}
	s.keep(conn, flushes)
	return got, nil
}

// exchange sends m and reads until its answer comes, or ctx ends.
func exchange(ctx context.Context, conn *dns.Conn, m *dns.Msg) (*dns.Msg, error) {
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.WriteMsg(m); err != nil {
		return nil, err
	}
	_, datagrams := conn.Conn.(*net.UDPConn)
	for {
		got, err := conn.ReadMsg()
		if err == nil && answers(got, m) {
			return got, nil
		}
		if err == nil {
			err = errors.New("it has answered another question")
		}
		var broken net.Error
		if !datagrams || errors.As(err, &broken) {
			return nil, err
		}
		// By UDP anybody could have sent that: wait for the real one.
	}
}

// answers reports whether got is an answer to m.
func answers(got, m *dns.Msg) bool {
	return got.Response && got.Id == m.Id && got.Opcode == dns.OpcodeQuery && len(got.Question) == 1 &&
		got.Question[0].Qtype == m.Question[0].Qtype && got.Question[0].Qclass == m.Question[0].Qclass &&
		strings.EqualFold(got.Question[0].Name, m.Question[0].Name)
}

// padded returns a copy of m that tells nobody by its length what is asked.
func padded(m *dns.Msg) *dns.Msg {
	m = m.Copy()
	pad := new(dns.EDNS0_PADDING)
	opt := m.IsEdns0()
	opt.Option = append(opt.Option, pad)
	pad.Padding = make([]byte, (padding-m.Len()%padding)%padding)
	return m
}

func (s *server) take() (conn *dns.Conn, flushes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.idle) > 0 {
		last := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if age := time.Now().Round(0).Sub(last.since); age >= 0 && age < keepIdle {
			return last.Conn, s.flushes
		}
		last.Close()
	}
	return nil, s.flushes
}

func (s *server) keep(conn *dns.Conn, flushes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flushes != flushes || len(s.idle) == maxIdle {
		conn.Close()
		return
	}
	s.idle = append(s.idle, idleConn{conn, time.Now().Round(0)})
}

func (s *server) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		c.Close()
	}
	s.idle, s.failed = nil, time.Time{}
	s.flushes++
}

// mark notes whether the server failed, and tells whether that is new.
func (s *server) mark(failed bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = failed == s.failed.IsZero()
	s.failed = time.Time{}
	if failed {
		s.failed = time.Now().Round(0)
	}
	return changed
}

func (s *server) failing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.failed.IsZero() && time.Now().Round(0).Sub(s.failed).Abs() < failFor
}
