//go:build linux

package names

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The overlay of these tests is on the loopback: the core is 127.7.8.1, a
// laptop 127.7.8.2.
var network = []netip.Prefix{netip.MustParsePrefix("127.7.8.0/24"), netip.MustParsePrefix("fd12:3456:789a::/64")}

const laptop = "127.7.8.2"

func hosts() []Host {
	return []Host{
		{"pal", netip.MustParseAddr("127.7.8.1"), netip.MustParseAddr("fd12:3456:789a::1")},
		{"laptop", netip.MustParseAddr(laptop), netip.MustParseAddr("fd12:3456:789a::2")},
		{"old-phone", netip.MustParseAddr("127.7.8.3"), netip.Addr{}},
	}
}

// served is a server of the test's overlay with these upstreams.
func served(t *testing.T, upstreams ...Upstream) *Server {
	t.Helper()
	return servedBy(t, Config{Upstreams: upstreams})
}

func servedBy(t *testing.T, c Config) *Server {
	t.Helper()
	c.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.7.8.1:0")}
	c.Network, c.Hosts = network, hosts
	s, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// asker is a client at an address of the overlay.
func asker(proto, from string) *dns.Client {
	var local net.Addr = &net.UDPAddr{IP: net.ParseIP(from)}
	if proto == "tcp" {
		local = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return &dns.Client{Net: proto, Timeout: 8 * time.Second, Dialer: &net.Dialer{LocalAddr: local, Timeout: 8 * time.Second}}
}

// send has the laptop ask.
func send(t *testing.T, s *Server, proto string, m *dns.Msg) *dns.Msg {
	t.Helper()
	got, _, err := asker(proto, laptop).Exchange(m, s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func query(name string, kind uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, kind)
}

// story tells an answer in a line: its code, its flags and its records without
// times to live.
func story(m *dns.Msg) string {
	parts := []string{dns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		parts = append(parts, "aa")
	}
	if m.Truncated {
		parts = append(parts, "tc")
	}
	for _, rr := range m.Answer {
		parts = append(parts, rr.Header().Name+" "+dns.TypeToString[rr.Header().Rrtype]+" "+
			strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	for _, rr := range m.Ns {
		parts = append(parts, "("+rr.Header().Name+" "+dns.TypeToString[rr.Header().Rrtype]+")")
	}
	return strings.Join(parts, " ")
}

func TestZone(t *testing.T) {
	s := served(t)
	const six = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa."
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"pal.", dns.TypeA, "NOERROR aa pal. A 127.7.8.1"},
		{"pal.", dns.TypeAAAA, "NOERROR aa pal. AAAA fd12:3456:789a::1"},
		{"pal.", dns.TypeNS, "NOERROR aa pal. NS pal."},
		{"pal.", dns.TypeMX, "NOERROR aa (pal. SOA)"},
		{"laptop.pal.", dns.TypeA, "NOERROR aa laptop.pal. A 127.7.8.2"},
		{"LapTop.pAl.", dns.TypeAAAA, "NOERROR aa LapTop.pAl. AAAA fd12:3456:789a::2"},
		{"laptop.pal.", dns.TypeTXT, "NOERROR aa (pal. SOA)"},
		{"old-phone.pal.", dns.TypeAAAA, "NOERROR aa (pal. SOA)"},
		{"phone.pal.", dns.TypeA, "NXDOMAIN aa (pal. SOA)"},
		{"www.laptop.pal.", dns.TypeA, "NXDOMAIN aa (pal. SOA)"},
		{"2.8.7.127.in-addr.arpa.", dns.TypePTR, "NOERROR aa 2.8.7.127.in-addr.arpa. PTR laptop.pal."},
		{"1.8.7.127.in-addr.arpa.", dns.TypePTR, "NOERROR aa 1.8.7.127.in-addr.arpa. PTR pal."},
		{"9.8.7.127.in-addr.arpa.", dns.TypePTR, "NXDOMAIN aa (8.7.127.in-addr.arpa. SOA)"},
		{"8.7.127.in-addr.arpa.", dns.TypeNS, "NOERROR aa 8.7.127.in-addr.arpa. NS pal."},
		{"2." + six[2:], dns.TypePTR, "NOERROR aa 2." + six[2:] + " PTR laptop.pal."},
		{"3." + six[2:], dns.TypePTR, "NXDOMAIN aa (" + six[32:] + " SOA)"},
		{six[2:], dns.TypePTR, "NOERROR aa (" + six[32:] + " SOA)"},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			if got := story(send(t, s, proto, query(c.name, c.kind))); got != c.want {
				t.Errorf("%s %s by %s: got %s, want %s", c.name, dns.TypeToString[c.kind], proto, got, c.want)
			}
		}
	}
	soa := send(t, s, "udp", query("pal.", dns.TypeSOA))
	if len(soa.Answer) != 1 || soa.Answer[0].(*dns.SOA).Ns != "pal." {
		t.Errorf("got SOA %s", story(soa))
	}
}

func TestRefusals(t *testing.T) {
	s := served(t)
	chaos := query("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	update := new(dns.Msg).SetUpdate("pal.")
	notify := new(dns.Msg).SetNotify("pal.")
	future := query("pal.", dns.TypeA).SetEdns0(4096, false)
	future.IsEdns0().SetVersion(1)
	noRecursion := query("example.com.", dns.TypeA)
	noRecursion.RecursionDesired = false
	for what, c := range map[string]struct {
		query *dns.Msg
		want  int
	}{
		"class chaos":       {chaos, dns.RcodeNotImplemented},
		"an update":         {update, dns.RcodeNotImplemented},
		"a notify":          {notify, dns.RcodeNotImplemented},
		"a newer EDNS":      {future, dns.RcodeBadVers},
		"all of the zone":   {query("pal.", dns.TypeAXFR), dns.RcodeNotImplemented},
		"any record":        {query("example.com.", dns.TypeANY), dns.RcodeNotImplemented},
		"without recursion": {noRecursion, dns.RcodeRefused},
	} {
		if got := send(t, s, "udp", c.query); got.Rcode != c.want {
			t.Errorf("%s: got %s, want %s", what, dns.RcodeToString[got.Rcode], dns.RcodeToString[c.want])
		}
	}
}

func TestStrangerIsRefused(t *testing.T) {
	s := served(t)
	for _, proto := range []string{"udp", "tcp"} {
		for _, name := range []string{"laptop.pal.", "example.com."} {
			got, _, err := asker(proto, "127.0.0.1").Exchange(query(name, dns.TypeA), s.Addrs()[0].String())
			if err != nil || story(got) != "REFUSED" {
				t.Errorf("%s by %s: got %v, error %v, want REFUSED", name, proto, got, err)
			}
		}
	}
}

// internet is a name server of somebody else.
type internet struct {
	addr  netip.AddrPort
	asked atomic.Int64
	conns atomic.Int64

	mu   sync.Mutex
	last *dns.Msg
	size int // of the last query, in bytes
}

func (i *internet) upstream(name string) Upstream { return Upstream{i.addr, name} }

// answering starts a name server for UDP and TCP, or for TLS where a certificate
// is given.
func answering(t *testing.T, cert *tls.Certificate, answer func(m *dns.Msg, udp bool)) *internet {
	t.Helper()
	i := &internet{}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		i.asked.Add(1)
		i.mu.Lock()
		i.last = q.Copy()
		i.size = q.Len()
		i.mu.Unlock()
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		answer(m, w.RemoteAddr().Network() == "udp")
		if m.Id != 0 {
			w.WriteMsg(m)
		}
	})
	packets, conns, err := listenBoth(netip.MustParseAddrPort("127.0.0.53:0"))
	if err != nil {
		t.Fatal(err)
	}
	i.addr = conns.Addr().(*net.TCPAddr).AddrPort()
	var listener net.Listener = &counting{conns, &i.conns}
	if cert != nil {
		packets.Close()
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{*cert}})
	} else {
		start(t, &dns.Server{PacketConn: packets, Handler: handler, UDPSize: 4096})
	}
	start(t, &dns.Server{Listener: listener, Handler: handler})
	return i
}

