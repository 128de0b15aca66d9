package seal

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A kind says what a frame holds.
type kind byte

const (
	kindHead   kind = 'h'
	kindMemory kind = 'm'
	kindState  kind = 's'
	kindEnd    kind = 'e'
)

const (
	frameHead = 5
	tagSize   = 16
	// maxFrame bounds what follows a frame's head: a MiB that cannot be
	// compressed, zstd's few bytes about it, the bitmap and the tag.
	maxFrame = pieceSize + 4<<10
)

// frame returns an empty frame of kind k, to be filled by box.seal.
func frame(k kind) []byte {
	return append(make([]byte, 0, frameHead+tagSize), byte(k), 0, 0, 0, 0)
}

// A box seals and opens a file's frames.
type box struct {
	aead cipher.AEAD
}

// seal appends plain, encrypted as the file's frame number n, to a frame's
// head.
func (b box) seal(head []byte, n uint64, plain []byte) []byte {
	binary.BigEndian.PutUint32(head[1:frameHead], uint32(len(plain)+tagSize))
	return b.aead.Seal(head, nonce(n), plain, head[:frameHead])
}

// open returns what the file's frame number n holds, in the frame's own
// memory.
func (b box) open(f []byte, n uint64) ([]byte, error) {
	plain, err := b.aead.Open(f[frameHead:frameHead], nonce(n), f[frameHead:], f[:frameHead])
	if err != nil {
		return nil, damaged("its frame %d is not what was sealed", n)
	}
	return plain, nil
}

func nonce(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n)
}

// readFrame reads one frame into buf's memory, which holds the largest.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	f := buf[:frameHead]
	if _, err := io.ReadFull(r, f); err != nil {
		return nil, early(err)
	}
	size := binary.BigEndian.Uint32(f[1:])
	if size < tagSize || size > maxFrame {
		return nil, damaged("a frame claims %d bytes", size)
	}
	f = buf[:frameHead+int(size)]
	if _, err := io.ReadFull(r, f[frameHead:]); err != nil {
		return nil, early(err)
	}
	return f, nil
}

// early tells a file that ends too soon from one that cannot be read.
func early(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it ends before its end frame")
	}
	return err
}

// damage is what is wrong with a sealed nap, as against trouble in reading it.
type damage string

func (d damage) Error() string { return string(d) }

func damaged(format string, args ...any) error {
	return damage(fmt.Sprintf(format, args...))
}
