package center

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	host "github.com/tradle/cloudpal/compute/api"
)

// corePort is where a core's WireGuard listens in its VM.
const corePort = 51820

// changeTimeout bounds one change of a pal, a boot on a busy host without KVM
// included.
const changeTimeout = 4 * time.Minute

// A pal is one that the center knows. Phase and HostPort are guarded by
// Center.mu; the rest of its record never changes.
type pal struct {
	record
	op      chan struct{} // held by who changes the pal
	unlocks chan struct{} // held by who unlocks it
	made    chan struct{} // closed when the pal is made, or err is set
	err     error         // why it could not be made; it is gone then, or going
}

func newPal(r record) *pal {
	return &pal{record: r, op: make(chan struct{}, 1), unlocks: make(chan struct{}, 1), made: make(chan struct{})}
}

// vm is the name of the pal's VM, and of its volume.
func (r *record) vm() string { return vmPrefix + string(r.ID) }

const vmPrefix = "pal-"

// begin waits until no other change of the pal is under way.
func (p *pal) begin(ctx context.Context) error {
	select {
	case p.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return cloudpal.E("change a pal", cloudpal.Timeout, context.Cause(ctx))
	}
}

func (p *pal) end() { <-p.op }

// now returns the pal's record as it is.
func (c *Center) now(p *pal) record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.record
}

