package seal

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	numberSize = 4
	bitmapSize = maxPages / 8
)

// level1 and unzip are safe for use by many; each call takes one of their
// coders.
var (
	level1 = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(pieceSize), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
		if err != nil {
			panic(err) // the options are wrong
		}
		return e
	})
	unzip = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(pieceSize), zstd.WithDecoderMaxMemory(pieceSize),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// A scratch is the memory one worker needs.
type scratch struct {
	raw    []byte // a piece in the clear
	packed []byte // what goes into its frame
	sealed []byte // the frame
}

var scratches = sync.Pool{New: func() any {
	return &scratch{
		raw:    make([]byte, pieceSize),
		packed: make([]byte, 0, maxFrame),
		sealed: make([]byte, frameHead+maxFrame),
	}
}}

func takeScratch() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) give() { scratches.Put(s) }

// frame begins a frame of kind k in s's memory.
func (s *scratch) frame(k kind) []byte {
	return append(s.sealed[:0], byte(k), 0, 0, 0, 0)
}

// packMemory returns what the frame of mem's MiB number n holds, in room's
// memory, and how many bytes of memory are in it.
func packMemory(room *scratch, n int64, mem *os.File, size int64) ([]byte, int64, error) {
	raw := room.raw[:min(pieceSize, size-n*pieceSize)]
	// Read, not mapped: a read fault in a hole of tmpfs would fill the hole.
	if _, err := mem.ReadAt(raw, n*pieceSize); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, 0, err
	}
	out := binary.BigEndian.AppendUint32(room.packed[:0], uint32(n))
	out = append(out, make([]byte, bitmapSize)...)
	kept := squeeze(out[numberSize:], raw)
	return level1().EncodeAll(raw[:kept], out), int64(kept), nil
}

// squeeze moves raw's non-zero pages together at its start, notes them in
// bitmap and returns how many bytes they are. Only the last page may be short.
func squeeze(bitmap, raw []byte) int {
	kept := 0
	for i := 0; i*pageSize < len(raw); i++ {
		page := raw[i*pageSize : min((i+1)*pageSize, len(raw))]
		if isZero(page) {
			continue
		}
		bitmap[i/8] |= 1 << (i % 8)
		kept += copy(raw[kept:], page)
	}
	return kept
}

// unpackMemory writes a frame's pages to mem, which has size bytes.
func unpackMemory(room *scratch, plain []byte, mem *os.File, size int64) error {
	if len(plain) < numberSize+bitmapSize {
		return damaged("a memory frame of %d bytes", len(plain))
	}
	offset := int64(binary.BigEndian.Uint32(plain)) * pieceSize
	if offset >= size {
		return damaged("a memory frame beyond the memory's end")
	}
	bitmap := plain[numberSize:][:bitmapSize]
	pages, err := unzip().DecodeAll(plain[numberSize+bitmapSize:], room.raw[:0:pieceSize])
	if err != nil {
		return damaged("a memory frame cannot be decompressed")
	}
	return scatter(bitmap, pages, io.NewOffsetWriter(mem, offset), min(pieceSize, size-offset))
}

// scatter writes pages where bitmap says, a run at a time, within length
// bytes of w.
func scatter(bitmap, pages []byte, w io.WriterAt, length int64) error {
	for i := 0; i < maxPages; {
		if bitmap[i/8]&(1<<(i%8)) == 0 {
			i++
			continue
		}
		from := int64(i) * pageSize
		for i < maxPages && bitmap[i/8]&(1<<(i%8)) != 0 {
			i++
		}
		run := min(int64(i)*pageSize, length) - from
		if run <= 0 || run > int64(len(pages)) {
			return damaged("a memory frame whose pages and bitmap do not agree")
		}
		if _, err := w.WriteAt(pages[:run], from); err != nil {
			return err
		}
		pages = pages[run:]
	}
	if len(pages) > 0 {
		return damaged("a memory frame with more pages than its bitmap")
	}
	return nil
}

// packState returns what the frame of state's MiB number n holds, in room's
// memory.
func packState(room *scratch, n int64, state []byte) []byte {
	state = state[n*pieceSize:]
	out := binary.BigEndian.AppendUint32(room.packed[:0], uint32(n))
	return level1().EncodeAll(state[:min(pieceSize, len(state))], out)
}

// unpackState returns a frame's part of the state, and which MiB it is.
func unpackState(room *scratch, plain []byte) (int, []byte, error) {
	if len(plain) < numberSize {
		return 0, nil, damaged("a state frame of %d bytes", len(plain))
	}
	part, err := unzip().DecodeAll(plain[numberSize:], room.raw[:0:pieceSize])
	if err != nil {
		return 0, nil, damaged("a state frame cannot be decompressed")
	}
	return int(binary.BigEndian.Uint32(plain)), bytes.Clone(part), nil
}

var zeros [pageSize]byte

func isZero(page []byte) bool { return bytes.Equal(page, zeros[:len(page)]) }
