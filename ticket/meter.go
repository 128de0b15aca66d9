package ticket

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tradle/cloudpal"
)

// A Record of a meter says how much of a tab is used, and follows the one before. A
// center signs each, and the pal's side countersigns those that it agrees with: a
// center can claim no more than the last that was countersigned, and one slice.
type Record struct {
	Tab  [32]byte
	Seq  uint64 // of the first, 1
	Used Units  // since the tab was opened
	At   time.Time
	Prev Digest // of the record before; zero for the first
}

// RecordSize is that of a Record on the wire, in bytes.
const RecordSize = 32 + 8 + 8 + 8 + 32

// Append appends the record as ParseRecord reads it.
func (r Record) Append(b []byte) []byte {
	b = append(b, r.Tab[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Used))
	b = binary.BigEndian.AppendUint64(b, uint64(r.At.Unix()))
	return append(b, r.Prev[:]...)
}

// ParseRecord reads exactly one.
func ParseRecord(b []byte) (r Record, err error) {
	if len(b) != RecordSize {
		return r, cloudpal.E("read a meter's record", cloudpal.Invalid, errors.New("it has another size"))
	}
	copy(r.Tab[:], b)
	r.Seq = binary.BigEndian.Uint64(b[32:])
	r.Used = Units(binary.BigEndian.Uint64(b[40:]))
	r.At = time.Unix(int64(binary.BigEndian.Uint64(b[48:])), 0).UTC()
	copy(r.Prev[:], b[56:])
	return r, nil
}

// Digest says all of the record.
func (r Record) Digest() Digest { return digest("cloudpal meter v1", r.Append(nil)) }

// Sign signs the record, by a center or by the pal's side.
func (r Record) Sign(key ed25519.PrivateKey) []byte {
	d := r.Digest()
	return ed25519.Sign(key, d[:])
}

// Signed reports whether the owner of a key signed the record.
func (r Record) Signed(by ed25519.PublicKey, signature []byte) bool {
	d := r.Digest()
	return len(by) == ed25519.PublicKeySize && ed25519.Verify(by, d[:], signature)
}

// Follows checks that r comes next after p, or is a tab's first where p is nil: the
// same tab, a number and a time that grow, and no less used.
func (r Record) Follows(p *Record) error {
	const op = "check a meter's record"
	if p == nil {
		if r.Seq != 1 || r.Prev != (Digest{}) {
			return cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it is number %d and there is none before", r.Seq))
		}
		return nil
	}
	switch {
	case r.Tab != p.Tab:
		return cloudpal.E(op, cloudpal.Invalid, errors.New("it is of another tab"))
	case r.Seq != p.Seq+1 || r.Prev != p.Digest():
		return cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("number %d does not follow number %d", r.Seq, p.Seq))
	case r.Used < p.Used:
		return cloudpal.E(op, cloudpal.Invalid, errors.New("less is used than before"))
	case r.At.Before(p.At):
		return cloudpal.E(op, cloudpal.Invalid, errors.New("it is older than the one before"))
	}
	return nil
}
