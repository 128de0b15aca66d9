package meter

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

func TestVerifyFindsEveryFlippedBit(t *testing.T) {
	t.Parallel()
	whole := written(t, 3)
	for i := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		s, err := Verify(bytes.NewReader(b))
		if i/8 == len(whole)-1 { // what is left is a line that was torn
			if err != nil || !s.Torn || s.Records != 2 {
				t.Errorf("the last newline changed: got %+v, %v, want a torn third record", s, err)
			}
			continue
		}
		if !errors.Is(err, cloudpal.Corrupt) {
			t.Fatalf("bit %d of byte %d changed: got %v, want %v", i%8, i/8, err, cloudpal.Corrupt)
		}
	}
}

func TestVerifyNamesTheFirstBadLine(t *testing.T) {
	t.Parallel()
	lines := bytes.SplitAfter(written(t, 6), []byte("\n"))
	change := func(f func(r *Record)) []byte { return resealed(t, lines[3], f) }
	for name, c := range map[string]struct {
		third []byte // in the place of the fourth line
		want  string
	}{
		"dropped":    {nil, "its number is 5 after 3"},
		"doubled":    {slices.Concat(lines[3], lines[3]), "line 5: damaged: its number is 4 after 4"},
		"swapped":    {slices.Concat(lines[4], lines[3]), "its number is 5 after 3"},
		"less used":  {change(func(r *Record) { r.Total.CPU-- }), "line 5: damaged: it does not follow"},
		"renumbered": {change(func(r *Record) { r.Seq++ }), "its number is 5 after 3"},
		"lower":      {change(func(r *Record) { r.Total.CPU = 0 }), "a total is smaller"},
		"earlier":    {change(func(r *Record) { r.Time = r.Time.Add(-time.Hour) }), "its time is before"},
		"another's":  {change(func(r *Record) { r.VM = "vm2" }), "another VM"},
		"unchained":  {change(func(r *Record) { r.Prev = strings.Repeat("0", 64) }), "does not follow"},
		"first":      {change(func(r *Record) { r.Seq = 1 }), "only the first"},
		"negative":   {change(func(r *Record) { r.Total.NetIn = -1 }), "below zero"},
		"spaced":     {bytes.Replace(lines[3], []byte(`,"time"`), []byte(`, "time"`), 1), "does not match its hash"},
		"not JSON":   {append(bytes.Repeat([]byte("{"), 200), '\n'), "not a record"},
		"empty":      {[]byte("\n"), "not a record"},
	} {
		b := slices.Concat(slices.Concat(lines[:3]...), c.third, slices.Concat(lines[4:]...))
		_, err := Verify(bytes.NewReader(b))
		if !errors.Is(err, cloudpal.Corrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %v with %q", name, err, cloudpal.Corrupt, c.want)
		}
		if !strings.Contains(c.want, "line") && err != nil && !strings.Contains(err.Error(), "line 4: ") {
			t.Errorf("%s: got %v, want line 4 named", name, err)
		}
	}
}

// resealed returns line changed by f, with a hash that matches.
func resealed(t *testing.T, line []byte, f func(r *Record)) []byte {
	t.Helper()
	r, err := parse(line)
	if err != nil {
		t.Fatal(err)
	}
	f(&r)
	b, err := r.line()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVerifyTakesOneReadingOnly gives it a line whose hash is right but which
// another reader of JSON could read otherwise.
func TestVerifyTakesOneReadingOnly(t *testing.T) {
	t.Parallel()
	line := written(t, 1)
	hashed, _, _ := strings.Cut(string(line), hashKey)
	twice := strings.Replace(hashed, `"seq":1,`, `"seq":9,"seq":1,`, 1)
	_, err := Verify(strings.NewReader(twice + hashKey + sum([]byte(twice)) + hashTail))
	if !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
	}
}

