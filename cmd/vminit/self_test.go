package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/guest"
)

func TestWishesEndWithTheirTime(t *testing.T) {
	d := newDesk()
	now := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	at := func(after time.Duration) guest.Wishes { return d.wishes(now.Add(after)) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(d.keepAwake("sync", now.Add(10*time.Minute), now))
	must(d.keepAwake("a.b-c_9", now.Add(time.Minute), now))
	must(d.wakeAt("nightly", now.Add(time.Hour), now))
	must(d.wakeAt("later", now.Add(2*time.Hour), now))
	if got := at(0); !slices.Equal(got.Busy, []string{"a.b-c_9", "sync"}) || !got.WakeAt.Equal(now.Add(time.Hour)) {
		t.Errorf("got %+v", got)
	}
	if got := at(time.Minute); !slices.Equal(got.Busy, []string{"sync"}) {
		t.Errorf("when one is over: got %+v", got)
	}
	must(d.keepAwake("sync", now.Add(20*time.Minute), now)) // renewed
	if got := at(15 * time.Minute); !slices.Equal(got.Busy, []string{"sync"}) {
		t.Errorf("renewed: got %+v", got)
	}
	// A timer that has gone off holds the guest awake for a moment.
	if got := at(time.Hour + guest.TimerHold); !got.WakeAt.Equal(now.Add(time.Hour)) {
		t.Errorf("just gone off: got %+v", got)
	}
	if got := at(time.Hour + guest.TimerHold + 1); !got.WakeAt.Equal(now.Add(2 * time.Hour)) {
		t.Errorf("after that: got %+v", got)
	}
	d.letSleep("later")
	if got := at(time.Hour + time.Minute); len(got.Busy) != 0 || !got.WakeAt.IsZero() {
		t.Errorf("with all over: got %+v", got)
	}
	// The past is now.
	must(d.wakeAt("late", now.Add(-time.Hour), now))
	if got := at(0); !got.WakeAt.Equal(now) {
		t.Errorf("a time in the past: got %+v", got)
	}
}

func TestWishesAreBounded(t *testing.T) {
	d := newDesk()
	now := time.Now()
	for i := range guest.MaxWishes {
		if err := d.keepAwake(fmt.Sprint("job", i), now.Add(time.Hour), now); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.keepAwake("one-more", now.Add(time.Hour), now); !errors.Is(err, errFull) {
		t.Errorf("one more: %v", err)
	}
	if err := d.keepAwake("job7", now.Add(2*time.Hour), now); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := d.keepAwake("one-more", now.Add(9*time.Hour), now.Add(3*time.Hour)); err != nil {
		t.Errorf("when the others are over: %v", err)
	}
	for _, name := range []string{"", "-", "../x", "a b", "a\n", strings.Repeat("x", 65)} {
		if d.wakeAt(name, now, now) == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

// After a long nap a program that follows the resumes comes before packets do,
// and one that hangs does not keep them for good.
func TestProgramsComeBeforePacketsAfterALongNap(t *testing.T) {
	long, short := guest.Hello{Slept: guest.LongNap + 1, Reason: "why"}, guest.Hello{Slept: guest.LongNap}
	for _, c := range []struct {
		what   string
		hello  guest.Hello
		reads  bool
		thinks time.Duration // before it acknowledges
		want   string
	}{
		{"a long nap", long, true, 100 * time.Millisecond, "read acknowledged packets 100ms"},
		{"a program that hangs", long, true, time.Hour, "read packets 500ms"},
		{"a short nap", short, true, 100 * time.Millisecond, "packets 0s"},
		{"nobody reads along", long, false, 0, "packets 0s"},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDiary()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				story := make(chan string, 10)
				if c.reads {
					go d.read(ctx, func() error { return nil }, func(r guest.Resume) error {
						story <- "read"
						select {
						case <-time.After(c.thinks):
							story <- "acknowledged"
							return d.acknowledge(r.N)
						case <-ctx.Done():
							return ctx.Err()
						}
					})
				}
				synctest.Wait()
				begun := time.Now()
				var got []string
				d.welcome(c.hello, func() {
					for len(story) > 0 {
						got = append(got, <-story)
					}
					got = append(got, "packets", time.Since(begun).String())
				})
				if text := strings.Join(got, " "); text != c.want {
					t.Errorf("got %s, want %s", text, c.want)
				}
			})
		})
	}
}

