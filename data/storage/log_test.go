package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
)

// A tester is a store with one core, whose commits are of one block each, some
// large and some small.
type tester struct {
	t  *testing.T
	fs *vfs.MemFS
	s  *Store
	c  *Core
}

func openTester(t *testing.T, fs *vfs.MemFS, o Options) *tester {
	t.Helper()
	o.FS = fs
	s, err := Open("store", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := s.Core([32]byte{1})
	if errors.Is(err, cloudpal.NotExist) && !o.ReadOnly {
		c, err = s.Create([32]byte{1}, Identity{Key: [32]byte{1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return &tester{t, fs, s, c}
}

// testBlock is what block i is, in one life of many.
func testBlock(life, i uint64) []byte {
	sizes := []int{1, 100, 511, 512, 1000, 5000, 20_000}
	b := make([]byte, sizes[int(i*3+life)%len(sizes)])
	rand.NewChaCha8([32]byte{byte(life), byte(i), byte(i >> 8)}).Read(b)
	return b
}

// limit makes segments small.
func (k *tester) limit(bytes int64) {
	k.s.commits.Lock()
	defer k.s.commits.Unlock()
	k.s.log.limit = bytes
}

// append commits a block.
func (k *tester) append(life uint64) {
	k.t.Helper()
	i := k.c.Head().Length
	k.commit(func(b *Batch) {
		block := testBlock(life, i)
		copy(b.Block(k.c, i, len(block)), block)
		b.SetHead(k.c, Head{Fork: life, Length: i + 1})
	})
}

func (k *tester) commit(f func(b *Batch)) {
	k.t.Helper()
	b := k.s.Begin()
	defer b.Close()
	f(b)
	if err := b.Commit(); err != nil {
		k.t.Fatal(err)
	}
}

func (k *tester) sync() {
	k.t.Helper()
	if err := k.s.Sync(); err != nil {
		k.t.Fatal(err)
	}
}

// check reads all blocks; life says which is whose.
func (k *tester) check(life func(i uint64) uint64) {
	k.t.Helper()
	v := k.c.View()
	defer v.Close()
	for i := range k.c.Head().Length {
		want := testBlock(life(i), i)
		for name, read := range map[string]func([]byte, uint64) ([]byte, error){"block": k.c.AppendBlock, "block of the view": v.AppendBlock} {
			if got, err := read(nil, i); err != nil || !bytes.Equal(got, want) {
				k.t.Fatalf("%s %d of %d: got %d bytes, %v, want %d", name, i, k.c.Head().Length, len(got), err, len(want))
			}
		}
	}
	if _, err := k.c.AppendBlock(nil, k.c.Head().Length); err != cloudpal.NotExist {
		k.t.Fatalf("a block beyond the end: got %v, want %v", err, cloudpal.NotExist)
	}
}

func always(life uint64) func(uint64) uint64 { return func(uint64) uint64 { return life } }

// crash returns what is on disk after a loss of power, or of the process only,
// where all is that was written.
func (k *tester) crash(percent int, seed uint64) *vfs.MemFS {
	return k.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 1))})
}

// TestKilledStore opens a store whose process was killed, for writing and for
// reading only: all that was committed is there, synced or not.
func TestKilledStore(t *testing.T) {
	k := openTester(t, vfs.NewCrashableMem(), Options{})
	k.limit(50_000) // several segments
	for range 40 {
		k.append(1)
	}
	for _, readOnly := range []bool{true, false} {
		l := openTester(t, k.crash(100, 1), Options{ReadOnly: readOnly})
		if got := l.c.Head().Length; got != 40 {
			t.Errorf("for reading only, %v: %d blocks, want 40", readOnly, got)
		}
		l.check(always(1))
		if readOnly {
			b := l.s.Begin()
			b.SetHead(l.c, Head{})
			if err := b.Commit(); !errors.Is(err, cloudpal.Denied) {
				t.Errorf("writing to a store that is for reading only: got %v", err)
			}
			b.Close()
		}
	}
}

// TestLossOfPower loses power while a log is written to, again and again, with
// any part of what was not synced on disk, in any order. What was synced is
// there, and nothing that is half there, nor anything of the lives before.
func TestLossOfPower(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			lots := rand.New(rand.NewPCG(seed, 2))
			fs := vfs.NewCrashableMem()
			var owners []uint64 // of each block, the life that wrote it
			for life := range uint64(6) {
				k := openTester(t, fs, Options{Buffer: 64 << 10})
				length := k.c.Head().Length
				if length > uint64(len(owners)) {
					t.Fatalf("life %d: %d blocks, of which %d were written", life, length, len(owners))
				}
				owners = owners[:length]
				k.check(func(i uint64) uint64 { return owners[i] })
				if life == 5 {
					return
				}
				k.limit(40_000)
				k.sync()
				synced := length
				for range lots.IntN(60) {
					k.append(life)
					owners = append(owners, life)
					switch lots.IntN(12) {
					case 0:
						k.sync()
						synced = uint64(len(owners))
					case 1:
						if _, err := k.s.db.AsyncFlush(); err != nil {
							t.Fatal(err)
						}
					}
				}
				fs = k.crash([]int{0, 30, 50, 80, 100}[lots.IntN(5)], seed*10+life)
				later := openTester(t, fs.CrashClone(vfs.CrashCloneCfg{}), Options{})
				if got := later.c.Head().Length; got < synced {
					t.Fatalf("life %d: %d blocks were synced, %d are there", life, synced, got)
				}
				later.s.Close()
			}
		})
	}
}

