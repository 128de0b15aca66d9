package storage

import (
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// Sizes, as they were found best by measuring: with less cache than this the
// buffers, which count as part of it, leave none, and reads take twice as long.
const (
	defaultCache  = 64 << 20
	defaultBuffer = 4 << 20

	// placesEighths is how many eighths of the cache are for where blocks are: ten
	// million blocks have 35 MB of that. Each that is not there is looked for in the
	// database, which takes four times as long as to read the block.
	placesEighths = 5

	// separate is how large a block must be to stay in the log. Smaller ones, as
	// the nodes of bees are, are sooner found in a table, many of which are in
	// memory, than read each by itself.
	separate = 512

	// apart is how large a record must be to go into a file of its kind, which is
	// not written again when tables are merged: full tiles are.
	apart = 512

	// indexSize keeps the index of a table of up to about 12,000 blocks in one
	// piece, so that a read looks at one piece less.
	indexSize = 64 << 10
)

func (s *Store) options(o Options) *pebble.Options {
	if o.Cache <= 0 {
		o.Cache = defaultCache
	}
	if o.Buffer == 0 {
		o.Buffer = defaultBuffer
	}
	s.large = int(o.Buffer) / 2
	places := o.Cache / 8 * placesEighths
	s.places.limit = int(places)
	p := &pebble.Options{
		FS:                          diskFS{o.FS, s},
		ReadOnly:                    o.ReadOnly,
		CacheSize:                   o.Cache - places,
		MemTableSize:                o.Buffer,
		MemTableStopWritesThreshold: 1000, // flow does it
		L0StopWritesThreshold:       1000, // likewise
		DisableWAL:                  true, // the log is it
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      logger{s},
		EventListener:               s.listener(),
	}
	p.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           apart,
			MaxBlobReferenceDepth: 10,
			RewriteMinimumAge:     time.Minute,
			TargetGarbageRatio:    0.2,
		}
	}
	for i := range p.Levels {
		// Blocks are mostly encrypted, or compressed by who made them, and the
		// tree's hashes are random.
		p.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		p.Levels[i].IndexBlockSize = indexSize
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return p
}

// listener keeps the flow's counts, and hears of a disk that fails in the
// background.
func (s *Store) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: s.backgroundError,
		DataCorruption:  func(pebble.DataCorruptionInfo) {}, // who reads gets the error; without this, Pebble calls Fatalf
		FlushBegin:      func(pebble.FlushInfo) { s.flow.flushing() },
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err == nil {
				s.flow.flushed(len(info.Output))
				s.wakeReclaim()
			}
		},
		CompactionEnd: func(info pebble.CompactionInfo) {
			if info.Err == nil {
				s.flow.merged(mergedBy(info))
			}
		},
	}
}

// mergedBy returns how many tables fewer level 0 has after a compaction.
func mergedBy(info pebble.CompactionInfo) (n int) {
	for _, in := range info.Input {
		if in.Level == 0 {
			n += len(in.Tables)
		}
	}
	if info.Output.Level == 0 {
		n -= len(info.Output.Tables)
	}
	return n
}

// backgroundError is told by one of Pebble's own goroutines that it could not
// write. Pebble would try again at once, and for ever.
func (s *Store) backgroundError(err error) {
	s.refuse(err)
	if !calledBy(guardName) {
		runtime.Goexit()
	}
}
