package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmRmHelp = `Remove VMs that are stopped, and their disks. Named volumes stay: "cloudpal
volume rm" removes those. With --force VMs that are not stopped are killed
first.`

func (c *cli) vmRm() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm VM...", Short: "Remove VMs and their disks", Long: vmRmHelp,
		Example: "  cloudpal vm rm web\n  cloudpal vm rm --force web db",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			done, err := each(ctx, names, func(ctx context.Context, name string) (changed, error) {
				return changed{name}, agent.Remove(ctx, name, force)
			})
			return errors.Join(err, c.print(done, nil))
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it first, whatever it is doing")
	return c.onVMs(cmd)
}
