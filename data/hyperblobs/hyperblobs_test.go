package hyperblobs_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperblobs"
)

var ctx = context.Background()

// vectors is what testdata/hyperblobs.json has, that the original wrote.
type vectors struct {
	Puts []struct {
		Bytes int
		Opts  struct {
			BlockSize       int
			BlockMap, Dedup bool
		}
		ID                               hyperblobs.ID
		CoreLengthAfter, ByteLengthAfter uint64
	}
	Key, TreeHash  string
	BlockMapBlocks []struct {
		Index uint64
		Hex   string
	}
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/hyperblobs.json")
	must(t, err)
	must(t, json.Unmarshal(data, &v))
	return v
}

// TestVectors writes what the original wrote: the same blocks, the same IDs.
func TestVectors(t *testing.T) {
	v := readVectors(t)
	log := new(memory)
	blobs := hyperblobs.New(log)
	for i, put := range v.Puts {
		w := blobs.NewWriter(ctx, hyperblobs.Options{
			BlockSize: put.Opts.BlockSize, BlockMap: put.Opts.BlockMap, Deduplicate: put.Opts.Dedup,
		})
		_, err := w.Write(content(put.Bytes))
		must(t, err)
		must(t, w.Close())
		if w.ID() != put.ID {
			t.Errorf("put %d: the ID is %+v, want %+v", i, w.ID(), put.ID)
		}
		if log.Length() != put.CoreLengthAfter || log.ByteLength() != put.ByteLengthAfter {
			t.Errorf("put %d: the log has %d blocks, %d bytes; want %d, %d",
				i, log.Length(), log.ByteLength(), put.CoreLengthAfter, put.ByteLengthAfter)
		}
		got, err := blobs.Get(ctx, put.ID)
		if err != nil || !bytes.Equal(got, content(put.Bytes)) {
			t.Errorf("put %d: got %d bytes, %v", i, len(got), err)
		}
	}
	for _, b := range v.BlockMapBlocks {
		if got := hex.EncodeToString(log.blocks[b.Index]); got != b.Hex {
			t.Errorf("the block map is %s, want %s", got, b.Hex)
		}
	}
}

// writers are all ways to write, each with a blob of a few blocks.
var writers = map[string]hyperblobs.Options{
	"plain":        {BlockSize: 100},
	"shared":       {BlockSize: 100, Shared: true},
	"mapped":       {BlockSize: 100, BlockMap: true},
	"deduplicated": {BlockSize: 100, Deduplicate: true},
}

func TestReadRanges(t *testing.T) {
	for name, options := range writers {
		t.Run(name, func(t *testing.T) {
			blobs := hyperblobs.New(new(memory))
			if _, err := blobs.Put(ctx, content(777)); err != nil { // so that the blob is not the first
				t.Fatal(err)
			}
			w := blobs.NewWriter(ctx, options)
			_, err := w.ReadFrom(iotest.OneByteReader(bytes.NewReader(content(1234))))
			must(t, err)
			must(t, w.Close())

			r, err := blobs.NewReader(ctx, w.ID())
			must(t, err)
			defer r.Close()
			must(t, iotest.TestReader(r, content(1234)))
			for _, from := range []int64{0, 1, 99, 100, 101, 600, 1199, 1200, 1233, 1234, 2000} {
				_, err := r.Seek(from, io.SeekStart)
				must(t, err)
				got, err := io.ReadAll(io.LimitReader(r, 150))
				want := content(1234)[min(from, 1234):min(from+150, 1234)]
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("from %d: got %d bytes, %v; want %d", from, len(got), err, len(want))
				}
			}
			if _, err := r.Seek(-1, io.SeekStart); !errors.Is(err, cloudpal.Invalid) {
				t.Errorf("Seek(-1): %v", err)
			}
			if size, err := blobs.Size(ctx, w.ID()); size != 1234 || err != nil {
				t.Errorf("Size = %d, %v", size, err)
			}
		})
	}
}

func TestPutAll(t *testing.T) {
	log := new(memory)
	blobs := hyperblobs.New(log)
	ids, err := blobs.PutAll(ctx, content(10), nil, content(hyperblobs.BlockSize+1), content(20))
	must(t, err)
	if log.appends != 1 {
		t.Errorf("%d appends, want 1", log.appends)
	}
	for i, n := range []int{10, 0, hyperblobs.BlockSize + 1, 20} {
		got, err := blobs.Get(ctx, ids[i])
		if err != nil || !bytes.Equal(got, content(n)) {
			t.Errorf("blob %d has %d bytes, %v; want %d", i, len(got), err, n)
		}
	}
}

