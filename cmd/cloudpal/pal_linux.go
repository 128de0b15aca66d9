//go:build amd64

package main

import (
	"context"
	"runtime/debug"
	"syscall"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/network/names"
	"github.com/tradle/cloudpal/pal"
	"github.com/tradle/cloudpal/pal/module"
)

// runPal runs a core until a signal ends it.
func (c *cli) runPal(ctx context.Context, upstreams []names.Upstream) error {
	self, err := guest.OpenSelf()
	if err != nil {
		return cloudpal.E("", "", err).WithHint("this runs in the VM of a pal's core: cloudpal up makes one")
	}
	// Its memory holds the pal's secrets.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return cloudpal.E("forbid core dumps", "", err)
	}
	// Little garbage is better than few collections: a nap holds it.
	debug.SetGCPercent(50)
	return c.untilSignal(ctx, func(ctx context.Context) error {
		return pal.Run(ctx, pal.Config{
			Device: "/dev/pal", Dir: "/pal", Modules: module.Dir, Upstreams: upstreams, Self: self, Log: c.logger(false),
		})
	})
}
