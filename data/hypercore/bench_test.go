package hypercore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/storage"
)

func openDisk(b *testing.B) *storage.Store {
	b.Helper()
	s, err := storage.Open(b.TempDir(), storage.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// cpu reports the processor time of the whole process, which has that of what
// the database does in the background, per operation.
func cpu(b *testing.B) (stop func()) {
	used := func() float64 {
		var u unix.Rusage
		unix.Getrusage(unix.RUSAGE_SELF, &u)
		return float64(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric((used()-start)/float64(b.N), "cpu-ns/op") }
}

func randomBlock(size int) []byte {
	block := make([]byte, size)
	rand.Read(block)
	return block
}

// fill appends n blocks in batches of 100.
func fill(b testing.TB, c *hypercore.Core, n, size int) {
	b.Helper()
	blocks := make([][]byte, 100)
	for i := range blocks {
		blocks[i] = randomBlock(size)
	}
	for done := 0; done < n; done += len(blocks) {
		if _, err := c.Append(blocks[:min(len(blocks), n-done)]...); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Sync(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkAppend(b *testing.B) {
	c := create(b, openDisk(b), hypercore.Options{})
	block := randomBlock(1024)
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		if _, err := c.Append(block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendSync(b *testing.B) {
	c := create(b, openDisk(b), hypercore.Options{})
	block := randomBlock(1024)
	defer cpu(b)()
	for b.Loop() {
		if _, err := c.Append(block); err != nil {
			b.Fatal(err)
		}
		if err := c.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendBatch is per block, of batches of 100.
func BenchmarkAppendBatch(b *testing.B) {
	c := create(b, openDisk(b), hypercore.Options{})
	blocks := make([][]byte, 100)
	for i := range blocks {
		blocks[i] = randomBlock(1024)
	}
	b.ReportAllocs()
	n := 0
	defer cpu(b)()
	for b.Loop() {
		if n++; n%len(blocks) != 0 {
			continue
		}
		if _, err := c.Append(blocks...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		c := create(b, openDisk(b), hypercore.Options{})
		fill(b, c, n, 1024)
		b.Run(fmt.Sprintf("random/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				if _, err := c.Get(context.Background(), mrand.Uint64N(uint64(n))); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("sequential/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			defer cpu(b)()
			i := uint64(0)
			for b.Loop() {
				if _, err := c.Get(context.Background(), i%uint64(n)); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
