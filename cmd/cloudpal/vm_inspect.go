package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmInspectHelp = `Show all that the agent knows of a VM, as JSON: among it its addresses, the reason
of its state, how its process ended, when a timer of its own wakes it, what it
says keeps it awake, and in "steps" how long each part of its last boot or wake
and of its last suspend took, in nanoseconds.`

func (c *cli) vmInspect() *cobra.Command {
	return c.withJSON(c.onVM(&cobra.Command{
		Use: "inspect VM", Short: "Show all about a VM", Long: vmInspectHelp,
		Example: "  cloudpal vm inspect web\n  cloudpal vm inspect web | jq -r '.steps[] | \"\\(.name) \\(.duration / 1e6) ms\"'",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			v, err := agent.VM(ctx, names[0])
			if err != nil {
				return err
			}
			return c.printJSON(v)
		}),
	}))
}
