package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Pebble is a Ledger in a folder of one host: a database for each epoch, so that
// an epoch is dropped by removing a folder.
//
//	LOCK        held by who has it open
//	dropped     the first epoch that was not dropped, as a number; see dropFile
//	epoch-82/   a Pebble database: serial -> tag and evidence
type Pebble struct {
	dir  string
	fs   vfs.FS
	lock *pebble.Lock

	mu      sync.RWMutex // held for reading while an epoch is used
	epochs  map[ticket.Epoch]*shelf
	dropped ticket.Epoch // all before it are
	closed  bool

	looked atomic.Int64 // when the disk was last seen to have room, in Unix nanoseconds
}

// A shelf is one epoch's rows. Rows whose serials begin with one byte are added one
// after the other; the syncs of all go together in the database's write-ahead log.
type shelf struct {
	db    *pebble.DB
	locks [256]sync.Mutex
}

// OpenPebble opens the ledger in a folder, and makes it where there is none.
func OpenPebble(dir string) (*Pebble, error) { return openPebble(dir, vfs.Default) }

func openPebble(dir string, fs vfs.FS) (*Pebble, error) {
	const op = "open the ledger"
	if err := errors.Join(fs.MkdirAll(dir, 0o700), syncDir(fs, fs.PathDir(dir))); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	lock, err := pebble.LockDirectory(dir, fs)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Busy, err).WithHint("another process has it open: end that, or use another folder")
	}
	p := &Pebble{dir: dir, fs: fs, lock: lock, epochs: map[ticket.Epoch]*shelf{}}
	if err := p.recover(); err != nil {
		lock.Close()
		return nil, cloudpal.E(op, cloudpal.Corrupt, err)
	}
	return p, nil
}

// recover reads which epochs are dropped and removes what is left of them.
func (p *Pebble) recover() error {
	f, err := p.fs.Open(p.path(dropFile))
	if err == nil {
		text, err := io.ReadAll(io.LimitReader(f, 32))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
		if err != nil {
			return fmt.Errorf("%s is damaged: %w", p.path(dropFile), err)
		}
		p.dropped = ticket.Epoch(n)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return p.sweep()
}

// sweep removes the folders of epochs that are dropped.
func (p *Pebble) sweep() error {
	names, err := p.fs.List(p.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		n, err := strconv.ParseUint(strings.TrimPrefix(name, epochPrefix), 10, 32)
		if err != nil || !strings.HasPrefix(name, epochPrefix) || ticket.Epoch(n) >= p.dropped {
			continue
		}
		if err := p.fs.RemoveAll(p.path(name)); err != nil {
			return err
		}
	}
	return nil
}

const (
	dropFile    = "dropped"
	epochPrefix = "epoch-"
)

func (p *Pebble) path(name string) string { return p.fs.PathJoin(p.dir, name) }

// Spend implements Ledger.
func (p *Pebble) Spend(ctx context.Context, e ticket.Epoch, rows []Row) ([]Row, error) {
	if err := errors.Join(ctx.Err(), check(rows)); err != nil {
		return nil, err
	}
	if err := p.room(); err != nil {
		return nil, err
	}
	s, done, err := p.shelf(e)
	if err != nil {
		return nil, err
	}
	defer done()
	defer s.hold(rows)()
	there := make([]Row, len(rows))
	first := map[Serial]int{} // where in rows a serial comes first
	b := s.db.NewBatch()
	defer b.Close()
	for i, r := range rows {
		if j, ok := first[r.Serial]; ok {
			there[i] = there[j]
			continue
		}
		first[r.Serial] = i
		got, found, err := s.get(r.Serial)
		if err != nil {
			return nil, cloudpal.E("spend tickets", kindOf(err), err)
		}
		if there[i] = got; found {
			continue
		}
		there[i] = r
		if err := b.Set(r.Serial[:], append(r.Tag[:], r.Evidence...), nil); err != nil {
			return nil, cloudpal.E("spend tickets", "", err)
		}
	}
	if err := s.commit(b); err != nil {
		return nil, cloudpal.E("spend tickets", kindOf(err), err)
	}
	return there, nil
}

// minRoom is how much of the disk stays free, in bytes: a database that cannot write
// its log can only end its process.
const minRoom = 256 << 20

// room refuses to go on where the disk is almost full. It looks once a second.
func (p *Pebble) room() error {
	now := time.Now().UnixNano()
	if was := p.looked.Load(); now-was < int64(time.Second) {
		return nil
	}
	u, err := p.fs.GetDiskUsage(p.dir)
	if err != nil && !errors.Is(err, vfs.ErrUnsupported) {
		return cloudpal.E("look for room on the ledger's disk", "", err)
	}
	if err == nil && u.AvailBytes < minRoom {
		return cloudpal.E("spend tickets", cloudpal.NoSpace, fmt.Errorf("the ledger's disk has %d MiB left", u.AvailBytes>>20)).
			WithHint(fmt.Sprintf("free some: the mint goes on by itself when there are %d MiB", minRoom>>20))
	}
	p.looked.Store(now)
	return nil
}

// kindOf sorts what a disk says.
func kindOf(err error) cloudpal.Kind {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return cloudpal.NoSpace
	case pebble.IsCorruptionError(err):
		return cloudpal.Corrupt
	}
	return ""
}

