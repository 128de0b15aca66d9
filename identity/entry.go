package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// An entry of a list is, all numbers big endian:
//
//	 2 bytes  length of the body
//	   ...    body
//	64 bytes  Ed25519 signature of purposeEntry and the body
//
// and its body
//
//	 1 byte   version, 1
//	 1 byte   kind
//	 4 bytes  sequence number; the first entry has 0
//	32 bytes  SHA-256 of the whole entry before; zero in the first
//	 8 bytes  time, Unix seconds
//	32 bytes  public key of who signs
//	   ...    by kind:
//	          'g' first entry   3 bytes of the IPv4 /24, 8 bytes of the IPv6 /64
//	          'a' add           SignKey (32), WireGuardKey (32), index (1), flags (1), name
//	          'r' revoke        DeviceID (16)
//	          'n' rename        DeviceID (16), name
//
// A name takes the rest of the body. Flags are 1 for an admin, or 0.
type entry struct {
	kind kind
	seq  uint32
	prev hash
	time time.Time
	by   SignKey

	v4, v6 netip.Prefix // kindFirst
	device Device       // kindAdd; of the others, its ID and new Name
}

type kind byte

const (
	kindFirst  kind = 'g'
	kindAdd    kind = 'a'
	kindRevoke kind = 'r'
	kindRename kind = 'n'
)

type hash = [sha256.Size]byte

const (
	entryVersion = 1
	flagAdmin    = 1

	lengthSize = 2
	headSize   = 1 + 1 + 4 + sha256.Size + 8 + ed25519.PublicKeySize
	maxBody    = 512
	maxTime    = 253402300799 // the end of the year 9999, the last that RFC 3339 can write
)

var errForm = errors.New("not an entry of this version")

// body returns the entry as it is signed.
func (e entry) body() []byte {
	b := []byte{entryVersion, byte(e.kind)}
	b = binary.BigEndian.AppendUint32(b, e.seq)
	b = append(b, e.prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.time.Unix()))
	b = append(b, e.by[:]...)
	switch e.kind {
	case kindFirst:
		b = append(b, e.v4.Addr().AsSlice()[:3]...)
		b = append(b, e.v6.Addr().AsSlice()[:8]...)
	case kindAdd:
		b = append(b, e.device.Sign[:]...)
		b = append(b, e.device.WireGuard[:]...)
		b = append(b, e.device.Index, flags(e.device))
		b = append(b, e.device.Name...)
	case kindRevoke:
		b = append(b, e.device.ID[:]...)
	case kindRename:
		b = append(b, e.device.ID[:]...)
		b = append(b, e.device.Name...)
	}
	return b
}

func flags(d Device) byte {
	if d.Admin {
		return flagAdmin
	}
	return 0
}

// pack returns the whole entry, signed.
func (e entry) pack(by Signer) []byte {
	body := e.body()
	b := binary.BigEndian.AppendUint16(nil, uint16(len(body)))
	b = append(b, body...)
	return append(b, by.sign(purposeEntry, body)...)
}

// cut splits the first entry from a list's bytes.
func cut(data []byte) (raw, rest []byte, err error) {
	if len(data) < lengthSize {
		return nil, nil, errors.New("it is cut off")
	}
	n := int(binary.BigEndian.Uint16(data))
	if n < headSize || n > maxBody {
		return nil, nil, errForm
	}
	n += lengthSize + ed25519.SignatureSize
	if len(data) < n {
		return nil, nil, errors.New("it is cut off")
	}
	return data[:n], data[n:], nil
}

// unpack reads a whole entry, as cut returns it, and checks its signature.
func unpack(raw []byte) (entry, error) {
	end := len(raw) - ed25519.SignatureSize
	body, signature := raw[lengthSize:end], raw[end:]
	e, err := readBody(body)
	if err != nil {
		return entry{}, err
	}
	if !bytes.Equal(e.body(), body) {
		return entry{}, errForm // there is one spelling
	}
	if !verify(e.by, purposeEntry, body, signature) {
		return entry{}, errors.New("its signature is not valid")
	}
	return e, nil
}

func readBody(body []byte) (entry, error) {
	r := reader(body)
	version, kind := r.byte(), kind(r.byte())
	if version != entryVersion {
		return entry{}, fmt.Errorf("version %d is unknown: it may be of a newer cloudpal", version)
	}
	e := entry{kind: kind, seq: binary.BigEndian.Uint32(r.next(4))}
	copy(e.prev[:], r.next(len(e.prev)))
	seconds := binary.BigEndian.Uint64(r.next(8))
	if seconds > maxTime {
		return entry{}, errForm
	}
	e.time = time.Unix(int64(seconds), 0).UTC()
	copy(e.by[:], r.next(len(e.by)))
	ok := false
	switch kind {
	case kindFirst:
		ok = r.first(&e)
	case kindAdd:
		ok = r.add(&e)
	case kindRevoke:
		ok = r.device(&e) && len(r) == 0
	case kindRename:
		ok = r.device(&e)
		e.device.Name = string(r)
	default:
		return entry{}, fmt.Errorf("kind %q is unknown: it may be of a newer cloudpal", byte(kind))
	}
	if !ok {
		return entry{}, errForm
	}
	return e, nil
}

// A reader is the rest of a body. The head is known to be there.
type reader []byte

func (r *reader) next(n int) (b []byte) {
	b, *r = (*r)[:n], (*r)[n:]
	return b
}

func (r *reader) byte() byte { return r.next(1)[0] }

func (r *reader) first(e *entry) bool {
	if len(*r) != 3+8 {
		return false
	}
	var v4 [4]byte
	var v6 [16]byte
	copy(v4[:], r.next(3))
	copy(v6[:], r.next(8))
	e.v4 = netip.PrefixFrom(netip.AddrFrom4(v4), v4Bits)
	e.v6 = netip.PrefixFrom(netip.AddrFrom16(v6), v6Bits)
	return true
}

func (r *reader) add(e *entry) bool {
	d := &e.device
	if len(*r) < len(d.Sign)+len(d.WireGuard)+2 {
		return false
	}
	copy(d.Sign[:], r.next(len(d.Sign)))
	copy(d.WireGuard[:], r.next(len(d.WireGuard)))
	d.ID = deviceID(d.Sign, d.WireGuard)
	d.Index = r.byte()
	d.Admin = r.byte() == flagAdmin
	d.Name = string(*r)
	d.Added = e.time
	return true
}

func (r *reader) device(e *entry) bool {
	if len(*r) < len(e.device.ID) {
		return false
	}
	copy(e.device.ID[:], r.next(len(e.device.ID)))
	return true
}
