package compact_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
)

// readVectors reads what the JavaScript implementation has written.
func readVectors(t *testing.T, file string, into any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + file)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatal("cannot read the vectors:", err)
	}
}

// parse is json.Unmarshal for values that must be there.
func parse[T any](t *testing.T, raw json.RawMessage) (v T) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors compares with what compact-encoding 3.5.2 writes.
func TestVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			Type, Hex string
			Value     json.RawMessage
		}
	}
	readVectors(t, "compact-encoding.json", &file)
	seen := map[string]bool{}
	for _, v := range file.Vectors {
		want := unhex(t, v.Hex)
		d := compact.NewDecoder(want)
		var got []byte
		var back, value any
		switch v.Type {
		case "uint":
			n := parse[uint64](t, v.Value)
			got, back, value = compact.AppendUint(nil, n), d.Uint(), n
			if compact.UintLen(n) != len(want) {
				t.Errorf("length of %d: got %d, want %d", n, compact.UintLen(n), len(want))
			}
		case "int":
			n := parse[int64](t, v.Value)
			got, back, value = compact.AppendInt(nil, n), d.Int(), n
		case "bool":
			b := parse[bool](t, v.Value)
			got, back, value = compact.AppendBool(nil, b), d.Bool(), b
		case "string":
			s := parse[string](t, v.Value)
			got, back, value = compact.AppendString(nil, s), d.String(), s
		case "buffer", "optionalBuffer":
			s := parse[string](t, v.Value) // null is the empty string, too
			got, back, value = compact.AppendBuffer(nil, unhex(t, s)), hex.EncodeToString(d.Buffer()), s
		case "fixed32":
			h := d.Fixed32()
			got, back, value = want, hex.EncodeToString(h[:]), parse[string](t, v.Value)
		case "array(uint)":
			items := parse[[]uint64](t, v.Value)
			got = compact.AppendUint(nil, uint64(len(items)))
			for _, n := range items {
				got = compact.AppendUint(got, n)
				value = fmt.Sprint(items)
			}
			read := make([]uint64, d.Count(len(items), 1))
			for i := range read {
				read[i] = d.Uint()
			}
			back = fmt.Sprint(read)
		case "uint32array":
			words := parse[[]uint32](t, v.Value)
			got, back, value = compact.AppendUint32Array(nil, words), fmt.Sprint(d.Uint32Array(len(words))), fmt.Sprint(words)
		case "raw":
			got, back, value = want, hex.EncodeToString(d.Rest()), parse[string](t, v.Value)
		default: // no message of hypercore has it
			continue
		}
		seen[v.Type] = true
		if !bytes.Equal(got, want) || back != value || d.Err() != nil || d.Len() != 0 {
			t.Errorf("%s %s: wrote %x, want %x; read %v, error %v, %d bytes left", v.Type, v.Value, got, want, back, d.Err(), d.Len())
		}
	}
	if len(seen) != 10 {
		t.Errorf("got vectors of %d types, want 10: %v", len(seen), seen)
	}
}

func TestIDVectors(t *testing.T) {
	var ids []struct{ Key, Z32 string }
	readVectors(t, "ids.json", &ids)
	if len(ids) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range ids {
		key := [32]byte(unhex(t, v.Key))
		if got := compact.Z32(key[:]); got != v.Z32 {
			t.Errorf("got %s, want %s", got, v.Z32)
		}
		for _, s := range []string{v.Z32, v.Key, "pear://" + v.Z32, "pear://" + v.Z32 + "/some/file", "pear://" + v.Key} {
			if got, err := compact.ParseID(s); err != nil || got != key {
				t.Errorf("parse %q: got %x, %v", s, got, err)
			}
		}
	}
}

func TestNotAnID(t *testing.T) {
	good := "tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy"
	for _, s := range []string{
		"", good[:51], good + "y", "pear://", "pear:///" + good, "http://" + good,
		good[:51] + "b",                      // bits after the last byte
		good[:50] + "\n\n", good[:51] + "\n", // which encoding/base32 skips
		good[:51] + "l", good[:51] + "Y",
		"zz" + good, string(make([]byte, 64)),
	} {
		_, err := compact.ParseID(s)
		if !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("parse %q: got %v, want %v", s, err, cloudpal.Invalid)
		}
	}
}

// TestHostileNumbers reads what no honest peer writes.
func TestHostileNumbers(t *testing.T) {
	huge := binary.LittleEndian.AppendUint64([]byte{0xff}, compact.MaxUint+1)
	largest := binary.LittleEndian.AppendUint64([]byte{0xff}, compact.MaxUint)
	long := []byte{0xff, 7, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		in   []byte
		read func(d *compact.Decoder) any
		want any
		err  error
	}{
		{"above the largest", huge, func(d *compact.Decoder) any { return d.Uint() }, uint64(0), compact.ErrLarge},
		{"the largest", largest, func(d *compact.Decoder) any { return d.Uint() }, uint64(compact.MaxUint), nil},
		{"all bits", bytes.Repeat([]byte{0xff}, 9), func(d *compact.Decoder) any { return d.Uint() }, uint64(0), compact.ErrLarge},
		{"longer than needed", long, func(d *compact.Decoder) any { return d.Uint() }, uint64(7), nil},
		{"nothing", nil, func(d *compact.Decoder) any { return d.Uint() }, uint64(0), compact.ErrShort},
		{"half a number", long[:8], func(d *compact.Decoder) any { return d.Uint() }, uint64(0), compact.ErrShort},
		{"a large buffer", largest, func(d *compact.Decoder) any { return len(d.Buffer()) }, 0, compact.ErrShort},
		{"a short buffer", []byte{2, 1}, func(d *compact.Decoder) any { return len(d.Buffer()) }, 0, compact.ErrShort},
		{"a short hash", make([]byte, 31), func(d *compact.Decoder) any { return d.Fixed32() }, [32]byte{}, compact.ErrShort},
		{"too many", []byte{5, 0, 0, 0, 0, 0}, func(d *compact.Decoder) any { return d.Count(4, 1) }, 0, compact.ErrLarge},
		{"more than fit", []byte{5, 0, 0, 0, 0}, func(d *compact.Decoder) any { return d.Count(9, 1) }, 0, compact.ErrShort},
		{"many of no size", largest, func(d *compact.Decoder) any { return d.Count(1<<20, 0) }, 0, compact.ErrLarge},
		{"many words", largest, func(d *compact.Decoder) any { return len(d.Uint32Array(1 << 20)) }, 0, compact.ErrLarge},
		{"another true", []byte{2}, func(d *compact.Decoder) any { return d.Bool() }, false, nil},
	} {
		d := compact.NewDecoder(c.in)
		if got := c.read(&d); got != c.want || !errors.Is(d.Err(), c.err) {
			t.Errorf("%s: got %v, %v, want %v, %v", c.name, got, d.Err(), c.want, c.err)
		}
	}
}

