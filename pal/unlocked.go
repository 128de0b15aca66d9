package pal

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/names"
	"github.com/tradle/cloudpal/network/overlay"
	"github.com/tradle/cloudpal/pal/api"
	"github.com/tradle/cloudpal/pal/firewall"
	"github.com/tradle/cloudpal/pal/hub"
	"github.com/tradle/cloudpal/pal/volume"
)

// An unlocked core serves the pal's devices.
type unlocked struct {
	core   *Core
	log    *slog.Logger
	volume *volume.Volume
	store  store
	hub    *hub.Hub
	names  *names.Server
	key    identity.WireGuardKey // the core's
	meter  identity.MeterKeys
	since  time.Time
	limit  *listLimit
	ends   []func() error // of what close ends, in the order of its making
	look   chan struct{}  // has one where the devices are to be looked at soon
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu       sync.Mutex
	list     *identity.List
	settings settings
	places   map[hub.Key]place // what is known of devices beside the list
	moved    bool              // places has what is not on the disk
	naps     *naps
	awake    time.Time // since when
	agreedAt time.Time // when the core last countersigned the meter, of this boot
}

// open makes the pal of what an unlock brings. Nothing of it is left where
// that fails.
func (c *Core) open(u identity.Unlock) (_ *unlocked, err error) {
	p := &unlocked{core: c, log: c.Log, key: u.Secrets.WireGuardKey(), since: time.Now(), limit: newListLimit(), look: make(chan struct{}, 1)}
	p.awake, p.meter = p.since, u.Secrets.MeterKeys()
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	for _, step := range []func(identity.Unlock) error{p.openVolume, p.load, p.join, p.serve} {
		if err := step(u); err != nil {
			return nil, err
		}
	}
	p.watch()
	return p, nil
}

// close ends what open made, in reverse. It may be called of a pal that was
// not opened to the end.
func (p *unlocked) close() error {
	if p.cancel != nil {
		p.cancel()
		p.tasks.Wait()
		p.record()
	}
	var errs []error
	for i := len(p.ends) - 1; i >= 0; i-- {
		errs = append(errs, p.ends[i]())
	}
	p.ends = nil
	p.meter.Wipe()
	return errors.Join(errs...)
}

// openVolume opens the volume, and makes one where there is none: the first
// who unlocks it is its owner for good.
func (p *unlocked) openVolume(u identity.Unlock) (err error) {
	key := u.Secrets.Disk()
	p.volume, err = volume.Open(p.core.Device, key, p.core.Dir)
	if errors.Is(err, cloudpal.NotExist) {
		p.log.Info("the volume is empty: a new pal's")
		p.volume, err = volume.Create(p.core.Device, key, p.core.Dir, func() error {
			return store{p.core.Dir}.begin(u.List)
		})
	}
	if err != nil {
		return err
	}
	p.ends = append(p.ends, p.volume.Close)
	p.store = store{p.core.Dir}
	return nil
}

// load reads what is on the volume, and holds the unlock against it.
func (p *unlocked) load(u identity.Unlock) error {
	stored, err := p.store.list()
	if err != nil {
		return err
	}
	if p.list, err = u.Against(stored); err != nil {
		return err
	}
	if p.list.Len() > stored.Len() {
		if err := p.store.setList(p.list); err != nil {
			return err
		}
	}
	// Without these, no device has the exit, and none is known where it was:
	// nothing to stay locked for.
	if p.settings, err = p.store.settings(); err != nil {
		p.log.Error("the settings are lost", "err", err)
	}
	if p.places, err = p.store.places(); err != nil {
		p.log.Warn("the devices' places are lost", "err", err)
	}
	p.naps, err = p.store.naps(p.since.Add(-uptime()))
	return err
}

// join brings up the core's end of the overlay. The firewall comes first: there
// is no moment without.
func (p *unlocked) join(u identity.Unlock) (err error) {
	p.ends = append(p.ends, func() error { return firewall.Apply(p.core.rules(nil)) })
	if err := p.guard(); err != nil {
		return err
	}
	v4, v6 := p.list.Network()
	p.hub, err = hub.Open(hub.Config{
		Private: u.Secrets.WireGuard(), Port: WireGuardPort, MTU: overlay.MTU,
		Addrs: []netip.Prefix{
			netip.PrefixFrom(overlay.Addr(v4, identity.CoreIndex), v4.Bits()),
			netip.PrefixFrom(overlay.Addr(v6, identity.CoreIndex), v6.Bits()),
		},
	})
	if err != nil {
		return err
	}
	p.ends = append(p.ends, p.hub.Close)
	if err := p.hub.Set(p.peers()); err != nil {
		return err
	}
	return hub.Forward()
}

