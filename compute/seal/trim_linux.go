package seal

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// Trim punches the pages of mem that are all zero out of the file, so that
// they take no room, and returns how many bytes it freed. Nobody else may
// write mem meanwhile.
func Trim(mem *os.File) (freed int64, err error) {
	freed, err = trim(mem)
	if err != nil {
		return freed, cloudpal.E("seal.Trim", "", err)
	}
	return freed, nil
}

func trim(mem *os.File) (freed int64, err error) {
	info, err := mem.Stat()
	if err != nil {
		return 0, err
	}
	room := takeScratch()
	defer room.give()
	h := hole{mem: mem}
	for at := int64(0); at < info.Size(); {
		from, to, err := nextRange(mem, at, info.Size())
		if err != nil {
			return h.freed, err
		}
		if err := h.scan(room.raw, from, to); err != nil {
			return h.freed, err
		}
		at = to
	}
	return h.freed, h.punch()
}

// A hole grows by one zero page after another and is punched when it ends.
type hole struct {
	mem      *os.File
	from, to int64
	freed    int64
}

// scan looks for zero pages in mem from one offset to another, which is at
// most a MiB beyond.
func (h *hole) scan(buf []byte, from, to int64) error {
	buf = buf[:to-from]
	if _, err := h.mem.ReadAt(buf, from); err != nil {
		return err
	}
	for i := 0; i < len(buf); i += pageSize {
		page := buf[i:min(i+pageSize, len(buf))]
		if !isZero(page) {
			continue
		}
		if err := h.grow(from+int64(i), int64(len(page))); err != nil {
			return err
		}
	}
	return nil
}

func (h *hole) grow(at, n int64) error {
	if at == h.to {
		h.to += n
		return nil
	}
	err := h.punch()
	h.from, h.to = at, at+n
	return err
}

func (h *hole) punch() error {
	if h.from == h.to {
		return nil
	}
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if err := ignoringEINTR(func() error {
		return unix.Fallocate(int(h.mem.Fd()), mode, h.from, h.to-h.from)
	}); err != nil {
		return os.NewSyscallError("fallocate", err)
	}
	h.freed += h.to - h.from
	return nil
}

// nextRange returns the next part of f that is no hole, from the offset at
// on: page aligned, within one piece, within size. It is empty at the end.
func nextRange(f *os.File, at, size int64) (from, to int64, err error) {
	from, err = nextData(f, at, size)
	if err != nil || from == size {
		return size, size, err
	}
	from -= from % pageSize
	to, err = seek(f, from, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, err
	}
	to += (pageSize - to%pageSize) % pageSize
	return from, min(to, size, from+pieceSize), nil
}

// nextData returns the offset of the first byte of f, from the offset at on,
// that is in no hole, or size where there is none.
func nextData(f *os.File, at, size int64) (int64, error) {
	if at >= size {
		return size, nil
	}
	data, err := seek(f, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, nil
	}
	return min(data, size), err
}

func seek(f *os.File, at int64, whence int) (int64, error) {
	to, err := unix.Seek(int(f.Fd()), at, whence)
	if errors.Is(err, unix.EINVAL) { // a file system that knows no holes
		if whence == unix.SEEK_HOLE {
			return f.Seek(0, io.SeekEnd)
		}
		return at, nil
	}
	return to, os.NewSyscallError("lseek", err)
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