type counting struct {
	net.Listener
	n *atomic.Int64
}

func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

func start(t *testing.T, d *dns.Server) {
	t.Helper()
	started := make(chan struct{})
	d.NotifyStartedFunc = func() { close(started) }
	go d.ActivateAndServe()
	<-started
	t.Cleanup(func() { d.Shutdown() })
}

// certified returns a certificate for a name, and who trusts it.
func certified(t *testing.T, name string) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, pool
}

func record(t testing.TB, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// has answers every query for A with this address.
func has(address string, ttl int) func(*dns.Msg, bool) {
	return func(m *dns.Msg, _ bool) {
		if q := m.Question[0]; q.Qtype == dns.TypeA {
			rr, _ := dns.NewRR(fmt.Sprintf("%s %d A %s", q.Name, ttl, address))
			m.Answer = []dns.RR{rr}
		}
	}
}

const exampleA = "NOERROR example.com. A 203.0.113.7"

func TestForwardOverTLS(t *testing.T) {
	cert, roots := certified(t, "dns.example")
	i := answering(t, cert, has("203.0.113.7", 0)) // a TTL of 0: nothing is kept
	s := servedBy(t, Config{Upstreams: []Upstream{i.upstream("dns.example")}, Roots: roots})
	q := query("eXample.com.", dns.TypeA).SetEdns0(4096, true)
	q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(198, 51, 100, 0)}}
	for range 3 {
		if got := story(send(t, s, "udp", q)); got != exampleA {
			t.Fatalf("got %s, want %s", got, exampleA)
		}
	}
	if asked, conns := i.asked.Load(), i.conns.Load(); asked != 3 || conns != 1 {
		t.Errorf("3 queries came as %d by %d connections, want 3 by 1", asked, conns)
	}
	i.mu.Lock()
	last, size := i.last, i.size
	i.mu.Unlock()
	opt := last.IsEdns0()
	if size%padding != 0 || len(opt.Option) != 1 || opt.Option[0].Option() != dns.EDNS0PADDING || !opt.Do() || last.Id == q.Id {
		t.Errorf("others got a query of %d bytes: %v", size, last)
	}
	s.Flush()
	send(t, s, "udp", q)
	if conns := i.conns.Load(); conns != 2 {
		t.Errorf("after a flush: %d connections, want a new one", conns)
	}
}

