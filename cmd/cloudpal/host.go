package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
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
	kernel string // a vmlinuz or vmlinux, or ""
	nap    size   // bytes, or 0
	armed  int
	debug  bool
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
	f := cmd.Flags()
	f.StringVar(&o.state, "state", c.lookup("CLOUDPAL_STATE", defaultState), "`DIR` on disk for what must outlive the machine")
	f.StringVar(&o.run, "run", c.lookup("CLOUDPAL_RUN", defaultRun), "`DIR` to mount the tmpfs for guest memory on")
	f.StringVar(&o.kernel, "kernel", c.lookup("CLOUDPAL_KERNEL", ""), "the guests' kernel, a vmlinuz `FILE` with its modules beside it (default: the newest cloud kernel found)")
	f.Var(&o.nap, "nap-memory", "RAM that naps may take before the least recently used go to disk (default: a quarter of the machine's)")
	f.IntVar(&o.armed, "armed", 0, "how many naps keep a process waiting, for the quickest wake")
	f.BoolVar(&o.debug, "debug", false, "log every step")
	cmd.AddCommand(c.hostStatus(), c.hostStop())
	return cmd
}

// serve runs the agent until a signal ends it, which is how it is meant to
// end.
func (c *cli) serve(ctx context.Context, o hostOptions) error {
	if o.armed < 0 {
		return usage{fmt.Errorf("--armed %d: it is 0 or more", o.armed)}
	}
	ctx, done := c.interruptible(ctx)
	defer done()
	err := c.runHost(ctx, o)
	var i interrupt
	if errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &i) {
		return nil
	}
	return err
}
