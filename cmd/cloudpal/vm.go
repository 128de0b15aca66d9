package main

import (
	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmHelp = `Make VMs out of images, look at them, put them to sleep and wake them.

A VM has a name, one image, one process and a disk of its own. What it writes
stays until "cloudpal vm rm". A VM is in one of these states:

  starting  its kernel boots
  running   its process runs
  asleep    nothing of it runs; a packet to it, a timer that it has set, or
            "vm resume" wakes it
  cold      its memory is lost or was dropped, its disks are not; what would wake
            it boots it anew
  stopped   its process has ended; "vm start" boots it anew`

func (c *cli) vm() *cobra.Command {
	cmd := group("vm", "Make VMs and handle them", vmHelp, `  cloudpal vm run --detach --name web --publish 8080:80 nginx
  cloudpal vm ps
  cloudpal vm suspend web
  curl http://127.0.0.1:8080     # wakes it
  cloudpal vm stop web
  cloudpal vm rm web`)
	cmd.AddCommand(
		c.vmRun(), c.vmPs(), c.vmLogs(), c.vmExec(),
		c.vmStart(), c.vmStop(), c.vmKill(), c.vmRm(),
		c.vmSuspend(), c.vmResume(), c.vmWait(),
		c.vmStats(), c.vmUsage(), c.vmEvents(), c.vmInspect(), c.vmConsole(),
	)
	return cmd
}

// onVMs says that a command takes names of VMs, and offers those in the
// states, or all.
func (c *cli) onVMs(cmd *cobra.Command, states ...api.State) *cobra.Command {
	cmd.Args = args(1, -1, "the name of a VM")
	cmd.ValidArgsFunction = c.offer(true, vmNames(states...))
	return c.withJSON(cmd)
}

// onVM is onVMs for one VM.
func (c *cli) onVM(cmd *cobra.Command, states ...api.State) *cobra.Command {
	cmd.Args = args(1, 1, "the name of one VM")
	cmd.ValidArgsFunction = c.offer(false, vmNames(states...))
	return cmd
}

// changed is what --json shows of a VM that a command has done something to
// and that may be no more.
type changed struct {
	Name string `json:"name"`
}