func TestWrongCertificate(t *testing.T) {
	cert, roots := certified(t, "dns.example")
	i := answering(t, cert, has("203.0.113.7", 60))
	for _, c := range []Config{
		{Upstreams: []Upstream{i.upstream("dns.example.net")}, Roots: roots},
		{Upstreams: []Upstream{i.upstream("dns.example")}, Roots: x509.NewCertPool()},
	} {
		s := servedBy(t, c)
		if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != "SERVFAIL" {
			t.Errorf("got %s, want SERVFAIL", got)
		}
	}
	if n := i.asked.Load(); n != 0 {
		t.Errorf("a server without the right certificate was asked %d times", n)
	}
}

// TestServerClosesConnections has the upstream hang up after each answer.
func TestServerClosesConnections(t *testing.T) {
	cert, roots := certified(t, "dns.example")
	i := answering(t, cert, has("203.0.113.7", 0))
	s := servedBy(t, Config{Upstreams: []Upstream{i.upstream("dns.example")}, Roots: roots})
	for range 3 {
		if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != exampleA {
			t.Fatalf("got %s, want %s", got, exampleA)
		}
		up := s.forward.servers[0]
		up.mu.Lock()
		for _, c := range up.idle {
			c.Conn.Close() // as good as closed by the other side: it is found out by using it
		}
		up.mu.Unlock()
	}
}

func TestTruncatedIsAskedAgainByTCP(t *testing.T) {
	i := answering(t, nil, func(m *dns.Msg, udp bool) {
		if m.Truncated = udp; !udp {
			has("203.0.113.7", 60)(m, udp)
		}
	})
	s := served(t, i.upstream(""))
	if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != exampleA {
		t.Errorf("got %s, want %s", got, exampleA)
	}
}

// TestForgedAnswers has somebody answer before the server does.
func TestForgedAnswers(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 53)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		b := make([]byte, 4096)
		n, from, err := conn.ReadFromUDPAddrPort(b)
		var q dns.Msg
		if err != nil || q.Unpack(b[:n]) != nil {
			return
		}
		reply := func(change func(*dns.Msg)) {
			m := new(dns.Msg).SetReply(&q)
			has("203.0.113.66", 60)(m, true)
			change(m)
			b, _ := m.Pack()
			conn.WriteToUDPAddrPort(b, from)
		}
		conn.WriteToUDPAddrPort([]byte("no message"), from)
		reply(func(m *dns.Msg) { m.Id++ })
		reply(func(m *dns.Msg) { m.Response = false })
		reply(func(m *dns.Msg) { m.Question[0].Name = "example.net." })
		reply(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA })
		reply(func(m *dns.Msg) { m.Question = nil })
		reply(func(m *dns.Msg) { has("203.0.113.7", 60)(m, true) })
	}()
	s := served(t, Upstream{Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()})
	if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != exampleA {
		t.Errorf("got %s, want %s", got, exampleA)
	}
}