// commit makes the batch durable, and all that was read besides: a row that is
// found is there for good, since its writer held its lock until it was.
func (s *shelf) commit(b *pebble.Batch) error {
	if b.Empty() {
		return nil
	}
	return b.Commit(pebble.Sync)
}

// hold locks the rows' serials, in one order for all.
func (s *shelf) hold(rows []Row) (release func()) {
	var stripes []byte
	for _, r := range rows {
		stripes = append(stripes, r.Serial[0])
	}
	slices.Sort(stripes)
	stripes = slices.Compact(stripes)
	for _, n := range stripes {
		s.locks[n].Lock()
	}
	return func() {
		for _, n := range stripes {
			s.locks[n].Unlock()
		}
	}
}

func (s *shelf) get(serial Serial) (r Row, found bool, err error) {
	value, closer, err := s.db.Get(serial[:])
	if errors.Is(err, pebble.ErrNotFound) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	defer closer.Close()
	r, err = rowOf(serial, value)
	return r, err == nil, err
}

// rowOf reads a row, which keeps nothing of value.
func rowOf(serial Serial, value []byte) (r Row, err error) {
	if len(value) < len(r.Tag) {
		return r, cloudpal.E("read the ledger", cloudpal.Corrupt, fmt.Errorf("a row of %d bytes", len(value)))
	}
	r.Serial, r.Tag = serial, ticket.Tag(value[:len(r.Tag)])
	if rest := value[len(r.Tag):]; len(rest) > 0 {
		r.Evidence = slices.Clone(rest)
	}
	return r, nil
}

// Look implements Ledger.
func (p *Pebble) Look(ctx context.Context, e ticket.Epoch, serials []Serial) ([]Row, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, done, err := p.shelf(e)
	if err != nil {
		return nil, err
	}
	defer done()
	rows := make([]Row, len(serials))
	for i, serial := range serials {
		// A row that another call is just adding may yet be lost.
		s.locks[serial[0]].Lock()
		rows[i], _, err = s.get(serial)
		s.locks[serial[0]].Unlock()
		if err != nil {
			return nil, cloudpal.E("look for spent tickets", kindOf(err), err)
		}
	}
	return rows, nil
}

// Walk implements Ledger. It holds nothing while f runs.
func (p *Pebble) Walk(ctx context.Context, e ticket.Epoch, f func([]Row) error) error {
	return walk(func(above []byte) ([]Row, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, done, err := p.shelf(e)
		if err != nil {
			return nil, err
		}
		defer done()
		rows, err := s.page(above)
		if err != nil {
			return nil, cloudpal.E("list spent tickets", kindOf(err), err)
		}
		// A row that another call is just adding may yet be lost: its writer holds its
		// lock until it cannot be.
		s.hold(rows)()
		return rows, nil
	}, f)
}

