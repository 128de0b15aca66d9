package wake

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/crypto/blake2s"
)

// WireGuard's messages, as its paper tells them (section 5.4): a type, three
// bytes that are zero, and what is of the type.
const (
	typeInitiation = 1
	typeResponse   = 2
	typeData       = 4

	sizeInitiation = 148
	sizeResponse   = 92
	sizeKeepalive  = 32 // of a data message that carries nothing: 16 of header, 16 of tag
)

const protoUDP = 17

var errUDP = errors.New("not a whole UDP packet")

// A udp is what a UDP packet says. Its data is part of the packet.
type udp struct {
	from, to netip.AddrPort
	data     []byte
}

// parseUDP reads an IP packet that is one UDP packet, whole: no fragment, no
// IPv6 extension header (RFC 768; RFC 791, section 3.1; RFC 8200, section 3).
// WireGuard sends nothing else.
func parseUDP(p []byte) (udp, error) {
	to, err := destination(p)
	if err != nil {
		return udp{}, err
	}
	var from netip.Addr
	var rest []byte
	if to.Is4() {
		header := int(p[0]&15) * 4
		fragment := binary.BigEndian.Uint16(p[6:]) & 0x3fff // more are to come, or came
		if header < 20 || header > len(p) || fragment != 0 || p[9] != protoUDP {
			return udp{}, errUDP
		}
		from, rest = netip.AddrFrom4([4]byte(p[12:16])), p[header:]
	} else {
		if p[6] != protoUDP || int(binary.BigEndian.Uint16(p[4:])) != len(p)-40 {
			return udp{}, errUDP
		}
		from, rest = netip.AddrFrom16([16]byte(p[8:24])), p[40:]
	}
	if len(rest) < 8 || int(binary.BigEndian.Uint16(rest[4:])) != len(rest) {
		return udp{}, errUDP
	}
	return udp{
		from: netip.AddrPortFrom(from, binary.BigEndian.Uint16(rest)),
		to:   netip.AddrPortFrom(to, binary.BigEndian.Uint16(rest[2:])),
		data: rest[8:],
	}, nil
}

// kind returns a message's type where its size is one that the type may have,
// or 0.
func kind(m []byte) byte {
	if len(m) < 4 || m[1] != 0 || m[2] != 0 || m[3] != 0 {
		return 0
	}
	switch {
	case m[0] == typeInitiation && len(m) == sizeInitiation,
		m[0] == typeResponse && len(m) == sizeResponse,
		m[0] == typeData && len(m) >= sizeKeepalive:
		return m[0]
	}
	return 0
}

// sender is the index that who sent a handshake message will be called by.
func sender(m []byte) uint32 { return binary.LittleEndian.Uint32(m[4:]) }

// receiver is the index by which a response or a data message calls who it is
// for.
func receiver(m []byte) uint32 {
	if m[0] == typeResponse {
		return binary.LittleEndian.Uint32(m[8:])
	}
	return binary.LittleEndian.Uint32(m[4:])
}

// counter is the number of a data message in its session.
func counter(m []byte) uint64 { return binary.LittleEndian.Uint64(m[8:]) }

// A mac1Key makes and checks the first MAC of handshake messages to the owner of
// a public key (section 5.4.4). Who knows the public key can; nobody else.
type mac1Key [blake2s.Size]byte

func newMAC1Key(public [32]byte) mac1Key {
	return blake2s.Sum256(append([]byte("mac1----"), public[:]...))
}

// of returns the MAC of an initiation.
func (k *mac1Key) of(m []byte) []byte {
	h, err := blake2s.New128(k[:])
	if err != nil {
		panic(err) // a key of 32 bytes is one
	}
	h.Write(m[:sizeInitiation-32])
	return h.Sum(nil)
}

// signs reports whether an initiation has the MAC that it must have.
func (k *mac1Key) signs(m []byte) bool {
	return subtle.ConstantTimeCompare(k.of(m), m[sizeInitiation-32:sizeInitiation-16]) == 1
}

// carriesData reports whether an IP packet is a WireGuard data message that is
// no keepalive.
func carriesData(ip []byte) bool {
	u, err := parseUDP(ip)
	return err == nil && kind(u.data) == typeData && len(u.data) > sizeKeepalive
}
