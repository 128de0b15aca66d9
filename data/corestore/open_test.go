package corestore

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestOpenReadsNoCores opens a store of three cores and one of ten thousand, and
// one core in each: it takes as many reads of the disk, give or take those for
// the larger database's own index.
func TestOpenReadsNoCores(t *testing.T) {
	reads := func(cores int) int64 {
		fs := vfs.NewMem()
		s := openDir(t, "s", Options{FS: fs, Linger: -1})
		for i := range cores {
			c := get(t, s, fmt.Sprint(i))
			if i < 3 {
				appendTo(t, c, "x")
			}
			c.Close()
		}
		closeStore(t, s)
		closeStore(t, openDir(t, "s", Options{FS: fs})) // what was in the log is in tables

		var n atomic.Int64
		counting := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileRead || op.Kind == errorfs.OpFileReadAt {
				n.Add(1)
			}
			return nil
		}))
		s = openDir(t, "s", Options{FS: counting})
		defer closeStore(t, s)
		wantBlock(t, get(t, s, "2"), 0, "x")
		return n.Load()
	}
	few, many := reads(3), reads(10_000)
	if many > few+30 {
		t.Errorf("opening a store of 10,000 cores took %d reads, one of 3 cores %d", many, few)
	}
	t.Logf("%d reads, and %d", few, many)
}
