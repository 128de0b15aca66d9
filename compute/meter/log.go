package meter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/tradle/cloudpal"
)

const (
	// rotateSize is the size in bytes at which a log's file is put aside.
	rotateSize = 16 << 20
	// keepFiles is how many files put aside are kept.
	keepFiles = 4
)

// A Log is a VM's records in a file, one JSON line each, only ever appended
// to. Its methods may be called from many goroutines; there is one Log of a
// file at a time.
type Log struct {
	path string
	vm   string
	most int64 // bytes in a file before it is put aside

	mu   sync.Mutex
	f    *os.File
	size int64
	last Record
	dead error // why nothing can be appended any more
}

// OpenLog opens the log at path of the VM with that id, or makes it. A last
// line that was not written to its end is cut off. Only the last record is
// checked; if it is not whole, or another VM's, the error is cloudpal.Corrupt.
func OpenLog(path, vm string) (*Log, error) {
	op := "open usage log " + path
	if vm == "" || tidy(vm, maxName) != vm {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("a VM's id is UTF-8 of 1 to 256 bytes"))
	}
	l := &Log{path: path, vm: vm, most: rotateSize}
	if err := l.open(); err != nil {
		return nil, cloudpal.E(op, "", errors.Join(err, l.Close()))
	}
	if err := l.recover(); err != nil {
		return nil, cloudpal.E(op, "", errors.Join(err, l.Close()))
	}
	return l, nil
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.f, l.size = f, 0
	return nil
}

// recover finds the last record, cutting off what comes behind it.
func (l *Log) recover() error {
	last, size, err := lastRecord(l.f)
	if err != nil {
		return damaged(l.path, err)
	}
	if err := errors.Join(l.f.Truncate(size), syncDir(l.path)); err != nil {
		return err
	}
	l.size = size
	if size == 0 {
		last, err = lastOf(aside(l.path, 1))
	}
	if err != nil {
		return err
	}
	if last.Seq > 0 && last.VM != l.vm {
		return damaged(l.path, errors.New("it is another VM's"))
	}
	l.last = last
	return nil
}

// lastOf returns the last record of the file at path, or the zero one where
// there is no file.
func lastOf(path string) (Record, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	defer f.Close()
	r, _, err := lastRecord(f)
	if err != nil {
		return Record{}, damaged(path, err)
	}
	return r, nil
}

func damaged(path string, err error) error {
	return cloudpal.E("", cloudpal.Corrupt, err).
		WithHint(fmt.Sprintf("move it aside (mv %s %s.damaged); a new log begins at zero", path, path))
}

// aside returns where the nth file put aside is; the first is the newest.
func aside(path string, n int) string { return fmt.Sprintf("%s.%d", path, n) }

// Last returns the last record, or the zero one where there is none.
func (l *Log) Last() Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Append writes r as the next record and returns it as written: it sets Seq,
// VM, Prev and Hash, and a Time before that of the last record becomes that.
// The record survives the end of this process at once, and that of the machine
// after Sync. If Append fails, the log is as before.
func (l *Log) Append(r Record) (Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.appendLocked(r.tidied())
	if err != nil {
		return Record{}, cloudpal.E("append to usage log "+l.path, spaceKind(err), err)
	}
	return r, nil
}

func (l *Log) appendLocked(r Record) (Record, error) {
	if l.dead != nil {
		return Record{}, l.dead
	}
	r.Seq, r.VM, r.Prev = l.last.Seq+1, l.vm, l.last.Hash
	if r.Time.Before(l.last.Time) {
		r.Time = l.last.Time
	}
	line, err := r.line()
	if err != nil {
		return Record{}, err
	}
	if err := l.check(&r); err != nil {
		return Record{}, cloudpal.E("", cloudpal.Invalid, err)
	}
	if err := l.makeRoomLocked(len(line)); err != nil {
		return Record{}, err
	}
	if err := l.writeLocked(line); err != nil {
		return Record{}, err
	}
	l.last = r
	return r, nil
}

// spaceKind tells a full disk from other trouble.
func spaceKind(err error) cloudpal.Kind {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return cloudpal.NoSpace
	}
	return ""
}

// check refuses what Verify would.
func (l *Log) check(r *Record) error {
	if err := r.check(); err != nil || r.Seq == 1 {
		return err
	}
	return r.follows(&l.last)
}

// writeLocked appends a line, or takes back what it wrote of it.
func (l *Log) writeLocked(line []byte) error {
	if _, err := l.f.Write(line); err != nil {
		if undo := l.f.Truncate(l.size); undo != nil {
			l.dead = errors.Join(err, undo)
		}
		return err
	}
	l.size += int64(len(line))
	return nil
}

// makeRoomLocked puts the file aside when n bytes more are too many. A crash
// in between leaves no file at path, or none at path.1; both are as good as a
// rotation before or after.
func (l *Log) makeRoomLocked(n int) error {
	if l.size == 0 || l.size+int64(n) <= l.most {
		return nil
	}
	if err := l.f.Sync(); err != nil {
		return err
	}
	if err := shift(l.path); err != nil {
		return err
	}
	old := l.f
	if err := l.open(); err != nil {
		l.dead = err // else it would write to the file put aside
		return err
	}
	return errors.Join(old.Close(), syncDir(l.path))
}

// syncDir makes the name of the file at path outlive the machine.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// shift frees path by giving each file the next number. The oldest is lost if
// there is no free number.
func shift(path string) error {
	free := 1
	for ; free < keepFiles; free++ {
		if _, err := os.Lstat(aside(path, free)); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	for n := free; n > 1; n-- {
		if err := os.Rename(aside(path, n-1), aside(path, n)); err != nil {
			return err
		}
	}
	return os.Rename(path, aside(path, 1))
}

// Sync makes what was appended outlive the machine.
func (l *Log) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Sync()
}

// Close closes the log's file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	l.dead = os.ErrClosed
	return l.f.Close()
}

// lastRecord returns f's last record, or the zero one, and where it ends. It
// reads only f's end.
func lastRecord(f *os.File) (Record, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return Record{}, 0, err
	}
	// One line that was not written to its end, behind a whole one.
	from := max(0, info.Size()-2*maxLine)
	tail, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if err != nil {
		return Record{}, 0, err
	}
	line, torn, err := lastLine(tail, from == 0)
	if err != nil || line == nil {
		return Record{}, 0, err
	}
	r, err := parse(line)
	if err != nil {
		return Record{}, 0, fmt.Errorf("the last record: %w", err)
	}
	return r, info.Size() - int64(torn), nil
}