func (s *shelf) page(above []byte) (rows []Row, err error) {
	i, err := s.db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	after := append(slices.Clone(above), 0) // the least that is above it
	if len(above) == 0 {
		after = nil
	}
	for ok := i.SeekGE(after); ok && len(rows) < walkRows; ok = i.Next() {
		value, err := i.ValueAndErr()
		if err != nil {
			return nil, err
		}
		if len(i.Key()) != len(Serial{}) {
			return nil, cloudpal.E("read the ledger", cloudpal.Corrupt, fmt.Errorf("a serial of %d bytes", len(i.Key())))
		}
		r, err := rowOf(Serial(i.Key()), value)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, i.Error()
}

// shelf returns an epoch's rows, which stay until done is called.
func (p *Pebble) shelf(e ticket.Epoch) (s *shelf, done func(), err error) {
	p.mu.RLock()
	s = p.epochs[e]
	if s == nil {
		p.mu.RUnlock()
		if err := p.open(e); err != nil {
			return nil, nil, err
		}
		p.mu.RLock()
		s = p.epochs[e]
	}
	switch {
	case p.closed:
		err = closed()
	case s == nil:
		err = dropped(e)
	}
	if err != nil {
		p.mu.RUnlock()
		return nil, nil, err
	}
	return s, p.mu.RUnlock, nil
}

func (p *Pebble) open(e ticket.Epoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || p.epochs[e] != nil:
		return nil
	case e < p.dropped:
		return dropped(e)
	}
	db, err := pebble.Open(p.path(epochPrefix+strconv.FormatUint(uint64(e), 10)), options(p.fs))
	if err != nil {
		return cloudpal.E(fmt.Sprintf("open epoch %d of the ledger", e), kindOf(err), err)
	}
	// Pebble syncs what is in its folder, not that there is one.
	if err := syncDir(p.fs, p.dir); err != nil {
		return errors.Join(err, db.Close())
	}
	p.epochs[e] = &shelf{db: db}
	return nil
}

// options are those of small values under random keys, most of which are new.
func options(fs vfs.FS) *pebble.Options {
	o := &pebble.Options{FS: fs, MemTableSize: 32 << 20, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}}
	// Who reads what is damaged is told so; others go on.
	o.EventListener = &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}}
	none := pebble.UniformDBCompressionSettings(block.NoCompression) // hashes do not compress
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return none })
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// silent keeps Pebble's talk out of a mint's log, but for what it cannot go on
// after: a log that cannot be written. What is in memory is worth nothing then, and
// what was answered is on the disk, so the process ends.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	slog.Error("the ledger's disk does not write: the process ends, and nothing that was answered is lost",
		"why", fmt.Sprintf(format, args...), "hint", "look at the disk, then start again")
	os.Exit(1)
}

// Drop implements Ledger. Once it is noted that an epoch is dropped, it is; what a
// crash leaves of its folder is removed at the next start.
func (p *Pebble) Drop(_ context.Context, e ticket.Epoch) error {
	const op = "drop spent tickets"
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return closed()
	case e < p.dropped:
		return nil
	}
	if err := p.note(e + 1); err != nil {
		return cloudpal.E(op, kindOf(err), err)
	}
	p.dropped = e + 1
	var errs []error
	for old, s := range p.epochs {
		if old <= e {
			errs = append(errs, s.db.Close())
			delete(p.epochs, old)
		}
	}
	if err := errors.Join(append(errs, p.sweep())...); err != nil {
		return cloudpal.E(op, "", err)
	}
	return nil
}

// note writes the first epoch that is not dropped, whole or not at all.
func (p *Pebble) note(first ticket.Epoch) error {
	f, err := p.fs.Create(p.path(dropFile+".new"), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, uint32(first))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := p.fs.Rename(p.path(dropFile+".new"), p.path(dropFile)); err != nil {
		return err
	}
	return syncDir(p.fs, p.dir)
}

// syncDir makes the names in a folder durable.
func syncDir(fs vfs.FS, path string) error {
	dir, err := fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Close implements Ledger. It waits for calls that run.
func (p *Pebble) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	for e, s := range p.epochs {
		errs = append(errs, s.db.Close())
		delete(p.epochs, e)
	}
	return errors.Join(append(errs, p.lock.Close())...)
}
