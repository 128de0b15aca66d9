package hyperbee

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
)

type person struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
	Size float64  `json:"size"`
}

func TestMap(t *testing.T) {
	b, _ := newBee(t)
	people := Of(b, Text{}, JSON[person]{})
	ann := person{"Ann <&> \u2028 \\u2028", []string{"a"}, 1e21}
	must(t, people.Put(ctx, "ann", ann))
	e, err := b.Get(ctx, []byte("ann"))
	must(t, err)
	if want := "{\"name\":\"Ann <&> \u2028 \\\\u2028\",\"tags\":[\"a\"],\"size\":1e+21}"; string(e.Value) != want {
		t.Errorf("JSON is %s, want %s", e.Value, want)
	}
	got, err := people.Get(ctx, "ann")
	must(t, err)
	if got.Name != ann.Name || got.Size != ann.Size || len(got.Tags) != 1 {
		t.Errorf("got %v, want %v", got, ann)
	}
	done, err := people.PutIf(ctx, "ann", person{}, func(_, _ Entry) bool { return false })
	if must(t, err); done {
		t.Error("a refused swap was made")
	}
	must(t, people.Delete(ctx, "ann"))
	if _, err := people.Get(ctx, "ann"); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("get: got %v, want %v", err, cloudpal.NotExist)
	}
	if err := Of(b, Text{}, JSON[float64]{}).Put(ctx, "nan", math.NaN()); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("put of what JSON lacks: got %v, want %v", err, cloudpal.Invalid)
	}
	put(t, b, "bad={")
	if _, err := people.Get(ctx, "bad"); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("get of what is no JSON: got %v, want %v", err, cloudpal.Corrupt)
	}
}

// TestBinary: bytes go in and come back as they are, and are the caller's then.
func TestBinary(t *testing.T) {
	b, _ := newBee(t)
	raw := Of(b, Binary{}, Binary{})
	key, value := []byte{0, 0xff, '/'}, []byte{0, 1, 0xfe}
	must(t, raw.Put(ctx, key, value))
	must(t, raw.Put(ctx, []byte("none"), nil))
	for range 2 {
		got, err := raw.Get(ctx, key)
		must(t, err)
		if !bytes.Equal(got, value) {
			t.Fatalf("got %x, want %x", got, value)
		}
		clear(got)
		for p, err := range raw.Range(ctx, Range{}) {
			must(t, err)
			if !bytes.Equal(p.Key, key) && (string(p.Key) != "none" || p.Value != nil) {
				t.Fatalf("got %q with %x", p.Key, p.Value)
			}
			clear(p.Key)
		}
	}
}

// TestBelow: an open range of a Below has all that lies there, the empty key
// too, and nothing else.
func TestBelow(t *testing.T) {
	b, _ := newBee(t)
	batch := b.Batch()
	files := Of(batch, Below[string]("files", Text{}), Text{})
	for _, k := range []string{"", "/a", "/b"} {
		must(t, files.Put(ctx, k, "v"+k))
	}
	put(t, batch, "file=1", "files\x01=1", "other=1")
	must(t, batch.Flush())
	var got []string
	for p, err := range Of(b, Below[string]("files", Text{}), Text{}).Range(ctx, Range{}) {
		must(t, err)
		got = append(got, p.Key+"="+p.Value)
	}
	equal(t, "files", got, []string{"=v", "/a=v/a", "/b=v/b"})
	got = nil
	files = Of(b, Below[string]("files", Text{}), Text{})
	for p, err := range files.Range(ctx, Range{GT: files.Key("/a")}) {
		must(t, err)
		got = append(got, p.Key)
	}
	equal(t, "after /a", got, []string{"/b"})
	if _, err := Below[string]("files", Text{}).DecodeKey([]byte("other")); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("a key that lies elsewhere: got %v, want %v", err, cloudpal.Corrupt)
	}
}

// TestUintSorts: numbers sort as their bytes do, and come back.
func TestUintSorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) uint64 {
			return rapid.Uint64().Draw(t, name) >> rapid.IntRange(0, 63).Draw(t, name+" shift")
		}
		x, y := draw("x"), draw("y")
		a, b := Uint{}.AppendKey(nil, x), Uint{}.AppendKey(nil, y)
		if (x < y) != (bytes.Compare(a, b) < 0) {
			t.Fatalf("%d is %x, %d is %x", x, a, y, b)
		}
		if back, err := (Uint{}).DecodeKey(a); err != nil || back != x {
			t.Fatalf("%d came back as %d (%v)", x, back, err)
		}
	})
	for _, bad := range []string{"", "\xfc", "\xfc\x01", "\xff", "\x01\x01", "\xfe1234567"} {
		if _, err := (Uint{}).DecodeKey([]byte(bad)); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("decode %x: got %v, want %v", bad, err, cloudpal.Corrupt)
		}
	}
}

// TestOriginalEncodings: index-encoder, sub-encoder and JSON.stringify write
// the same bytes.
func TestOriginalEncodings(t *testing.T) {
	modules := needOriginals(t)
	const script = `
const { UINT } = require('index-encoder'), c = require('compact-encoding'), Sub = require('sub-encoder')
for (const n of [0, 1, 251, 252, 255, 256, 65535, 65536, 4294967295, 4294967296, Number.MAX_SAFE_INTEGER]) console.log(Buffer.from(c.encode(UINT, n)).toString('hex'))
console.log(Buffer.from(new Sub('files', 'utf-8').encode('/a')).toString('hex'))
console.log(Buffer.from(JSON.stringify({ name: 'Ann <&> \u2028 \\u2028 \b\n\x01\x7f é', tags: ['a', '"'], size: 1e21 })).toString('hex'))`
	node := exec.CommandContext(t.Context(), "node", "-e", script)
	node.Env, node.Stderr = append(os.Environ(), "NODE_PATH="+modules), os.Stderr
	out, err := node.Output()
	must(t, err)
	var got []string
	for _, n := range []uint64{0, 1, 251, 252, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<53 - 1} {
		got = append(got, hex.EncodeToString(Uint{}.AppendKey(nil, n)))
	}
	got = append(got, hex.EncodeToString(Below[string]("files", Text{}).AppendKey(nil, "/a")))
	text, err := JSON[person]{}.Encode(person{"Ann <&> \u2028 \\u2028 \b\n\x01\x7f é", []string{"a", `"`}, 1e21})
	must(t, err)
	equal(t, "encodings", append(got, hex.EncodeToString(text)), strings.Fields(string(out)))
}

// needOriginals returns where the JavaScript originals are, or skips.
func needOriginals(t *testing.T) string {
	t.Helper()
	modules, err := filepath.Abs("../../test/data/node_modules")
	must(t, err)
	if _, err := os.Stat(filepath.Join(modules, "hyperbee")); err != nil {
		if os.Getenv("CLOUDPAL_MUST_RUN") == "1" {
			t.Fatal("the JavaScript originals are not installed: make setup-test")
		}
		t.Skip("the JavaScript originals are not installed: make setup-test")
	}
	return modules
}
