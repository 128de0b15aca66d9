package seal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

// sealed returns a nap of mem and state.
func sealed(t testing.TB, key *Key, label string, mem *os.File, state []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Seal(t.Context(), &b, key, label, mem, state); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// small returns a sealed nap of a few hundred bytes with three memory frames
// and two state frames, filled from seed.
func small(t testing.TB, key *Key, label string, seed byte) []byte {
	t.Helper()
	mem := file(t, 3<<20)
	for i := range int64(3) {
		put(t, mem, i<<20+8192, bytes.Repeat([]byte{seed + byte(i)}, 4096))
	}
	return sealed(t, key, label, mem, bytes.Repeat([]byte{seed}, pieceSize+1))
}

// frames cuts a sealed nap into its header and frames.
func frames(t testing.TB, b []byte) [][]byte {
	t.Helper()
	all := [][]byte{b[:headerSize]}
	for b = b[headerSize:]; len(b) > 0; {
		n := frameHead + int(binary.BigEndian.Uint32(b[1:frameHead]))
		all, b = append(all, b[:n]), b[n:]
	}
	return all
}

// refuse says what is wrong unless b is refused as damaged, in a sentence.
func refuse(t testing.TB, b []byte, key *Key, label string, mem *os.File) string {
	t.Helper()
	state, err := Open(t.Context(), bytes.NewReader(b), key, label, mem)
	switch {
	case err == nil:
		return "it opens"
	case !errors.Is(err, cloudpal.Corrupt):
		return err.Error() + ": want " + string(cloudpal.Corrupt)
	case state != nil:
		return "it returns state"
	case cloudpal.HintOf(err) == "":
		return "it has no remedy"
	}
	return ""
}

func TestOpenRefusesEveryFlippedBit(t *testing.T) {
	t.Parallel()
	key, mem, from := NewKey(), file(t, 0), file(t, 8192)
	put(t, from, 4096, []byte("something"))
	good := sealed(t, key, "a", from, []byte("state"))
	if len(frames(t, good)) != 5 || len(good) > 400 {
		t.Fatalf("%d frames in %d bytes, want a small nap with one of each kind", len(frames(t, good)), len(good))
	}
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if bad := refuse(t, b, key, "a", mem); bad != "" {
			t.Fatalf("bit %d of byte %d changed: %s", i%8, i/8, bad)
		}
	}
	if _, err := Open(t.Context(), bytes.NewReader(good), key, "a", mem); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
}

func TestOpenRefusesEveryTruncation(t *testing.T) {
	t.Parallel()
	key, mem := NewKey(), file(t, 0)
	good := small(t, key, "a", 1)
	for n := range good {
		if bad := refuse(t, good[:n], key, "a", mem); bad != "" {
			t.Fatalf("cut at %d of %d: %s", n, len(good), bad)
		}
	}
	if bad := refuse(t, append(good, 0), key, "a", mem); bad != "" {
		t.Errorf("a byte more: %s", bad)
	}
}

func TestOpenRefusesOtherFrames(t *testing.T) {
	t.Parallel()
	key, mem := NewKey(), file(t, 0)
	mine, other := frames(t, small(t, key, "a", 1)), frames(t, small(t, key, "a", 7))
	if len(mine) != 8 {
		t.Fatalf("%d frames, want a header, a head, 3 of memory, 2 of state, an end", len(mine))
	}
	for i := range mine {
		with := func(middle ...[]byte) []byte {
			return slices.Concat(slices.Concat(mine[:i]...), slices.Concat(middle...), slices.Concat(mine[i+1:]...))
		}
		if bad := refuse(t, with(), key, "a", mem); bad != "" {
			t.Errorf("frame %d dropped: %s", i, bad)
		}
		if bad := refuse(t, with(mine[i], mine[i]), key, "a", mem); bad != "" {
			t.Errorf("frame %d doubled: %s", i, bad)
		}
		if bad := refuse(t, with(other[i]), key, "a", mem); bad != "" {
			t.Errorf("frame %d from another file: %s", i, bad)
		}
		for j := range i {
			swapped := slices.Clone(mine)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			if bad := refuse(t, slices.Concat(swapped...), key, "a", mem); bad != "" {
				t.Errorf("frames %d and %d swapped: %s", i, j, bad)
			}
		}
	}
}

func TestOpenRefusesAnotherKeyOrLabel(t *testing.T) {
	t.Parallel()
	key, mem := NewKey(), file(t, 123)
	good := small(t, key, "a", 1)
	if bad := refuse(t, good, NewKey(), "a", mem); bad != "" {
		t.Errorf("another key: %s", bad)
	}
	if bad := refuse(t, good, key, "b", mem); bad != "" {
		t.Errorf("another label: %s", bad)
	}
	if bad := refuse(t, good, key, "", mem); bad != "" {
		t.Errorf("no label: %s", bad)
	}
	if got := len(content(t, mem)); got != 123 {
		t.Errorf("the memory file has %d bytes, want it untouched", got)
	}
}

