package host

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

// maxRequest bounds a request's body in bytes.
const maxRequest = 1 << 20

// Handler serves the interface that package api describes.
func (h *Host) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
			if err := f(w, r); err != nil {
				fail(w, err)
			}
		})
	}
	type answer = func(v *vm, w http.ResponseWriter, r *http.Request) error
	onFound := func(find func(name string) (*vm, error), pattern string, f answer) {
		handle(pattern, func(w http.ResponseWriter, r *http.Request) error {
			v, err := find(r.PathValue("vm"))
			if err != nil {
				return err
			}
			return f(v, w, r)
		})
	}
	onVM := func(pattern string, f answer) { onFound(h.find, pattern, f) }
	handle("GET /v1/host", h.serveHost)
	handle("GET /v1/vms", h.serveList)
	handle("POST /v1/vms", h.serveCreate)
	onVM("GET /v1/vms/{vm}", func(v *vm, w http.ResponseWriter, r *http.Request) error { return reply(w, v.view()) })
	onVM("DELETE /v1/vms/{vm}", func(v *vm, w http.ResponseWriter, r *http.Request) error {
		force, _ := strconv.ParseBool(r.URL.Query().Get("force"))
		return v.remove(r.Context(), force)
	})
	onVM("POST /v1/vms/{vm}/start", func(v *vm, w http.ResponseWriter, r *http.Request) error {
		return v.did(w, v.start(r.Context()))
	})
	onVM("POST /v1/vms/{vm}/resume", func(v *vm, w http.ResponseWriter, r *http.Request) error {
		return v.did(w, v.wake(r.Context(), asked))
	})
	onVM("POST /v1/vms/{vm}/stop", func(v *vm, w http.ResponseWriter, r *http.Request) error {
		q, err := read[api.StopRequest](r)
		if err != nil {
			return err
		}
		return v.did(w, v.stop(r.Context(), q.Timeout))
	})
	onVM("POST /v1/vms/{vm}/suspend", func(v *vm, w http.ResponseWriter, r *http.Request) error {
		q, err := read[api.SuspendRequest](r)
		if err != nil {
			return err
		}
		switch q.Depth {
		case "", api.Armed, api.Memory, api.Disk, api.Sealed:
			return v.did(w, v.suspend(r.Context(), q.Depth))
		}
		return cloudpal.E("suspend "+v.name, cloudpal.Invalid, errors.New("depth "+quote(string(q.Depth)))).
			WithHint("a depth is armed, memory, disk or sealed")
	})
	onVM("POST /v1/vms/{vm}/kill", (*vm).serveKill)
	onFound(h.recall, "GET /v1/vms/{vm}/wait", (*vm).serveWait)
	onFound(h.recall, "GET /v1/vms/{vm}/logs", (*vm).serveLogs)
	onVM("GET /v1/vms/{vm}/console", (*vm).serveConsole)
	onVM("GET /v1/vms/{vm}/stats", (*vm).serveStats)
	onVM("GET /v1/vms/{vm}/usage", (*vm).serveUsage)
	onVM("GET /v1/vms/{vm}/events", (*vm).serveEvents)
	onVM("POST /v1/vms/{vm}/exec", (*vm).serveExec)
	handle("GET /v1/images", h.serveImages)
	handle("POST /v1/images/pull", h.servePull)
	handle("POST /v1/images/import", h.serveImport)
	handle("DELETE /v1/images/{name...}", h.serveRemoveImage)
	handle("GET /v1/volumes", func(w http.ResponseWriter, r *http.Request) error {
		list, err := h.Volumes()
		if err != nil {
			return err
		}
		return reply(w, list)
	})
	handle("DELETE /v1/volumes/{name}", func(w http.ResponseWriter, r *http.Request) error {
		return h.RemoveVolume(r.PathValue("name"))
	})
	return mux
}

