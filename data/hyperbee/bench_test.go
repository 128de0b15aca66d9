package hyperbee

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/storage"
)

// The benchmarks have keys of 16 bytes and values of 100, in random order, in
// a bee of 100,000 where none other is said. Nothing is synced: what is measured
// is the bee, the log and the database, not the disk.
const benchKeys = 100_000

func benchKey(i int) []byte { return fmt.Appendf(nil, "key-%012d", uint64(i)*2654435761%1_000_000_007) }

var benchValue = make([]byte, 100)

func onDisk(b *testing.B) *Bee {
	b.Helper()
	store, err := storage.Open(b.TempDir(), storage.Options{})
	must(b, err)
	core, err := hypercore.Create(store, hypercore.Options{})
	must(b, err)
	b.Cleanup(func() {
		core.Close()
		store.Close()
	})
	return New(core, Options{})
}

func filled(b *testing.B, keys int) *Bee {
	b.Helper()
	bee := onDisk(b)
	batch := bee.Batch()
	for i := range keys {
		must(b, batch.Put(ctx, benchKey(i), benchValue))
		if i%1000 == 999 {
			must(b, batch.Flush())
		}
	}
	must(b, batch.Flush())
	for i := range keys {
		_, err := bee.Get(ctx, benchKey(i))
		must(b, err)
	}
	return bee
}

func BenchmarkPut(b *testing.B) {
	bee := filled(b, benchKeys)
	b.ReportAllocs()
	i := benchKeys
	for b.Loop() {
		must(b, bee.Put(ctx, benchKey(i), benchValue))
		i++
	}
}

func BenchmarkPutEmpty(b *testing.B) {
	bee := onDisk(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		must(b, bee.Put(ctx, benchKey(i), benchValue))
		i++
	}
}

// BenchmarkBatch is per put, in batches of 1000.
func BenchmarkBatch(b *testing.B) {
	bee := filled(b, benchKeys)
	b.ReportAllocs()
	batch := bee.Batch()
	i := benchKeys
	for b.Loop() {
		must(b, batch.Put(ctx, benchKey(i), benchValue))
		if i++; i%1000 == 0 {
			must(b, batch.Flush())
		}
	}
	batch.Close()
}

// BenchmarkBatchPebble is BenchmarkBatch without bee or log.
func BenchmarkBatchPebble(b *testing.B) {
	db, err := pebble.Open(b.TempDir(), &pebble.Options{Logger: quiet{}})
	must(b, err)
	defer db.Close()
	b.ReportAllocs()
	batch := db.NewBatch()
	i := 0
	for b.Loop() {
		must(b, batch.Set(benchKey(i), benchValue, nil))
		if i++; i%1000 == 0 {
			must(b, batch.Commit(pebble.NoSync))
			batch = db.NewBatch()
		}
	}
	must(b, batch.Commit(pebble.NoSync))
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}

func BenchmarkGet(b *testing.B) {
	bee := filled(b, benchKeys)
	b.ReportAllocs()
	r := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		_, err := bee.Get(ctx, benchKey(r.IntN(benchKeys)))
		must(b, err)
	}
}

// BenchmarkGetCold is with no tree nodes in memory: a new bee for each key.
func BenchmarkGetCold(b *testing.B) {
	bee := filled(b, benchKeys)
	b.ReportAllocs()
	r := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		_, err := New(bee.log, Options{}).Get(ctx, benchKey(r.IntN(benchKeys)))
		must(b, err)
	}
}

func BenchmarkGetMissing(b *testing.B) {
	bee := filled(b, benchKeys)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := bee.Get(ctx, append(benchKey(i%benchKeys), 'x')); err != cloudpal.NotExist {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkScan is per entry of a whole bee, written in random order.
func BenchmarkScan(b *testing.B) {
	bee := filled(b, benchKeys)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for n < b.N {
		for _, err := range bee.Range(ctx, Range{Limit: b.N - n}) {
			must(b, err)
			n++
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	bee := filled(b, benchKeys)
	old := bee.Snapshot()
	defer old.Close()
	for i := range 100 {
		must(b, bee.Put(ctx, benchKey(i), benchValue))
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range bee.Diff(ctx, old, Range{}) {
			must(b, err)
		}
	}
}
