package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const volumeRmHelp = `Remove named volumes and all that is on them. A volume that a VM has, also one that
is stopped, stays: remove the VM first.`

func (c *cli) volumeRm() *cobra.Command {
	cmd := c.withJSON(&cobra.Command{
		Use: "rm VOLUME...", Short: "Remove volumes and what is on them", Long: volumeRmHelp,
		Example: "  cloudpal volume rm data",
		Args:    args(1, -1, "the name of a volume"),
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			gone, err := each(ctx, names, func(ctx context.Context, name string) (changed, error) {
				return changed{name}, agent.RemoveVolume(ctx, name)
			})
			return errors.Join(err, c.print(gone, nil))
		}),
	})
	cmd.ValidArgsFunction = c.offer(true, volumeNames)
	return cmd
}
