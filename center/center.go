// Package center is a data center's side: it makes pals for accounts that it
// knows by a key alone, lets them sleep, wakes them, passes what unlocks them
// on, and takes them away. Its interface is described in package center/api.
//
// It knows of a pal what it takes to run it: the VM, the core's WireGuard
// public key, and the hash of its owner's account key. It asks the host's agent
// for everything, over compute/api, as it will when it has many hosts.
//
// A center that takes money has a till (package till), which knows tabs and
// tickets, and puts pals whose money has ended where their offer says.
//
// What it knows is in Config.Dir: its own keys, the till, and one file for each
// pal (record), which says what is to be before it is. So a crash at any moment
// leaves nothing half done for long: New takes away pals that were not made to
// the end, and goes on removing those that were to go. The pals' VMs are the
// agent's and run on meanwhile.
package center

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	host "github.com/tradle/cloudpal/compute/api"
)

// A Config is what a center is made of. Zero numbers mean the defaults.
type Config struct {
	Dir     string       // on disk, the center's own
	Host    *host.Client // the agent of the host that pals run on
	Core    string       // OCI layout or archive of the core's image
	Version string
	// Addrs returns where the host can be reached, the likeliest first. It is
	// asked anew each time: a laptop moves.
	Addrs func() []netip.Addr
	Log   *slog.Logger

	Memory   int64 // bytes of a core
	Disk     int64 // bytes of a pal's volume, sparse
	Nap      host.Nap
	Ports    Ports // UDP, of the host, for the pals' WireGuard
	MaxPals  int   // in all
	MaxOwned int   // of one account

	Money *Money // nil: pals are free of charge
}

// What a Config that is silent gets.
const (
	DefaultMemory   = 160 << 20
	DefaultDisk     = 8 << 30
	DefaultIdle     = 30 * time.Second
	DefaultMaxPals  = 100
	DefaultMaxOwned = 3
)

// coreImage is the core's name in the host's image store.
const coreImage = "core"

func (c *Config) complete() {
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.Disk == 0 {
		c.Disk = DefaultDisk
	}
	if c.MaxPals == 0 {
		c.MaxPals = DefaultMaxPals
	}
	if c.MaxOwned == 0 {
		c.MaxOwned = DefaultMaxOwned
	}
	if c.Ports == (Ports{}) {
		c.Ports = DefaultPorts
	}
}

// A Center makes pals and looks after them. Make it with New.
type Center struct {
	cfg     Config
	log     *slog.Logger
	host    *host.Client
	key     ed25519.PrivateKey
	cert    *x509.Certificate
	image   string // the ID of the image that cores are made of
	records records
	gate    *gate
	till    *till.Till // nil: pals are free of charge

	ctx   context.Context // ends with Close; of all that works in the background
	stop  context.CancelFunc
	tasks sync.WaitGroup
	turns chan struct{} // limits pals that are made at a time

	unlocks chan struct{} // limits unlocks at a time

	mu   sync.Mutex
	pals map[api.ID]*pal
}

