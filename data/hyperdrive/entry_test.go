package hyperdrive

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperblobs"
)

// TestEntryBytes writes the entries that the original wrote, byte for byte,
// and reads them.
func TestEntryBytes(t *testing.T) {
	for _, block := range driveVectors(t).DBBlocks {
		if block.Value == nil {
			continue
		}
		var fast, slow Entry
		if !readEntry([]byte(*block.Value), &fast) {
			t.Errorf("%s is read the slow way", *block.Value)
		}
		if err := decodeEntry([]byte(" "+*block.Value), &slow); err != nil || !reflect.DeepEqual(fast, slow) {
			t.Errorf("%s: the slow way reads %+v, %v; want %+v", *block.Value, slow, err, fast)
		}
		got, err := appendEntry(nil, &fast)
		if err != nil || string(got) != *block.Value {
			t.Errorf("wrote %s, %v; want %s", got, err, *block.Value)
		}
	}
}

// vectors is what testdata/hyperdrive.json has, that the original wrote.
type vectors struct {
	PrimaryKey, Key, BlobsKey string
	Version                   uint64
	DBBlocks                  []struct {
		Seq   uint64
		Hex   string
		Value *string
	}
	BlobBlocks []struct {
		Index, Bytes uint64
		Hash         string
	}
	ReaddirRoot []string
	ListA       []string
	Entries     []vectorEntry
	DiffFrom4   []struct{ Left, Right *vectorEntry }
}

type vectorEntry struct {
	Seq   uint64
	Key   string
	Value json.RawMessage
}

func driveVectors(t testing.TB) (v vectors) {
	t.Helper()
	readVectors(t, "hyperdrive.json", &v)
	return v
}

// The strings are what node prints for JSON.stringify of them.
func TestStringBytes(t *testing.T) {
	for text, want := range map[string]string{
		"/a":                     `"/a"`,
		"<&>\u2028\u2029\x7f/":   "\"<&>\u2028\u2029\x7f/\"",
		"\"\\\b\f\n\r\t\x00\x1f": `"\"\\\b\f\n\r\t\u0000\u001f"`,
		"é日😀":                    `"é日😀"`,
	} {
		if got := string(appendString(nil, text)); got != want {
			t.Errorf("appendString(%q) = %s, want %s", text, got, want)
		}
	}
}

func TestDecodeEntry(t *testing.T) {
	for value, want := range map[string]Entry{
		`{}`: {},
		`{"metadata":null,"blob":null,"linkname":null,"executable":null}`:           {},
		`{"x":[1],"linkname":"/a\u0062","executable":true}`:                         {Linkname: "/ab", Executable: true},
		`{"blob":{"byteLength":3,"blockLength":1}}`:                                 {Blob: &hyperblobs.ID{ByteLength: 3, BlockLength: 1}},
		`{"executable":false,"executable":true}`:                                    {Executable: true},
		`{"Executable":true,"LINKNAME":"x"}`:                                        {},
		`{"executable":false,"linkname":null,"blob":null,"metadata": {"a" : 1} }`:   {Metadata: json.RawMessage(`{"a" : 1}`)},
		`{"executable":false,"linkname":null,"blob":null,"metadata":null }`:         {},
		`{"executable":false,"linkname":null,"blob":null,"metadata":1,"blob":null}`: {Metadata: json.RawMessage(`1`)},
	} {
		var got Entry
		if err := decodeEntry([]byte(value), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("decodeEntry(%s) = %+v, %v; want %+v", value, got, err, want)
		}
	}
	for _, value := range []string{
		``, `null x`, `[]`, `"x"`, `{"executable":1}`, `{"linkname":7}`, `{"blob":1}`, `{"blob":[]}`,
		`{"blob":{"byteLength":-1}}`, `{"blob":{"byteLength":1.5}}`, `{"blob":{"byteLength":9007199254740992,"blockLength":1}}`,
		`{"blob":{"byteLength":3}}`, strings.Repeat("[", 1e5), `{"metadata":"` + strings.Repeat("x", MaxEntry) + `"}`,
	} {
		var e Entry
		if err := decodeEntry([]byte(value), &e); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("decodeEntry(%.40s...) = %+v, %v; want Corrupt", value, e, err)
		}
	}
}

// FuzzEntry checks that both ways of reading agree, and that what was read is
// written and read the same.
func FuzzEntry(f *testing.F) {
	for _, block := range driveVectors(f).DBBlocks {
		if block.Value != nil {
			f.Add([]byte(*block.Value))
		}
	}
	f.Add([]byte(`{"metadata":{"blob":"\ud800"},"linkname":"\u0000"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		var fast, slow Entry
		quick := readEntry(value, &fast)
		err := decodeEntry(append([]byte(" "), value...), &slow)
		if quick && (err != nil || !reflect.DeepEqual(fast, slow)) {
			t.Fatalf("%q: read %+v, the slow way %+v, %v", value, fast, slow, err)
		}
		if err != nil {
			return
		}
		written, err := appendEntry(nil, &slow)
		if err != nil {
			t.Fatalf("%q was read, and cannot be written: %v", value, err)
		}
		var again Entry
		if err := decodeEntry(written, &again); err != nil {
			t.Fatalf("%q was written, and cannot be read: %v", written, err)
		}
		final, err := appendEntry(nil, &again)
		if err != nil || string(final) != string(written) {
			t.Fatalf("wrote %q, then %q, %v", written, final, err)
		}
	})
}
