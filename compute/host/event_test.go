package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
)

func historyOf(t testing.TB, content string) *history {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if content != "" {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return newHistory(path)
}

// numbers returns the numbers of the events after n, as in "3-5".
func numbers(t *testing.T, h *history, n int64) string {
	t.Helper()
	events, _, err := h.after(n)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.N != events[0].N+int64(i) {
			t.Fatalf("number %d follows %d", e.N, events[i-1].N)
		}
	}
	if len(events) == 0 {
		return "none"
	}
	return fmt.Sprintf("%d-%d", events[0].N, events[len(events)-1].N)
}

func TestHistoryOutlivesItsAgent(t *testing.T) {
	t.Parallel()
	h := historyOf(t, "")
	want := api.Event{N: 1, Time: time.Unix(1e9, 0).UTC(), What: api.Napped, Reason: "no traffic", Depth: api.Memory}
	for range 3 {
		if err := h.add(want); err != nil {
			t.Fatal(err)
		}
	}
	next := newHistory(h.path)
	if got, _, err := next.after(0); err != nil || len(got) != 3 || got[0] != want {
		t.Errorf("got %+v, %v; want %+v first of three", got, err, want)
	}
	if err := next.add(want); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[int64]string{0: "1-4", 2: "3-4", 4: "none", 5: "1-4"} {
		if got := numbers(t, next, after); got != want {
			t.Errorf("after %d: got %s, want %s", after, got, want)
		}
	}
}

func TestHistoryGoesOnBehindHalfALine(t *testing.T) {
	t.Parallel()
	whole := `{"n":7,"what":"woke"}` + "\n"
	for _, half := range []string{`{"n":8,"wh`, "\x00\x00\x00", "no JSON\n", strings.Repeat("x", 3*maxEvent)} {
		h := historyOf(t, whole+half)
		if err := h.add(api.Event{What: api.Napped}); err != nil {
			t.Fatal(err)
		}
		if got := numbers(t, newHistory(h.path), 0); got != "7-8" {
			t.Errorf("%.10q: got %s, want 7-8", half, got)
		}
	}
}

func TestHistoryKeepsTheLast(t *testing.T) {
	t.Parallel()
	h := historyOf(t, "")
	const all = 5000
	for range all {
		if err := h.add(api.Event{What: api.Woke, Reason: strings.Repeat("<", 100)}); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprintf("%d-%d", all-api.MaxEvents+1, all)
	if got := numbers(t, newHistory(h.path), 0); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if info, err := os.Stat(h.path); err != nil || info.Size() > 3*api.MaxEvents*700 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}

func TestEventsNameNobody(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"a packet from 203.0.113.5":                            "a packet",
		"a WireGuard handshake from 203.0.113.5:4711":          "a WireGuard handshake",
		"a WireGuard handshake from [2001:db8::5]:4711":        "a WireGuard handshake",
		"a packet from 2001:db8::5; its nap could not be used": "a packet; its nap could not be used",
		"exit status 3":                 "exit status 3",
		"read it from the disk: broken": "read it from the disk: broken",
	} {
		if got := nameless(reason); got != want {
			t.Errorf("%s: got %q, want %q", reason, got, want)
		}
	}
}

// askEvents asks a host's handler.
func askEvents(t *testing.T, h *Host, query string) (events []api.Event, status int) {
	t.Helper()
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/vms/a/events"+query, nil))
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &events); err != nil || events == nil {
			t.Errorf("%s: got %s, %v", query, w.Body, err)
		}
	}
	return events, w.Code
}

func TestEventsAreWaitedFor(t *testing.T) {
	t.Parallel()
	h, err := hostOf(t, recordOf(t, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.find("a")
	if err != nil {
		t.Fatal(err)
	}
	events, _ := askEvents(t, h, "")
	if len(events) != 1 || events[0].What != api.Lost || events[0].N != 1 {
		t.Fatalf("a VM found after a restart of the machine: got %+v", events)
	}
	if events, _ := askEvents(t, h, "?after=1"); len(events) != 0 {
		t.Errorf("after the last: got %+v", events)
	}
	for _, bad := range []string{"?after=-1", "?after=x", "?wait=x", "?wait=-1s", "?wait=61s"} {
		if _, status := askEvents(t, h, bad); status != http.StatusBadRequest {
			t.Errorf("%s: got status %d", bad, status)
		}
	}
	begun := time.Now()
	if events, _ := askEvents(t, h, "?after=1&wait=50ms"); len(events) != 0 || time.Since(begun) < 50*time.Millisecond {
		t.Errorf("got %+v after %v", events, time.Since(begun))
	}
	done := make(chan []api.Event)
	go func() {
		events, _ := askEvents(t, h, "?after=1&wait=1m")
		done <- events
	}()
	v.happened(api.Event{What: api.Woke, Reason: "a packet from 203.0.113.5"})
	if events := <-done; len(events) != 1 || events[0].What != api.Woke || events[0].Reason != "a packet" {
		t.Errorf("got %+v", events)
	}
	gone := make(chan int)
	go func() {
		_, status := askEvents(t, h, "?after=2&wait=1m")
		gone <- status
	}()
	if err := v.remove(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	// The last is that it was stopped; or it came too late even for that.
	if status := <-gone; status != http.StatusOK && status != http.StatusNotFound {
		t.Errorf("of a VM that is removed: status %d", status)
	}
}

// Each time that a VM's usage records are damaged, they are put aside; none that
// were before are lost.
func TestDamagedUsageRecordsAreAllKept(t *testing.T) {
	t.Parallel()
	h, err := hostOf(t, recordOf(t, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.find("a")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first\n", "second\n", "third\n"} {
		if err := errors.Join(v.meter.close(), os.WriteFile(v.paths.usage(), []byte(text), 0o600), v.recoverMeter()); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"": "first", ".2": "second", ".3": "third"} {
		if got := content(t, v.paths.usage()+".damaged"+name); strings.TrimSpace(string(got)) != want {
			t.Errorf("damaged%s: got %q, want %q", name, got, want)
		}
	}
}

// FuzzHistory goes on behind any file at all.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"n":1,"what":"woke"}` + "\n"))
	f.Add([]byte(`{"n":9223372036854775807}` + "\n{"))
	f.Add([]byte("\n\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h := historyOf(t, string(data))
		if err := h.add(api.Event{What: api.Napped}); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadFile(h.path)
		if err != nil || !bytes.HasSuffix(left, []byte("\n")) {
			t.Errorf("it ends in half a line: %q, %v", left, err)
		}
		events, _, err := newHistory(h.path).after(0)
		if err != nil || len(events) == 0 || events[len(events)-1].What != api.Napped {
			t.Errorf("%q: got %+v, %v", data, events, err)
		}
	})
}
