package hyperbee

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"iter"

	"github.com/tradle/cloudpal"
)

// A Map puts types over the bytes of a bee, or of a batch.
type Map[K, V any] struct {
	store  Store
	keys   KeyEncoding[K]
	values Encoding[V]
}

// A Store is what a Map stands on: a *Bee or a *Batch.
type Store interface {
	Get(ctx context.Context, key []byte) (Entry, error)
	PutIf(ctx context.Context, key, value []byte, swap Swap) (bool, error)
	DeleteIf(ctx context.Context, key []byte, swap Swap) (bool, error)
	Range(ctx context.Context, r Range) iter.Seq2[Entry, error]
}

// Of returns a Map over s.
func Of[K, V any](s Store, keys KeyEncoding[K], values Encoding[V]) Map[K, V] {
	return Map[K, V]{s, keys, values}
}

// A Pair is an Entry of a Map.
type Pair[K, V any] struct {
	Seq   uint64
	Key   K
	Value V
}

// Key encodes a key, as a bound for Range.
func (m Map[K, V]) Key(k K) []byte { return m.keys.AppendKey([]byte{}, k) }

// Get returns the value of a key, or cloudpal.NotExist.
func (m Map[K, V]) Get(ctx context.Context, k K) (v V, err error) {
	e, err := m.store.Get(ctx, m.Key(k))
	if err != nil {
		return v, err
	}
	return m.values.Decode(e.Value)
}

// Put sets a key.
func (m Map[K, V]) Put(ctx context.Context, k K, v V) error {
	_, err := m.PutIf(ctx, k, v, nil)
	return err
}

// PutIf is Put where swap agrees, as Bee.PutIf does; swap sees encoded entries.
func (m Map[K, V]) PutIf(ctx context.Context, k K, v V, swap Swap) (bool, error) {
	value, err := m.values.Encode(v)
	if err != nil {
		return false, cloudpal.E("encode value", cloudpal.Invalid, err)
	}
	return m.store.PutIf(ctx, m.Key(k), value, swap)
}

// Delete removes a key. One that is not there is no error.
func (m Map[K, V]) Delete(ctx context.Context, k K) error {
	_, err := m.store.DeleteIf(ctx, m.Key(k), nil)
	return err
}