func TestVerifyOfNothingAndOfAPart(t *testing.T) {
	t.Parallel()
	if s, err := Verify(strings.NewReader("")); err != nil || s != (Summary{}) {
		t.Errorf("of nothing: got %+v, %v", s, err)
	}
	lines := bytes.SplitAfter(written(t, 4), []byte("\n"))
	s, err := Verify(bytes.NewReader(slices.Concat(lines[2], lines[3])))
	if err != nil || s.FromStart || s.Records != 2 || s.First.Seq != 3 {
		t.Errorf("of a part: got %+v, %v", s, err)
	}
}

func TestVerifyTakesLittleMemory(t *testing.T) {
	endless := io.LimitReader(endless{}, 1<<30)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Verify(endless)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, cloudpal.Corrupt) || !strings.Contains(err.Error(), "longer than 64 KiB") {
		t.Errorf("got %v, want %v", err, cloudpal.Corrupt)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("an endless line takes %d bytes", got)
	}
}

// endless reads as a line that does not end.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestVerifyTellsTroubleInReading(t *testing.T) {
	t.Parallel()
	broken := io.MultiReader(bytes.NewReader(written(t, 2)), brokenReader{})
	if s, err := Verify(broken); errors.Is(err, cloudpal.Corrupt) || !errors.Is(err, io.ErrClosedPipe) || s.Records != 2 {
		t.Errorf("got %+v, %v, want %v", s, err, io.ErrClosedPipe)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestHistoryOfNoLog(t *testing.T) {
	t.Parallel()
	if _, err := History(filepath.Join(t.TempDir(), "usage")); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("got %v, want %v", err, cloudpal.NotExist)
	}
}

func FuzzVerify(f *testing.F) {
	whole := written(f, 2)
	f.Add(whole)
	f.Add(whole[:len(whole)-7])
	f.Add(bytes.Replace(whole, []byte(`"seq":1`), []byte(`"seq":1e0`), 1))
	f.Add([]byte("{}\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Verify(bytes.NewReader(b))
		if err != nil && !errors.Is(err, cloudpal.Corrupt) {
			t.Fatalf("got %v, want %v", err, cloudpal.Corrupt)
		}
		if err == nil && s.Records != int64(bytes.Count(b, []byte("\n"))) {
			t.Fatalf("%d records in %d lines", s.Records, bytes.Count(b, []byte("\n")))
		}
	})
}

// FuzzRecord gives parse lines whose hash is right.
func FuzzRecord(f *testing.F) {
	hashed, _, _ := strings.Cut(string(written(f, 1)), hashKey)
	f.Add(hashed)
	f.Add(strings.Replace(hashed, "Z", "+01:00", 1))
	f.Add(strings.Replace(hashed, "2026", "0000", 1))
	f.Add(`{"seq":1`)
	f.Fuzz(func(t *testing.T, hashed string) {
		line := hashed + hashKey + sum([]byte(hashed)) + hashTail
		r, err := parse([]byte(line))
		if err != nil {
			return
		}
		if again, err := r.line(); err != nil || string(again) != line {
			t.Fatalf("read from %q, written as %q, %v", line, again, err)
		}
	})
}

func FuzzOpenLog(f *testing.F) {
	whole := written(f, 2)
	f.Add(whole)
	f.Add(whole[:len(whole)-7])
	f.Add([]byte("\n"))
	f.Add(make([]byte, 3*maxLine))
	path := filepath.Join(f.TempDir(), "usage")
	f.Fuzz(func(t *testing.T, b []byte) {
		write(t, path, b)
		l, err := OpenLog(path, "vm1")
		if err != nil {
			if !errors.Is(err, cloudpal.Corrupt) {
				t.Fatalf("got %v, want %v", err, cloudpal.Corrupt)
			}
			return
		}
		defer l.Close()
		if _, err := l.Append(Record{Time: l.last.Time, Total: l.last.Total}); err != nil {
			t.Fatal(err)
		}
	})
}
