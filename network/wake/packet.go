package wake

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// maxPacket bounds a packet that is held, in bytes; a larger one does not come
// out of an interface.
const maxPacket = 64 << 10

var errPacket = errors.New("not an IP packet")

// destination returns where an IP packet goes (RFC 791, section 3.1; RFC 8200,
// section 3).
func destination(p []byte) (netip.Addr, error) {
	if len(p) == 0 || len(p) > maxPacket {
		return netip.Addr{}, errPacket
	}
	switch {
	case p[0]>>4 == 4 && len(p) >= 20 && int(binary.BigEndian.Uint16(p[2:])) == len(p):
		return netip.AddrFrom4([4]byte(p[16:20])), nil
	case p[0]>>4 == 6 && len(p) >= 40:
		return netip.AddrFrom16([16]byte(p[24:40])), nil
	}
	return netip.Addr{}, errPacket
}

// origin returns where an IP packet says it comes from.
func origin(p []byte) (netip.Addr, error) {
	to, err := destination(p)
	switch {
	case err != nil:
		return netip.Addr{}, err
	case to.Is4():
		return netip.AddrFrom4([4]byte(p[12:16])), nil
	}
	return netip.AddrFrom16([16]byte(p[8:24])), nil
}

// A held packet, with what a virtio network header says of it: a packet that
// comes from a tap may be several in one, with a checksum that is yet to be
// made (virtio 1.2, section 5.1.6).
type held struct {
	vnet [vnetSize]byte
	ip   []byte
}

const (
	vnetSize  = 10 // without the number of buffers
	etherSize = 14
	typeIPv4  = 0x0800
	typeIPv6  = 0x86dd
)

// fromTap reads what a tap gives: a virtio header of the given size, an
// Ethernet header, an IP packet.
func fromTap(b []byte, header int) (held, error) {
	var h held
	if header < vnetSize || len(b) < header+etherSize {
		return h, errPacket
	}
	copy(h.vnet[:], b)
	h.ip = append([]byte(nil), b[header+etherSize:]...)
	if _, err := destination(h.ip); err != nil {
		return h, err
	}
	return h, nil
}

// frame returns what an AF_PACKET socket takes: the virtio header, an Ethernet
// header, the packet.
func (h *held) frame(to, from []byte) []byte {
	b := make([]byte, 0, vnetSize+etherSize+len(h.ip))
	b = append(b, h.vnet[:]...)
	b = append(append(b, to...), from...)
	proto := uint16(typeIPv6)
	if h.ip[0]>>4 == 4 {
		proto = typeIPv4
	}
	b = binary.BigEndian.AppendUint16(b, proto)
	return append(b, h.ip...)
}
