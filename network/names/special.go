package names

import (
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// nobodys are names that mean something only where they are used, or nothing:
// to ask others for them would tell them about the pal's devices, and could
// only be answered wrongly.
var nobodys = func() map[string]bool {
	zones := map[string]bool{}
	for _, z := range []string{
		"invalid.", "test.", "local.", "onion.", "alt.", // RFC 6761, 6762, 7686, 9476
		"home.arpa.", "internal.", // RFC 8375; set aside for private use by ICANN
		"use-application-dns.net.", // tells Firefox to ask here, as it must for names in pal.

		// Private reverse zones: RFC 6303, section 4.
		"10.in-addr.arpa.", "168.192.in-addr.arpa.", "0.in-addr.arpa.", "127.in-addr.arpa.",
		"254.169.in-addr.arpa.", "2.0.192.in-addr.arpa.", "100.51.198.in-addr.arpa.",
		"113.0.203.in-addr.arpa.", "255.255.255.255.in-addr.arpa.",
		strings.Repeat("0.", 32) + "ip6.arpa.", "1." + strings.Repeat("0.", 31) + "ip6.arpa.",
		"c.f.ip6.arpa.", "d.f.ip6.arpa.", "8.e.f.ip6.arpa.", "9.e.f.ip6.arpa.",
		"a.e.f.ip6.arpa.", "b.e.f.ip6.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa.",
	} {
		zones[z] = true
	}
	for i := 16; i < 32; i++ {
		zones[fmt.Sprintf("%d.172.in-addr.arpa.", i)] = true
	}
	for i := 64; i < 128; i++ {
		zones[fmt.Sprintf("%d.100.in-addr.arpa.", i)] = true // RFC 7793
	}
	return zones
}()

// special fills in reply where the name is one that is never asked of others,
// and tells whether it is.
func special(q dns.Question, reply *dns.Msg) bool {
	name := dns.CanonicalName(q.Name)
	switch {
	case dns.IsSubDomain("localhost.", name): // RFC 6761, section 6.3
		localhost(q, reply)
	case dns.IsSubDomain("resolver.arpa.", name):
		// Where to find this server encrypted: nowhere, it is inside WireGuard
		// (RFC 9462, section 6.4: others' answers are about themselves).
		reply.Ns = []dns.RR{nothing("resolver.arpa.")}
	case dns.CountLabel(name) < 2 && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA):
		// A device's name without its zone, or a proxy that some program looks
		// for. No such name is on the internet (RFC 7085).
		reply.Rcode = dns.RcodeNameError
		reply.Ns = []dns.RR{nothing(".")}
	default:
		zone, ok := nobodysZone(name)
		if !ok {
			return false
		}
		if name != zone || zone == "use-application-dns.net." {
			reply.Rcode = dns.RcodeNameError
		}
		reply.Ns = []dns.RR{nothing(zone)}
	}
	reply.Authoritative = true
	return true
}

func nobodysZone(name string) (string, bool) {
	for _, i := range dns.Split(name) {
		if nobodys[name[i:]] {
			return name[i:], true
		}
	}
	return "", false
}

func localhost(q dns.Question, reply *dns.Msg) {
	switch q.Qtype {
	case dns.TypeA:
		reply.Answer = []dns.RR{&dns.A{Hdr: header(q.Name, dns.TypeA), A: net.IPv4(127, 0, 0, 1)}}
	case dns.TypeAAAA:
		reply.Answer = []dns.RR{&dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: net.IPv6loopback}}
	default:
		reply.Ns = []dns.RR{nothing("localhost.")}
	}
}

// nothing is the SOA record of a zone that has nothing in it.
func nothing(zone string) dns.RR {
	return &dns.SOA{Hdr: header(zone, dns.TypeSOA), Ns: zone, Mbox: "nobody.invalid.",
		Serial: 1, Refresh: 3600, Retry: 1200, Expire: 604800, Minttl: hostTTL}
}