// TestReadersMeanwhile reads blocks while others come, with hardly any room in
// memory for where they are.
func TestReadersMeanwhile(t *testing.T) {
	k := openTester(t, vfs.NewCrashableMem(), Options{Buffer: 64 << 10})
	k.limit(100_000)
	k.s.places.limit = 300
	const blocks = 600
	var here atomic.Uint64
	var readers sync.WaitGroup
	for n := range uint64(3) {
		readers.Go(func() {
			lots := rand.New(rand.NewPCG(n, 3))
			for length := here.Load(); length < blocks; length = here.Load() {
				i := lots.Uint64N(length + 1)
				got, err := k.c.AppendBlock(nil, i)
				if err == cloudpal.NotExist && i >= length {
					continue
				}
				if want := testBlock(1, i); err != nil || !bytes.Equal(got, want) {
					t.Errorf("block %d of %d: got %d bytes, %v, want %d", i, length, len(got), err, len(want))
					return
				}
			}
		})
	}
	for i := range uint64(blocks) {
		k.append(1)
		here.Store(i + 1)
	}
	readers.Wait()
	k.check(always(1))
}

// change changes a byte of a file of the log.
func (k *tester) change(file string, offset int64) {
	k.t.Helper()
	f, err := k.fs.OpenReadWrite(file, vfs.WriteCategoryUnspecified)
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		k.t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], offset); err != nil {
		k.t.Fatal(err)
	}
}

