package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmConsoleHelp = `Show the end of a VM's serial console: what its kernel and its PID 1 had to say.
What its process writes is shown by "vm logs". To a terminal, control
characters are shown as question marks.`

func (c *cli) vmConsole() *cobra.Command {
	return c.withJSON(c.onVM(&cobra.Command{
		Use: "console VM", Short: "Show what a VM's kernel said", Long: vmConsoleHelp,
		Example: "  cloudpal vm console web",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			text, err := agent.Console(ctx, names[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"name": names[0], "console": string(text)})
			}
			_, err = screenOf(c.out).Write(text)
			return err
		}),
	}, api.Running, api.Starting))
}