// New opens a center and takes up what an earlier one left. Close closes it.
func New(ctx context.Context, cfg Config) (*Center, error) {
	cfg.complete()
	c := &Center{
		cfg: cfg, log: cfg.Log, host: cfg.Host, gate: newGate(),
		records: records{filepath.Join(cfg.Dir, "pals")},
		turns:   make(chan struct{}, runtime.NumCPU()),
		unlocks: make(chan struct{}, maxUnlocks),
		pals:    map[api.ID]*pal{},
	}
	if err := os.MkdirAll(c.records.dir, 0o700); err != nil {
		return nil, cloudpal.E("open the center's state", "", err)
	}
	var err error
	if c.key, err = loadKey(filepath.Join(cfg.Dir, keyName)); err != nil {
		return nil, cloudpal.E("read the center's key", "", err)
	}
	cert, err := api.Certificate(c.key)
	if err != nil {
		return nil, err
	}
	c.cert = cert.Leaf
	if err := c.importCore(ctx); err != nil {
		return nil, err
	}
	if err := c.openTill(); err != nil {
		return nil, err
	}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := c.recover(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.tasks.Go(c.keepRepairing)
	if c.till != nil {
		c.tasks.Go(func() { c.till.Run(c.ctx) })
		c.tasks.Go(c.keepCollecting)
	}
	return c, nil
}

// Close ends what the center does in the background. Pals go on.
func (c *Center) Close() error {
	c.stop()
	c.tasks.Wait()
	if c.till != nil {
		return c.till.Close()
	}
	return nil
}

// importCore puts the core's image into the host's store. Where it is there
// already, that is only looked at.
func (c *Center) importCore(ctx context.Context) error {
	image, err := c.host.Import(ctx, host.ImportRequest{Path: c.cfg.Core, Name: coreImage}, nil)
	if err != nil {
		return cloudpal.E("take in the core's image", "", err).WithHint("build it anew: make build")
	}
	c.image = image.ID
	return nil
}

// Key is the fingerprint by which the center is known.
func (c *Center) Key() api.Fingerprint { return api.FingerprintOf(c.cert) }

// Addresses returns the center's address at each place where it is reached.
func (c *Center) Addresses(at []netip.AddrPort) []api.Address {
	list := []api.Address{}
	for _, ap := range at {
		a := api.Address{Host: ap.Addr().String(), Port: ap.Port(), Key: c.Key()}
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// describe is what anyone may know of the center.
func (c *Center) describe() api.Center {
	return api.Center{
		Version: c.cfg.Version,
		Image:   api.Image{ID: c.image},
		Limits: api.Limits{
			Pals: c.cfg.MaxOwned, Memory: c.cfg.Memory, Disk: c.cfg.Disk, Unlock: api.MaxUnlock,
		},
		Paid: c.till != nil,
	}
}

// recover reads the records and takes up what they say was under way.
func (c *Center) recover(ctx context.Context) error {
	list, errs := c.records.load()
	for _, err := range errs {
		c.log.Error("a pal's record cannot be read; the pal is left as it is", "err", err)
	}
	for _, r := range list {
		p := newPal(r)
		close(p.made)
		if p.Phase == making {
			p.Phase = going // nobody waits for it any more
		}
		c.pals[r.ID] = p
	}
	c.repair(ctx)
	return c.restore(ctx)
}

// restore makes the VM of each pal that has none: it was to get a new one when
// the last center ended.
func (c *Center) restore(ctx context.Context) error {
	vms, err := c.host.VMs(ctx)
	if err != nil {
		return cloudpal.E("look for the pals' VMs", "", err)
	}
	there := map[string]bool{}
	for _, v := range vms {
		there[v.Name] = true
	}
	for _, p := range c.all() {
		if c.now(p).Phase != made || there[p.vm()] || c.paid(p.Owner, p.WireGuard) != nil {
			continue
		}
		c.log.Warn("a pal has no VM; it gets one", "pal", p.ID)
		c.tasks.Go(func() {
			if _, err := c.run(c.ctx, p); err != nil && c.ctx.Err() == nil {
				c.log.Error("make a pal's VM anew", "pal", p.ID, "err", err)
			}
		})
	}
	return nil
}

// repairEvery is how often removals that failed are tried again.
const repairEvery = time.Minute

func (c *Center) keepRepairing() {
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.repair(c.ctx)
		case <-c.ctx.Done():
			return
		}
	}
}

// repair goes on with removals.
func (c *Center) repair(ctx context.Context) {
	for _, p := range c.all() {
		if c.now(p).Phase != going {
			continue
		}
		err := c.remove(ctx, p)
		switch {
		case err == nil:
			c.log.Info("a pal that was not to stay is gone", "pal", p.ID)
		case ctx.Err() == nil:
			c.log.Error("remove a pal; it will be tried again", "pal", p.ID, "err", err)
		}
	}
}

// all returns the pals, in no order.
func (c *Center) all() []*pal {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*pal, 0, len(c.pals))
	for _, p := range c.pals {
		list = append(list, p)
	}
	return list
}
