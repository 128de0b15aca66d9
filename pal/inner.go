package pal

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/console"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/overlay"
	"github.com/tradle/cloudpal/pal/api"
	"github.com/tradle/cloudpal/pal/hub"
)

const (
	deviceConns = 64      // connections of devices, at each address
	maxExit     = 1 << 10 // bytes
)

// A listLimit bounds how often a list is verified: it is thousands of
// signatures, and a device may be stolen.
type listLimit = rate.Limiter

func newListLimit() *listLimit { return rate.NewLimiter(rate.Every(time.Second), 5) }

// handler answers devices on the core's addresses.
func (p *unlocked) handler(own []netip.Addr) http.Handler {
	m := http.NewServeMux()
	m.Handle("GET /{$}", console.Handler(p.page))
	m.HandleFunc("GET /v1/pal", func(w http.ResponseWriter, _ *http.Request) { reply(w, p.describe()) })
	m.HandleFunc("GET /v1/list", p.serveList)
	m.HandleFunc("POST /v1/list", p.takeList)
	m.HandleFunc("POST /v1/devices/{id}/exit", p.takeExit)
	hosts := []string{api.Name}
	for _, a := range own {
		hosts = append(hosts, a.String())
	}
	// No page of another's may change anything here.
	return p.devicesOnly(console.Hosts(http.NewCrossOriginProtection().Handler(m), hosts...))
}

// devicesOnly refuses who is not in the list now. WireGuard lets nobody else
// send, but a request may have begun before.
func (p *unlocked) devicesOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := p.caller(r); !ok {
			fail(w, cloudpal.Denied)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *unlocked) serveList(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	list := p.list
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(list.Bytes())
}

// takeList takes a list that extends the core's. Whether it does is seen
// before a signature is verified.
func (p *unlocked) takeList(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, identity.MaxListSize))
	if err != nil {
		fail(w, readError(err))
		return
	}
	if err := p.takeBytes(r, data); err != nil {
		if errors.Is(err, identity.ErrStale) || errors.Is(err, identity.ErrFork) {
			err = cloudpal.E("", cloudpal.Exist, nil).WithHint("the pal has another list: GET it first")
		}
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *unlocked) takeBytes(r *http.Request, data []byte) error {
	p.mu.Lock()
	have := p.list
	p.mu.Unlock()
	switch known := have.Bytes(); {
	case bytes.Equal(data, known):
		return nil
	case bytes.HasPrefix(known, data):
		return identity.ErrStale
	case !bytes.HasPrefix(data, known):
		return identity.ErrFork
	}
	if err := p.limit.Wait(r.Context()); err != nil {
		return cloudpal.E("take a list", cloudpal.Busy, err)
	}
	list, err := identity.ParseList(have.Root(), data)
	if err != nil {
		return err
	}
	if _, ok := p.caller(r); !ok {
		return cloudpal.Denied // it was revoked meanwhile
	}
	return p.accept(list)
}

func (p *unlocked) takeExit(w http.ResponseWriter, r *http.Request) {
	err := func() error {
		id, err := identity.ParseDeviceID(r.PathValue("id"))
		if err != nil {
			return err
		}
		var e api.Exit
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxExit))
		if err != nil {
			return readError(err)
		}
		if err := json.Unmarshal(body, &e); err != nil {
			return cloudpal.Invalid
		}
		if d, ok := p.caller(r); !ok || !d.Admin {
			return cloudpal.E("", cloudpal.Denied, nil).WithHint("ask from a device that is an admin")
		}
		return p.setExit(id, e.On)
	}()
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// describe tells devices all there is to tell.
func (p *unlocked) describe() api.Pal {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renewLocked()
	select {
	case p.look <- struct{}{}: // what is new is to be written down
	default:
	}
	now := time.Now()
	a := api.Pal{
		ID: p.list.Root(), Name: api.Name, Now: now, Unlocked: p.since, Awake: p.awake,
		Naps: append([]api.Nap{}, p.naps.since(time.Time{}, api.MaxNaps)...), Entries: p.list.Len(), Devices: p.devicesLocked(),
	}
	a.V4, a.V6 = p.list.Network()
	if last, ok := p.naps.last(); ok && last.To.After(p.since) {
		a.Wake = &last
	}
	a.DiskUsed, a.DiskSize = p.diskUsed()
	return a
}

func (p *unlocked) devicesLocked() []api.Device {
	peers, err := p.hub.Peers()
	if err != nil {
		p.log.Warn("the devices were not looked at", "err", err)
	}
	v4, v6 := p.list.Network()
	devices := []api.Device{}
	for _, d := range p.list.Devices() {
		pl := p.places[hub.Key(d.WireGuard)]
		v := api.Device{
			ID: d.ID, Name: d.Name, Admin: d.Admin, V4: overlay.Addr(v4, d.Index), V6: overlay.Addr(v6, d.Index),
			Exit: p.settings.Exits[d.ID], Endpoint: pl.Endpoint, Handshake: pl.Handshake, Received: pl.received, Sent: pl.sent,
		}
		if i := slices.IndexFunc(peers, func(s hub.Status) bool { return s.Key == hub.Key(d.WireGuard) }); i >= 0 {
			v.Received, v.Sent = v.Received+peers[i].Received, v.Sent+peers[i].Sent
		}
		devices = append(devices, v)
	}
	return devices
}

func (p *unlocked) diskUsed() (used, size int64) {
	var st unix.Statfs_t
	if err := unix.Statfs(p.core.Dir, &st); err != nil {
		return 0, 0
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize, int64(st.Blocks) * st.Bsize
}

// page shows people what describe tells programs.
func (p *unlocked) page(r *http.Request) (console.Page, error) {
	me, _ := p.caller(r)
	a := p.describe()
	v := console.Page{Now: a.Now, Awake: true, Since: a.Awake}
	if a.Wake != nil {
		v.Woke = &console.Wake{Time: a.Wake.To, Reason: a.Wake.Reason, Slept: a.Wake.To.Sub(a.Wake.From)}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.naps.since(a.Now.Add(-24*time.Hour), maxNaps) {
		v.Naps = append(v.Naps, console.Nap{From: n.From, To: n.To, Reason: n.Reason})
	}
	for _, d := range a.Devices {
		added, _ := p.list.DeviceByID(d.ID)
		v.Devices = append(v.Devices, console.Device{
			Name: d.Name, Addresses: []netip.Addr{d.V4, d.V6}, This: d.ID == me.ID, Added: added.Added,
			Seen: d.Handshake, Received: d.Received, Sent: d.Sent,
		})
	}
	return v, nil
}
