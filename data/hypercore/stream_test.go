package hypercore_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
)

// TestReaderIsAFile reads ranges of a log of blocks of all sizes, empty ones
// too, as iotest reads files.
func TestReaderIsAFile(t *testing.T) {
	s := newStore(t)
	rapid.Check(t, func(t *rapid.T) {
		c, err := hypercore.Create(s, hypercore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var whole []byte
		for range rapid.IntRange(0, 12).Draw(t, "blocks") {
			b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "block")
			whole = append(whole, b...)
			if _, err := c.Append(b); err != nil {
				t.Fatal(err)
			}
		}
		start := rapid.IntRange(0, len(whole)+3).Draw(t, "start")
		length := rapid.IntRange(0, len(whole)+3).Draw(t, "length")
		want := whole[min(start, len(whole)):]
		if length > 0 && length < len(want) {
			want = want[:length]
		}
		r := c.NewReader(t.Context(), hypercore.ByteRange{Start: uint64(start), Length: uint64(length)})
		defer r.Close()
		if r.Size() != uint64(len(want)) {
			t.Fatalf("size: got %d, want %d", r.Size(), len(want))
		}
		if err := iotest.TestReader(r, want); err != nil {
			t.Fatal(err)
		}
	})
}

// TestWriterCutsBlocks writes in pieces of all sizes: the blocks are as large as
// asked for, but the last.
func TestWriterCutsBlocks(t *testing.T) {
	s := newStore(t)
	rapid.Check(t, func(t *rapid.T) {
		c, err := hypercore.Create(s, hypercore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w := c.NewWriter()
		w.BlockSize = rapid.IntRange(1, 50).Draw(t, "size")
		var whole []byte
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 120).Draw(t, "piece")
			whole = append(whole, p...)
			if n, err := w.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for b, err := range c.Blocks(t.Context(), hypercore.Range{}) {
			if err != nil || len(b.Value) != w.BlockSize && b.Index != c.Length()-1 {
				t.Fatalf("block %d: %d bytes, %v", b.Index, len(b.Value), err)
			}
			got = append(got, b.Value...)
		}
		if !bytes.Equal(got, whole) {
			t.Fatalf("got %d bytes, want %d", len(got), len(whole))
		}
	})
}

func TestStreamsAreClosed(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	appendAll(t, c, "a")
	r, w := c.NewReader(t.Context(), hypercore.ByteRange{}), c.NewWriter()
	if err := errors.Join(r.Close(), w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("reading: got %v, want %v", err, cloudpal.Invalid)
	}
	if _, err := w.Write([]byte("b")); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("writing: got %v, want %v", err, cloudpal.Invalid)
	}
	var _ io.ReadSeekCloser = r
}

// TestRange goes through the blocks of a log both ways, and lives on.
func TestRange(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	appendAll(t, c, "a", "b", "c", "d")
	for _, x := range []struct {
		r    hypercore.Range
		want string
	}{
		{hypercore.Range{}, "abcd"},
		{hypercore.Range{Start: 2}, "cd"},
		{hypercore.Range{Start: 1, End: 3}, "bc"},
		{hypercore.Range{Reverse: true}, "dcba"},
		{hypercore.Range{Start: 1, End: 3, Reverse: true}, "cb"},
		{hypercore.Range{Start: 7}, ""},
		{hypercore.Range{Start: 7, Reverse: true}, ""},
	} {
		var got []byte
		for b, err := range c.Blocks(t.Context(), x.r) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b.Value...)
		}
		if string(got) != x.want {
			t.Errorf("%+v: got %q, want %q", x.r, got, x.want)
		}
	}
	var got []byte
	for b, err := range c.Blocks(t.Context(), hypercore.Range{Start: 3, Live: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b.Value...)
		if len(got) == 4 {
			break
		}
		appendAll(t, c, string('d'+rune(len(got))))
	}
	if string(got) != "defg" {
		t.Errorf("live: got %q, want %q", got, "defg")
	}
}
