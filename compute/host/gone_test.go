package host

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

// goes removes v as the end of its process does, after the given time.
func goes(t *testing.T, h *Host, v *vm, ended time.Time) {
	t.Helper()
	v.rec.Stopped, v.rec.StopAt = &api.Exit{Code: 7, Reason: "exit status 7"}, ended
	v.state = api.Stopped
	if err := h.remember(v); err != nil {
		t.Fatal(err)
	}
	if err := v.log.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(v.paths.nap); err != nil {
		t.Fatal(err)
	}
}

func TestHowAVMEndedIsToldWhenItIsGone(t *testing.T) {
	t.Parallel()
	v := logged(t)
	h := v.h
	v.rec.ID = "1"
	const size = guest.MaxLogData
	all := entries(0, maxLog/size+2, size) // in two files
	writeAll(t, v.log, all)
	goes(t, h, v, time.Now())
	if got := await(t, told(t, v, "?follow=1", nil)); len(got) != len(all) {
		t.Errorf("got %d entries of its log, want %d", len(got), len(all))
	}
	for path, want := range map[string]int{"wait": http.StatusOK, "logs": http.StatusOK, "stats": http.StatusNotFound} {
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/vms/a/"+path, nil))
		if w.Code != want {
			t.Errorf("%s: got status %d, want %d", path, w.Code, want)
		}
		if path == "wait" && !strings.Contains(w.Body.String(), `"code":7`) {
			t.Errorf("wait: got %s, want code 7", w.Body)
		}
	}
	// Another one of its name is the one that is meant.
	h.vms = map[string]*vm{"a": h.newVM("a", record{})}
	if got, err := h.recall("a"); err != nil || got != h.vms["a"] {
		t.Errorf("got %v, %v; want the one that is there", got, err)
	}
}

func TestVMsThatAreGoneAreForgotten(t *testing.T) {
	t.Parallel()
	h := logged(t).h
	begun := time.Now()
	for i := range goneMost + 2 {
		v := h.newVM(fmt.Sprintf("vm-%d", i), record{ID: fmt.Sprint(i)})
		if err := os.MkdirAll(v.paths.nap, 0o700); err != nil {
			t.Fatal(err)
		}
		writeAll(t, v.log, entries(0, 1, 1))
		goes(t, h, v, begun.Add(time.Duration(i)*time.Millisecond))
	}
	for name, want := range map[string]cloudpal.Kind{"vm-1": cloudpal.NotExist, "vm-2": ""} {
		if _, err := h.recall(name); (err != nil) != (want != "") || err != nil && cloudpal.KindOf(err) != want {
			t.Errorf("%s of %d: got %v, want %q", name, goneMost+2, err, want)
		}
	}
	if err := h.forget(begun.Add(goneFor + 3*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.recall("vm-2"); err == nil {
		t.Errorf("vm-2 is known after more than %v", goneFor)
	}
	if _, err := h.recall("vm-3"); err != nil {
		t.Errorf("vm-3 is forgotten after %v", goneFor)
	}
	kept, err := filepath.Glob(filepath.Join(h.goneDir(), "*"))
	if err != nil || len(kept) != len(h.gone) {
		t.Errorf("got %d logs (%v), want those of %d VMs", len(kept), err, len(h.gone))
	}
}

// TestWaitEndsWhenTheVMIsGone: who waited for a VM with Remove set finds nothing
// of it.
func TestWaitEndsWhenTheVMIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := logged(t)
		answer := httptest.NewRecorder()
		go v.serveWait(answer, httptest.NewRequest(http.MethodGet, "/", nil))
		v.mu.Lock()
		v.rec.Stopped = &api.Exit{Code: 7}
		v.mu.Unlock()
		v.become(api.Running, "", "")
		synctest.Wait()
		if got := answer.Body.String(); got != "" {
			t.Errorf("got %s while it is being removed", got)
		}
		v.become(api.Stopped, "", "")
		synctest.Wait()
		if got := answer.Body.String(); !strings.Contains(got, `"code":7`) {
			t.Errorf("got %q, want code 7", got)
		}
	})
}