func TestCacheAndFlush(t *testing.T) {
	i := answering(t, nil, has("203.0.113.7", 60))
	s := served(t, i.upstream(""))
	for range 3 {
		if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != exampleA {
			t.Fatalf("got %s, want %s", got, exampleA)
		}
	}
	if n := i.asked.Load(); n != 1 {
		t.Errorf("3 queries were forwarded %d times, want once", n)
	}
	s.Flush()
	send(t, s, "udp", query("example.com.", dns.TypeA))
	if n := i.asked.Load(); n != 2 {
		t.Errorf("after a flush: forwarded %d times, want 2", n)
	}
}

// TestSpecialNamesStayAtHome asks for what nobody outside can know, or should.
func TestSpecialNamesStayAtHome(t *testing.T) {
	i := answering(t, nil, has("203.0.113.7", 60))
	s := served(t, i.upstream(""))
	for name, want := range map[string]string{
		"1.0.0.10.in-addr.arpa.":    "NXDOMAIN aa (10.in-addr.arpa. SOA)",
		"1.1.31.172.in-addr.arpa.":  "NXDOMAIN aa (31.172.in-addr.arpa. SOA)",
		"9.9.127.100.in-addr.arpa.": "NXDOMAIN aa (127.100.in-addr.arpa. SOA)",
		"1.2.d.f.ip6.arpa.":         "NXDOMAIN aa (d.f.ip6.arpa. SOA)",
		"10.in-addr.arpa.":          "NOERROR aa (10.in-addr.arpa. SOA)",
		"laptop.":                   "NXDOMAIN aa (. SOA)",
		"printer.local.":            "NXDOMAIN aa (local. SOA)",
		"Nas.Home.ARPA.":            "NXDOMAIN aa (home.arpa. SOA)",
		"use-application-dns.net.":  "NXDOMAIN aa (use-application-dns.net. SOA)",
		"_dns.resolver.arpa.":       "NOERROR aa (resolver.arpa. SOA)",
		"localhost.":                "NOERROR aa localhost. A 127.0.0.1",
		"app.localhost.":            "NOERROR aa app.localhost. A 127.0.0.1",
	} {
		if got := story(send(t, s, "udp", query(name, dns.TypeA))); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if n := i.asked.Load(); n != 0 {
		t.Errorf("others were asked %d times", n)
	}
	// And those beside them are others' to answer.
	for _, name := range []string{"1.1.32.172.in-addr.arpa.", "9.9.128.100.in-addr.arpa.", "pal.example.com.", "not-pal.example."} {
		if got := send(t, s, "udp", query(name, dns.TypeA)); len(got.Answer) != 1 {
			t.Errorf("%s: got %s, want it forwarded", name, story(got))
		}
	}
}

func TestRebinding(t *testing.T) {
	i := answering(t, nil, func(m *dns.Msg, _ bool) {
		switch q := m.Question[0]; q.Qtype {
		case dns.TypeA:
			m.Answer = []dns.RR{record(t, q.Name+" 60 CNAME b.example."), record(t, "b.example. 60 A 127.7.8.1")}
		case dns.TypeAAAA:
			m.Answer = []dns.RR{record(t, q.Name+" 60 AAAA fd12:3456:789a::1")}
		case dns.TypeHTTPS:
			m.Answer = []dns.RR{record(t, q.Name+` 60 HTTPS 1 . ipv4hint="127.7.8.1"`)}
		case dns.TypeTXT:
			m.Answer = []dns.RR{record(t, q.Name+` 60 TXT "127.7.8.1"`)}
		}
	})
	s := served(t, i.upstream(""))
	for kind, want := range map[uint16]string{
		dns.TypeA: "SERVFAIL", dns.TypeAAAA: "SERVFAIL", dns.TypeHTTPS: "SERVFAIL",
		dns.TypeTXT: `NOERROR a.example. TXT "127.7.8.1"`,
	} {
		for range 2 { // the second time from the cache
			if got := story(send(t, s, "udp", query("a.example.", kind))); got != want {
				t.Errorf("%s: got %s, want %s", dns.TypeToString[kind], got, want)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	i := answering(t, nil, func(m *dns.Msg, udp bool) {
		if m.Truncated = udp; udp {
			return
		}
		for n := range 200 {
			m.Answer = append(m.Answer, record(t, fmt.Sprintf(`%s 60 TXT "%050d"`, m.Question[0].Name, n)))
		}
	})
	s := served(t, i.upstream(""))
	for _, c := range []struct {
		proto   string
		edns    uint16
		largest int
		cut     bool
	}{
		{"udp", 0, 512, true},
		{"udp", 10, 512, true},
		{"udp", 1000, 1000, true},
		{"udp", 65535, 1232, true},
		{"tcp", 0, 65535, false},
	} {
		q := query("example.com.", dns.TypeTXT)
		if c.edns > 0 {
			q.SetEdns0(c.edns, false)
		}
		got := send(t, s, c.proto, q)
		got.Compress = true
		b, err := got.Pack()
		if err != nil || len(b) > c.largest || got.Truncated != c.cut || (len(got.Answer) == 200) == c.cut {
			t.Errorf("%s, %d: got %d bytes with %d records, cut: %v, error %v", c.proto, c.edns, len(b), len(got.Answer), got.Truncated, err)
		}
	}
}

// silent is a server that takes queries and says nothing.
func silent(t *testing.T) Upstream {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 53)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return Upstream{Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
}

// within fails unless f takes no longer than d.
func within(t *testing.T, what string, d time.Duration, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took > d {
		t.Errorf("%s took %v, want at most %v", what, took, d)
	}
}

// TestNoInternet is in a network without a route: the default servers cannot
// even be sent to.
func TestNoInternet(t *testing.T) {
	isApart(t)
	s := served(t)
	within(t, "to say that there is no internet", answerIn/2, func() {
		if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != "SERVFAIL" {
			t.Errorf("got %s, want SERVFAIL", got)
		}
	})
	if got := story(send(t, s, "udp", query("laptop.pal.", dns.TypeA))); got != "NOERROR aa laptop.pal. A 127.7.8.2" {
		t.Errorf("without internet, laptop.pal: %s", got)
	}
}

func TestSilence(t *testing.T) {
	good := answering(t, nil, has("203.0.113.7", 0))
	s := served(t, silent(t), good.upstream(""))
	within(t, "to try the second server", 2*time.Second, func() {
		if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != exampleA {
			t.Errorf("got %s, want %s", got, exampleA)
		}
	})
	for end := time.Now().Add(answerIn); !s.forward.servers[0].failing(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the silent server is not noted as one")
		}
	}
	s.forward.cache.flush()
	within(t, "to ask the one that answers", patience, func() {
		if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != exampleA {
			t.Errorf("got %s, want %s", got, exampleA)
		}
	})
}

// TestBackAgain: a second after the uplink is back, names are there.
func TestBackAgain(t *testing.T) {
	var down atomic.Bool
	i := answering(t, nil, func(m *dns.Msg, _ bool) {
		if m.Rcode = dns.RcodeServerFailure; !down.Load() {
			m.Rcode = dns.RcodeSuccess
			has("203.0.113.7", 0)(m, true)
		}
	})
	s := served(t, i.upstream(""))
	down.Store(true)
	if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != "SERVFAIL" {
		t.Errorf("got %s, want SERVFAIL", got)
	}
	down.Store(false)
	s.Flush() // as the core does when it wakes
	if got := story(send(t, s, "udp", query("example.com.", dns.TypeA))); got != exampleA {
		t.Errorf("got %s, want %s", got, exampleA)
	}
}

// TestFlood has more queries wait than the server carries.
func TestFlood(t *testing.T) {
	s := served(t, silent(t))
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(laptop)}, net.UDPAddrFromAddrPort(s.Addrs()[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := 0; len(s.forward.room) < maxForwards; i++ {
		b, err := query(fmt.Sprintf("n%d.example.com.", i), dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if i%64 == 63 {
			time.Sleep(time.Millisecond) // else the socket's buffer overflows
		}
	}
	within(t, "to refuse one more", answerIn/2, func() {
		if got := story(send(t, s, "udp", query("one-more.example.com.", dns.TypeA))); got != "SERVFAIL" {
			t.Errorf("got %s, want SERVFAIL", got)
		}
	})
	if got := story(send(t, s, "udp", query("laptop.pal.", dns.TypeA))); got != "NOERROR aa laptop.pal. A 127.7.8.2" {
		t.Errorf("in a flood, laptop.pal: %s", got)
	}
	within(t, "to close", answerIn/2, func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestListenTwice(t *testing.T) {
	s := served(t)
	_, err := Listen(Config{Listen: s.Addrs(), Network: network, Hosts: hosts})
	if err == nil {
		t.Error("two servers have the same port")
	}
}
