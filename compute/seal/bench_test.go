package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// sleeper returns the memory of a sleeping guest of 128 MiB: what is in
// SEAL_BENCH_MEMORY, or 46 MiB of pages that zstd makes a third of, in runs
// between holes.
func sleeper(b *testing.B) *os.File {
	b.Helper()
	if path := os.Getenv("SEAL_BENCH_MEMORY"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { f.Close() })
		return f
	}
	f := file(b, 128<<20)
	words := noise(1, 64<<10)
	page := make([]byte, pageSize)
	for n := range 46 << 20 / pageSize {
		at := int64(n/64*177 + n%64) // 64 pages in 177
		for i := 0; i < pageSize; i += 32 {
			pick := int(binary.LittleEndian.Uint16(words[(n*131+i)%(64<<10-2):])) % (64<<10 - 32)
			copy(page[i:], words[pick:pick+32])
		}
		put(b, f, at*pageSize, page)
	}
	return f
}

// kept returns the non-zero pages of f.
func kept(b *testing.B, f *os.File) []byte {
	b.Helper()
	var all []byte
	for m := content(b, f); len(m) > 0; m = m[min(pageSize, len(m)):] {
		if page := m[:min(pageSize, len(m))]; !isZero(page) {
			all = append(all, page...)
		}
	}
	return all
}

// BenchmarkSeal and the three after it are of the same non-zero pages of a
// sleeping guest's memory; their MB/s are of these.
func BenchmarkSeal(b *testing.B) {
	mem, key := sleeper(b), NewKey()
	b.SetBytes(int64(len(kept(b, mem))))
	for b.Loop() {
		stats, err := Seal(b.Context(), io.Discard, key, "a", mem, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(stats.Sealed)/(1<<20), "MiB-sealed")
	}
}

func BenchmarkOpen(b *testing.B) {
	mem, back, key := sleeper(b), file(b, 0), NewKey()
	nap := sealed(b, key, "a", mem, nil)
	b.SetBytes(int64(len(kept(b, mem))))
	for b.Loop() {
		if _, err := Open(b.Context(), bytes.NewReader(nap), key, "a", back); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkZstdAlone streams through zstd, as its command with -1 and a thread
// for each core does.
func BenchmarkZstdAlone(b *testing.B) {
	data := kept(b, sleeper(b))
	b.SetBytes(int64(len(data)))
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		w.Reset(io.Discard)
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGCMAlone encrypts on one core, a MiB at a time.
func BenchmarkGCMAlone(b *testing.B) {
	data := kept(b, sleeper(b))
	b.SetBytes(int64(len(data)))
	block, err := aes.NewCipher(make([]byte, keySize))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	out := make([]byte, 0, pieceSize+tagSize)
	for b.Loop() {
		for i := 0; i < len(data); i += pieceSize {
			aead.Seal(out, nonce(uint64(i)), data[i:min(i+pieceSize, len(data))], nil)
		}
	}
}

func BenchmarkTrim(b *testing.B) {
	mem := sleeper(b)
	if os.Getenv("SEAL_BENCH_MEMORY") != "" {
		b.Skip("it would change that file")
	}
	b.SetBytes(46 << 20)
	for b.Loop() {
		if _, err := Trim(mem); err != nil {
			b.Fatal(err)
		}
	}
}