// TestDamagedLog changes bytes of a log that was on disk: in a block, that block
// is told to be damaged; elsewhere the store does not open. It is never taken
// for a log that ends there.
func TestDamagedLog(t *testing.T) {
	for _, closed := range []bool{true, false} {
		for _, c := range []struct {
			name string
			at   func(p spot, head int64) int64
			ok   bool
		}{
			{"a block", func(p spot, _ int64) int64 { return p.at.offset() + 10 }, true},
			{"its checksum", func(p spot, _ int64) int64 { return p.at.offset() + int64(p.size) + 1 }, true},
			{"the head of its entry", func(_ spot, head int64) int64 { return head + 20 }, false},
			{"the magic number", func(_ spot, head int64) int64 { return head }, false},
			{"the changes", func(p spot, _ int64) int64 { return p.end().offset() + 30 }, false},
			{"the mark", nil, false},
		} {
			t.Run(fmt.Sprintf("%s/closed %v", c.name, closed), func(t *testing.T) {
				k := openTester(t, vfs.NewCrashableMem(), Options{})
				for range 6 {
					k.append(1)
					k.sync()
				}
				const damagedBlock = 3
				if len(testBlock(1, damagedBlock)) < separate {
					t.Fatal("the block is not in the log")
				}
				p, found, err := k.s.spot(k.c.num, damagedBlock)
				if err != nil || !found {
					t.Fatal(found, err)
				}
				if closed {
					if err := k.s.Close(); err != nil {
						t.Fatal(err)
					}
				}
				k.fs = k.crash(0, 1)
				if c.at == nil {
					k.change("store/log/mark", 3)
				} else {
					k.change(k.s.log.name(p.at.segment()), c.at(p, p.at.offset()-entryHeadSize))
				}
				s, err := Open("store", Options{FS: k.fs, ReadOnly: true})
				if !c.ok {
					if !errors.Is(err, cloudpal.Corrupt) || cloudpal.HintOf(err) == "" {
						t.Fatalf("got %v with the hint %q, want %v", err, cloudpal.HintOf(err), cloudpal.Corrupt)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				core, err := s.Core([32]byte{1})
				if err != nil {
					t.Fatal(err)
				}
				for i := range uint64(6) {
					got, err := core.AppendBlock(nil, i)
					if i == damagedBlock && !errors.Is(err, cloudpal.Corrupt) || i != damagedBlock && !bytes.Equal(got, testBlock(1, i)) {
						t.Errorf("block %d: got %d bytes, %v", i, len(got), err)
					}
				}
			})
		}
	}
}

// TestForgedEntry has a block, which a peer may choose, that looks like the head of
// an entry for somebody who knows all of the log but its mark: after a loss of
// power it must not make damage of what was never on disk.
func TestForgedEntry(t *testing.T) {
	k := openTester(t, vfs.NewCrashableMem(), Options{})
	k.append(1)
	k.sync()
	torn := k.s.log.written()
	k.append(1)
	at := k.s.log.written() + entryHeadSize
	forged := make([]byte, separate)
	for n := 0; n+entryHeadSize <= len(forged); n += entryHeadSize {
		at := at + position(n)
		entryHead{at: at, synced: at}.encode(forged[n:], mark{})
	}
	k.commit(func(b *Batch) {
		copy(b.Block(k.c, 2, len(forged)), forged)
		b.SetHead(k.c, Head{Fork: 1, Length: 3})
	})
	name := k.s.log.name(torn.segment())
	k.fs = k.crash(100, 1)
	k.change(name, torn.offset()+entryHeadSize+1)
	if got := openTester(t, k.fs, Options{}).c.Head().Length; got != 1 {
		t.Errorf("there are %d blocks, want the one that was synced", got)
	}
}

// TestRoomComesBack removes blocks, cuts a core off and deletes one: segments that
// nobody needs go, though not while a view has them, and what stays is read.
func TestRoomComesBack(t *testing.T) {
	k := openTester(t, vfs.NewCrashableMem(), Options{})
	k.limit(100_000)
	fill := func() {
		for range 200 {
			k.append(1)
		}
	}
	segments := func() int {
		t.Helper()
		done, err := k.s.db.AsyncFlush()
		if err != nil {
			t.Fatal(err)
		}
		<-done
		k.s.reclaim()
		all, err := k.s.log.numbers()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	fill()
	if got := segments(); got < 6 {
		t.Fatalf("200 blocks are in %d segments", got)
	}
	v := k.c.View()
	k.commit(func(b *Batch) { b.RemoveBlocks(k.c, 30, 190) })
	k.append(1)
	if got := segments(); got < 6 {
		t.Errorf("with a view of what was removed there are %d segments", got)
	}
	if got, err := v.AppendBlock(nil, 100); err != nil || !bytes.Equal(got, testBlock(1, 100)) {
		t.Errorf("a removed block, in a view: got %d bytes, %v", len(got), err)
	}
	v.Close()
	few := segments()
	if few > 4 {
		t.Errorf("of a log of which most was cleared there are %d segments", few)
	}
	for i := range uint64(201) {
		got, err := k.c.AppendBlock(nil, i)
		if gone := i >= 30 && i < 190; gone && err != cloudpal.NotExist || !gone && !bytes.Equal(got, testBlock(1, i)) {
			t.Errorf("block %d: got %d bytes, %v", i, len(got), err)
		}
	}
	k.commit(func(b *Batch) {
		b.RemoveBlocks(k.c, 10, math.MaxUint64)
		b.SetHead(k.c, Head{Length: 10})
	})
	fill()
	k.check(always(1))
	k.fs = k.crash(100, 1)
	k = openTester(t, k.fs, Options{})
	k.check(always(1))
	if err := k.s.Delete([32]byte{1}); err != nil {
		t.Fatal(err)
	}
	if got := segments(); got > 1 {
		t.Errorf("of a store without cores there are %d segments", got)
	}
	if len(k.s.live) > 1 || k.s.live[k.s.current] != 0 {
		t.Errorf("of a store without cores %v bytes are needed", k.s.live)
	}
}

// TestSegmentGone deletes a file of the log: its blocks are damaged, which is not
// that they are not here, for then who reads would wait for them.
func TestSegmentGone(t *testing.T) {
	k := openTester(t, vfs.NewCrashableMem(), Options{})
	k.limit(10_000)
	for range 30 {
		k.append(1)
	}
	if err := k.fs.Remove("store/log/000001.log"); err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for i := range k.c.Head().Length {
		got, err := k.c.AppendBlock(nil, i)
		switch {
		case errors.Is(err, cloudpal.Corrupt) && !errors.Is(err, cloudpal.NotExist):
			wrong++
		case !bytes.Equal(got, testBlock(1, i)):
			t.Errorf("block %d: got %d bytes, %v", i, len(got), err)
		}
	}
	if wrong == 0 || wrong > 10 {
		t.Errorf("%d blocks are damaged", wrong)
	}
}

// TestScatteredRoom clears most blocks, here and there: what is needed of segments
// that are nearly empty moves, and they go.
func TestScatteredRoom(t *testing.T) {
	k := openTester(t, vfs.NewCrashableMem(), Options{})
	k.limit(50_000)
	const blocks = 400
	for range blocks {
		k.append(1)
	}
	stays := func(i uint64) bool { return i%9 == 0 }
	k.commit(func(b *Batch) {
		for i := range uint64(blocks) {
			if !stays(i) {
				b.RemoveBlock(k.c, i)
			}
		}
	})
	var room, needed int64
	for range 3 { // what moved goes when the database has that on disk
		done, err := k.s.db.AsyncFlush()
		if err != nil {
			t.Fatal(err)
		}
		<-done
		k.s.reclaim()
	}
	numbers, err := k.s.log.numbers()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		size, err := k.s.log.sizeOf(n)
		if err != nil {
			t.Fatal(err)
		}
		room += size
	}
	for range 2 {
		for i := range uint64(blocks) {
			want := testBlock(1, i)
			got, err := k.c.AppendBlock(nil, i)
			if here := stays(i); here && !bytes.Equal(got, want) || !here && err != cloudpal.NotExist {
				t.Errorf("block %d: got %d bytes, %v", i, len(got), err)
			} else if here {
				needed += int64(len(want)) / 2
			}
		}
		k = openTester(t, k.crash(100, 1), Options{})
	}
	if room > 2*needed+6*50_000 {
		t.Errorf("a log takes %d bytes of which %d are needed", room, needed)
	}
}

// TestMovesOfOneBatch puts and removes the same blocks in one batch, and puts a
// small one where a large one was and the other way round.
func TestMovesOfOneBatch(t *testing.T) {
	lots := rand.New(rand.NewPCG(7, 7))
	k := openTester(t, vfs.NewCrashableMem(), Options{})
	k.limit(200_000)
	model := map[uint64][]byte{}
	for round := range 40 {
		k.commit(func(b *Batch) {
			for range lots.IntN(8) {
				i := lots.Uint64N(300)
				switch lots.IntN(4) {
				case 0:
					end := i + lots.Uint64N(200)
					if lots.IntN(5) == 0 {
						end = math.MaxUint64
					}
					b.RemoveBlocks(k.c, i, end)
					for j := range uint64(300) {
						if j >= i && j < end {
							delete(model, j)
						}
					}
				case 1:
					b.RemoveBlock(k.c, i)
					delete(model, i)
				default:
					for j := i; j < i+10; j++ {
						model[j] = testBlock(uint64(round)+lots.Uint64N(3), j)
						copy(b.Block(k.c, j, len(model[j])), model[j])
					}
				}
			}
			b.SetUserData(k.c, "round", []byte{byte(round)})
		})
		switch lots.IntN(20) {
		case 0, 1:
			k = openTester(t, k.crash(100, uint64(round)), Options{})
			k.limit(200_000)
		case 2, 3, 4:
			k.s.reclaims.Lock()
			k.s.empty(map[uint32]bool{k.s.current: true, k.s.current - 1: true})
			k.s.reclaims.Unlock()
		}
		var needed int64
		for i := range uint64(310) {
			got, err := k.c.AppendBlock(nil, i)
			want, here := model[i]
			if here && !bytes.Equal(got, want) || !here && err != cloudpal.NotExist {
				t.Fatalf("round %d: block %d: got %d bytes, %v, want %d", round, i, len(got), err, len(want))
			}
			if here && len(want) >= separate {
				needed += int64(len(want)) + sumSize
			}
		}
		k.s.commits.Lock()
		for _, n := range k.s.live {
			needed -= n
		}
		k.s.commits.Unlock()
		if needed != 0 {
			t.Fatalf("round %d: %d bytes are needed that are not counted", round, needed)
		}
	}
}

// TestOlderStore opens a store whose blocks are all in tables, as they were
// before there was a log of our own: it is read, written to, and is one of today
// then.
func TestOlderStore(t *testing.T) {
	fs := vfs.NewCrashableMem()
	o := &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: logger{}}
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: 512, MaxBlobReferenceDepth: 10}
	}
	if err := makeFolder(fs, "store"); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open("store", o)
	if err != nil {
		t.Fatal(err)
	}
	set := func(k, v []byte) {
		if err := db.Set(k, v, pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	set(formatKey(), appendNumber(nil, inTables))
	set(nextKey(), appendNumber(nil, 2))
	set(discoveryKey([32]byte{1}), appendNumber(nil, 1))
	set(identityKey(1), appendIdentity(nil, Identity{Key: [32]byte{1}}))
	for i := range uint64(20) {
		k := makeKey(1, blockKind, i)
		set(k[:], testBlock(1, i))
		if i == 10 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	set(headKey(1), appendHead(nil, Head{Fork: 1, Length: 20}))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	openTester(t, fs, Options{ReadOnly: true}).s.Close()
	k := openTester(t, fs, Options{})
	k.check(always(1))
	k.append(1)
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
	k = openTester(t, fs, Options{})
	k.check(always(1))
	if version, _, err := k.s.number(formatKey()); err != nil || version != format {
		t.Errorf("the format is %d (%v), want %d", version, err, format)
	}
	k.commit(func(b *Batch) { b.set(formatKey(), appendNumber(nil, format+1)) })
	if err := k.s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("store", Options{FS: fs}); !errors.Is(err, cloudpal.Invalid) || cloudpal.HintOf(err) == "" {
		t.Errorf("a store of a later format: got %v", err)
	}
}

// TestManyRuns opens a store and writes to it many times, as a command does: it
// does not gather files.
func TestManyRuns(t *testing.T) {
	fs := vfs.NewCrashableMem()
	for range 50 {
		k := openTester(t, fs, Options{})
		k.append(1)
		if err := k.s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	openTester(t, fs, Options{}).check(always(1))
	names, err := fs.List("store")
	if err != nil {
		t.Fatal(err)
	}
	logs, err := fs.List("store/log")
	if err != nil {
		t.Fatal(err)
	}
	if len(logs) != 2 || len(names) > 30 { // a segment, and the mark
		t.Errorf("there are %v and %v", names, logs)
	}
}

// FuzzLog replays a log that is anything: it is damaged, or has some entries, and
// when it goes on with another, has these and that.
func FuzzLog(f *testing.F) {
	fs := vfs.NewMem()
	first := logOf(f, fs)
	write := func(l *log, changes string) {
		entry := append(make([]byte, entryHeadSize), "some blocks"...)
		entry = append(entry, changes...)
		if _, err := l.reserve(len(entry)); err != nil {
			f.Fatal(err)
		}
		if err := l.write(entry, len(changes)); err != nil {
			f.Fatal(err)
		}
	}
	write(first, "one")
	if err := first.sync(first.written()); err != nil {
		f.Fatal(err)
	}
	write(first, "two")
	whole := contentOf(f, fs)
	if err := first.finish(); err != nil {
		f.Fatal(err)
	}
	closed := contentOf(f, fs)
	for _, content := range [][]byte{whole, closed, whole[:len(whole)-5], append(slices.Clone(closed), whole...), append(slices.Clone(whole), 0)} {
		f.Add(content)
	}
	for i := range len(whole) {
		broken := slices.Clone(whole)
		broken[i] ^= 1
		f.Add(broken)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		fs := vfs.NewMem()
		l := logOf(t, fs)
		file, err := fs.Create(l.name(1), vfs.WriteCategoryUnspecified)
		if err == nil {
			_, err = file.Write(content)
		}
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		entries := func(l *log) (all []string, r *replaying, err error) {
			r = &replaying{s: l.fs.s, l: l, apply: func(changes []byte) error {
				all = append(all, string(changes))
				return nil
			}}
			return all, r, r.run()
		}
		if _, _, err := entries(l); err != nil {
			if !errors.Is(err, cloudpal.Corrupt) {
				t.Fatal(err)
			}
			return
		}
		again := logOf(t, fs)
		had, r, err := entries(again)
		if err == nil {
			err = r.goOn()
		}
		if err != nil {
			t.Fatal(err)
		}
		write(again, "another")
		got, _, err := entries(logOf(t, fs))
		if want := append(had, "another"); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	})
}

// logOf returns a log that nothing is known of yet.
func logOf(t testing.TB, fs vfs.FS) *log {
	t.Helper()
	s := &Store{fs: fs, dir: "store"}
	s.openLog()
	s.writers.idle = make(chan struct{}, 1)
	if err := errors.Join(fs.MkdirAll(s.log.dir, 0o700), s.log.setMark(mark([]byte("the mark")))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.log.shut() })
	return &s.log
}

func contentOf(t testing.TB, fs vfs.FS) []byte {
	t.Helper()
	file, err := fs.Open("store/log/000001.log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	content, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