// TestWritersTakeTurns has large blobs written at the same time.
func TestWritersTakeTurns(t *testing.T) {
	for name, options := range writers {
		t.Run(name, func(t *testing.T) {
			options.BlockSize = 0
			blobs := hyperblobs.New(new(memory))
			data := make([]byte, 5<<20)
			for i := range data {
				data[i] = byte(i >> 10 * 7)
			}
			var all sync.WaitGroup
			for n := range 4 {
				all.Go(func() {
					want := data[n<<10:]
					w := blobs.NewWriter(ctx, options)
					_, err := w.ReadFrom(bytes.NewReader(want))
					if err := errors.Join(err, w.Close()); err != nil {
						t.Error(err)
					}
					if got, err := blobs.Get(ctx, w.ID()); err != nil || !bytes.Equal(got, want) {
						t.Errorf("blob %d: got %d bytes, %v", n, len(got), err)
					}
				})
			}
			all.Wait()
		})
	}
}

// TestSharedWriterKeepsNobodyWaiting writes a blob while another is half
// written.
func TestSharedWriterKeepsNobodyWaiting(t *testing.T) {
	blobs := hyperblobs.New(new(memory))
	slow := blobs.NewWriter(ctx, hyperblobs.Options{Shared: true})
	_, err := slow.Write(content(3 << 20))
	must(t, err)
	quick, err := blobs.Put(ctx, content(2<<20))
	must(t, err)
	_, err = slow.Write(content(10))
	must(t, err)
	must(t, slow.Close())
	got, err := blobs.Get(ctx, slow.ID())
	if want := append(content(3<<20), content(10)...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the slow one has %d bytes, %v; want %d", len(got), err, len(want))
	}
	if got, err := blobs.Get(ctx, quick); err != nil || !bytes.Equal(got, content(2<<20)) {
		t.Errorf("the quick one has %d bytes, %v", len(got), err)
	}
}

func TestWaitingForATurnEnds(t *testing.T) {
	blobs := hyperblobs.New(new(memory))
	w := blobs.NewWriter(ctx, hyperblobs.Options{})
	_, err := w.Write(content(2 << 20))
	must(t, err)
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := blobs.Put(short, content(1)); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("Put beside a writer: %v, want Busy", err)
	}
	w.Cancel()
	if _, err := blobs.Put(ctx, content(1)); err != nil {
		t.Errorf("Put after the writer gave up: %v", err)
	}
}

func TestDeduplicate(t *testing.T) {
	log := new(memory)
	blobs := hyperblobs.New(log)
	first := blobs.NewWriter(ctx, hyperblobs.Options{BlockSize: 1000, Deduplicate: true})
	_, err := first.Write(bytes.Repeat(content(1000), 5))
	must(t, err)
	must(t, first.Close())
	if log.Length() != 2 {
		t.Errorf("five equal blocks take %d blocks, want 1 and the map", log.Length())
	}
	id := first.ID()
	second := blobs.NewWriter(ctx, hyperblobs.Options{BlockSize: 1000, Deduplicate: true, Like: &id})
	_, err = second.Write(append(content(1000), content(500)...))
	must(t, err)
	must(t, second.Close())
	if log.Length() != 4 {
		t.Errorf("the log has %d blocks, want one more and a map", log.Length())
	}
	if got, err := blobs.Get(ctx, second.ID()); err != nil || !bytes.Equal(got, append(content(1000), content(500)...)) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// TestHalfABlobIsNone has a blob's source fail, its log be full, and its
// context end.
func TestHalfABlobIsNone(t *testing.T) {
	log := new(memory)
	blobs := hyperblobs.New(log)
	broken := io.MultiReader(bytes.NewReader(content(3<<20)), iotest.ErrReader(io.ErrUnexpectedEOF))
	w := blobs.NewWriter(ctx, hyperblobs.Options{})
	if _, err := w.ReadFrom(broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadFrom: %v", err)
	}
	if err := w.Close(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Close: %v, want what the source failed with", err)
	}
	for i, b := range log.blocks {
		if b != nil {
			t.Errorf("block %d of the blob that was given up is still here", i)
		}
	}

	ending, end := context.WithCancel(ctx)
	w = blobs.NewWriter(ending, hyperblobs.Options{})
	_, err := w.Write(content(1 << 20))
	must(t, err)
	end()
	if err := w.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("Close after the end: %v", err)
	}

	log.full = true
	if _, err := blobs.Put(ctx, content(1)); !errors.Is(err, cloudpal.NoSpace) {
		t.Errorf("Put into a full log: %v", err)
	}
	log.full = false
	if id, err := blobs.Put(ctx, content(1)); err != nil || id.BlockLength != 1 {
		t.Errorf("Put afterwards: %+v, %v", id, err)
	}
}

func TestClear(t *testing.T) {
	for name, options := range writers {
		t.Run(name, func(t *testing.T) {
			log := new(memory)
			blobs := hyperblobs.New(log)
			kept, err := blobs.Put(ctx, content(10))
			must(t, err)
			w := blobs.NewWriter(ctx, options)
			_, err = w.Write(content(950))
			must(t, err)
			must(t, w.Close())
			must(t, blobs.Clear(ctx, w.ID()))
			if _, err := blobs.Get(ctx, w.ID()); !errors.Is(err, cloudpal.NotExist) {
				t.Errorf("Get after Clear: %v", err)
			}
			if _, err := blobs.Get(ctx, kept); err != nil {
				t.Errorf("the blob beside it: %v", err)
			}
			for i, b := range log.blocks[1:] {
				if b != nil {
					t.Errorf("block %d is still here", i+1)
				}
			}
		})
	}
}

