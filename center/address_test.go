package center

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	inside := []netip.Prefix{netip.MustParsePrefix("10.201.0.0/16"), netip.MustParsePrefix("fdc1:d00::/64"), netip.MustParsePrefix("2001:db8:f::/64")}
	for _, c := range []struct{ what, all, want string }{
		{"a server", "127.0.0.1 ::1 203.0.113.5 2001:db8::5 fe80::1%eth0 10.201.0.1 fdc1:d00::1 2001:db8:f::1", "203.0.113.5 2001:db8::5"},
		{"a laptop", "192.168.1.7 127.0.0.1 10.201.0.1 fd00::7 169.254.1.1", "192.168.1.7 fd00::7"},
		{"behind a provider's NAT", "100.64.1.2 192.168.1.7 203.0.113.5", "203.0.113.5 100.64.1.2 192.168.1.7"},
		{"the same twice", "192.168.1.7 ::ffff:192.168.1.7 10.0.0.1", "192.168.1.7 10.0.0.1"},
		{"no network", "127.0.0.1 ::1 10.201.0.1 fdc1:d00::1", "10.201.0.1 fdc1:d00::1"},
		{"IPv6 alone", "2001:db8::5 10.201.0.1", "2001:db8::5 10.201.0.1"},
		{"nothing", "", ""},
		{"nonsense", "0.0.0.0 :: 224.0.0.1 ff02::1", ""},
	} {
		var all []netip.Addr
		for s := range strings.FieldsSeq(c.all) {
			all = append(all, netip.MustParseAddr(s))
		}
		got := strings.Trim(fmt.Sprint(Addresses(all, inside...)), "[]")
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestParsePorts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Ports{"7000-7009": {7000, 7009}, "51820": {51820, 51820}, "1-65535": {1, 65535}} {
		got, err := ParsePorts(text)
		if err != nil || got != want || got.Count() != int(want.Last-want.First)+1 {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", "0", "9-7", "1-65536", "a-b", "1-2-3", "-5", "+5"} {
		if got, err := ParsePorts(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}
