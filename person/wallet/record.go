package wallet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A journal's frames hold changes of records. A record has a kind, a name, and a
// value that its kind knows how to read.
type kind byte

const (
	kindFact     kind = 'f' // of the wallet itself: see state.go
	kindCoin     kind = 'c' // a ticket that can be spent
	kindPurchase kind = 'b'
	kindSwap     kind = 's'
	kindPayment  kind = 'p'
	kindTab      kind = 't'
	kindGift     kind = 'g'
	kindLoss     kind = 'l'
)

// maxName bounds a record's name, in bytes.
const maxName = 255

// A record is one, as it is written; a nil value says that it is gone.
type record struct {
	kind  kind
	name  string
	value []byte
}

// key is what a record is kept by.
func (r record) key() string { return string(r.kind) + r.name }

const (
	changePut  = 1
	changeDrop = 2
)

func (r record) append(b []byte) []byte {
	what := byte(changePut)
	if r.value == nil {
		what = changeDrop
	}
	b = append(b, what, byte(r.kind), byte(len(r.name)))
	b = append(b, r.name...)
	if r.value == nil {
		return b
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.value)))
	return append(b, r.value...)
}

// parseRecords reads what append has written, many in a row. The values are slices
// of b.
func parseRecords(b []byte) (all []record, err error) {
	for len(b) > 0 {
		var r record
		if r, b, err = parseRecord(b); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func parseRecord(b []byte) (r record, rest []byte, err error) {
	bad := errors.New("a record ends early")
	if len(b) < 3 || len(b) < 3+int(b[2]) {
		return r, nil, bad
	}
	what, name := b[0], b[3:3+int(b[2])]
	r = record{kind: kind(b[1]), name: string(name)}
	b = b[3+len(name):]
	switch what {
	case changeDrop:
		return r, b, nil
	case changePut:
	default:
		return r, nil, fmt.Errorf("there is no change of kind %d", what)
	}
	if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
		return r, nil, bad
	}
	size := 4 + int(binary.BigEndian.Uint32(b))
	r.value = b[4:size:size]
	return r, b[size:], nil
}

// frameFill is how much of records is put in one frame of a new file.
const frameFill = 1 << 20

// frames returns all records as a new journal has them. The first says how many
// follow.
func frames(raw map[string][]byte) [][]byte {
	var all [][]byte
	var b []byte
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		b = record{kind(key[0]), key[1:], raw[key]}.append(b)
		if len(b) > frameFill {
			all, b = append(all, b), nil
		}
	}
	if len(b) > 0 {
		all = append(all, b)
	}
	return all
}