// become writes down the pal's phase, then enters it.
func (c *Center) become(p *pal, to phase) error {
	r := c.now(p)
	r.Phase = to
	if err := c.records.save(r); err != nil {
		return cloudpal.E("write a pal's record", "", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.Phase = to
	return nil
}

// find returns an account's pal. Another's, and none at all, are the same.
func (c *Center) find(owner api.Fingerprint, id string) (*pal, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pals[api.ID(id)]
	if p == nil || p.Owner != owner {
		return nil, errNoPal
	}
	return p, nil
}

var errNoPal = refuse(cloudpal.NotExist, "the account's pals are listed at /v1/pals")

// owned returns an account's pals, the oldest first.
func (c *Center) owned(owner api.Fingerprint) []*pal {
	list := slices.DeleteFunc(c.all(), func(p *pal) bool {
		return p.Owner != owner || c.now(p).Phase == going
	})
	slices.SortFunc(list, func(a, b *pal) int { return a.Created.Compare(b.Created) })
	return list
}

// create returns the account's pal with that WireGuard key, and makes it where
// there is none. It is made to the end even if who asked goes away: asked
// again, it is there.
func (c *Center) create(ctx context.Context, owner api.Fingerprint, key []byte) (api.Pal, error) {
	p, err := c.admit(owner, key)
	if err != nil {
		return api.Pal{}, err
	}
	select {
	case <-p.made:
	case <-ctx.Done():
		return api.Pal{}, cloudpal.E("make a pal", cloudpal.Timeout, context.Cause(ctx))
	}
	if p.err != nil {
		return api.Pal{}, p.err
	}
	return c.look(ctx, p)
}

// maxMaking bounds pals that wait to be made.
const maxMaking = 16

// admit finds the pal, or gives it a place and begins to make it.
func (c *Center) admit(owner api.Fingerprint, key []byte) (*pal, error) {
	unpaid := c.paid(owner, key)
	c.mu.Lock()
	defer c.mu.Unlock()
	mine, waiting := 0, 0
	for _, p := range c.pals {
		if p.Phase == making {
			waiting++
		}
		if p.Owner != owner {
			continue
		}
		mine++
		if p.Phase != going && bytes.Equal(p.WireGuard, key) {
			return p, nil
		}
	}
	switch {
	case unpaid != nil:
		return nil, unpaid
	case mine >= c.cfg.MaxOwned:
		return nil, refuse(cloudpal.Exhausted, "destroy a pal of this account first")
	case len(c.pals) >= c.cfg.MaxPals:
		return nil, refuse(cloudpal.NoSpace, "this center is full; take another")
	case waiting >= maxMaking || !c.gate.create():
		return nil, refuse(cloudpal.Busy, "try it again in a minute")
	}
	p := newPal(record{
		ID: api.NewID(), Owner: owner, WireGuard: key, HostPort: c.freePort(),
		Created: time.Now().UTC().Truncate(time.Second), Phase: making,
	})
	c.pals[p.ID] = p
	c.tasks.Go(func() { c.make(p) })
	return p, nil
}

// freePort chooses a port that no pal has. It is any: the next higher one
// would tell a pal's owner how many others there are. The caller holds mu.
func (c *Center) freePort() uint16 {
	used := map[uint16]bool{}
	for _, p := range c.pals {
		used[p.HostPort] = true
	}
	n := c.cfg.Ports.Count()
	from := rand.IntN(n)
	for i := range n {
		if port := c.cfg.Ports.First + uint16((from+i)%n); !used[port] {
			return port
		}
	}
	return c.cfg.Ports.First // there are fewer ports than pals: the host says so
}

// make makes a pal, or leaves nothing of it.
func (c *Center) make(p *pal) {
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	defer close(p.made)
	err := c.makeVM(ctx, p)
	if err == nil {
		err = c.become(p, made)
	}
	if err == nil {
		c.log.Info("a pal is made", "pal", p.ID)
		return
	}
	p.err = refuse(cloudpal.KindOf(err), "try it again later, or another center")
	if c.ctx.Err() != nil {
		return // the next center finds the record, and removes what there is
	}
	c.log.Error("make a pal", "pal", p.ID, "err", err)
	c.mu.Lock()
	p.Phase = going
	c.mu.Unlock()
	if err := c.remove(ctx, p); err != nil {
		c.log.Error("remove a pal that could not be made; it will be tried again", "pal", p.ID, "err", err)
	}
}

// portTries is how many ports are tried before a pal is not made.
const portTries = 16

// makeVM makes the VM of a new pal, on a port that no other program has.
func (c *Center) makeVM(ctx context.Context, p *pal) error {
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		return cloudpal.E("", cloudpal.Busy, context.Cause(ctx))
	}
	var err error
	for range portTries {
		if err = c.become(p, making); err != nil {
			return err
		}
		_, err = c.host.Create(ctx, c.request(c.now(p)))
		if !errors.Is(err, cloudpal.Busy) || ctx.Err() != nil {
			return err
		}
		c.mu.Lock()
		p.HostPort = c.freePort()
		c.mu.Unlock()
	}
	return err
}

// request is the VM of a pal.
func (c *Center) request(r record) host.CreateRequest {
	name := r.vm()
	return host.CreateRequest{
		Name: name, Host: coreImage, Image: coreImage,
		Memory: c.cfg.Memory, Disk: c.cfg.Disk,
		ReadOnly:  true,
		Volumes:   []host.Mount{{Volume: name, Path: "/dev/pal", Raw: true}},
		WireGuard: &host.WireGuard{PublicKey: r.WireGuard, Port: corePort, HostPort: r.HostPort},
		Outbound:  true,
		Nap:       c.cfg.Nap,
	}
}

// destroy removes a pal. Once that is written down it will be gone, whatever
// happens.
func (c *Center) destroy(ctx context.Context, p *pal) error {
	return c.finish(ctx, p, func(ctx context.Context) error {
		switch c.now(p).Phase {
		case making:
			return errMaking
		case made:
			if err := c.become(p, going); err != nil {
				return err
			}
		}
		if !c.has(p) {
			return errNoPal
		}
		if err := c.clear(ctx, p); err != nil {
			return err
		}
		c.log.Info("a pal is gone", "pal", p.ID)
		return nil
	})
}

func (c *Center) has(p *pal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pals[p.ID] == p
}

// remove clears a pal that is going, when no other change of it is under way.
func (c *Center) remove(ctx context.Context, p *pal) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	defer p.end()
	return c.clear(ctx, p)
}

