package center

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	host "github.com/tradle/cloudpal/compute/api"
)

// Money is what a center's operator says about it.
type Money struct {
	// Mints returns those whose tickets pay for pals, each asked with the center's
	// ticket key.
	Mints func(key ed25519.PrivateKey) ([]till.Issuer, error)
	Terms till.Terms
	Now   func() time.Time // nil: time.Now
}

// openTill opens the till of a center that takes money. The key that tickets are paid
// to is another than the one by which the center is known, so that what is signed for
// a mint is of no use elsewhere.
func (c *Center) openTill() error {
	if c.cfg.Money == nil {
		return nil
	}
	key, err := loadKey(filepath.Join(c.cfg.Dir, "tickets.pem"))
	if err != nil {
		return cloudpal.E("read the center's ticket key", "", err)
	}
	mints, err := c.cfg.Money.Mints(key)
	if err != nil {
		return err
	}
	c.till, err = till.Open(till.Config{
		Dir: filepath.Join(c.cfg.Dir, "till"), Key: key, Issuers: mints, Terms: c.cfg.Money.Terms, Log: c.log, Now: c.cfg.Money.Now,
	})
	return err
}

// paid says what is to be paid for a pal that has no money. Where none is taken, all
// have.
func (c *Center) paid(owner api.Fingerprint, wireGuard []byte) error {
	if c.till == nil {
		return nil
	}
	stage, why := c.till.Stage(owner, wireGuard)
	if stage == api.Funded {
		return nil
	}
	hint := "pay its tab first, as the center's offer says"
	if why != "" {
		hint += ": " + why
	}
	return refusal{cloudpal.Exhausted, hint, c.till.Wanted()}
}

const (
	collectEvery = 5 * time.Second
	countEvery   = time.Minute
	restEvery    = 15 * time.Minute // of pals that are not awake

	countersignTimeout = 10 * time.Second
	maxAsking          = 16
)

// keepCollecting holds pals to their money, and counts what they use.
func (c *Center) keepCollecting() {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	m := newMeter()
	for {
		select {
		case <-tick.C:
			c.collect(c.ctx, m)
		case <-c.ctx.Done():
			return
		}
	}
}

// A meter remembers when pals were counted.
type meter struct {
	at      map[api.ID]time.Time
	volumes map[string]int64 // bytes used
	listed  time.Time
	asking  chan struct{} // limits cores that are asked at a time
}

func newMeter() *meter {
	return &meter{at: map[api.ID]time.Time{}, asking: make(chan struct{}, maxAsking)}
}

func (c *Center) collect(ctx context.Context, m *meter) {
	list, err := c.host.VMs(ctx)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Error("look at the pals' VMs", "err", err)
		}
		return
	}
	vms := map[string]host.VM{}
	for _, v := range list {
		vms[v.Name] = v
	}
	now := time.Now()
	for _, p := range c.all() {
		v, ok := vms[p.vm()]
		if c.now(p).Phase != made {
			continue
		}
		if err := c.hold(ctx, p, v.State); err != nil && ctx.Err() == nil {
			c.log.Error("hold a pal to its money; it will be tried again", "pal", p.ID, "err", err)
		}
		every := restEvery
		if v.State == host.Running {
			every = countEvery
		}
		if ok && now.Sub(m.at[p.ID]) >= every {
			m.at[p.ID] = now
			if err := c.count(ctx, p, v, m); err != nil && ctx.Err() == nil {
				c.log.Warn("count what a pal uses", "pal", p.ID, "err", err)
			}
		}
	}
}

// hold puts a pal where its money has it. One that never had a tab is from before the
// center took money: it naps, and stays.
func (c *Center) hold(ctx context.Context, p *pal, is host.State) error {
	stage, _ := c.till.Stage(p.Owner, p.WireGuard)
	depth := host.Depth("")
	switch {
	case stage == api.TabDeleted:
		c.log.Info("a pal is deleted, as was told: its money ended", "pal", p.ID)
		return c.destroy(ctx, p)
	case stage == api.TabSealed && (is == host.Running || is == host.Asleep):
		depth = host.Sealed
	case (stage == api.TabNapping || stage == api.Unpaid) && is == host.Running:
	default:
		return nil
	}
	_, err := c.change(ctx, p, func(ctx context.Context, vm string) (host.VM, error) {
		return c.host.Suspend(ctx, vm, host.SuspendRequest{Depth: depth})
	})
	return err
}

