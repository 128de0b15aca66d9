package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmStopHelp = `End VMs in good order. The process gets the image's stop signal (SIGTERM where it
names none) and time to obey; then SIGKILL. A sleeping VM is woken for that: it
may have something to save.

A stopped VM keeps its disk and its name. No packet wakes it.`

func (c *cli) vmStop() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "stop VM...", Short: "End VMs in good order", Long: vmStopHelp,
		Example: "  cloudpal vm stop web\n  cloudpal vm stop --timeout 1m db",
		RunE: c.change(func(ctx context.Context, agent *api.Client, name string) (api.VM, error) {
			return agent.Stop(ctx, name, api.StopRequest{Timeout: timeout})
		}),
	}
	cmd.Flags().DurationVarP(&timeout, "timeout", "t", 0, "`TIME` to obey before SIGKILL, as in 30s (default 10s)")
	return c.onVMs(cmd, api.Running, api.Asleep, api.Cold, api.Starting)
}
