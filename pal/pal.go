// Package pal is what runs in a pal's core: the hub of the person's devices.
//
//	           boot                  unlock
//	(nothing) ─────► locked ───────────────────────► unlocked
//	                 an ephemeral key in memory,      the volume is open, WireGuard,
//	                 one TCP port for the host        names and console serve the devices
//
// A locked core has nothing but a key that it has just made, and a volume that
// it cannot read. A device of the person seals the pal's secrets to that key;
// the host and its center pass them on and cannot read them. They are in the
// core's memory from then on until it boots again, through all naps.
//
// What a core prints is kept by its host: it says nothing of devices, their
// names, their addresses, or what they do.
package pal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"time"

	_ "golang.org/x/crypto/x509roots/fallback" // who certifies name servers: the image has no certificates

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/names"
	"github.com/tradle/cloudpal/pal/api"
	"github.com/tradle/cloudpal/pal/firewall"
	"github.com/tradle/cloudpal/pal/hub"
	"github.com/tradle/cloudpal/pal/module"
)

// WireGuardPort is the core's UDP port.
const WireGuardPort = 51820

// A Config says what a core finds where it runs.
type Config struct {
	Device    string           // the raw volume
	Dir       string           // where to mount it
	Modules   string           // the kernel modules, as package module has them
	Upstreams []names.Upstream // who is asked for the internet's names; none: names.DefaultUpstreams
	Self      *guest.Self      // this VM; nil: none, and it never sleeps
	Log       *slog.Logger
}

// A Core is a pal's, locked or not.
type Core struct {
	Config
	uplink hub.Uplink
	lock   *lock
}

// Run runs a core until ctx ends, and then closes the volume in good order.
func Run(ctx context.Context, cfg Config) error {
	if err := module.Load(cfg.Modules); err != nil {
		return err
	}
	c := &Core{Config: cfg}
	var err error
	if c.uplink, err = hub.FindUplink(); err != nil {
		return err
	}
	if err := firewall.Apply(c.rules(nil)); err != nil {
		return err
	}
	c.lock = newLock(c.unlock)
	at := netip.AddrPortFrom(c.uplink.Addr, api.LockPort)
	stop, err := c.serveHost(ctx, at)
	if err != nil {
		return cloudpal.E("answer the host", "", err)
	}
	c.Log.Info("the core is locked", "after", uptime())
	<-ctx.Done()
	return errors.Join(stop(), c.lock.close())
}

// unlock does what an unlock is for.
func (c *Core) unlock(u identity.Unlock) (*unlocked, error) {
	begun := time.Now()
	p, err := c.open(u)
	if err != nil {
		// What went wrong may tell of devices.
		c.Log.Warn("an unlock failed", "kind", cloudpal.KindOf(err))
		return nil, err
	}
	debug.FreeOSMemory() // once, of what naps would keep
	c.Log.Info("the core is unlocked", "took", time.Since(begun).Round(time.Millisecond))
	return p, nil
}

// rules are the firewall's for a core that is locked (nil) or has an overlay.
func (c *Core) rules(o *firewall.Overlay) firewall.Rules {
	return firewall.Rules{Uplink: c.uplink.Name, Host: c.uplink.Gateway, LockPort: api.LockPort, Overlay: o}
}

// problem makes an error what the core tells about it: the kind and the next
// step, never the story.
func problem(err error, status int) api.Problem {
	return api.Problem{Title: string(cloudpal.KindOf(err)), Status: status, Hint: cloudpal.HintOf(err)}
}

var errUnlocked = cloudpal.E("", cloudpal.Exist, fmt.Errorf("the core is unlocked already"))
