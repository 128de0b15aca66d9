package seal

import (
	"bytes"
	"os"
	"testing"
)

func TestTrimPunchesZeroPages(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size  int64
		write func(t *testing.T, f *os.File)
		kept  int64 // bytes
	}{
		"empty":    {0, func(*testing.T, *os.File) {}, 0},
		"hole":     {5 << 20, func(*testing.T, *os.File) {}, 0},
		"zeros":    {5 << 20, func(t *testing.T, f *os.File) { put(t, f, 0, make([]byte, 5<<20)) }, 0},
		"noise":    {5 << 20, func(t *testing.T, f *os.File) { put(t, f, 0, noise(1, 5<<20)) }, 5 << 20},
		"a byte":   {5 << 20, func(t *testing.T, f *os.File) { put(t, f, 3<<20-1, []byte{1, 0}) }, 4096},
		"last bit": {1<<20 + 1, func(t *testing.T, f *os.File) { put(t, f, 1<<20, []byte{128}) }, 4096},
		"stripes": {4 << 20, func(t *testing.T, f *os.File) {
			put(t, f, 0, make([]byte, 4<<20))
			for at := int64(4096); at < 4<<20; at += 8192 {
				put(t, f, at+100, []byte{1})
			}
		}, 2 << 20},
		"across MiBs": {4 << 20, func(t *testing.T, f *os.File) {
			put(t, f, 0, noise(1, 1<<20-8192))
			put(t, f, 1<<20-8192, make([]byte, 2<<20))
			put(t, f, 3<<20-8192, noise(1, 1<<20+8192))
		}, 2 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trimTwice(t, file(t, c.size), c.write, c.kept)
			trimTwice(t, diskFile(t, c.size), c.write, c.kept)
		})
	}
}

func diskFile(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func trimTwice(t *testing.T, f *os.File, write func(*testing.T, *os.File), kept int64) {
	t.Helper()
	write(t, f)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	want, before := content(t, f), allocated(t, f)
	freed, err := Trim(f)
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, f); !bytes.Equal(got, want) {
		t.Error("the content changed")
	}
	// A disk's file system takes a few blocks of its own for the list of parts.
	if got := allocated(t, f); got < kept || got > kept+32<<10 || before-got > freed+pageSize {
		t.Errorf("%d bytes are taken, want %d; it says it freed %d of %d", got, kept, freed, before)
	}
	if freed, err := Trim(f); err != nil || freed != 0 {
		t.Errorf("a second time: freed %d, %v, want nothing", freed, err)
	}
}

func TestTrimTellsWhatItCannot(t *testing.T) {
	t.Parallel()
	f := diskFile(t, 4096)
	put(t, f, 0, make([]byte, 4096))
	r, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := Trim(r); err == nil {
		t.Error("it trims a file that it may not write")
	}
}