// count tells the till what a pal has used, and has its core countersign what waits
// for that.
func (c *Center) count(ctx context.Context, p *pal, v host.VM, m *meter) error {
	s, err := c.host.Stats(ctx, p.vm())
	if err != nil {
		return err
	}
	if now := time.Now(); now.Sub(m.listed) >= restEvery {
		list, err := c.host.Volumes(ctx)
		if err != nil {
			return err
		}
		m.volumes, m.listed = map[string]int64{}, now
		for _, v := range list {
			m.volumes[v.Name] = v.Used
		}
	}
	up := v.State == host.Running
	tab, waits, err := c.till.Count(p.Owner, p.WireGuard, till.Use{
		Awake: s.Awake, Sent: s.NetOut, Stored: s.Storage + m.volumes[p.vm()], Up: up,
	})
	if err != nil || !up || len(waits.Record) == 0 || len(tab.Nonce) == 0 {
		return err
	}
	select {
	case m.asking <- struct{}{}:
		c.tasks.Go(func() {
			defer func() { <-m.asking }()
			ctx, cancel := context.WithTimeout(ctx, countersignTimeout)
			defer cancel()
			if err := c.countersign(ctx, p, tab, waits); err != nil && c.ctx.Err() == nil {
				c.log.Warn("have a core countersign; it will be tried again", "pal", p.ID, "err", err)
			}
		})
	default: // the next time
	}
	return nil
}

// told lets who asked know of the till's errors what is written for them.
func told(err error) error {
	switch kind := cloudpal.KindOf(err); kind {
	case cloudpal.Invalid, cloudpal.Denied, cloudpal.Exist, cloudpal.Busy, cloudpal.Missing:
		return refuse(kind, cloudpal.HintOf(err))
	case cloudpal.NotExist:
		return errNoTab
	}
	return err
}

var errNoTab = refuse(cloudpal.NotExist, "the account's tabs are listed at /v1/tabs")

// maxReceipts bounds a page of them: it is below what a client reads.
const maxReceipts = 1000

// serveTabs adds what a center that takes money answers besides.
func (c *Center) serveTabs(owned func(string, func(call) error), handle func(string, func(call) error)) {
	onTab := func(pattern string, answer func(call, api.TabID) (any, error)) {
		owned(pattern, func(q call) error {
			var id api.TabID
			if err := id.UnmarshalText([]byte(q.PathValue("tab"))); err != nil {
				return errNoTab
			}
			v, err := answer(q, id)
			if err != nil {
				return told(err)
			}
			return q.reply(v)
		})
	}
	handle("GET /v1/receipts", func(q call) error {
		// Who has that key can sign as the center anyway, so no account is to be made
		// for its operator, nor to be lost.
		if !q.who.Equal(c.Key()) {
			return refuse(cloudpal.Denied, "only who runs the center is told")
		}
		v, err := c.till.Receipts(q.URL.Query().Get("after"), maxReceipts)
		if err != nil {
			return told(err)
		}
		return q.reply(v)
	})
	handle("GET /v1/offer", func(q call) error { return q.reply(c.till.Offer()) })
	owned("GET /v1/tabs", func(q call) error { return q.reply(c.till.Tabs(q.who)) })
	owned("POST /v1/tabs", func(q call) error {
		r, err := readJSON[api.TabRequest](q)
		if err != nil {
			return err
		}
		v, err := c.till.OpenTab(q.who, r)
		if err != nil {
			return told(err)
		}
		return q.reply(v)
	})
	onTab("GET /v1/tabs/{tab}", func(q call, id api.TabID) (any, error) { return c.till.Tab(q.who, id) })
	onTab("POST /v1/tabs/{tab}/pay", func(q call, id api.TabID) (any, error) {
		r, err := readJSON[api.PayRequest](q)
		if err != nil {
			return nil, err
		}
		return c.till.Pay(q.Context(), q.who, id, r)
	})
	onTab("GET /v1/tabs/{tab}/meter", func(q call, id api.TabID) (any, error) { return c.till.Meter(q.who, id) })
	onTab("POST /v1/tabs/{tab}/meter", func(q call, id api.TabID) (any, error) {
		r, err := readJSON[api.CountersignRequest](q)
		if err != nil {
			return nil, err
		}
		return c.till.Countersign(q.who, id, r)
	})
	onTab("POST /v1/tabs/{tab}/close", func(q call, id api.TabID) (any, error) { return c.till.CloseTab(q.who, id) })
	onTab("GET /v1/tabs/{tab}/events", func(q call, id api.TabID) (any, error) {
		after, wait, err := eventsQuery(q.URL.Query().Get("after"), q.URL.Query().Get("wait"))
		if err != nil {
			return nil, err
		}
		return c.till.Events(q.Context(), q.who, id, after, wait)
	})
}