// TestSticky checks that the first error stays, and that nothing is read after it.
func TestSticky(t *testing.T) {
	d := compact.NewDecoder([]byte{3, 1, 2})
	first := d.Buffer()
	d.Fail(compact.ErrLarge)
	if second := d.Uint(); first != nil || second != 0 || d.Len() != 0 || d.Rest() != nil {
		t.Errorf("read on after an error: %v, %v", first, second)
	}
	if !errors.Is(d.Err(), compact.ErrShort) || !errors.Is(d.Err(), cloudpal.Invalid) {
		t.Errorf("got %v, want %v", d.Err(), compact.ErrShort)
	}
}

// TestRoundTrip writes and reads random messages.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(0, compact.MaxUint).Draw(t, "uint")
		i := rapid.Int64Range(-1<<52, 1<<52-1).Draw(t, "int")
		s := rapid.String().Draw(t, "string")
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "buffer")
		words := rapid.SliceOf(rapid.Uint32()).Draw(t, "words")
		v := rapid.Bool().Draw(t, "bool")
		out := compact.AppendBool(compact.AppendInt(compact.AppendUint(nil, n), i), v)
		out = compact.AppendUint32Array(compact.AppendBuffer(compact.AppendString(out, s), b), words)
		d := compact.NewDecoder(out)
		if d.Uint() != n || d.Int() != i || d.Bool() != v || d.String() != s || !bytes.Equal(d.Buffer(), b) || !slices.Equal(d.Uint32Array(len(words)), words) {
			t.Error("read something else than was written")
		}
		if d.Err() != nil || d.Len() != 0 {
			t.Errorf("got %v, with %d bytes left", d.Err(), d.Len())
		}
		cut := compact.NewDecoder(out[:rapid.IntRange(0, len(out)-1).Draw(t, "cut")])
		cut.Uint()
		cut.Int()
		cut.Bool()
		_ = cut.String()
		cut.Buffer()
		cut.Uint32Array(len(words))
		if cut.Err() == nil {
			t.Error("a message that was cut is read without an error")
		}
	})
}

// FuzzDecoder reads any bytes by any order of fields: no panic, nothing read
// twice, no memory beyond what the input has.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6}, []byte{0xfd, 1, 2, 9, 1, 3, 1, 2, 3})
	f.Add([]byte{6, 6}, []byte{2, 1, 0, 0, 0, 2, 0, 0, 0, 0xff, 255, 255, 255, 255, 255, 255, 31, 0})
	f.Fuzz(func(t *testing.T, fields, in []byte) {
		d := compact.NewDecoder(in)
		for _, field := range fields {
			before := d.Len()
			var size int // what was read must hold at least so many bytes
			switch field % 7 {
			case 0:
				if d.Uint() > compact.MaxUint {
					t.Fatal("a number is too large")
				}
				size = 1
			case 1:
				d.Int()
				size = 1
			case 2:
				d.Bool()
				size = 1
			case 3:
				size = 1 + len(d.Buffer())
			case 4:
				size = 1 + len(d.String())
			case 5:
				d.Fixed32()
				size = 32
			case 6:
				size = 1 + 4*len(d.Uint32Array(1<<20))
			}
			if d.Err() == nil && before-d.Len() < size {
				t.Fatalf("field %d took %d bytes, want at least %d", field, before-d.Len(), size)
			}
			if d.Err() != nil && d.Len() != 0 {
				t.Fatal("not at the end after an error")
			}
		}
	})
}

// FuzzParseID checks that what is read as an id is written as one again.
func FuzzParseID(f *testing.F) {
	f.Add("tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy")
	f.Add("pear://8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c/x")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := compact.ParseID(s)
		if err != nil {
			return
		}
		if again, err := compact.ParseID(compact.Z32(id[:])); err != nil || again != id {
			t.Errorf("got %x, %v, want %x", again, err, id)
		}
	})
}

func BenchmarkUint(b *testing.B) {
	b.ReportAllocs()
	var buf [16]byte
	for b.Loop() {
		d := compact.NewDecoder(compact.AppendUint(compact.AppendUint(buf[:0], 7), 70000))
		if d.Uint()+d.Uint() != 70007 {
			b.Fatal(d.Err())
		}
	}
}

func Example() {
	message := compact.AppendBuffer(compact.AppendUint(nil, 300), []byte("hello"))
	fmt.Printf("%x\n", message)

	d := compact.NewDecoder(message)
	index, value := d.Uint(), d.Buffer()
	fmt.Printf("%d %s %v\n", index, value, d.Err())
	// Output:
	// fd2c010568656c6c6f
	// 300 hello <nil>
}
