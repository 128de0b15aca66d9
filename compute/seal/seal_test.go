package seal

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// fill writes one kind of content to a file of size bytes.
type fill func(t *testing.T, f *os.File, size int64)

var fills = map[string]fill{
	"holes":  func(*testing.T, *os.File, int64) {},
	"zeros":  func(t *testing.T, f *os.File, size int64) { put(t, f, 0, make([]byte, size)) },
	"random": func(t *testing.T, f *os.File, size int64) { put(t, f, 0, noise(1, size)) },
	"sparse": func(t *testing.T, f *os.File, size int64) {
		for at := int64(0); at < size; at += 700_001 {
			put(t, f, at, noise(uint64(at), min(5000, size-at)))
		}
	},
	"last byte": func(t *testing.T, f *os.File, size int64) {
		if size > 0 {
			put(t, f, size-1, []byte{1})
		}
	},
}

func TestOpenReturnsWhatWasSealed(t *testing.T) {
	t.Parallel()
	for name, fill := range fills {
		for _, size := range []int64{0, 1, 4095, 4096, 1<<20 - 1, 1 << 20, 1<<20 + 4097, 9 << 20} {
			for _, state := range []int{0, 1, 70_000, 1 << 20, 5<<20 + 3} {
				t.Run(fmt.Sprintf("%s/%d/%d", name, size, state), func(t *testing.T) {
					t.Parallel()
					roundTrip(t, fill, size, state)
				})
			}
		}
	}
}

func roundTrip(t *testing.T, fill fill, size int64, state int) {
	mem, back, key := file(t, size), file(t, 12345), NewKey()
	fill(t, mem, size)
	put(t, back, 0, noise(3, 12345)) // what was in the file before must go
	want := noise(2, int64(state))
	var sealed bytes.Buffer
	stats, err := Seal(t.Context(), &sealed, key, "a", mem, want)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Sealed != int64(sealed.Len()) || stats.Memory != size {
		t.Errorf("stats are %+v, want %d sealed of %d", stats, sealed.Len(), size)
	}
	got, err := Open(t.Context(), &sealed, key, "a", back)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the state came back different")
	}
	if !bytes.Equal(content(t, back), content(t, mem)) {
		t.Errorf("the memory came back different")
	}
	if got := allocated(t, back); got >= stats.Kept+pageSize {
		t.Errorf("the memory takes %d bytes, want at most the %d kept", got, stats.Kept)
	}
}

// file returns an open file of size bytes, all hole, in a tmpfs where there is
// one.
func file(t testing.TB, size int64) *os.File {
	t.Helper()
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = t.TempDir()
	}
	f, err := os.CreateTemp(dir, "seal-test-")
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(f.Name())
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t testing.TB, f *os.File, at int64, b []byte) {
	t.Helper()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, f *os.File) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func allocated(t testing.TB, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// noise returns n bytes that do not compress; the same for the same seed.
func noise(seed uint64, n int64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}).Read(b)
	return b
}
