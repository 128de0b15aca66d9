package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

// maxLog is how many bytes of a VM's log a file holds; there are two, so that
// at least the last maxLog bytes are there. They are on tmpfs: what a guest
// writes may be as secret as its memory.
const maxLog = 4 << 20

// A logbook keeps what a VM's process wrote, one guest.LogEntry a line.
type logbook struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
	next int64 // offset of what the guest's process writes next
	// number counts the files: the one that is written to has it, the one that
	// was put aside the number before.
	number int
	// changed is closed and replaced whenever something was written.
	changed chan struct{}
}

func newLogbook(path string) *logbook { return &logbook{path: path, changed: make(chan struct{})} }

func (l *logbook) older() string { return l.path + ".1" }

// restart forgets offsets: another process counts from zero.
func (l *logbook) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = 0
}

// recover finds out what the last agent has written, to go on from there.
func (l *logbook) recover() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, path := range []string{l.older(), l.path} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// A line that was not written to its end is read again.
		end := bytes.LastIndexByte(data, '\n') + 1
		if int64(end) < int64(len(data)) {
			_ = os.Truncate(path, int64(end))
		}
		for line := range bytes.Lines(data[:end]) {
			var e guest.LogEntry
			if json.Unmarshal(line, &e) == nil {
				l.next = e.Offset + int64(len(e.Data))
			}
		}
	}
}

func (l *logbook) from() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// write appends an entry. The guest's word on offsets counts for that guest
// only.
func (l *logbook) write(e guest.LogEntry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeRoom(); err != nil {
		return err
	}
	n, err := l.file.Write(append(line, '\n'))
	if err != nil {
		return err
	}
	l.size += int64(n)
	l.next = e.Offset + int64(len(e.Data))
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// makeRoom opens the file, or puts a full one aside. The caller holds mu.
func (l *logbook) makeRoom() error {
	if l.file != nil && l.size < maxLog {
		return nil
	}
	if l.file != nil {
		if err := errors.Join(l.file.Close(), os.Rename(l.path, l.older())); err != nil {
			return err
		}
		l.file = nil
		l.number++
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

func (l *logbook) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// open opens the first file that is kept of those behind the one with the given
// number, and returns its number; nil if there is none.
func (l *logbook) open(behind int) (*os.File, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, path := range []string{l.older(), l.path} {
		number := l.number - 1 + i
		if number <= behind {
			continue
		}
		f, err := os.Open(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, number, err
		}
	}
	return nil, behind, nil
}

// wait returns a channel that is closed when more is written than there was.
func (l *logbook) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// keepLogs copies what the guest's process writes into the VM's logbook.
func (v *vm) keepLogs(ctx context.Context, ctl *guest.Client) {
	for ctx.Err() == nil {
		err := ctl.Logs(ctx, v.log.from(), v.log.write)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

// serveLogs sends the VM's log; with follow until its process has ended.
func (v *vm) serveLogs(w http.ResponseWriter, r *http.Request) error {
	follow, _ := strconv.ParseBool(r.URL.Query().Get("follow"))
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := http.NewResponseController(w)
	if err := out.Flush(); err != nil {
		return err
	}
	return v.followLog(r.Context(), w, out, follow)
}

// followLog sends what is kept, and what comes, from file to file. A client
// that is slower than two files are filled misses what it did not take.
func (v *vm) followLog(ctx context.Context, w io.Writer, out *http.ResponseController, follow bool) error {
	tail := logTail{log: v.log, number: noLog}
	defer tail.close()
	for {
		// Looked at before the files are read to their end: what is written
		// after that is waited for.
		state, moved := v.now()
		changed := v.log.wait()
		if errors.Join(tail.copy(w), out.Flush()) != nil {
			return nil // the client is gone
		}
		if !follow || state == api.Stopped || state == api.Cold {
			return nil
		}
		select {
		case <-changed:
		case <-moved:
		case <-ctx.Done():
			return nil
		case <-v.h.ctx.Done():
			return nil
		}
	}
}

// A logTail is how far a log was read.
type logTail struct {
	log    *logbook
	file   *os.File // nil before the first
	number int      // of file
}

// noLog is a number below those of all files.
const noLog = -2

func (t *logTail) close() {
	if t.file != nil {
		t.file.Close()
	}
}

// copy writes all that was not read yet to w, whole lines.
func (t *logTail) copy(w io.Writer) error {
	for {
		// Looked for first: when there is a next file, nothing is written to
		// this one any more.
		next, number, err := t.log.open(t.number)
		if err != nil {
			return err
		}
		if t.file != nil {
			err = copyLines(w, t.file)
		}
		if next == nil {
			return err
		}
		t.close()
		t.file, t.number = next, number
		if err != nil {
			return err
		}
	}
}

// copyLines copies whole lines to w and leaves f behind the last of them.
func copyLines(w io.Writer, f *os.File) error {
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			// A line in the making is for the next time.
			_, err = f.Seek(-int64(len(line)), io.SeekCurrent)
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
}
