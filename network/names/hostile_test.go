package names

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// idle is a server that listens nowhere and has nobody to ask.
func idle() *Server {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.7.8.0/24"), netip.MustParsePrefix("fd12:3456:789a::/64")}
	hosts := func() []Host {
		return []Host{{"pal", netip.MustParseAddr("10.7.8.1"), netip.MustParseAddr("fd12:3456:789a::1")},
			{"laptop", netip.MustParseAddr("10.7.8.2"), netip.MustParseAddr("fd12:3456:789a::2")}}
	}
	log := slog.New(slog.DiscardHandler)
	return &Server{zone: newZone(ranges, hosts), log: log, ctx: context.Background(), forward: newForwarder(nil, nil, log)}
}

func FuzzQuery(f *testing.F) {
	add := func(m *dns.Msg) {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(new(dns.Msg).SetQuestion("laptop.pal.", dns.TypeA))
	add(new(dns.Msg).SetQuestion("2.8.7.10.in-addr.arpa.", dns.TypePTR).SetEdns0(4096, true))
	add(new(dns.Msg).SetQuestion("_dns.resolver.arpa.", dns.TypeSVCB))
	add(new(dns.Msg).SetQuestion("example.com.", dns.TypeANY))
	s, from := idle(), netip.MustParseAddr("10.7.8.2")
	f.Fuzz(func(t *testing.T, data []byte) {
		var query dns.Msg
		if query.Unpack(data) != nil || len(query.Question) == 0 {
			return // package dns answers these
		}
		reply := new(dns.Msg).SetReply(&query)
		s.answer(from, &query, reply)
		b := finish(&query, reply, true)
		var back dns.Msg
		if err := back.Unpack(b); err != nil || len(b) > maxUDP || !back.Response || back.Id != query.Id {
			t.Errorf("to %v: got %d bytes %v, error %v", &query, len(b), &back, err)
		}
	})
}

// FuzzUpstream has a server on the internet answer anything.
func FuzzUpstream(f *testing.F) {
	query := new(dns.Msg).SetQuestion("a.example.", dns.TypeHTTPS).SetEdns0(1232, true)
	for _, text := range []string{"a.example. 60 A 203.0.113.7", `a.example. 60 HTTPS 1 . alpn=h2 ipv4hint="10.7.8.1"`,
		"a.example. 0 CNAME b.example.", `a.example. 60 CAA 0 issue "x"`, "a.example. 60 LOC 1 N 1 E 1m"} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m := new(dns.Msg).SetReply(query)
		m.Answer, m.Ns, m.Extra = []dns.RR{rr}, []dns.RR{nothing("a.example.")}, []dns.RR{rr}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := idle()
	f.Fuzz(func(t *testing.T, data []byte) {
		got := new(dns.Msg)
		if got.Unpack(data) != nil {
			return
		}
		answers(got, query)
		clean(got)
		k := keyOf(query)
		s.forward.cache.flush()
		s.forward.cache.put(k, got)
		kept, _ := s.forward.cache.get(k)
		for _, m := range []*dns.Msg{got, kept} {
			if m == nil || !useful(m) || s.rebinds(m) {
				continue
			}
			reply := new(dns.Msg).SetReply(query)
			reply.Rcode, reply.Answer, reply.Ns = m.Rcode, m.Answer, m.Ns
			b := finish(query, reply, true)
			var back dns.Msg
			if err := back.Unpack(b); err != nil || len(b) > maxUDP {
				t.Errorf("got %d bytes, error %v, of %v", len(b), err, m)
			}
		}
	})
}

func TestParseUpstream(t *testing.T) {
	for text, want := range map[string]string{
		"tls://9.9.9.9#dns.quad9.net":            "tls://9.9.9.9:853#dns.quad9.net",
		"tls://[2620:fe::fe]:8853#dns.quad9.net": "tls://[2620:fe::fe]:8853#dns.quad9.net",
		"tls://2620:fe::fe#dns.quad9.net":        "tls://[2620:fe::fe]:853#dns.quad9.net",
		"udp://192.0.2.53":                       "udp://192.0.2.53:53",
		"udp://[2001:db8::53]":                   "udp://[2001:db8::53]:53",
		"udp://192.0.2.53:5353":                  "udp://192.0.2.53:5353",
	} {
		u, err := ParseUpstream(text)
		if err != nil || u.String() != want {
			t.Errorf("%s: got %v, error %v, want %s", text, u, err, want)
		}
	}
	for _, bad := range []string{"", "9.9.9.9", "tls://9.9.9.9", "tls://9.9.9.9#", "udp://9.9.9.9#x", "tls://dns.quad9.net#dns.quad9.net",
		"https://9.9.9.9#x", "udp://9.9.9.9:0", "udp://9.9.9.9:99999", "tls://9.9.9.9#a\nb", "udp://fe80::1%a\nb", "tls://9.9.9.9#-"} {
		if u, err := ParseUpstream(bad); err == nil {
			t.Errorf("%q was read as %v", bad, u)
		}
	}
}

func FuzzParseUpstream(f *testing.F) {
	f.Add("tls://[2620:fe::fe]:8853#dns.quad9.net")
	f.Add("udp://192.0.2.53")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseUpstream(text)
		if err != nil {
			return
		}
		if back, err := ParseUpstream(u.String()); err != nil || back != u {
			t.Errorf("%q was read as %v, which is read as %v, error %v", text, u, back, err)
		}
	})
}

func TestReverseZone(t *testing.T) {
	for text, want := range map[string]string{
		"10.7.8.0/24":           "8.7.10.in-addr.arpa.",
		"fd12:3456:789a:1::/64": "1.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.",
		"100.64.255.0/24":       "255.64.100.in-addr.arpa.",
	} {
		if got := reverseZone(netip.MustParsePrefix(text)); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
