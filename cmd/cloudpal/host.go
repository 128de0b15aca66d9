package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const hostHelp = `Run the agent of this machine, in the foreground. It makes VMs, lets them sleep
and wake, limits and meters them. The other commands start it where it does not
run; on a server let systemd do so.

The agent needs root. When it ends its VMs go on; the next agent takes them
over. What must outlive the machine is under --state: what VMs there are, their
disks, volumes, usage records, images, and the naps that were put on disk, which
are encrypted under a key that a power cut destroys. Guest memory is under --run,
on a tmpfs that is never swapped to disk.`

const (
	defaultState = "/var/lib/cloudpal"
	defaultRun   = "/run/cloudpal"
)

// hostOptions are what "cloudpal host" is told.
type hostOptions struct {
	socket string
	state  string // directory
	run    string // directory
	kernel string // directory with boot and lib/modules, or ""
	cache  string // directory, or ""
	accel  string // "kvm", "tcg" or ""
	nap    size   // bytes, or 0
	armed  int
	window time.Duration
	grace  time.Duration
	debug  bool
	v4, v6 netip.Prefix // of the VMs, or zero
}

func (c *cli) host() *cobra.Command {
	o := hostOptions{}
	cmd := &cobra.Command{
		Use: "host", Short: "Run this machine's agent, look at it, stop it", Long: hostHelp,
		Example: `  cloudpal host
  cloudpal host --nap-memory 4G --armed 8
  cloudpal host --state /srv/cloudpal --run /run/cloudpal-2 --socket /run/cloudpal-2.sock
  cloudpal host status
  cloudpal host stop`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage{unknown(cmd, args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.socket = c.socket
			return c.serve(cmd.Context(), o)
		},
	}
	c.hostFlags(cmd.Flags(), &o)
	cmd.AddCommand(c.hostStatus(), c.hostStop())
	return cmd
}

// hostFlags are those of all that run an agent.
func (c *cli) hostFlags(f *pflag.FlagSet, o *hostOptions) {
	f.StringVar(&o.state, "state", c.lookup("CLOUDPAL_STATE", defaultState), "`DIR` on disk for what must outlive the machine")
	f.StringVar(&o.run, "run", c.lookup("CLOUDPAL_RUN", defaultRun), "`DIR` to mount the tmpfs for guest memory on")
	f.StringVar(&o.kernel, "kernel", c.lookup("CLOUDPAL_KERNEL", ""), "`DIR` with boot/vmlinuz-* and lib/modules of the guests' kernel (default: kernel beside this program, else this machine's own)")
	f.StringVar(&o.cache, "cache", "", "`DIR` for what can be made again from QEMU and the kernel (default: cache in --state)")
	f.StringVar(&o.accel, "accelerator", "", "kvm or tcg (`NAME`; default: kvm where a guest really runs under it)")
	f.Var(&o.nap, "nap-memory", "RAM that naps may take before the least recently used go to disk (default: a quarter of the machine's)")
	f.IntVar(&o.armed, "armed", 0, "how many naps keep a process waiting, for the quickest wake")
	f.DurationVar(&o.window, "plan-window", 0, "`TIME` over which a VM's use of CPU is held against its plan (default 5m)")
	f.DurationVar(&o.grace, "plan-grace", 0, "`TIME` that a VM may be throttled to its plan before it is stopped (default 10m)")
	f.BoolVar(&o.debug, "debug", false, "log every step")
	f.TextVar(&o.v4, "prefix4", netip.Prefix{}, "private IPv4 `PREFIX` that VMs have their addresses in (default: 10.201.0.0/16)")
	f.TextVar(&o.v6, "prefix6", netip.Prefix{}, "IPv6 `PREFIX` that is routed to this machine for its VMs (default: a private one)")
}

// check refuses what no agent can be told.
func (o *hostOptions) check() error {
	switch {
	case o.armed < 0:
		return usage{fmt.Errorf("--armed %d: it is 0 or more", o.armed)}
	case o.v4.IsValid() && (!o.v4.Addr().Is4() || o.v4.Bits() > 24 || o.v4 != o.v4.Masked()):
		return usage{fmt.Errorf("--prefix4 %s: it is an IPv4 prefix of at most 24 bits, such as 172.30.0.0/16", o.v4)}
	case o.v6.IsValid() && (!o.v6.Addr().Is6() || o.v6.Bits() > 112 || o.v6 != o.v6.Masked()):
		return usage{fmt.Errorf("--prefix6 %s: it is an IPv6 prefix of at most 112 bits, such as 2001:db8:1:2::/64", o.v6)}
	}
	return nil
}

// serve runs the agent until a signal ends it, which is how it is meant to
// end.
func (c *cli) serve(ctx context.Context, o hostOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	return c.untilSignal(ctx, func(ctx context.Context) error { return c.runHost(ctx, o) })
}

// untilSignal runs f until a signal ends it, which is no error.
func (c *cli) untilSignal(ctx context.Context, f func(context.Context) error) error {
	ctx, done := c.interruptible(ctx)
	defer done()
	err := f(ctx)
	var i interrupt
	if errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &i) {
		return nil
	}
	return err
}