// TestOpenBelievesNoLength gives it files that claim much and hold nothing.
func TestOpenBelievesNoLength(t *testing.T) {
	key, mem := NewKey(), file(t, 0)
	good := small(t, key, "a", 1)
	claim := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for name, b := range map[string][]byte{
		"memory of 64 GiB":  claim(headerSize-8, 0, 0, 0, 16),
		"memory of 16 EiB":  claim(headerSize-8, 255, 255, 255, 255),
		"a frame of 4 GiB":  claim(headerSize+1, 255, 255, 255, 255),
		"a frame too large": claim(headerSize+1, 0, 16, 32, 0),
		"a frame too small": claim(headerSize+1, 0, 0, 0, 15),
	} {
		if bad := refuse(t, b, key, "a", mem); bad != "" {
			t.Errorf("%s: %s", name, bad)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
		t.Errorf("they made it take %d bytes", got)
	}
	if got := len(content(t, mem)); got != 0 {
		t.Errorf("the memory file has %d bytes, want none", got)
	}
}

// TestOpenChecksWhatIsInside seals frames that no sealer makes.
func TestOpenChecksWhatIsInside(t *testing.T) {
	t.Parallel()
	key, mem := NewKey(), file(t, 0)
	zip := func(n int) []byte { return level1().EncodeAll(make([]byte, n), nil) }
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	bits := func(b ...byte) []byte { return append(b, make([]byte, bitmapSize-len(b))...) }
	for name, c := range map[string]struct {
		kind  kind
		plain []byte
	}{
		"memory without a bitmap":     {kindMemory, number(0)},
		"memory beyond the end":       {kindMemory, slices.Concat(number(2), bits(1), zip(4096))},
		"memory far beyond the end":   {kindMemory, slices.Concat(number(1<<32-1), bits(1), zip(4096))},
		"a page beyond the end":       {kindMemory, slices.Concat(number(1), bits(2), zip(4096))},
		"fewer pages than the bitmap": {kindMemory, slices.Concat(number(0), bits(3), zip(4096))},
		"more pages than the bitmap":  {kindMemory, slices.Concat(number(0), bits(1), zip(8192))},
		"a zip bomb of memory":        {kindMemory, slices.Concat(number(0), bits(1), zip(64<<20))},
		"memory that is not zstd":     {kindMemory, slices.Concat(number(0), bits(1), []byte("garbage"))},
		"state without a number":      {kindState, []byte{1}},
		"a zip bomb of state":         {kindState, slices.Concat(number(0), zip(64<<20))},
		"too much state":              {kindState, slices.Concat(number(64), zip(1))},
		"state with a gap":            {kindState, slices.Concat(number(1), zip(1))},
		"an unknown kind":             {'x', nil},
		"a second head":               {kindHead, nil},
	} {
		b := forge(t, key, 1<<20+4096, c.kind, c.plain)
		if bad := refuse(t, b, key, "a", mem); bad != "" {
			t.Errorf("%s: %s", name, bad)
		}
	}
	whole := forge(t, key, 1<<20+4096, kindMemory, slices.Concat(number(1), bits(1), zip(4096)))
	if _, err := Open(t.Context(), bytes.NewReader(whole), key, "a", mem); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// forge seals one frame as a nap of size bytes of memory.
func forge(t testing.TB, key *Key, size int64, k kind, plain []byte) []byte {
	t.Helper()
	h := newHeader(size)
	aead, err := key.aead(h, "a")
	if err != nil {
		t.Fatal(err)
	}
	b := box{aead}
	return slices.Concat(h[:], b.seal(frame(kindHead), 0, nil), b.seal(frame(k), 1, plain), b.seal(frame(kindEnd), 2, nil))
}

func TestSealedShowsNothingOfTheMemory(t *testing.T) {
	t.Parallel()
	const canary = "the canary sings in the memory of the guest"
	key, mem := NewKey(), file(t, 4<<20)
	for at := int64(0); at < 4<<20; at += 300_001 {
		put(t, mem, at, []byte(canary))
	}
	state := bytes.Repeat([]byte(canary), 100)
	b := sealed(t, key, "canary", mem, state)
	for n := range len(canary) - 8 {
		if i := bytes.Index(b, []byte(canary[n:n+8])); i >= 0 {
			t.Fatalf("%q is in the sealed nap at %d", canary[n:n+8], i)
		}
	}
	if bytes.Contains(b, key.secret[:]) {
		t.Error("the key is in the sealed nap")
	}
	again := sealed(t, key, "canary", mem, state)
	if bytes.Equal(b[headerSize:headerSize+64], again[headerSize:headerSize+64]) {
		t.Error("the same nap sealed twice is the same")
	}
}

// A stopper writes until it has written n times, and then cancels.
type stopper struct {
	n      int
	cancel context.CancelFunc
}

func (s *stopper) Write(b []byte) (int, error) {
	if s.n--; s.n == 0 {
		s.cancel()
	}
	return len(b), nil
}

func (s *stopper) Read(b []byte) (int, error) {
	if s.n--; s.n == 0 {
		s.cancel()
	}
	return len(b), nil
}

func TestSealStopsWithItsContext(t *testing.T) {
	t.Parallel()
	mem := file(t, 64<<20)
	put(t, mem, 0, noise(1, 64<<20))
	for n := 1; n < 20; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		dst := &stopper{n: n, cancel: cancel}
		_, err := Seal(ctx, dst, NewKey(), "a", mem, nil)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at write %d: got %v, want %v", n, err, context.Canceled)
		}
		if more := -dst.n; more > 2 {
			t.Errorf("cancelled at write %d: it wrote %d times more", n, more)
		}
		cancel()
	}
}