// TestLies reads IDs and block maps that claim what is not so.
func TestLies(t *testing.T) {
	log := new(memory)
	blobs := hyperblobs.New(log)
	_, err := log.Append(
		content(100), content(100), content(50), // 0 to 2: blocks
		[]byte{0, 2, 0, 100, 1, 99}, // 3: the second is said to be shorter
		[]byte{1, 0},                // 4: of another version
		[]byte{0, 200, 0, 100},      // 5: too few entries
		[]byte{0, 2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 1, 1}, // 6: more bytes than there can be
		[]byte{0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 1},       // 7: a block that cannot be
		[]byte{0, 1, 77, 100}, // 8: a block that is not there
	)
	must(t, err)
	for _, c := range []struct {
		id   hyperblobs.ID
		want cloudpal.Kind
	}{
		{hyperblobs.ID{BlockLength: 1, ByteLength: 1 << 50}, cloudpal.Corrupt},
		{hyperblobs.ID{BlockLength: 2, ByteLength: 201}, cloudpal.Corrupt},
		{hyperblobs.ID{BlockLength: 1 << 50, ByteLength: 1 << 50}, cloudpal.NotExist},
		{hyperblobs.ID{ByteLength: 1}, cloudpal.Invalid},
		{hyperblobs.ID{BlockOffset: 1 << 60}, cloudpal.Invalid},
		{hyperblobs.ID{BlockOffset: 1<<53 - 2, BlockLength: 5}, cloudpal.Invalid},
		{hyperblobs.ID{BlockOffset: 3, BlockLength: 1, BlockMap: true}, cloudpal.Corrupt},
		{hyperblobs.ID{BlockOffset: 4, BlockLength: 1, BlockMap: true}, cloudpal.Corrupt},
		{hyperblobs.ID{BlockOffset: 5, BlockLength: 1, BlockMap: true}, cloudpal.Corrupt},
		{hyperblobs.ID{BlockOffset: 6, BlockLength: 1, BlockMap: true}, cloudpal.Corrupt},
		{hyperblobs.ID{BlockOffset: 7, BlockLength: 1, BlockMap: true}, cloudpal.Corrupt},
		{hyperblobs.ID{BlockOffset: 8, BlockLength: 1, BlockMap: true}, cloudpal.NotExist},
		{hyperblobs.ID{BlockOffset: 0, BlockLength: 65, BlockMap: true}, cloudpal.Corrupt},
	} {
		if _, err := blobs.Get(ctx, c.id); !errors.Is(err, c.want) {
			t.Errorf("Get(%+v): %v, want %v", c.id, err, c.want)
		}
	}

	// A range that a lying byte offset puts into another blob.
	r, err := blobs.NewReader(ctx, hyperblobs.ID{BlockOffset: 0, ByteOffset: 200, BlockLength: 1, ByteLength: 100})
	must(t, err)
	_, err = r.Seek(10, io.SeekStart)
	must(t, err)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("reading outside of the blob's blocks: %v", err)
	}
}

// TestReadAhead asks for the rest of a blob once, when its first block is
// missing.
func TestReadAhead(t *testing.T) {
	log := new(memory)
	blobs := hyperblobs.New(log)
	w := blobs.NewWriter(ctx, hyperblobs.Options{BlockSize: 100})
	_, err := w.Write(content(1000))
	must(t, err)
	must(t, w.Close())
	must(t, log.Clear(3, 10))
	r, err := blobs.NewReader(ctx, w.ID())
	must(t, err)
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("read: %v", err)
	}
	must(t, r.Close())
	if len(log.want) != 1 || log.want[0] != (span{3, 10}) {
		t.Errorf("asked for %v, want blocks 3 to 10", log.want)
	}
}

// FuzzBlockMap reads block maps by strangers.
func FuzzBlockMap(f *testing.F) {
	for _, b := range readVectors(f).BlockMapBlocks {
		raw, err := hex.DecodeString(b.Hex)
		must(f, err)
		f.Add(raw)
	}
	f.Add([]byte{0, 3, 0, 100, 1, 50, 0, 100})
	f.Add([]byte{0, 0xfd, 0, 32})
	f.Fuzz(func(t *testing.T, raw []byte) {
		log := new(memory)
		_, err := log.Append(content(100), content(50), raw)
		must(t, err)
		blobs := hyperblobs.New(log)
		id := hyperblobs.ID{BlockOffset: 2, BlockLength: 1, ByteLength: uint64(len(raw)), BlockMap: true}
		got, err := blobs.Get(ctx, id)
		if err != nil {
			return
		}
		if size, err := blobs.Size(ctx, id); err != nil || size != int64(len(got)) {
			t.Errorf("the size is %d, %v, and %d bytes were read", size, err, len(got))
		}
	})
}
