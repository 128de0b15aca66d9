package storage

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestGroupCommit has fifty write to a core each and wait for the disk, which is
// busy with another's sync: when that is done one more serves them all.
func TestGroupCommit(t *testing.T) {
	const writers = 50
	var syncs atomic.Int64
	var slow atomic.Bool
	busy, goOn := make(chan struct{}), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			if strings.HasSuffix(op.Path, ".log") {
				syncs.Add(1)
				if slow.CompareAndSwap(true, false) {
					close(busy)
					<-goOn
				}
			}
		}
		return nil
	}))
	s, err := Open("store", Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var wait sync.WaitGroup
	write := func(i int) func() error {
		c, err := s.Create([32]byte{byte(i), 1}, Identity{Key: [32]byte{1}})
		if err != nil {
			t.Fatal(err)
		}
		b := s.Begin()
		defer b.Close()
		b.SetHead(c, Head{Length: 1})
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		synced, err := s.startSync()
		if err != nil {
			t.Fatal(err)
		}
		return synced
	}
	begin := func(synced func() error) {
		wait.Go(func() {
			if err := synced(); err != nil {
				t.Error(err)
			}
		})
	}
	slow.Store(true)
	before := syncs.Load()
	begin(write(0))
	<-busy
	for i := range writers {
		begin(write(1 + i))
	}
	close(goOn)
	wait.Wait()
	if got := syncs.Load() - before; got > 4 {
		t.Errorf("%d writers took %d syncs of the log", writers+1, got)
	}
}
