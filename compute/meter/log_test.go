package meter

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

// start is a whole second, so that tests can add to it.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, path string) *Log {
	t.Helper()
	l, err := OpenLog(path, "vm1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// add appends n records, a second and a millisecond of CPU apart.
func add(t testing.TB, l *Log, n int) {
	t.Helper()
	for range n {
		last := l.Last()
		now := start.Add(time.Duration(last.Seq) * time.Second)
		raw := Raw{CPU: time.Duration(last.Seq) * time.Millisecond}
		r := Record{Time: now, Epoch: "1-2", Raw: raw, Total: Account(last, "1-2", raw, now, Awake, 100<<20)}
		if _, err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
}

// written returns a log of n records as bytes.
func written(t testing.TB, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "usage")
	l := open(t, path)
	add(t, l, n)
	l.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// verified checks all of the log at path.
func verified(t testing.TB, path string) Summary {
	t.Helper()
	r, err := History(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLogChainsAndVerifies(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	l := open(t, path)
	add(t, l, 10)
	want := l.Last()
	l.Close()
	if got := open(t, path).Last(); got != want {
		t.Errorf("after reopening the last record is %+v, want %+v", got, want)
	}
	s := verified(t, path)
	if s.Records != 10 || !s.FromStart || s.Torn || s.Last != want || s.First.Seq != 1 {
		t.Errorf("verify finds %+v", s)
	}
	if s.Total.CPU != 9*time.Millisecond || s.Total.Awake != 9*time.Second || s.Total.MemoryTime != 900_000 {
		t.Errorf("totals are %+v", s.Total)
	}
}

func TestAppendTidiesWhatItIsGiven(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	l := open(t, path)
	local := time.FixedZone("here", 3600)
	wild := Record{
		Time: time.Now().In(local), Epoch: strings.Repeat("é", 1000), Event: "<\xff\x00\n\u2028>" + strings.Repeat("ü", 1<<20),
		Seq: 77, VM: "other", Prev: "x", Hash: "y",
	}
	got, err := l.Append(wild)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(Record{Time: wild.Time.Add(-time.Hour), Event: "before"}); err != nil {
		t.Fatal(err)
	}
	s := verified(t, path)
	if s.First != got || got.Seq != 1 || got.VM != "vm1" || got.Prev != "" || !got.Time.Equal(wild.Time) {
		t.Errorf("verify finds %+v, Append returned %+v", s.First, got)
	}
	if !s.Last.Time.Equal(wild.Time) {
		t.Errorf("when the clock goes back the record's time is %v, want %v", s.Last.Time, wild.Time)
	}
}

func TestAppendRefusesTotalsThatShrink(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	l := open(t, path)
	add(t, l, 3)
	want := l.Last()
	if _, err := l.Append(Record{Time: want.Time}); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("got %v, want %v", err, cloudpal.Invalid)
	}
	if s := verified(t, path); s.Last != want || l.Last() != want {
		t.Errorf("the last record is %+v, want %+v", s.Last, want)
	}
}

func TestOpenLogCutsATornLineAtEveryByte(t *testing.T) {
	t.Parallel()
	whole := written(t, 3)
	two := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	path := filepath.Join(t.TempDir(), "usage")
	for cut := two; cut < len(whole); cut++ {
		write(t, path, whole[:cut])
		l := open(t, path)
		if got := l.Last().Seq; got != 2 {
			t.Fatalf("cut at %d of %d: last is %d, want 2", cut, len(whole), got)
		}
		add(t, l, 2)
		l.Close()
		if s := verified(t, path); s.Records != 4 || s.Torn {
			t.Fatalf("cut at %d: verify finds %+v", cut, s)
		}
	}
}

func TestOpenLogOfATornFirstLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	write(t, path, written(t, 1)[:50])
	l := open(t, path)
	add(t, l, 1)
	if s := verified(t, path); s.Records != 1 || !s.FromStart {
		t.Errorf("verify finds %+v", s)
	}
}

func TestOpenLogRefusesADamagedLastRecord(t *testing.T) {
	t.Parallel()
	whole := written(t, 3)
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	path := filepath.Join(t.TempDir(), "usage")
	for i := last; i < len(whole)-1; i++ { // the last newline makes it torn
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		write(t, path, b)
		l, err := OpenLog(path, "vm1")
		if err == nil {
			l.Close()
		}
		if !errors.Is(err, cloudpal.Corrupt) || !strings.Contains(cloudpal.HintOf(err), "mv ") {
			t.Fatalf("byte %d changed: got %v (%s), want %v and a remedy", i, err, cloudpal.HintOf(err), cloudpal.Corrupt)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(after, b) {
			t.Fatalf("byte %d changed: the damaged log was altered", i)
		}
	}
}

func TestOpenLogRefusesGarbage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	for name, b := range map[string][]byte{
		"no newline": make([]byte, 1<<20),
		"long line":  append(bytes.Repeat([]byte("x"), 1<<20), '\n'),
		"empty line": []byte("\n"),
		"text":       []byte("hello\n"),
	} {
		write(t, path, b)
		if l, err := OpenLog(path, "vm1"); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("%s: got %v, %v, want %v", name, l, err, cloudpal.Corrupt)
		}
	}
}

func TestOpenLogRefusesAnotherVMs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	write(t, path, written(t, 2))
	if _, err := OpenLog(path, "vm2"); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
	}
}

