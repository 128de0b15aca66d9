package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

// entries are a process's words: each is size bytes of data, one behind the
// other from offset.
func entries(offset int64, count, size int) []guest.LogEntry {
	var list []guest.LogEntry
	for range count {
		list = append(list, guest.LogEntry{Offset: offset, Stream: guest.Stdout, Data: bytes.Repeat([]byte("x"), size)})
		offset += int64(size)
	}
	return list
}

func writeAll(t *testing.T, l *logbook, list []guest.LogEntry) {
	t.Helper()
	for _, e := range list {
		if err := l.write(e); err != nil {
			t.Fatal(err)
		}
	}
}

func logbookAt(t *testing.T, path string) *logbook {
	t.Helper()
	l := newLogbook(path)
	t.Cleanup(func() { l.close() })
	return l
}

// offsets reads a log file's offsets; a line that is not whole fails the test.
func offsets(t *testing.T, data []byte) []int64 {
	t.Helper()
	var list []int64
	for line := range bytes.Lines(data) {
		var e guest.LogEntry
		if err := json.Unmarshal(line, &e); err != nil || line[len(line)-1] != '\n' {
			t.Fatalf("line %q: %v", line[:min(len(line), 80)], err)
		}
		list = append(list, e.Offset)
	}
	return list
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestLogbookKeepsTheLastInTwoFiles(t *testing.T) {
	t.Parallel()
	l := logbookAt(t, filepath.Join(t.TempDir(), "log"))
	const size = guest.MaxLogData
	all := entries(0, 3*maxLog/size, size)
	writeAll(t, l, all)
	older, newer := content(t, l.older()), content(t, l.path)
	if total := len(older) + len(newer); total < maxLog || total > 2*maxLog+2*size {
		t.Errorf("got %d bytes, want %d to %d", total, maxLog, 2*maxLog)
	}
	kept := append(offsets(t, older), offsets(t, newer)...)
	want := all[len(all)-len(kept):]
	for i, offset := range kept {
		if offset != want[i].Offset {
			t.Fatalf("entry %d: got offset %d, want %d", i, offset, want[i].Offset)
		}
	}
}

func TestLogbookGoesOnBehindATornLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	l := logbookAt(t, path)
	writeAll(t, l, entries(0, 3, 10))
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	whole := content(t, path)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for cut := len(whole) - len(lines[2]); cut < len(whole); cut++ {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		next := newLogbook(path)
		next.recover()
		if got := next.from(); got != 20 {
			t.Fatalf("cut at %d: goes on from %d, want 20", cut, got)
		}
		writeAll(t, next, entries(20, 1, 10))
		if err := next.close(); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); !bytes.Equal(got, whole) {
			t.Fatalf("cut at %d: got %q, want %q", cut, got, whole)
		}
	}
}

func TestLogbookOfAnotherProcessStartsAnew(t *testing.T) {
	t.Parallel()
	l := logbookAt(t, filepath.Join(t.TempDir(), "log"))
	writeAll(t, l, entries(0, 3, 10))
	l.restart()
	if got := l.from(); got != 0 {
		t.Errorf("got %d, want 0", got)
	}
	writeAll(t, l, entries(0, 1, 10))
	if got := offsets(t, content(t, l.path)); len(got) != 4 || got[3] != 0 {
		t.Errorf("got %v, want the earlier three, and one more", got)
	}
}

// logged is a VM of which nothing is there but its log.
func logged(t *testing.T) *vm {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	h := &Host{cfg: Config{StateDir: t.TempDir(), RunDir: t.TempDir()}, ctx: ctx, log: slog.New(slog.DiscardHandler)}
	v := h.newVM("a", record{})
	v.become(api.Running, "", "")
	if err := os.MkdirAll(v.paths.nap, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.log.close() })
	return v
}

// told serves v's log to the end and returns the offsets that were sent. Before
// is called whenever something goes out.
func told(t *testing.T, v *vm, query string, before func()) <-chan []int64 {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := v.serveLogs(hooked{w, before}, r); err != nil {
			t.Errorf("serve logs: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	resp, err := http.Get(s.URL + query)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan []int64, 1)
	go func() {
		defer resp.Body.Close()
		var list []int64
		lines := bufio.NewReader(resp.Body)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				sent <- list
				return
			}
			var e guest.LogEntry
			if err := json.Unmarshal(line, &e); err != nil {
				t.Errorf("line %.80q: %v", line, err)
			}
			list = append(list, e.Offset)
		}
	}()
	return sent
}

