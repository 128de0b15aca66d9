package ledger

import (
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
)

func openFor(t testing.TB, dir string, fs vfs.FS) *Pebble {
	t.Helper()
	l, err := openPebble(dir, fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestPebble(t *testing.T) {
	dir := t.TempDir()
	suite(t, func(t *testing.T) Ledger { return openFor(t, dir, vfs.Default) })
}

func TestPebbleInMemory(t *testing.T) {
	fs := vfs.NewMem()
	suite(t, func(t *testing.T) Ledger { return openFor(t, "ledger", fs) })
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	openFor(t, dir, vfs.Default)
	if _, err := OpenPebble(dir); !errors.Is(err, cloudpal.Busy) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v and a hint", err, cloudpal.Busy)
	}
}

// TestPowerCuts takes the power away at any moment: the disk keeps what was synced
// and, of the rest, some. What was answered is there.
func TestPowerCuts(t *testing.T) {
	for round := range 30 {
		fs := vfs.NewCrashableMem()
		l := openFor(t, "ledger", fs)
		for n := range round * 3 {
			spend(t, l, row(n, n))
			if n == 20 {
				if err := l.Drop(t.Context(), 60); err != nil {
					t.Fatal(err)
				}
			}
		}
		after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: round % 100, RNG: mrand.New(mrand.NewPCG(uint64(round), 1))})
		l.Close()
		l = openFor(t, "ledger", after)
		for n := range round * 3 {
			if got := spend(t, l, row(n, 999)); got[0].Tag != row(n, n).Tag {
				t.Fatalf("round %d: ticket %d can be spent again", round, n)
			}
		}
		if _, err := l.Spend(t.Context(), 60, nil); round*3 > 20 && !errors.Is(err, cloudpal.Exhausted) {
			t.Errorf("round %d: a dropped epoch is back: %v", round, err)
		}
	}
}

func fresh(b []Row) {
	for i := range b {
		rand.Read(b[i].Serial[:])
		rand.Read(b[i].Tag[:])
	}
}

// BenchmarkSpend is 128 callers with a ticket each; BenchmarkBare is the same loop
// on a bare database.
func BenchmarkSpend(b *testing.B) { spendByMany(b, openFor(b, b.TempDir(), vfs.Default)) }

func spendByMany(b *testing.B, l Ledger) {
	b.SetParallelism(128 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		rows := make([]Row, 1)
		for pb.Next() {
			fresh(rows)
			if _, err := l.Spend(b.Context(), epoch, rows); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkBare(b *testing.B) {
	db, err := pebble.Open(b.TempDir(), options(vfs.Default))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	b.SetParallelism(128 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		rows := make([]Row, 1)
		for pb.Next() {
			fresh(rows)
			if _, c, err := db.Get(rows[0].Serial[:]); err == nil {
				c.Close()
				continue
			}
			if err := db.Set(rows[0].Serial[:], rows[0].Tag[:], pebble.Sync); err != nil {
				b.Error(err)
			}
		}
	})
}
