package center

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	host "github.com/tradle/cloudpal/compute/api"
)

// A house is an agent whose VMs are nothing but their names: it keeps what it
// is told over the real interface, on a Unix socket. Tests of whole centers
// with real VMs are in test/center.
type house struct {
	client *host.Client

	mu      sync.Mutex
	vms     map[string]*host.VM
	volumes map[string]bool
	busy    map[uint16]bool // UDP ports of other programs
	image   string
	addr    netip.Addr // of every VM
	calls   []string   // what was asked, in order
	stats   host.Stats // of every VM
	slept   host.Depth // that was asked for last
	// before and after are called around the answer to what changes something.
	before, after func(call string)
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{
		vms: map[string]*host.VM{}, volumes: map[string]bool{}, busy: map[uint16]bool{},
		image: "sha256:first", addr: netip.MustParseAddr("127.0.0.1"),
		before: func(string) {}, after: func(string) {},
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h.handler()}
	go s.Serve(l)
	h.client = host.Dial(socket)
	t.Cleanup(func() { s.Close(); h.client.Close() })
	return h
}

func (h *house) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			what, _, _ := strings.Cut(r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/"), "pal-")
			if _, verb, ok := strings.Cut(r.URL.Path, "pal-"); ok && strings.Contains(verb, "/") {
				what += verb[strings.Index(verb, "/")+1:]
			}
			changes := r.Method != http.MethodGet
			if changes {
				h.before(what)
			}
			h.mu.Lock()
			h.calls = append(h.calls, what)
			v, err := f(r)
			h.mu.Unlock()
			if changes {
				h.after(what)
			}
			if err != nil {
				p := host.ProblemOf(err)
				w.WriteHeader(p.Status)
				v = p
			}
			json.NewEncoder(w).Encode(v)
		})
	}
	find := func(r *http.Request) (*host.VM, error) {
		if v := h.vms[r.PathValue("vm")]; v != nil {
			return v, nil
		}
		return nil, cloudpal.E("a secret of the operator's", cloudpal.NotExist, nil)
	}
	become := func(to host.State, from ...host.State) func(r *http.Request) (any, error) {
		return func(r *http.Request) (any, error) {
			v, err := find(r)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(from, v.State) {
				return nil, cloudpal.E("a secret of the operator's", cloudpal.Invalid, errors.New(string(v.State)))
			}
			v.State = to
			return v, nil
		}
	}
	handle("POST /v1/images/import", func(*http.Request) (any, error) {
		return host.Progress{Image: &host.Image{Name: "core", ID: h.image}}, nil
	})
	handle("GET /v1/vms", func(*http.Request) (any, error) {
		list := []host.VM{}
		for _, v := range h.vms {
			list = append(list, *v)
		}
		return list, nil
	})
	handle("POST /v1/vms", h.create)
	handle("GET /v1/vms/{vm}", func(r *http.Request) (any, error) { return find(r) })
	handle("DELETE /v1/vms/{vm}", func(r *http.Request) (any, error) {
		v, err := find(r)
		if err == nil {
			delete(h.vms, v.Name)
		}
		return nil, err
	})
	handle("POST /v1/vms/{vm}/start", become(host.Running, host.Stopped, host.Cold, host.Asleep, host.Running))
	handle("POST /v1/vms/{vm}/resume", become(host.Running, host.Cold, host.Asleep, host.Running))
	handle("POST /v1/vms/{vm}/stop", become(host.Stopped, host.Stopped, host.Cold, host.Asleep, host.Running))
	suspend := become(host.Asleep, host.Asleep, host.Running)
	handle("POST /v1/vms/{vm}/suspend", func(r *http.Request) (any, error) {
		var q host.SuspendRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, cloudpal.E("suspend", cloudpal.Invalid, err)
		}
		h.slept = q.Depth
		return suspend(r)
	})
	handle("GET /v1/vms/{vm}/stats", func(*http.Request) (any, error) { return h.stats, nil })
	handle("GET /v1/volumes", func(*http.Request) (any, error) { return []host.Volume{}, nil })
	mux.HandleFunc("GET /v1/vms/{vm}/events", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("after") == "0" {
			json.NewEncoder(w).Encode([]host.Event{{N: 1, What: host.Booted}})
			return
		}
		<-r.Context().Done() // nothing more ever happens
	})
	handle("DELETE /v1/volumes/{volume}", func(r *http.Request) (any, error) {
		name := r.PathValue("volume")
		switch {
		case h.vms[name] != nil:
			return nil, cloudpal.E("remove volume", cloudpal.Busy, nil)
		case !h.volumes[name]:
			return nil, cloudpal.E("remove volume", cloudpal.NotExist, nil)
		}
		delete(h.volumes, name)
		return nil, nil
	})
	return mux
}

func (h *house) create(r *http.Request) (any, error) {
	var q host.CreateRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		return nil, cloudpal.E("create", cloudpal.Invalid, err)
	}
	if h.vms[q.Name] != nil {
		return nil, cloudpal.E("create", cloudpal.Exist, nil)
	}
	if h.busy[q.WireGuard.HostPort] {
		return nil, cloudpal.E("create", cloudpal.Busy, nil)
	}
	for _, m := range q.Volumes {
		h.volumes[m.Volume] = true
	}
	v := &host.VM{
		Name: q.Name, ImageID: h.image, State: host.Running, Since: time.Now(), Memory: q.Memory, Boots: 1, Wakes: 1,
		WireGuard: q.WireGuard, Addresses: []netip.Addr{h.addr, netip.MustParseAddr("2001:db8::17")},
	}
	h.vms[q.Name] = v
	return *v, nil
}

// set changes the VM of a pal as the host would.
func (h *house) set(f func(*host.VM)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.vms {
		f(v)
	}
}

// awake makes the VMs have been awake for so long.
func (h *house) awake(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Awake = d
}

// depth is the last that a VM was put to sleep to.
func (h *house) depth() host.Depth {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.slept
}

// empty returns what is still there.
func (h *house) left() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.vms)+len(h.volumes) == 0 {
		return ""
	}
	return fmt.Sprintf("%d VMs and %d volumes", len(h.vms), len(h.volumes))
}

// took returns what was asked that changes something, since the last time.
func (h *house) took() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := slices.DeleteFunc(h.calls, func(s string) bool { return strings.HasPrefix(s, "GET ") })
	h.calls = nil
	return strings.Join(calls, ", ")
}

// wait is for what no call announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: it does not come to that", what)
		case <-time.After(time.Millisecond):
		}
	}
}
