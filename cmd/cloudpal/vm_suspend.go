package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmSuspendHelp = `Put VMs to sleep, or sleeping ones to another depth. A sleeping VM uses no CPU
and keeps its address, ports and connections; the first packet that is sent to
it wakes it, and is delivered.

Depths, from the quickest to wake to the cheapest to keep:
  armed   in memory, and a process waits for it
  memory  in memory; no process
  disk    compressed and encrypted on disk; no process and no memory
  sealed  nothing is kept but the VM's disks: it is cold, and a packet boots it

Without --depth the agent chooses, and later moves the least recently used
naps to disk where memory gets short.`

var depths = []api.Depth{api.Armed, api.Memory, api.Disk, api.Sealed}

func (c *cli) vmSuspend() *cobra.Command {
	var depth string
	cmd := &cobra.Command{
		Use: "suspend VM...", Short: "Put VMs to sleep until a packet comes", Long: vmSuspendHelp,
		Example: "  cloudpal vm suspend web\n  cloudpal vm suspend --depth disk web db",
		PreRunE: func(*cobra.Command, []string) error {
			if depth != "" && !slices.Contains(depths, api.Depth(depth)) {
				return usage{fmt.Errorf("--depth %.40q: it is armed, memory, disk or sealed", depth)}
			}
			return nil
		},
		RunE: c.change(func(ctx context.Context, agent *api.Client, name string) (api.VM, error) {
			return agent.Suspend(ctx, name, api.SuspendRequest{Depth: api.Depth(depth)})
		}),
	}
	cmd.Flags().StringVar(&depth, "depth", "", "armed, memory, disk or sealed (`DEPTH`; default: the agent chooses)")
	c.offerFlag(cmd, "depth", words("armed\ta process waits for it", "memory\tin memory, no process", "disk\tcompressed and encrypted on disk", "sealed\tnothing but its disks"))
	return c.onVMs(cmd, api.Running, api.Asleep)
}