// clear takes away all that there is of a pal, its record last. The caller
// holds op.
func (c *Center) clear(ctx context.Context, p *pal) error {
	if err := c.host.Remove(ctx, p.vm(), true); err != nil && !errors.Is(err, cloudpal.NotExist) {
		return err
	}
	if err := c.host.RemoveVolume(ctx, p.vm()); err != nil && !errors.Is(err, cloudpal.NotExist) {
		return err
	}
	if err := c.records.remove(p.ID); err != nil {
		return cloudpal.E("remove a pal's record", "", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pals, p.ID)
	return nil
}

// finish does f to its end when no other change of the pal is under way, even
// if who asked goes away meanwhile.
func (c *Center) finish(ctx context.Context, p *pal, f func(ctx context.Context) error) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	c.tasks.Go(func() {
		defer p.end()
		ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
		defer cancel()
		done <- f(ctx)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return cloudpal.E("change a pal", cloudpal.Timeout, context.Cause(ctx))
	}
}

var errMaking = refuse(cloudpal.Busy, "the pal is being made; try it again")

// ready says why nothing can be asked of a pal.
func (c *Center) ready(p *pal) error {
	switch c.now(p).Phase {
	case making:
		return errMaking
	case going:
		return errNoPal
	}
	return nil
}

// change does f to the end with the VM of a pal that is made.
func (c *Center) change(ctx context.Context, p *pal, f func(ctx context.Context, vm string) (host.VM, error)) (v host.VM, err error) {
	err = c.finish(ctx, p, func(ctx context.Context) error {
		err := c.ready(p)
		if err == nil {
			v, err = f(ctx, p.vm())
		}
		return err
	})
	if err != nil {
		return host.VM{}, err // and v is not ours: f may still be at work
	}
	return v, nil
}

// run makes the pal's core run, whatever it does, and returns its VM. A core
// that has to boot, and was made of another image than there is now, is made
// anew of that, on its volume and port. A pal without money stays as it is.
func (c *Center) run(ctx context.Context, p *pal) (host.VM, error) {
	if err := c.paid(p.Owner, p.WireGuard); err != nil {
		return host.VM{}, err
	}
	return c.change(ctx, p, func(ctx context.Context, vm string) (host.VM, error) {
		v, err := c.host.VM(ctx, vm)
		if err == nil && v.ImageID != c.image && (v.State == host.Stopped || v.State == host.Cold) {
			c.log.Info("a core is made anew of the present image", "pal", p.ID)
			if err = c.host.Remove(ctx, vm, true); err == nil {
				err = cloudpal.NotExist
			}
		}
		switch {
		case errors.Is(err, cloudpal.NotExist):
			return c.host.Create(ctx, c.request(c.now(p)))
		case err != nil || v.State == host.Running:
			return v, err
		case v.State == host.Stopped:
			return c.host.Start(ctx, vm)
		}
		return c.host.Resume(ctx, vm)
	})
}

// look returns what is to be said of a pal.
func (c *Center) look(ctx context.Context, p *pal) (api.Pal, error) {
	r := c.now(p)
	switch r.Phase {
	case going:
		return api.Pal{}, errNoPal
	case making:
		return c.view(r, host.VM{State: host.Starting, Since: r.Created}), nil
	}
	v, err := c.host.VM(ctx, r.vm())
	if errors.Is(err, cloudpal.NotExist) {
		v, err = host.VM{State: host.Stopped, Since: r.Created}, nil
	}
	return c.view(r, v), err
}

// states are the host's, as the owner of a pal sees them.
var states = map[host.State]api.State{
	host.Starting: api.Starting,
	host.Running:  api.Awake,
	host.Asleep:   api.Napping,
	host.Cold:     api.Sealed,
	host.Stopped:  api.Stopped,
}

func (c *Center) view(r record, v host.VM) api.Pal {
	return api.Pal{
		ID: r.ID, State: states[v.State], Depth: api.Depth(v.Depth), Since: v.Since, Reason: outward(v.Reason),
		Boots: v.Boots, Wakes: v.Wakes,
		WireGuard: r.WireGuard, Endpoints: c.endpoints(r, v.Addresses),
		Image: api.Image{ID: v.ImageID}, Created: r.Created,
	}
}

// maxReason bounds a reason in bytes.
const maxReason = 100

// outward is what a pal's owner is told of a host's reason: not the errors
// that stand behind it, nor where on the host they were met.
func outward(reason string) string {
	reason, _, _ = strings.Cut(reason, ": ")
	reason, _, _ = strings.Cut(reason, "\n")
	if strings.Contains(reason, "/") || len(reason) > maxReason {
		return ""
	}
	return reason
}

// endpoints are where devices find the pal's WireGuard: a port of each of the
// host's IPv4 addresses, and the VM's own IPv6 address if the world routes it.
func (c *Center) endpoints(r record, vm []netip.Addr) []netip.AddrPort {
	list := []netip.AddrPort{}
	for _, a := range c.cfg.Addrs() {
		if a.Is4() {
			list = append(list, netip.AddrPortFrom(a, r.HostPort))
		}
	}
	for _, a := range vm {
		if a.Is6() && isGlobal(a) {
			list = append(list, netip.AddrPortFrom(a, corePort))
		}
	}
	return list
}