// guard sets the firewall to what the list and the settings say.
func (p *unlocked) guard() error {
	v4, v6 := p.list.Network()
	o := &firewall.Overlay{Device: hub.Name, WireGuard: WireGuardPort, V4: v4, V6: v6, Exit6: p.core.uplink.Global6}
	for _, d := range p.list.Devices() {
		if p.settings.Exits[d.ID] {
			o.Exits = append(o.Exits, overlay.Addr(v4, d.Index), overlay.Addr(v6, d.Index))
		}
	}
	return firewall.Apply(p.core.rules(o))
}

// peers are the list's devices as WireGuard takes them.
func (p *unlocked) peers() []hub.Peer {
	var list []hub.Peer
	for _, d := range p.list.Devices() {
		list = append(list, p.peer(d))
	}
	return list
}

func (p *unlocked) peer(d identity.Device) hub.Peer {
	v4, v6 := p.list.Network()
	key := hub.Key(d.WireGuard)
	return hub.Peer{
		Key: key, Endpoint: p.places[key].Endpoint,
		Addrs: []netip.Addr{overlay.Addr(v4, d.Index), overlay.Addr(v6, d.Index)},
	}
}

// device returns the device with that key.
func (p *unlocked) device(key hub.Key) (identity.Device, bool) {
	for _, d := range p.list.Devices() {
		if hub.Key(d.WireGuard) == key {
			return d, true
		}
	}
	return identity.Device{}, false
}

// livingPlaces are those of devices that are in the list.
func (p *unlocked) livingPlaces() map[hub.Key]place {
	living := map[hub.Key]place{}
	for _, d := range p.list.Devices() {
		if pl, ok := p.places[hub.Key(d.WireGuard)]; ok {
			living[hub.Key(d.WireGuard)] = pl
		}
	}
	return living
}

// serve answers the devices: names, and HTTP.
func (p *unlocked) serve(identity.Unlock) (err error) {
	v4, v6 := p.list.Network()
	own := []netip.Addr{overlay.Addr(v4, identity.CoreIndex), overlay.Addr(v6, identity.CoreIndex)}
	p.names, err = names.Listen(names.Config{
		Listen:  []netip.AddrPort{netip.AddrPortFrom(own[0], 53), netip.AddrPortFrom(own[1], 53)},
		Network: []netip.Prefix{v4, v6}, Hosts: p.hosts, Upstreams: p.core.Upstreams, Log: p.log,
	})
	if err != nil {
		return err
	}
	p.ends = append(p.ends, p.names.Close)
	h := p.handler(own)
	for _, a := range own {
		stop, err := serve(context.Background(), netip.AddrPortFrom(a, 80), deviceConns, p.log, h)
		if err != nil {
			return err
		}
		p.ends = append(p.ends, stop)
	}
	return nil
}

// hosts are the zone that names serves.
func (p *unlocked) hosts() []names.Host {
	p.mu.Lock()
	list := p.list
	p.mu.Unlock()
	v4, v6 := list.Network()
	host := func(name string, index uint8) names.Host {
		return names.Host{Name: name, V4: overlay.Addr(v4, index), V6: overlay.Addr(v6, index)}
	}
	hosts := []names.Host{host(api.Name, identity.CoreIndex)}
	for _, d := range list.Devices() {
		hosts = append(hosts, host(d.Name, d.Index))
	}
	return hosts
}

// accept takes a newer list: it is on the disk before it holds, and then it
// holds at once.
func (p *unlocked) accept(list *identity.List) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := list.Extends(p.list); err != nil {
		return err
	}
	if list.Len() == p.list.Len() {
		return nil
	}
	if err := p.store.setList(list); err != nil {
		return err
	}
	p.list = list
	return p.applyLocked()
}

// applyLocked makes the kernel follow the list and the settings.
func (p *unlocked) applyLocked() error {
	return errors.Join(p.hub.Set(p.peers()), p.guard())
}

// setExit lets a device reach the internet through the core, or not.
func (p *unlocked) setExit(id identity.DeviceID, on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.list.DeviceByID(id); !ok {
		return cloudpal.E("set a device's exit", cloudpal.NotExist, nil)
	}
	s := p.settings.with(id, on, p.list)
	if err := p.store.setSettings(s); err != nil {
		return err
	}
	p.settings = s
	return p.guard()
}

// caller returns the device that sent a request: WireGuard lets nobody use
// another's address.
func (p *unlocked) caller(r *http.Request) (identity.Device, bool) {
	from := remote(r)
	p.mu.Lock()
	defer p.mu.Unlock()
	v4, v6 := p.list.Network()
	for _, d := range p.list.Devices() {
		if from == overlay.Addr(v4, d.Index) || from == overlay.Addr(v6, d.Index) {
			return d, true
		}
	}
	return identity.Device{}, false
}

// uptime is how long ago the kernel booted, naps left out.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano()).Round(time.Millisecond)
}
