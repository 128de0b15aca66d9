package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmKillHelp = `End VMs at once, as if their power was cut, or send their process a signal. What
a process has not written to disk is lost when its VM is killed.`

func (c *cli) vmKill() *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use: "kill VM...", Short: "End VMs at once, or send a signal", Long: vmKillHelp,
		Example: "  cloudpal vm kill web\n  cloudpal vm kill --signal HUP web",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			done, err := each(ctx, names, func(ctx context.Context, name string) (changed, error) {
				return changed{name}, agent.Kill(ctx, name, api.SignalRequest{Signal: signal})
			})
			return errors.Join(err, c.print(done, nil))
		}),
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "send the process this `SIGNAL`, as in HUP, and leave the VM")
	c.offerFlag(cmd, "signal", words("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"))
	return c.onVMs(cmd, api.Running, api.Starting, api.Asleep, api.Cold)
}