type hooked struct {
	http.ResponseWriter
	before func()
}

func (h hooked) FlushError() error {
	if h.before != nil {
		h.before()
	}
	return http.NewResponseController(h.ResponseWriter).Flush()
}

func await(t *testing.T, c <-chan []int64) []int64 {
	t.Helper()
	select {
	case list := <-c:
		return list
	case <-time.After(20 * time.Second):
		t.Fatal("the log does not end")
		return nil
	}
}

func TestFollowSendsAllUntilTheProcessHasEnded(t *testing.T) {
	t.Parallel()
	v := logged(t)
	writeAll(t, v.log, entries(0, 3, 10))
	sent := told(t, v, "?follow=1", nil)
	writeAll(t, v.log, entries(30, 200, 10))
	v.become(api.Stopped, "", "")
	if got := await(t, sent); len(got) != 203 || got[202] != 2020 {
		t.Errorf("got %d entries, want 203", len(got))
	}
}

func TestLogWithoutFollowEndsWhereItIs(t *testing.T) {
	t.Parallel()
	v := logged(t)
	if got := await(t, told(t, v, "", nil)); len(got) != 0 {
		t.Errorf("of an empty log: got %v", got)
	}
	writeAll(t, v.log, entries(0, 3, 10))
	if got := await(t, told(t, v, "", nil)); len(got) != 3 {
		t.Errorf("got %v, want three entries", got)
	}
}

// TestFollowLosesNothingWhenFilesArePutAside writes, between two looks of who
// follows, the rest of one file and as many more, and then the first of a last.
func TestFollowLosesNothingWhenFilesArePutAside(t *testing.T) {
	t.Parallel()
	const size = guest.MaxLogData
	for _, more := range []int{0, 1} {
		v := logged(t)
		all := entries(0, (1+more)*maxLog/size+2, size)
		writeAll(t, v.log, all[:1])
		flushes := 0
		sent := told(t, v, "?follow=1", func() {
			flushes++
			if flushes == 2 { // the first entry is out
				writeAll(t, v.log, all[1:])
				v.become(api.Stopped, "", "")
			}
		})
		got := await(t, sent)
		if v.log.number != 1+more {
			t.Fatalf("%d files were put aside, want %d", v.log.number, 1+more)
		}
		if len(got) != len(all) {
			t.Errorf("%d put aside: got %d entries, want %d", 1+more, len(got), len(all))
		}
	}
}

// TestReadingLosesNothingWhenAFileIsPutAside reads the older file, while the one
// behind it takes its place.
func TestReadingLosesNothingWhenAFileIsPutAside(t *testing.T) {
	t.Parallel()
	l := logbookAt(t, filepath.Join(t.TempDir(), "log"))
	const size = guest.MaxLogData
	all := entries(0, 2*maxLog/size+2, size)
	first := maxLog/size + 1
	writeAll(t, l, all[:first])
	tail := logTail{log: l, number: noLog}
	defer tail.close()
	var out bytes.Buffer
	put := writes{&out, func() {
		if l.number == 1 {
			writeAll(t, l, all[first:])
		}
	}}
	if err := tail.copy(put); err != nil {
		t.Fatal(err)
	}
	if l.number != 2 {
		t.Fatalf("%d files were put aside, want 2", l.number)
	}
	if got := offsets(t, out.Bytes()); len(got) != len(all) {
		t.Errorf("got %d entries, want %d", len(got), len(all))
	}
}

// writes calls before whenever something is written.
type writes struct {
	io.Writer
	before func()
}

func (w writes) Write(p []byte) (int, error) {
	w.before()
	return w.Writer.Write(p)
}

func FuzzLogbookRecover(f *testing.F) {
	f.Add([]byte(`{"offset":5,"data":"eA=="}`+"\n"), []byte("{"))
	f.Add([]byte("\n\n"), []byte(`{"offset":-1}`+"\n"))
	f.Fuzz(func(t *testing.T, older, newer []byte) {
		path := filepath.Join(t.TempDir(), "log")
		for name, data := range map[string][]byte{path + ".1": older, path: newer} {
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l := newLogbook(path)
		l.recover()
		writeAll(t, l, entries(l.from(), 1, 3))
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		text := string(content(t, path))
		last := text[strings.LastIndexByte(strings.TrimSuffix(text, "\n"), '\n')+1:]
		var e guest.LogEntry
		if err := json.Unmarshal([]byte(last), &e); err != nil || string(e.Data) != "xxx" {
			t.Errorf("the last line is %q", last)
		}
	})
}
