package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmResumeHelp = `Wake VMs. A cold one, whose memory is lost, boots. It returns when they run; "vm
inspect" shows how long each step took.`

func (c *cli) vmResume() *cobra.Command {
	return c.onVMs(&cobra.Command{
		Use: "resume VM...", Short: "Wake VMs", Long: vmResumeHelp,
		Example: "  cloudpal vm resume web\n  cloudpal vm resume web db --json",
		RunE: c.change(func(ctx context.Context, agent *api.Client, name string) (api.VM, error) {
			return agent.Resume(ctx, name)
		}),
	}, api.Asleep, api.Cold)
}
