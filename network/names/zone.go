package names

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	apex = "pal."

	hostTTL = 60 // seconds: a device may get another name
	noneTTL = 10 // and soon there is a device where there was none
)

// A zone is what the server knows of its own: pal. and the names of the
// overlay's addresses.
type zone struct {
	network []netip.Prefix
	reverse []string // of each of network, its zone in in-addr.arpa. or ip6.arpa.
	hosts   func() []Host
	serial  uint32
}

func newZone(network []netip.Prefix, hosts func() []Host) zone {
	if hosts == nil {
		hosts = func() []Host { return nil }
	}
	z := zone{network: network, hosts: hosts, serial: uint32(time.Now().Unix())}
	for _, p := range network {
		z.reverse = append(z.reverse, reverseZone(p))
	}
	return z
}

// reverseZone returns the zone of a range's addresses: 8.7.10.in-addr.arpa. of
// 10.7.8.0/24.
func reverseZone(p netip.Prefix) string {
	name, _ := dns.ReverseAddr(p.Masked().Addr().String())
	digit := 4
	if p.Addr().Is4() {
		digit = 8
	}
	host := (p.Addr().BitLen() - p.Bits()) / digit
	return strings.Join(strings.SplitAfter(name, ".")[host:], "")
}

// has reports whether a is an address of the overlay.
func (z zone) has(a netip.Addr) bool {
	return slices.ContainsFunc(z.network, func(p netip.Prefix) bool { return p.Contains(a) })
}

// answer fills in reply where the question is about a name of this zone, and
// tells whether it was.
func (z zone) answer(q dns.Question, reply *dns.Msg) bool {
	name := dns.CanonicalName(q.Name)
	if dns.IsSubDomain(apex, name) {
		z.fill(apex, q, reply, z.forward(name, q))
		return true
	}
	for _, zone := range z.reverse {
		if dns.IsSubDomain(zone, name) {
			z.fill(zone, q, reply, z.backward(zone, name, q))
			return true
		}
	}
	return false
}

// fill puts what the zone has of a name into reply: those records that were
// asked for, or that there are none.
func (z zone) fill(zone string, q dns.Question, reply *dns.Msg, all []dns.RR) {
	reply.Authoritative = true
	for _, rr := range all {
		if rr.Header().Rrtype == q.Qtype {
			reply.Answer = append(reply.Answer, rr)
		}
	}
	if len(reply.Answer) > 0 {
		return
	}
	if all == nil {
		reply.Rcode = dns.RcodeNameError
	}
	soa := z.soa(zone)
	soa.Hdr.Ttl = noneTTL // RFC 2308, section 3
	reply.Ns = []dns.RR{soa}
}

// forward returns all records of a name in pal.; nil where there is none of
// that name.
func (z zone) forward(name string, q dns.Question) (all []dns.RR) {
	if name == apex {
		all = z.top(apex)
	}
	for _, h := range z.hosts() {
		if hostName(h) != name {
			continue
		}
		if all == nil {
			all = []dns.RR{}
		}
		if h.V4.Is4() {
			all = append(all, &dns.A{Hdr: header(q.Name, dns.TypeA), A: net.IP(h.V4.AsSlice())})
		}
		if h.V6.Is6() {
			all = append(all, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: net.IP(h.V6.AsSlice())})
		}
	}
	return all
}

// backward returns all records of a name in a reverse zone. Between the zone and
// an IPv6 address there are names with nothing (RFC 8020).
func (z zone) backward(zone, name string, q dns.Question) (all []dns.RR) {
	if name == zone {
		return z.top(zone)
	}
	for _, h := range z.hosts() {
		for _, a := range []netip.Addr{h.V4, h.V6} {
			if !a.IsValid() {
				continue
			}
			whole, _ := dns.ReverseAddr(a.String())
			if whole == name {
				all = append(all, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: hostName(h)})
			} else if all == nil && dns.IsSubDomain(name, whole) {
				all = []dns.RR{}
			}
		}
	}
	return all
}

// top returns what is at the top of a zone.
func (z zone) top(zone string) []dns.RR {
	return []dns.RR{z.soa(zone), &dns.NS{Hdr: header(zone, dns.TypeNS), Ns: apex}}
}

func (z zone) soa(zone string) *dns.SOA {
	return &dns.SOA{Hdr: header(zone, dns.TypeSOA), Ns: apex, Mbox: "hostmaster." + apex,
		Serial: z.serial, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: noneTTL}
}

func hostName(h Host) string {
	if h.Name+"." == apex {
		return apex
	}
	return h.Name + "." + apex
}

func header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: hostTTL}
}