func TestOpenStopsWithItsContext(t *testing.T) {
	t.Parallel()
	key, mem := NewKey(), file(t, 64<<20)
	put(t, mem, 0, noise(1, 64<<20))
	b := sealed(t, key, "a", mem, nil)
	for n := 1; n < 20; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		src := io.TeeReader(bytes.NewReader(b), &stopper{n: n, cancel: cancel})
		if _, err := Open(ctx, src, key, "a", mem); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at read %d: got %v, want %v", n, err, context.Canceled)
		}
		cancel()
	}
}

func TestSealTellsAFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("there is no /dev/full: %v", err)
	}
	defer full.Close()
	mem := file(t, 8<<20)
	put(t, mem, 0, noise(1, 8<<20))
	if _, err := Seal(t.Context(), full, NewKey(), "a", mem, nil); !errors.Is(err, cloudpal.NoSpace) {
		t.Errorf("got %v, want %v", err, cloudpal.NoSpace)
	}
}

func TestSealRefusesTooMuch(t *testing.T) {
	t.Parallel()
	if _, err := Seal(t.Context(), io.Discard, NewKey(), "a", file(t, 0), make([]byte, MaxState+1)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("much state: got %v, want %v", err, cloudpal.Invalid)
	}
	if _, err := Seal(t.Context(), io.Discard, NewKey(), "a", file(t, MaxMemory+4096), nil); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("much memory: got %v, want %v", err, cloudpal.Invalid)
	}
}

func TestSealOfHolesIsSmallAndFast(t *testing.T) {
	t.Parallel()
	mem, back, key := file(t, MaxMemory), file(t, 0), NewKey()
	put(t, mem, MaxMemory-1, []byte{1})
	b := sealed(t, key, "a", mem, nil)
	if len(b) > 300 {
		t.Errorf("64 GiB of holes take %d bytes", len(b))
	}
	if _, err := Open(t.Context(), bytes.NewReader(b), key, "a", back); err != nil {
		t.Fatal(err)
	}
	if info, err := back.Stat(); err != nil || info.Size() != MaxMemory || allocated(t, back) > 4096 {
		t.Errorf("it comes back with %d bytes, %d of them taken", info.Size(), allocated(t, back))
	}
}

func TestKeyDoesNotShow(t *testing.T) {
	t.Parallel()
	k := NewKey()
	holder := struct{ Key Key }{*k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, x := range []any{k, *k, holder, []*Key{k}} {
			if got := fmt.Sprintf(verb, x); !strings.Contains(got, "(nap key)") && !strings.Contains(got, "0x") {
				t.Errorf("%s of a %T shows %s", verb, x, got)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	key, mem := NewKey(), file(f, 0)
	key.secret = [keySize]byte{1}
	good := small(f, key, "a", 1)
	f.Add(good)
	f.Add(good[:headerSize+21])
	f.Add([]byte(magic))
	f.Add([]byte{})
	wantState, err := Open(f.Context(), bytes.NewReader(good), key, "a", mem)
	if err != nil {
		f.Fatal(err)
	}
	wantMemory := content(f, mem)
	f.Fuzz(func(t *testing.T, b []byte) {
		state, err := Open(t.Context(), bytes.NewReader(b), key, "a", mem)
		switch {
		case err != nil && !errors.Is(err, cloudpal.Corrupt):
			t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
		case err == nil && !(bytes.Equal(state, wantState) && bytes.Equal(content(t, mem), wantMemory)):
			t.Error("it opens as something that was not sealed")
		}
	})
}

// FuzzInside fuzzes what is behind the authentication.
func FuzzInside(f *testing.F) {
	room := takeScratch()
	from := file(f, 1<<20+4096)
	put(f, from, 5000, []byte("something"))
	plain, _, err := packMemory(room, 0, from, 1<<20+4096)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(kindMemory), bytes.Clone(plain))
	f.Add(byte(kindState), bytes.Clone(packState(room, 0, []byte("some state"))))
	key, mem := NewKey(), file(f, 0)
	f.Fuzz(func(t *testing.T, k byte, plain []byte) {
		if len(plain) > maxFrame-tagSize {
			return
		}
		b := forge(t, key, 1<<20+4096, kind(k), plain)
		_, err := Open(t.Context(), bytes.NewReader(b), key, "a", mem)
		if err != nil && !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
		}
		if info, err := mem.Stat(); err != nil || info.Size() != 1<<20+4096 {
			t.Errorf("the memory has %d bytes", info.Size())
		}
	})
}
