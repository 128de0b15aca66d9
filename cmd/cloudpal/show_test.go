package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
)

// layers reports how three layers of an image come in, then returns it or err.
func layers(err error) fetcher {
	return func(_ context.Context, report func(api.Progress)) (api.Image, error) {
		for _, done := range []int64{0, 1 << 20, 4 << 20} {
			for _, layer := range []string{"sha256:aaaaaaaaaaaaaaaa", "sha256:bbbbbbbbbbbbbbbb"} {
				report(api.Progress{Layer: layer, Phase: "pull", Done: done, Total: 4 << 20})
			}
		}
		report(api.Progress{Layer: "sha256:cccccccccccccccc", Phase: "pull\x1b[2J", Done: 5})
		return api.Image{Name: "web"}, err
	}
}

// Where nobody watches, a layer that is done is one line, and one that is not
// is none.
func TestProgressWithoutATerminal(t *testing.T) {
	w, out, errs := newWorld("")
	image, err := (&cli{world: w}).withProgress(t.Context(), layers(nil))
	if err != nil || image.Name != "web" {
		t.Errorf("got %+v, %v", image, err)
	}
	if got, want := errs.String(), "pull aaaaaaaaaaaa: 4 MiB\npull bbbbbbbbbbbb: 4 MiB\n"; got != want || out.Len() > 0 {
		t.Errorf("said %q, want %q; printed %q", got, want, out)
	}
}

// Bars end with what they show, whether or not all came.
func TestBarsEnd(t *testing.T) {
	for _, failure := range []error{nil, errors.New("no space")} {
		f, err := os.CreateTemp(t.TempDir(), "terminal")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := withBars(ctx, f, layers(failure)); !errors.Is(err, failure) {
			t.Errorf("got %v, want %v", err, failure)
		}
		if ctx.Err() != nil {
			t.Error("bars do not end")
		}
	}
}

func TestPrintStats(t *testing.T) {
	var b bytes.Buffer
	printStats(&b, []api.Stats{{
		Name: "web", State: api.Asleep, CPU: 90 * time.Second, CPUPercent: 12.34, Memory: 64 << 20, MemoryLimit: 128 << 20,
		Storage: 3 << 20, DiskRead: 1, DiskWrite: 2048, NetIn: 0, NetOut: 5 << 30, Wakes: 3, Awake: time.Minute, Asleep: 50 * time.Hour,
	}})
	got := strings.Join(strings.Fields(strings.Split(b.String(), "\n")[1]), " ")
	if want := "web asleep 12.3% 90 s 64 MiB / 128 MiB 3 MiB 1 B / 2 KiB 0 B / 5 GiB 3 60 s 2 d"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEventsAreLines(t *testing.T) {
	at := time.Date(2026, 11, 25, 3, 0, 0, 0, time.Local)
	for want, e := range map[string]api.Event{
		"2026-11-25 03:00:00  booted                 started":                {Time: at, What: api.Booted, Reason: "started"},
		"2026-11-25 03:00:00  napped (disk)          no traffic for 30s":     {Time: at, What: api.Napped, Depth: api.Disk, Reason: "no traffic for 30s"},
		"2026-11-25 03:00:00  woke (after 5 min)     a packet":               {Time: at, What: api.Woke, Slept: 5 * time.Minute, Reason: "a packet"},
		"2026-11-25 03:00:00  stopped                could not start: ?[2Jx": {Time: at, What: api.Ended, Reason: "could not start: \x1b[2Jx"},
		"2026-11-25 03:00:00  lost":                                          {Time: at, What: api.Lost},
	} {
		if got := formatEvent(e); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestStatesInAWord(t *testing.T) {
	for want, v := range map[string]api.VM{
		"asleep (disk)":  {State: api.Asleep, Depth: api.Disk},
		"cold (sealed)":  {State: api.Cold, Depth: api.Sealed},
		"cold":           {State: api.Cold},
		"running (busy)": {State: api.Running, Busy: []string{"sync"}},
		"running":        {State: api.Running},
		"stopped (3)":    {State: api.Stopped, Exit: &api.Exit{Code: 3}},
	} {
		if got := formatState(v); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	row := vmRow(api.VM{WireGuard: &api.WireGuard{Port: 51820, HostPort: 51821}})
	if got, want := row[len(row)-1], "51821->51820/udp (WireGuard)"; got != want {
		t.Errorf("ports: got %s, want %s", got, want)
	}
}

// A table's cells come from anywhere; none may make a row, or a column, more.
func TestTableHoldsStrangersText(t *testing.T) {
	var b bytes.Buffer
	table(&b, "A B", [][]string{{"x\ny\tz", "\x1b[31mred"}})
	if got, want := b.String(), "A      B\nx y z  ?[31mred\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{formatTime(0), "0 ms"},
		{formatTime(3210 * time.Microsecond), "3.21 ms"},
		{formatTime(1500 * time.Millisecond), "1.5 s"},
		{formatTime(130 * time.Second), "2m10s"},
		{formatAge(-time.Second), "0 s"},
		{formatAge(119 * time.Second), "119 s"},
		{formatAge(time.Hour), "60 min"},
		{formatAge(47 * time.Hour), "47 h"},
		{formatAge(480 * time.Hour), "20 d"},
		{formatSince(time.Time{}), "-"},
		{formatSince(time.Unix(0, 0)), "-"},
		{formatMemoryTime(1024 * 3600 * 1000), "1 GiB·h"},
		{shortID("sha256:0123456789abcdef"), "0123456789ab"},
		{shortID("sha256:01"), "01"},
		{formatState(api.VM{State: api.Asleep, Depth: api.Disk}), "asleep (disk)"},
		{formatState(api.VM{State: api.Stopped, Exit: &api.Exit{Code: 137}}), "stopped (137)"},
		{formatState(api.VM{State: api.Running, Throttled: true}), "running (throttled)"},
		{formatState(api.VM{State: api.Cold}), "cold"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// Records come in pieces that end anywhere. The last events are kept, in order.
func TestEventsOfRecordsInPieces(t *testing.T) {
	lines := []string{`{"seq":1}`}
	for n := range 2 * maxEvents {
		lines = append(lines, fmt.Sprintf(`{"seq":%d,"event":"event %d"}`, n+2, n))
	}
	text := strings.Join(append(lines, `{"seq":99,"event":"cut o`), "\n")
	for _, size := range []int{1, 7, len(text)} {
		e := events{}
		for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			e.Write(rest[:min(size, len(rest))])
		}
		if len(e.last) != maxEvents || e.last[0].Event != fmt.Sprintf("event %d", maxEvents) || e.last[maxEvents-1].Event != fmt.Sprintf("event %d", 2*maxEvents-1) {
			t.Errorf("in pieces of %d: got %+v", size, e.last)
		}
	}
}

// Each answers in order, and every error is told with its own remedy.
func TestEachTellsEveryError(t *testing.T) {
	names := []string{"a", "bad", "c", "worse"}
	got, err := each(t.Context(), names, func(_ context.Context, name string) (string, error) {
		if len(name) > 1 {
			return "", errors.New(name)
		}
		return name, nil
	})
	var errs bytes.Buffer
	complainAll(&errs, err)
	if strings.Join(got, "") != "ac" || errs.String() != "cloudpal: bad\ncloudpal: worse\n" {
		t.Errorf("got %q and %q", got, errs.String())
	}
}
