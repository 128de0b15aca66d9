package protocol

import (
	"fmt"
	"testing"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/storage"
)

// How long a block takes from one core to another, over TCP and encrypted, both
// ends in this process.
func BenchmarkReplicate(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%d", size), func(b *testing.B) {
			w, err := hypercore.Create(onDisk(b), hypercore.Options{})
			must(b, err)
			b.Cleanup(func() { w.Close() })
			blocks := make([][]byte, 256)
			for i := range blocks {
				blocks[i] = make([]byte, size)
				blocks[i][0] = byte(i)
			}
			for n := b.N; n > 0; n -= len(blocks) {
				_, err := w.Append(blocks[:min(n, len(blocks))]...)
				must(b, err)
			}
			r, err := hypercore.Open(onDisk(b), w.Key(), hypercore.Options{})
			must(b, err)
			b.Cleanup(func() { r.Close() })
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			connect(b, w, Options{}, r, Options{Full: true})
			waitAll(b, r, uint64(b.N))
		})
	}
}

func onDisk(b *testing.B) *storage.Store {
	b.Helper()
	s, err := storage.Open(b.TempDir(), storage.Options{})
	must(b, err)
	b.Cleanup(func() { s.Close() })
	return s
}
