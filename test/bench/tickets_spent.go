package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"

	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/test/postgres"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
)

// What is asked of each set of spent tickets.
const (
	spenders  = 128     // at once, each with one ticket after the other
	preloaded = 300_000 // rows
	spends    = 40_000  // in a round
	spentIn   = ticket.Epoch(82)

	spentRounds = 5
)

// evidence is what a mint keeps of a deposit.
var evidence = mint.Evidence{Contract: ticket.PayContract{}}.Append(nil)

// A set of spent tickets.
type set struct {
	contestant
	add func(row ledger.Row) (ledger.Row, error) // returns what is there now
}

// benchSpent holds the ledger against the least that does the same: a loop over a
// database of the same options, which looks under a lock and writes with a sync.
// Beside it is the ledger in PostgreSQL, whose own work is another process's.
func (c *prices) benchSpent(b *run) error {
	dir := filepath.Join(b.TempDir(), "ledger")
	l, err := ledger.OpenPebble(dir)
	b.must(err)
	defer l.Close()
	ours, bare, database := &set{contestant{name: "ours"}, spendRow(l)}, b.bareSet(), b.postgresSet()
	for _, s := range []*set{ours, bare, database} {
		b.load(s)
	}
	for range spentRounds {
		for _, s := range []*set{ours, bare, database} {
			b.round(s)
		}
	}
	const rows = preloaded + spentRounds*spends
	b.must(l.Close())
	c.spend, c.row = ours.micros()/1e6, b.weigh(dir)/(rows*15.0/16)
	const unit = "spends/s"
	b.add(least("spent set: 128 spend at once, on disk", unit, ours.rate(), bare.rate(), "a bare Pebble loop", 0.8),
		told("  computing", "µs/spend", ours.micros(), bare.micros(), "a bare Pebble loop"),
		told("  the same", unit, ours.rate(), database.rate(), "ours in PostgreSQL, with it on these cores"))
	return nil
}

// spendRow adds one row to a ledger.
func spendRow(l ledger.Ledger) func(ledger.Row) (ledger.Row, error) {
	return func(row ledger.Row) (ledger.Row, error) {
		there, err := l.Spend(context.Background(), spentIn, []ledger.Row{row})
		if err != nil {
			return row, err
		}
		return there[0], nil
	}
}

// weigh is how many bytes a ledger has in its tables, when all that was in its log is
// there.
func (b *run) weigh(dir string) (bytes float64) {
	l, err := ledger.OpenPebble(dir)
	b.must(err)
	_, err = l.Look(context.Background(), spentIn, nil)
	b.must(errors.Join(err, l.Close()))
	tables, _ := filepath.Glob(filepath.Join(dir, "*", "*.sst"))
	for _, path := range tables {
		info, err := os.Stat(path)
		b.must(err)
		bytes += float64(info.Size())
	}
	return bytes
}

func (b *run) postgresSet() *set {
	l, err := ledger.OpenPostgres(context.Background(), postgres.New(b).URL())
	b.must(err)
	b.Cleanup(func() { l.Close() })
	return &set{contestant{name: "PostgreSQL"}, spendRow(l)}
}

func (b *run) bareSet() *set {
	options := &pebble.Options{MemTableSize: 32 << 20, FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}}
	none := pebble.UniformDBCompressionSettings(block.NoCompression)
	options.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return none })
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(b.TempDir(), options)
	b.must(err)
	b.Cleanup(func() { db.Close() })
	var locks [256]sync.Mutex
	return &set{contestant{name: "bare Pebble"}, func(row ledger.Row) (ledger.Row, error) {
		mu := &locks[row.Serial[0]]
		mu.Lock()
		defer mu.Unlock()
		value, closer, err := db.Get(row.Serial[:])
		if err == nil {
			defer closer.Close()
			return ledger.Row{Serial: row.Serial, Tag: ticket.Tag(value[:16]), Evidence: slices.Clone(value[16:])}, nil
		}
		if !errors.Is(err, pebble.ErrNotFound) {
			return row, err
		}
		return row, db.Set(row.Serial[:], slices.Concat(row.Tag[:], row.Evidence), pebble.Sync)
	}}
}

// load puts rows into a set before it is measured.
func (b *run) load(s *set) { b.spendAll(s, preloaded) }

// round measures one, of which every sixteenth spend is one of a ticket that is
// spent already, for something else.
func (b *run) round(s *set) {
	b.measure(&s.contestant, spends, func() sample { b.spendAll(s, spends); return nil })
}

func (b *run) spendAll(s *set, count int) {
	var all sync.WaitGroup
	wrong := make(chan error, spenders)
	for range spenders {
		all.Go(func() { wrong <- spendSome(s, count/spenders) })
	}
	all.Wait()
	for range spenders {
		b.must(<-wrong)
	}
}

func spendSome(s *set, count int) error {
	var last ledger.Row
	for n := range count {
		row := ledger.Row{Evidence: evidence}
		for i := range row.Serial {
			row.Serial[i], row.Tag[i] = byte(rand.Uint32()), byte(rand.Uint32())
		}
		again := n%16 == 15
		if again {
			row.Serial = last.Serial
		}
		there, err := s.add(row)
		if err != nil {
			return err
		}
		if again && there.Tag != last.Tag || !again && there.Tag != row.Tag {
			return fmt.Errorf("%s: a ticket is spent for something else", s.name)
		}
		last = there
	}
	return nil
}