func TestReadersGetTheLatestResumeAndThoseToCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary()
		for i := range 3 {
			d.note(guest.Resume{Reason: fmt.Sprint("old ", i+1)})
		}
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		go d.read(ctx, func() error { return nil }, func(r guest.Resume) error {
			got = append(got, fmt.Sprint(r.N, " ", r.Reason))
			return nil
		})
		synctest.Wait()
		for i := range 2 * keptResumes {
			d.note(guest.Resume{Reason: fmt.Sprint("new ", i+4)})
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		want := []string{"3 old 3"}
		for i := range 2 * keptResumes {
			want = append(want, fmt.Sprintf("%d new %d", i+4, i+4))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if len(d.last) != keptResumes || d.readers != 0 {
			t.Errorf("%d resumes are kept and %d readers, want %d and none", len(d.last), d.readers, keptResumes)
		}
	})
}

// TestSelf has the client speak with the service over a real socket.
func TestSelf(t *testing.T) {
	s := &self{newDesk(), newDiary()}
	path := filepath.Join(t.TempDir(), "run", "guest.sock")
	for range 2 { // the second finds the first's socket, as after a reboot
		if err := s.serve(path); err != nil {
			t.Fatal(err)
		}
	}
	c := guest.DialSelf(path)
	at := time.Now().Add(time.Hour).Truncate(time.Nanosecond)
	if err := errors.Join(c.Busy("sync", time.Minute), c.WakeAt("cron", at)); err != nil {
		t.Fatal(err)
	}
	if w, err := c.Wishes(); err != nil || !slices.Equal(w.Busy, []string{"sync"}) || !w.WakeAt.Equal(at) {
		t.Errorf("got %+v, %v", w, err)
	}
	for what, err := range map[string]error{
		"for ever":    c.Busy("x", guest.MaxBusy+1),
		"for no time": c.Busy("x", 0),
		"no name":     c.Busy("a b", time.Minute),
	} {
		if !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %v, want %v", what, err, cloudpal.Invalid)
		}
	}
	if err := errors.Join(c.Idle("sync"), c.WakeAt("cron", time.Time{}), c.Idle("never-said")); err != nil {
		t.Fatal(err)
	}
	if w, err := c.Wishes(); err != nil || len(w.Busy) != 0 || !w.WakeAt.IsZero() {
		t.Errorf("taken back: got %+v, %v", w, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan guest.Resume)
	ended := make(chan error)
	go func() { ended <- c.Resumes(ctx, func(r guest.Resume) { heard <- r }) }()
	for s.readers() == 0 {
		time.Sleep(time.Millisecond)
	}
	answered := make(chan struct{})
	go s.diary.welcome(guest.Hello{Slept: time.Hour, Reason: "a packet"}, func() { close(answered) })
	if r := <-heard; r.N != 1 || r.Slept != time.Hour || r.Reason != "a packet" {
		t.Errorf("got %+v", r)
	}
	<-answered
	s.diary.mu.Lock()
	if s.diary.acked != 1 {
		t.Errorf("resume %d is acknowledged, want 1", s.diary.acked)
	}
	s.diary.mu.Unlock()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func (s *self) readers() int {
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	return s.diary.readers
}

func TestOnlySoManyProgramsFollowTheResumes(t *testing.T) {
	s := &self{newDesk(), newDiary()}
	s.diary.readers = maxReaders
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest("GET", "/resumes", nil))
	if w.Code != http.StatusConflict {
		t.Errorf("got %d, want %d", w.Code, http.StatusConflict)
	}
}

// Programs that keep connections open have others wait, not PID 1 grow.
func TestConnectionsOfProgramsAreBounded(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bounded := &atMost{l, make(chan struct{}, 1)}
	accepted := make(chan net.Conn)
	go func() {
		for {
			conn, err := bounded.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	for range 2 {
		conn, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Error("two connections where there is room for one")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // gives up its place once
	second := <-accepted
	second.Close()
}

func FuzzSelf(f *testing.F) {
	for _, seed := range []string{"PUT /busy/a?for=10m", "DELETE /busy/a", "PUT /wake/b?at=2030-01-01T00:00:00Z", "POST /resumes/1", "GET /wishes", "GET /resumes", "PUT /busy/%00?for=1h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		method, target, _ := strings.Cut(line, " ")
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // who asks for the resumes is gone
		r, err := http.NewRequestWithContext(ctx, method, "http://self"+target, nil)
		if err != nil {
			return
		}
		s := &self{newDesk(), newDiary()}
		s.handler().ServeHTTP(httptest.NewRecorder(), r)
		now := time.Now()
		for name, until := range s.desk.busy {
			if guest.CheckName(name) != nil || until.Sub(now) > guest.MaxBusy {
				t.Errorf("%q keeps it awake as %q until %v", line, name, until)
			}
		}
		for name := range s.desk.wake {
			if guest.CheckName(name) != nil {
				t.Errorf("%q wakes it as %q", line, name)
			}
		}
	})
}