// Range goes through the pairs of a range, whose bounds are made with Key. An
// entry that cannot be decoded ends it with an error.
func (m Map[K, V]) Range(ctx context.Context, r Range) iter.Seq2[Pair[K, V], error] {
	if c, ok := m.keys.(interface{ closeRange(Range) Range }); ok {
		r = c.closeRange(r)
	}
	return func(yield func(Pair[K, V], error) bool) {
		for e, err := range m.store.Range(ctx, r) {
			var p Pair[K, V]
			if err == nil {
				p, err = m.decode(e)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

func (m Map[K, V]) decode(e Entry) (p Pair[K, V], err error) {
	p.Seq = e.Seq
	if p.Key, err = m.keys.DecodeKey(e.Key); err == nil {
		p.Value, err = m.values.Decode(e.Value)
	}
	return p, err
}

// An Encoding turns values into bytes and back. Decode must not keep b, nor
// trust it.
type Encoding[V any] interface {
	Encode(v V) ([]byte, error)
	Decode(b []byte) (V, error)
}

// A KeyEncoding turns keys into bytes, in whose order they are sorted, and
// back.
type KeyEncoding[K any] interface {
	AppendKey(b []byte, k K) []byte
	DecodeKey(b []byte) (K, error)
}

// Binary leaves keys and values as they are; nil is a value that is none.
type Binary struct{}

// AppendKey appends k.
func (Binary) AppendKey(b, k []byte) []byte { return append(b, k...) }

// DecodeKey returns a copy of b.
func (Binary) DecodeKey(b []byte) ([]byte, error) { return bytes.Clone(b), nil }

// Encode returns v.
func (Binary) Encode(v []byte) ([]byte, error) { return v, nil }

// Decode returns a copy of b.
func (Binary) Decode(b []byte) ([]byte, error) { return bytes.Clone(b), nil }

// Text is the original's "utf-8". A value that is none decodes as "".
type Text struct{}

// AppendKey appends k.
func (Text) AppendKey(b []byte, k string) []byte { return append(b, k...) }

// DecodeKey returns b.
func (Text) DecodeKey(b []byte) (string, error) { return string(b), nil }

// Encode returns v.
func (Text) Encode(v string) ([]byte, error) { return present([]byte(v)), nil }

// Decode returns b.
func (Text) Decode(b []byte) (string, error) { return string(b), nil }

// JSON is the original's "json". What it encodes, JSON.stringify writes with
// the same bytes, where the members of objects are in the order of V's fields. A
// value that is none decodes as V's zero value.
type JSON[V any] struct{}

// Encode returns v as JSON.
func (JSON[V]) Encode(v V) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return plainSeparators(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), nil
}

// plainSeparators undoes the escapes of U+2028 and U+2029, which only Go makes.
func plainSeparators(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u202`)) {
		return text
	}
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		switch {
		case bytes.HasPrefix(text, []byte(`\u2028`)):
			out, text = append(out, "\u2028"...), text[6:]
		case bytes.HasPrefix(text, []byte(`\u2029`)):
			out, text = append(out, "\u2029"...), text[6:]
		case text[0] == '\\' && len(text) > 1:
			out, text = append(out, text[:2]...), text[2:]
		default:
			out, text = append(out, text[0]), text[1:]
		}
	}
	return out
}

// Decode reads JSON.
func (JSON[V]) Decode(b []byte) (v V, err error) {
	if b == nil {
		return v, nil
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, cloudpal.E("decode value", cloudpal.Corrupt, err)
	}
	return v, nil
}

// Uint is for keys that are numbers, and sort as such: the UINT of the npm
// package index-encoder. JavaScript reads those up to 2^53-1.
type Uint struct{}

// AppendKey appends k: one byte up to 251, else a byte that says how many
// follow, 2, 4 or 8.
func (Uint) AppendKey(b []byte, k uint64) []byte {
	switch {
	case k <= 0xfb:
		return append(b, byte(k))
	case k <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 0xfc), uint16(k))
	case k <= 0xffffffff:
		return binary.BigEndian.AppendUint32(append(b, 0xfd), uint32(k))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xfe), k)
}

// DecodeKey reads what AppendKey wrote.
func (Uint) DecodeKey(b []byte) (uint64, error) {
	switch {
	case len(b) == 1 && b[0] <= 0xfb:
		return uint64(b[0]), nil
	case len(b) == 3 && b[0] == 0xfc:
		return uint64(binary.BigEndian.Uint16(b[1:])), nil
	case len(b) == 5 && b[0] == 0xfd:
		return uint64(binary.BigEndian.Uint32(b[1:])), nil
	case len(b) == 9 && b[0] == 0xfe:
		return binary.BigEndian.Uint64(b[1:]), nil
	}
	return 0, cloudpal.E("decode key", cloudpal.Corrupt, errors.New("not a number"))
}

// Below is the npm package sub-encoder: keys below a name and a zero byte, in
// a bee that has others, too. Unlike with Bee.Sub, an open range has all of
// them. A hyperdrive's keys are Below[string]("files", Text{}).
func Below[K any](name string, keys KeyEncoding[K]) KeyEncoding[K] {
	return below[K]{append([]byte(name), 0), keys}
}

type below[K any] struct {
	prefix []byte
	keys   KeyEncoding[K]
}

func (e below[K]) AppendKey(b []byte, k K) []byte {
	return e.keys.AppendKey(append(b, e.prefix...), k)
}

func (e below[K]) DecodeKey(b []byte) (k K, err error) {
	rest, ok := bytes.CutPrefix(b, e.prefix)
	if !ok {
		return k, cloudpal.E("decode key", cloudpal.Corrupt, errors.New("it lies elsewhere"))
	}
	return e.keys.DecodeKey(rest)
}

func (e below[K]) closeRange(r Range) Range {
	all := Prefix(e.prefix)
	if r.low().key == nil {
		r.GTE = all.GTE
	}
	if r.high().key == nil {
		r.LT = all.LT
	}
	return r
}
