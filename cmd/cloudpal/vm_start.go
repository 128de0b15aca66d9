package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmStartHelp = `Boot VMs that are stopped. Their disks are as they left them; their process
starts anew. It returns when they run.`

func (c *cli) vmStart() *cobra.Command {
	return c.onVMs(&cobra.Command{
		Use: "start VM...", Short: "Boot stopped VMs", Long: vmStartHelp,
		Example: "  cloudpal vm start web\n  cloudpal vm start web db --json",
		RunE: c.change(func(ctx context.Context, agent *api.Client, name string) (api.VM, error) {
			return agent.Start(ctx, name)
		}),
	}, api.Stopped, api.Cold)
}
