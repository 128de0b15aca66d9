package volume

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tradle/cloudpal"
)

func key(n byte) []byte { return bytes.Repeat([]byte{n}, 64) }

// device is a file as large as a small volume, all zero.
func device(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(16 << 20); err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t *testing.T, f *os.File, data []byte, at int64) {
	t.Helper()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}

func TestAVolumeIsFoundByItsHeader(t *testing.T) {
	f := device(t)
	if _, err := readHeader(f); !errors.Is(err, cloudpal.NotExist) {
		t.Fatalf("a device of zeros: got %v, want that it is empty", err)
	}
	h := newHeader(key(1))
	if err := h.write(f); err != nil {
		t.Fatal(err)
	}
	got, err := readHeader(f)
	if err != nil || got != h {
		t.Fatalf("got %v %v, want what was written", got, err)
	}
	if !got.opens(key(1)) || got.opens(key(2)) {
		t.Error("the key does not open it, or another does")
	}
	if !bytes.Equal(got.cipherKey(key(1)), h.cipherKey(key(1))) || bytes.Equal(h.cipherKey(key(1)), key(1)) {
		t.Error("the cipher's key is not of the disk key and the salt")
	}
	if other := newHeader(key(1)); bytes.Equal(other.cipherKey(key(1)), h.cipherKey(key(1))) {
		t.Error("two volumes of one key have the same cipher's key")
	}
}

func TestTheHeaderIsThereTwice(t *testing.T) {
	for name, at := range map[string]int64{"the first": headerAt, "the second": copyAt} {
		f := device(t)
		h := newHeader(key(1))
		if err := h.write(f); err != nil {
			t.Fatal(err)
		}
		put(t, f, make([]byte, headerSize), at)
		if got, err := readHeader(f); err != nil || got != h {
			t.Errorf("%s is lost: got %v", name, err)
		}
	}
}

// Nothing is formatted over what may be somebody's data.
func TestWhatIsNotEmptyIsNoRoomForAVolume(t *testing.T) {
	garbage := bytes.Repeat([]byte("data"), 1024)
	for name, at := range map[string]int64{
		"at the header": headerAt, "before the data": 512 << 10, "the data": dataAt, "a note of another's": noteAt,
	} {
		f := device(t)
		put(t, f, garbage, at)
		if _, err := readHeader(f); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("%s: got %v, want that it is damaged", name, err)
		}
		_, err := Create(f.Name(), key(1), t.TempDir(), func() error { return nil })
		if !errors.Is(err, cloudpal.Exist) {
			t.Errorf("%s: Create said %v", name, err)
		}
	}
}

// Formatting that was cut off at any point is begun anew: of it nobody has
// relied on anything.
func TestFormattingIsBegunAnew(t *testing.T) {
	f := device(t)
	put(t, f, begun, noteAt)
	put(t, f, bytes.Repeat([]byte{0xe5}, 64<<10), dataAt)
	if _, err := readHeader(f); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("begun and cut off: got %v, want that it is empty", err)
	}
	h := newHeader(key(1))
	put(t, f, h.bytes(), copyAt) // the first of the two that are written
	if got, err := readHeader(f); err != nil || got != h {
		t.Errorf("cut off between the headers: got %v, want a volume", err)
	}
}

// A header that was changed, in whatever bit, opens with no key.
func TestAForgedHeaderOpensNothing(t *testing.T) {
	b := newHeader(key(1)).bytes()
	for i := range headerSize * 8 {
		forged := bytes.Clone(b)
		forged[i/8] ^= 1 << (i % 8)
		if h, err := parseHeader(forged); err == nil && h.opens(key(1)) {
			t.Fatalf("bit %d may be changed", i)
		}
	}
}

func TestTooSmallADevice(t *testing.T) {
	f := device(t)
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f.Name(), key(1), t.TempDir()); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("got %v, want that it is damaged", err)
	}
	if _, err := Open(f.Name()+"-not", key(1), t.TempDir()); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("no device: got %v", err)
	}
}

func TestTheParametersOfTheMapping(t *testing.T) {
	got := cryptParams("/dev/pal", []byte{0xab, 0xcd})
	want := "aes-xts-plain64 abcd 0 /dev/pal 2048 4 allow_discards sector_size:4096 no_read_workqueue no_write_workqueue"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	table := table(8, "crypt", got)
	if len(table)%8 != 0 || !bytes.Contains(table, got) || table[len(table)-1] != 0 {
		t.Errorf("the table is %q", table)
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add(makeHeader(key(1), [saltSize]byte{1}).bytes())
	f.Add(make([]byte, headerSize))
	f.Add([]byte("CloudPal volume\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err == nil && !bytes.Equal(h.bytes(), b) {
			t.Errorf("%x was read as %x", b, h.bytes())
		}
	})
}

// The format is for good: a volume of today opens with the program of
// tomorrow.
func TestGoldenHeader(t *testing.T) {
	var salt [saltSize]byte
	for i := range salt {
		salt[i] = byte(i)
	}
	h := makeHeader(key(7), salt)
	golden, err := os.ReadFile("testdata/header")
	if os.Getenv("UPDATE") != "" {
		os.MkdirAll("testdata", 0o755)
		err = os.WriteFile("testdata/header", append(h.bytes()[:84:84], h.cipherKey(key(7))...), 0o644)
		golden = append(h.bytes()[:84:84], h.cipherKey(key(7))...)
	}
	if err != nil || !bytes.Equal(golden, append(h.bytes()[:84:84], h.cipherKey(key(7))...)) {
		t.Errorf("the header or the cipher's key is not as it was: %v", err)
	}
}
