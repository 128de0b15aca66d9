package erofs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// maxTail is the longest end of a file that is kept beside its inode. A
	// longer one would often not fit into the rest of a block of inodes.
	maxTail = BlockSize / 2
	// minChunk is the shortest run of zeros that takes no space. Shorter ones
	// are common in programs, and leaving them out would break a file that
	// can be read in one go into pieces.
	minChunk = 64 << 10
	// maxChunks bounds the table of a file with holes.
	maxChunks = 1 << 16
)

// A Writer makes one file system in a file. It is used by one goroutine.
type Writer struct {
	file  *os.File
	out   *bufio.Writer
	next  uint32 // the first block not yet written
	spool *spool
	buf   []byte
}

// NewWriter returns a Writer that fills file, which must be empty. What cannot
// be placed yet waits in a nameless file in the directory temp. The caller
// closes file, and calls Close if it does not come to Finish.
func NewWriter(file *os.File, temp string) (*Writer, error) {
	s, err := newSpool(temp)
	if err != nil {
		return nil, err
	}
	w := &Writer{file: file, out: bufio.NewWriterSize(file, 1<<20), spool: s}
	return w, w.writeBlocks(make([]byte, BlockSize)) // where the superblock will be
}

// Close lets go of what the writer holds besides its file.
func (w *Writer) Close() error { return w.spool.file.Close() }

// Store reads size bytes, the contents of the regular file n, from r. n's
// extended attributes must be set before. A short read is
// io.ErrUnexpectedEOF.
func (w *Writer) Store(n *Inode, r io.Reader, size int64) error {
	if err := checkXattrs(n.Xattrs); err != nil {
		return err
	}
	n.data = data{size: size, start: w.next}
	if size >= 2*minChunk {
		return w.storeChunks(n, r)
	}
	return w.storeBlocks(n, r)
}

func (w *Writer) storeBlocks(n *Inode, r io.Reader) error {
	b := w.buffer(int(n.data.size))
	if err := readFull(r, b); err != nil {
		return err
	}
	return w.placeEnd(n, b)
}

// placeEnd writes b, the whole or the last bytes of n, which follow n's blocks.
func (w *Writer) placeEnd(n *Inode, b []byte) (err error) {
	tail := len(b) % BlockSize
	if tail <= maxTail && inodeSize+xattrSize(n.Xattrs)+tail <= BlockSize {
		n.data.tail = tail
		n.data.spool, err = w.spool.append(b[len(b)-tail:])
		b = b[:len(b)-tail]
	}
	n.data.blocks += uint32(align(len(b), BlockSize) / BlockSize)
	return errors.Join(err, w.writeBlocks(b))
}

// storeChunks reads the file in chunks and leaves out those that are zero. If
// there are none, the file is one run of blocks.
func (w *Writer) storeChunks(n *Inode, r io.Reader) error {
	n.data.shift = chunkShift(n.data.size)
	left, holes := n.data.size, 0
	for left > 0 {
		b := w.buffer(int(min(left, BlockSize<<n.data.shift)))
		if err := readFull(r, b); err != nil {
			return err
		}
		left -= int64(len(b))
		if zero(b) {
			n.data.chunks = append(n.data.chunks, hole)
			holes++
			continue
		}
		if left == 0 && holes == 0 {
			n.data.chunks = nil
			return w.placeEnd(n, b)
		}
		n.data.chunks = append(n.data.chunks, w.next)
		n.data.blocks += uint32(align(len(b), BlockSize) / BlockSize)
		if err := w.writeBlocks(b); err != nil {
			return err
		}
	}
	return nil
}

// chunkShift returns log2 of the blocks in one chunk of a file of that size.
func chunkShift(size int64) (shift uint8) {
	for BlockSize<<shift < minChunk || size>>shift/BlockSize >= maxChunks {
		shift++
	}
	return shift
}

// Discard gives the space of n's contents back, because n will not be part of
// the file system.
func (w *Writer) Discard(n *Inode) error {
	if n.data.blocks == 0 {
		return nil
	}
	if err := w.out.Flush(); err != nil {
		return err
	}
	return unix.Fallocate(int(w.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
		int64(n.data.start)*BlockSize, int64(n.data.blocks)*BlockSize)
}

// writeBlocks writes b and zeros up to the next block.
func (w *Writer) writeBlocks(b []byte) error {
	blocks := align(int64(len(b)), BlockSize) / BlockSize
	if int64(w.next)+blocks >= hole {
		return fmt.Errorf("file system is larger than %d blocks", uint32(hole))
	}
	w.next += uint32(blocks)
	if _, err := w.out.Write(b); err != nil {
		return err
	}
	_, err := w.out.Write(zeros[:blocks*BlockSize-int64(len(b))])
	return err
}

func (w *Writer) buffer(n int) []byte {
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	return w.buf[:n]
}

func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if err == io.EOF && len(b) > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

var zeros [BlockSize]byte

func zero(b []byte) bool {
	for len(b) > BlockSize {
		if !bytes.Equal(b[:BlockSize], zeros[:]) {
			return false
		}
		b = b[BlockSize:]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// A spool keeps the ends of files on disk until their inodes are written: a
// million of them would not fit into memory.
type spool struct {
	file *os.File
	out  *bufio.Writer
	size int64
}

func newSpool(dir string) (*spool, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	return &spool{file: f, out: bufio.NewWriterSize(f, 256<<10)}, nil
}

// append adds b and returns where it is.
func (s *spool) append(b []byte) (int64, error) {
	at := s.size
	s.size += int64(len(b))
	_, err := s.out.Write(b)
	return at, err
}