func TestRotationContinuesTheChain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	for i := range 60 {
		l := open(t, path)
		l.most = 4 << 10
		add(t, l, 3)
		l.Close()
		s := verified(t, path)
		if want := int64(3 * (i + 1)); s.Last.Seq != want || s.Last != l.Last() {
			t.Fatalf("the last record is %d, want %d", s.Last.Seq, want)
		}
		if s.FromStart != (s.Records == s.Last.Seq) {
			t.Fatalf("verify finds %+v", s)
		}
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 1+keepFiles {
		t.Fatalf("there are %v, want the log and %d put aside", files, keepFiles)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 4<<10 {
			t.Errorf("%s: %v, %d bytes", f, err, info.Size())
		}
	}
}

func TestRotationKilledHalfWay(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	for name, kill := range map[string]func() error{
		"put aside":     func() error { return os.Rename(path, aside(path, 1)) },
		"and made anew": func() error { return errors.Join(os.Rename(path, aside(path, 1)), os.WriteFile(path, nil, 0o600)) },
		"and torn": func() error {
			return errors.Join(os.Rename(path, aside(path, 1)), os.WriteFile(path, []byte(`{"s`), 0o600))
		},
		"others shifted": func() error { return os.Rename(aside(path, 1), aside(path, 2)) },
	} {
		clearLogs(t, path)
		l := open(t, path)
		l.most = 2 << 10
		for len(glob(t, path)) < 2 {
			add(t, l, 1)
		}
		l.Close()
		if name != "others shifted" {
			if err := os.Rename(aside(path, 1), aside(path, 2)); err != nil {
				t.Fatal(err)
			}
		}
		if err := kill(); err != nil {
			t.Fatal(err)
		}
		want := l.Last().Seq + 50
		l = open(t, path)
		l.most = 2 << 10
		add(t, l, 50)
		if s := verified(t, path); s.Last.Seq != want {
			t.Errorf("%s: the last record is %d, want %d", name, s.Last.Seq, want)
		}
	}
}

func glob(t *testing.T, path string) []string {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func clearLogs(t *testing.T, path string) {
	t.Helper()
	for _, f := range glob(t, path) {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilledWriterLosesNothingItWasToldIsWritten kills a process that appends
// as fast as it can.
func TestKilledWriterLosesNothingItWasToldIsWritten(t *testing.T) {
	if path := os.Getenv("METER_TEST_APPEND"); path != "" {
		l := open(t, path)
		for {
			add(t, l, 1)
			fmt.Println("seq", l.Last().Seq)
		}
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	for range 5 {
		told := killAfterAppends(t, path, 50)
		l := open(t, path)
		if got := l.Last().Seq; got < told {
			t.Fatalf("the last record is %d, want %d or later", got, told)
		}
		l.Close()
		if s := verified(t, path); s.Total.CPU != time.Duration(s.Records-1)*time.Millisecond {
			t.Errorf("verify finds %+v", s)
		}
	}
}

// killAfterAppends returns the last record the writer told of.
func killAfterAppends(t *testing.T, path string, n int) (seq int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "METER_TEST_APPEND="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for ; n > 0 && lines.Scan(); n-- {
		if _, err := fmt.Sscanf(lines.Text(), "seq %d", &seq); err != nil {
			t.Errorf("the writer said %q", lines.Text())
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	return seq
}