// read decodes a request's body; none at all is a zero T.
func read[T any](r *http.Request) (T, error) {
	var t T
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil && !errors.Is(err, io.EOF) {
		return t, cloudpal.E("read the request", cloudpal.Invalid, err)
	}
	return t, nil
}

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// did answers a change of the VM with the VM as it now is.
func (v *vm) did(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	return reply(w, v.view())
}

// fail sends err as a problem.
func fail(w http.ResponseWriter, err error) {
	p := api.ProblemOf(classify(err))
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// classify gives errors of the system the kind that a person can act on.
func classify(err error) error {
	kind := cloudpal.KindOf(err)
	switch {
	case kind == cloudpal.NoSpace && cloudpal.HintOf(err) == "",
		kind == cloudpal.Other && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)):
		return cloudpal.E("", cloudpal.NoSpace, err).
			WithHint("free some: cloudpal vm rm, cloudpal image rm, cloudpal volume rm")
	case kind != cloudpal.Other:
		return err
	case errors.Is(err, syscall.ENOMEM):
		return cloudpal.E("", cloudpal.NoMemory, err).WithHint("suspend or stop a VM: cloudpal vm ps")
	case errors.Is(err, syscall.EADDRINUSE):
		return cloudpal.E("", cloudpal.Busy, err).WithHint("another program has that port; publish another")
	}
	return err
}

func (h *Host) serveHost(w http.ResponseWriter, r *http.Request) error {
	return reply(w, h.describe())
}

func (h *Host) serveList(w http.ResponseWriter, r *http.Request) error {
	list := []api.VM{}
	for _, v := range h.all() {
		list = append(list, v.view())
	}
	return reply(w, list)
}

func (h *Host) serveCreate(w http.ResponseWriter, r *http.Request) error {
	q, err := read[api.CreateRequest](r)
	if err != nil {
		return err
	}
	out, err := h.Create(r.Context(), q)
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (v *vm) serveKill(w http.ResponseWriter, r *http.Request) error {
	q, err := read[api.SignalRequest](r)
	if err != nil {
		return err
	}
	if name := strings.TrimPrefix(strings.ToUpper(q.Signal), "SIG"); name != "" && name != "KILL" {
		return v.signal(r.Context(), "SIG"+name)
	}
	return v.kill(r.Context(), "killed")
}

// serveWait answers when the VM's process has ended, or its VM was lost.
func (v *vm) serveWait(w http.ResponseWriter, r *http.Request) error {
	ran := false
	for {
		v.mu.Lock()
		state, changed, exit, reason, removed := v.state, v.changed, v.rec.Stopped, v.reason, v.removed
		v.mu.Unlock()
		switch {
		case exit != nil && state == api.Stopped:
			return reply(w, exit)
		case removed && exit == nil:
			return reply(w, api.Exit{Code: 137, Reason: "removed"})
		case state == api.Cold && ran:
			return reply(w, api.Exit{Code: 125, Reason: reason})
		}
		ran = ran || state == api.Running
		select {
		case <-changed:
		case <-r.Context().Done():
			return nil
		case <-v.h.ctx.Done():
			return cloudpal.E("wait for "+v.name, cloudpal.Busy, errors.New("the agent is restarting"))
		}
	}
}

func (v *vm) serveConsole(w http.ResponseWriter, r *http.Request) error {
	v.mu.Lock()
	m := v.machine
	v.mu.Unlock()
	if m == nil {
		return cloudpal.E("console of "+v.name, cloudpal.Invalid, errors.New("it does not run"))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, err := w.Write(m.Console())
	return err
}

// stream sends JSON lines as they come.
type stream struct {
	enc *json.Encoder
	rc  *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &stream{enc: json.NewEncoder(w), rc: http.NewResponseController(w)}
}

func (s *stream) send(v any) error {
	if err := s.enc.Encode(v); err != nil {
		return err
	}
	return s.rc.Flush()
}

// progressInterval is how often a pull or import says how far it is.
const progressInterval = 100 * time.Millisecond
