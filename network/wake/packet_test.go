package wake

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// datagram makes a UDP packet (RFC 768; RFC 791, section 3.1; RFC 8200,
// sections 3 and 8.1).
func datagram(from, to netip.AddrPort, data []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(data)))
	udp = append(append(udp, 0, 0), data...)
	source, destination := from.Addr().AsSlice(), to.Addr().AsSlice()
	pseudo := append(bytes.Clone(source), destination...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(udp)))
	pseudo = append(pseudo, 0, 0, 0, 17)
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
	if to.Addr().Is6() {
		ip := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(udp)))
		ip = append(ip, 17, 64)
		return append(append(append(ip, source...), destination...), udp...)
	}
	ip := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(udp)))
	ip = append(ip, 0, 0, 0x40, 0, 64, 17, 0, 0)
	ip = append(append(ip, source...), destination...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return append(ip, udp...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i&1))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

var (
	somebody  = netip.MustParseAddrPort("192.0.2.1:5")
	somebody6 = netip.MustParseAddrPort("[2001:db8::1]:5")
)

func TestDestination(t *testing.T) {
	v4 := datagram(somebody, netip.MustParseAddrPort("10.201.0.16:7"), []byte("x"))
	v6 := datagram(somebody6, netip.MustParseAddrPort("[fdc1:d00::10]:7"), nil)
	for _, c := range []struct {
		what string
		p    []byte
		want string
	}{
		{"IPv4", v4, "10.201.0.16"},
		{"IPv6", v6, "fdc1:d00::10"},
		{"nothing", nil, ""},
		{"a cut IPv4 header", v4[:19], ""},
		{"a cut IPv4 packet", v4[:len(v4)-1], ""},
		{"an IPv4 packet with a tail", append(bytes.Clone(v4), 0), ""},
		{"a cut IPv6 header", v6[:39], ""},
		{"another version", append([]byte{0x55}, v4[1:]...), ""},
		{"too much", append(bytes.Clone(v6), make([]byte, maxPacket)...), ""},
	} {
		got, err := destination(c.p)
		if (err != nil) != (c.want == "") || (err == nil && got.String() != c.want) {
			t.Errorf("%s: got %v, %v; want %q", c.what, got, err, c.want)
		}
	}
}

func TestFromTapGivesWhatFrameTakes(t *testing.T) {
	to, from := []byte{2, 0, 0, 0, 0, 1}, []byte{2, 0, 0, 0, 0, 2}
	ip := datagram(somebody, netip.MustParseAddrPort("10.201.0.16:7"), []byte("x"))
	for _, header := range []int{vnetSize, 12} { // 12 is what QEMU sets
		vnet := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0}
		frame := append(append(append(bytes.Clone(vnet[:header]), to...), from...), 0x08, 0x00)
		h, err := fromTap(append(frame, ip...), header)
		if err != nil {
			t.Fatal(err)
		}
		want := append(append(append(bytes.Clone(vnet[:vnetSize]), to...), from...), 0x08, 0x00)
		if got := h.frame(to, from); !bytes.Equal(got, append(want, ip...)) {
			t.Errorf("a header of %d bytes: got % x, want % x", header, got, want)
		}
	}
}

func FuzzDestination(f *testing.F) {
	f.Add(datagram(somebody, netip.MustParseAddrPort("10.201.0.16:7"), nil))
	f.Add(datagram(somebody6, netip.MustParseAddrPort("[fdc1:d00::10]:7"), nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		addr, err := destination(p)
		if err != nil {
			return
		}
		at := 24
		if addr.Is4() {
			at = 16
		}
		if !bytes.Equal(p[at:at+len(addr.AsSlice())], addr.AsSlice()) {
			t.Errorf("%v is not where % x goes", addr, p)
		}
	})
}

// FuzzFromTap reads what a hostile guest's tap may hold, and puts it back.
func FuzzFromTap(f *testing.F) {
	frame := func(ip []byte) []byte { return append(make([]byte, vnetSize+etherSize), ip...) }
	f.Add(frame(datagram(somebody, netip.MustParseAddrPort("10.201.0.16:7"), nil)), vnetSize)
	f.Add(frame(datagram(somebody6, netip.MustParseAddrPort("[fdc1:d00::10]:7"), nil)), 12)
	f.Add([]byte{}, -1)
	f.Fuzz(func(t *testing.T, b []byte, header int) {
		h, err := fromTap(b, header)
		if err != nil {
			return
		}
		again, err := fromTap(h.frame(make([]byte, 6), make([]byte, 6)), vnetSize)
		if err != nil || again.vnet != h.vnet || !bytes.Equal(again.ip, h.ip) {
			t.Errorf("got %+v, %v; want %+v", again, err, h)
		}
	})
}
