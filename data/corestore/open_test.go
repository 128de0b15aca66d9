package corestore

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestOpenReadsNoCores opens a store of three cores and one of ten thousand, and
// one core in each: who opens waits for as many reads of the disk, give or take
// those for the larger database's own index.
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

		var n atomic.Int64
		counting := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if (op.Kind == errorfs.OpFileRead || op.Kind == errorfs.OpFileReadAt) && waitedFor() {
				n.Add(1)
			}
			return nil
		}))
		s = openDir(t, "s", Options{FS: counting})
		defer closeStore(t, s)
		wantBlock(t, get(t, s, "2"), 0, "x")
		return n.Load()
	}
	if few, many := reads(3), reads(10_000); many > few+30 {
		t.Errorf("opening a store of 10,000 cores takes %d reads, one of 3 cores %d", many, few)
	}
}

// waitedFor reports whether this goroutine is the test's, not one of the
// database's that merges tables.
func waitedFor() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for {
		frame, more := frames.Next()
		if frame.Function == "testing.tRunner" {
			return true
		}
		if !more {
			return false
		}
	}
}
