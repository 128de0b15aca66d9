package manifest

import (
	"crypto/ed25519"
	"encoding/hex"
)

// verify checks a signature as libsodium does, which the other implementation
// uses: beyond what RFC 8032 and the standard library ask for, neither the
// public key nor the first half of the signature may be a point of small order,
// for which one signature can be good for many messages, and the public key must
// be written in its only canonical way. If one implementation took what the
// other refuses, a writer could show different logs to their readers.
func verify(public [32]byte, message, signature []byte) bool {
	return len(signature) == ed25519.SignatureSize &&
		canonical(public) && !smallOrder(public) && !smallOrder([32]byte(signature[:32])) &&
		ed25519.Verify(public[:], message, signature)
}

// canonical reports whether the y coordinate of a point is below the field's
// prime, 2^255-19. The top bit is the sign of x.
func canonical(p [32]byte) bool {
	if p[31]&0x7f != 0x7f || p[0] < 0xed {
		return true
	}
	for _, b := range p[1:31] {
		if b != 0xff {
			return true
		}
	}
	return false
}

// smallOrder reports whether a point is one of the eight whose order divides 8,
// in any way to write it.
func smallOrder(p [32]byte) bool {
	p[31] &= 0x7f
	for _, s := range smallOrders {
		if p == s {
			return true
		}
	}
	return false
}

// smallOrders has the y coordinates of the points of small order: 0, 1, the two
// of order 8, -1, and 0 and 1 with the prime added.
var smallOrders = [...][32]byte{
	point("0000000000000000000000000000000000000000000000000000000000000000"),
	point("0100000000000000000000000000000000000000000000000000000000000000"),
	point("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
	point("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
	point("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	point("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	point("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
}

func point(s string) [32]byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // it is a constant
	}
	return [32]byte(b)
}
