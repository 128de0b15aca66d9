package storage

import (
	"encoding/binary"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tradle/cloudpal"
)

// The kinds of what is kept of a core, in the order of their keys.
const (
	blockKind    = 'b'
	headKind     = 'h'
	identityKind = 'i'
	placesKind   = 'l'
	pageKind     = 'p'
	tileKind     = 't'
	userKind     = 'u'
)

// The kinds of what is kept of the store.
const (
	aliasKind     = 'a'
	discoveryKind = 'd'
	formatKind    = 'f'
	endKind       = 'l'
	nextKind      = 'n'
	segmentKind   = 's'
	storeUserKind = 'u'
)

// A key is a core's number, a kind and an index.
type key [17]byte

func makeKey(core uint64, kind byte, index uint64) (k key) {
	binary.BigEndian.PutUint64(k[:], core)
	k[8] = kind
	binary.BigEndian.PutUint64(k[9:], index)
	return k
}

// keys are for reading, which would make a new one each time: Pebble holds on to
// what it looks for until that is closed.
var keys = sync.Pool{New: func() any { return new(key) }}

// prefix returns what the keys of a kind begin with.
func prefix(core uint64, kind byte) []byte {
	k := makeKey(core, kind, 0)
	return k[:9:9]
}

func headKey(core uint64) []byte     { return prefix(core, headKind) }
func identityKey(core uint64) []byte { return prefix(core, identityKind) }
func formatKey() []byte              { return prefix(0, formatKind) }
func nextKey() []byte                { return prefix(0, nextKind) }
func endKey() []byte                 { return prefix(0, endKind) }

func discoveryKey(d [32]byte) []byte { return append(prefix(0, discoveryKind), d[:]...) }

func segmentKey(segment uint32) []byte {
	return binary.BigEndian.AppendUint32(prefix(0, segmentKind), segment)
}

func aliasKey(namespace [32]byte, name string) []byte {
	return append(append(prefix(0, aliasKind), namespace[:]...), name...)
}

func userKey(core uint64, name string) []byte { return append(prefix(core, userKind), name...) }

// after returns the first key behind all that begin with p.
func after(p []byte) []byte {
	end := append([]byte(nil), p...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil // there is none
}

func appendNumber(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

// number reads a record that is one number.
func (s *Store) number(k []byte) (n uint64, found bool, err error) {
	if !s.readers.enter() {
		return 0, false, ErrClosed
	}
	defer s.readers.leave()
	v, closer, err := s.reader.Get(k)
	if err == pebble.ErrNotFound {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if len(v) == 8 {
		n, found = binary.BigEndian.Uint64(v), true
	}
	// A value that could not be read is empty: it is Close that says so.
	if err := closer.Close(); err != nil {
		return 0, false, err
	}
	if !found {
		return 0, false, cloudpal.E("read a number", cloudpal.Corrupt, nil)
	}
	return n, true, nil
}

// record reads a record, or returns nil where there is none.
func (s *Store) record(k []byte) ([]byte, error) {
	if !s.readers.enter() {
		return nil, s.fail("read", ErrClosed)
	}
	defer s.readers.leave()
	v, closer, err := s.reader.Get(k)
	if err == pebble.ErrNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, s.fail("read", err)
	}
	v = append(make([]byte, 0, len(v)), v...)
	if err := closer.Close(); err != nil { // as in number
		return nil, s.fail("read", err)
	}
	return v, nil
}
