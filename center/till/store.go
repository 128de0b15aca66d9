package till

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/ticket"
)

// A store is the till's rows, JSON each, in Pebble. The syncs of payments that are
// booked at a time go together in its write-ahead log.
//
//	t tab             state
//	y tab n           payment, numbered from 1
//	p serial          place of the ticket's payment
//	e tab n           api.Event, numbered from 1
//	o digest          api.Signed, an offer
//	c                 api.Signed, the present offer
//	l                 time.Time, of the last Review
//	d                 ticket.Epoch, the month in which what is over was dropped
//	m issuer 0 epoch  pin, of a manifest
//	s issuer          manifest.Checkpoint, the last seen
type store struct {
	db     *pebble.DB
	fs     vfs.FS
	dir    string
	looked atomic.Int64 // when the disk was last seen to have room, in Unix nanoseconds
}

// The kinds of rows.
const (
	states      = 't'
	payments    = 'y'
	places      = 'p'
	events      = 'e'
	offers      = 'o'
	pins        = 'm'
	checkpoints = 's'
)

var presentOffer = []byte("c")

func stateKey(id api.TabID) []byte          { return append([]byte{states}, id[:]...) }
func placeKey(s ticket.Serial) []byte       { return append([]byte{places}, s[:]...) }
func offerKey(d ticket.Digest) []byte       { return append([]byte{offers}, d[:]...) }
func checkpointKey(issuer string) []byte    { return append([]byte{checkpoints}, issuer...) }
func paymentsOf(id api.TabID) []byte        { return append([]byte{payments}, id[:]...) }
func eventsOf(id api.TabID) []byte          { return append([]byte{events}, id[:]...) }
func numbered(head []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(head, n) }

func pinKey(issuer string, e ticket.Epoch) []byte {
	return binary.BigEndian.AppendUint32(append(append([]byte{pins}, issuer...), 0), uint32(e))
}

func openStore(dir string, fs vfs.FS) (*store, error) {
	const op = "open the till's database"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}})
	if err != nil {
		return nil, cloudpal.E(op, kindOf(err), err)
	}
	return &store{db: db, fs: fs, dir: dir}, nil
}

func (s *store) close() error { return s.db.Close() }

// silent keeps Pebble's talk out of the log, but for what it cannot go on after.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	slog.Error("the till's database cannot go on", "why", fmt.Sprintf(format, args...))
	panic(fmt.Sprintf(format, args...))
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

// minRoom is how much of the disk stays free, in bytes: a database that cannot write
// its log can only end its process.
const minRoom = 128 << 20

// room refuses to take more money where the disk is almost full. It looks once a
// second.
func (s *store) room() error {
	now := time.Now().UnixNano()
	if now-s.looked.Load() < int64(time.Second) {
		return nil
	}
	u, err := s.fs.GetDiskUsage(s.dir)
	if err != nil && !errors.Is(err, vfs.ErrUnsupported) {
		return cloudpal.E("look for room on the till's disk", "", err)
	}
	if err == nil && u.AvailBytes < minRoom {
		return cloudpal.E("take a ticket", cloudpal.NoSpace, fmt.Errorf("the till's disk has %d MiB left", u.AvailBytes>>20)).
			WithHint(fmt.Sprintf("free some: the till goes on by itself when there are %d MiB", minRoom>>20))
	}
	s.looked.Store(now)
	return nil
}

// get reads a row, or reports that there is none.
func (s *store) get(key []byte, v any) (found bool, err error) {
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, cloudpal.E("read the till's database", kindOf(err), err)
	}
	defer closer.Close()
	if err := json.Unmarshal(value, v); err != nil {
		return false, cloudpal.E("read the till's database", cloudpal.Corrupt, err)
	}
	return true, nil
}

// each visits the rows of a kind, without their kind; keys and values are lent.
func (s *store) each(kind byte, visit func(key, value []byte) error) error {
	return s.below([]byte{kind}, visit)
}

// below visits the rows whose keys begin with head, without it.
func (s *store) below(head []byte, visit func(key, value []byte) error) error {
	return s.since(head, nil, visit)
}

// since is below from a key on, which is without head too.
func (s *store) since(head, first []byte, visit func(key, value []byte) error) error {
	end := append([]byte{}, head...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			end = end[:i+1]
			break
		}
	}
	i, err := s.db.NewIter(&pebble.IterOptions{LowerBound: slices.Concat(head, first), UpperBound: end})
	if err != nil {
		return cloudpal.E("read the till's database", kindOf(err), err)
	}
	for i.First(); i.Valid(); i.Next() {
		value, err := i.ValueAndErr()
		if err == nil {
			err = visit(i.Key()[len(head):], value)
		}
		if err != nil {
			return errors.Join(cloudpal.E("read the till's database", cloudpal.Corrupt, err), i.Close())
		}
	}
	return i.Close()
}

// after visits the rows of a kind whose keys come after one, without their kind, until
// visit has had enough; keys and values are lent.
func (s *store) after(kind byte, key []byte, visit func(key, value []byte) (more bool, err error)) error {
	const op = "read the till's database"
	low := append([]byte{kind}, key...)
	if len(key) > 0 {
		low = append(low, 0) // the least that comes after it
	}
	i, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: []byte{kind + 1}})
	if err != nil {
		return cloudpal.E(op, kindOf(err), err)
	}
	more := i.First()
	for more {
		value, err := i.ValueAndErr()
		if err == nil {
			more, err = visit(i.Key()[1:], value)
		}
		if err != nil {
			return errors.Join(cloudpal.E(op, cloudpal.Corrupt, err), i.Close())
		}
		more = more && i.Next()
	}
	return i.Close()
}

// A batch is written whole or not at all.
type batch struct {
	b   *pebble.Batch
	err error
}

func (s *store) begin() *batch { return &batch{b: s.db.NewBatch()} }

func (b *batch) put(key []byte, v any) {
	data, err := json.Marshal(v)
	b.err = errors.Join(b.err, err, b.b.Set(key, data, nil))
}

func (b *batch) del(key []byte) { b.err = errors.Join(b.err, b.b.Delete(key, nil)) }

// commit makes the batch durable.
func (b *batch) commit() error { return b.write(pebble.Sync) }

// soon lets the batch become durable with the next that is: what a crash may lose
// without anybody having been told.
func (b *batch) soon() error { return b.write(pebble.NoSync) }

func (b *batch) write(o *pebble.WriteOptions) error {
	defer b.b.Close()
	if b.err != nil {
		return b.err
	}
	if err := b.b.Commit(o); err != nil {
		return cloudpal.E("write the till's database", kindOf(err), err)
	}
	return nil
}
