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

// now returns the file that is written to, open for reading, and a channel
// that is closed when it has more.
func (l *logbook) now() (*os.File, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, l.changed, nil
	}
	return f, l.changed, err
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
	if older, err := os.Open(v.log.older()); err == nil {
		_, err = io.Copy(w, older)
		older.Close()
		if err != nil {
			return nil // the client is gone
		}
	}
	return v.followLog(r.Context(), w, out, follow)
}

// followLog sends what is in the file that is written to, and what comes, from
// file to file.
func (v *vm) followLog(ctx context.Context, w io.Writer, out *http.ResponseController, follow bool) error {
	f, changed, err := v.log.now()
	if err != nil {
		return err
	}
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	for {
		// Looked at before the file is read to its end: what is written
		// after that is waited for.
		state, moved := v.now()
		changed = v.log.wait()
		if f != nil {
			if err := copyLines(w, f); err != nil {
				return nil // the client is gone
			}
			if err := out.Flush(); err != nil {
				return nil
			}
		}
		next, _, err := v.log.now()
		if err != nil {
			return err
		}
		if next != nil && !sameFile(f, next) {
			if f != nil {
				f.Close()
			}
			f = next
			continue
		}
		if next != nil {
			next.Close()
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

func sameFile(a, b *os.File) bool {
	if a == nil {
		return false
	}
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
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
