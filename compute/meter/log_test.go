package meter

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// start is a whole second, so that tests can add to it.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestLogChainsAndVerifies(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage")
	l := open(t, path)
	for i := range 10 {
		now := start.Add(time.Duration(i) * time.Second)
		raw := Raw{CPU: time.Duration(i) * time.Millisecond}
		total := Account(l.Last(), "1-2", raw, now, true, 100<<20)
		if _, err := l.Append(Record{Time: now, Epoch: "1-2", Raw: raw, Total: total, Event: "<\xff>"}); err != nil {
			t.Fatal(err)
		}
	}
	want := l.Last()
	l.Close()
	if got := open(t, path).Last(); got != want {
		t.Errorf("after reopening the last record is %+v, want %+v", got, want)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := Verify(f)
	if err != nil {
		t.Fatal(err)
	}
	if s.Records != 10 || !s.FromStart || s.Torn || s.Last != want {
		t.Errorf("verify finds %+v", s)
	}
	if s.Total.CPU != 9*time.Millisecond || s.Total.Awake != 9*time.Second || s.Total.MemoryTime != 900_000 {
		t.Errorf("totals are %+v", s.Total)
	}
}

func open(t testing.TB, path string) *Log {
	t.Helper()
	l, err := OpenLog(path, "vm1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
