package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/network/tunnel"
	"github.com/tradle/cloudpal/person"
)

const disconnectHelp = `Take this machine out of your pal's network: what "cloudpal connect" changed is put
back. After a crash this removes what is left.`

func (c *cli) disconnect() *cobra.Command {
	return c.withHome(c.withJSON(&cobra.Command{
		Use: "disconnect", Short: "Take this machine out of your pal's network", Long: disconnectHelp,
		Example: "  cloudpal disconnect",
		Args:    args(0, 0, ""),
		RunE: c.withHomeOf(func(ctx context.Context, h *person.Home, _ []string) error {
			if err := disconnect(ctx, h); err != nil {
				return err
			}
			return c.print(struct{}{}, nil)
		}),
	}))
}

// restoreNetwork removes what an agent that is gone has left. Who is not root
// cannot have left anything.
func restoreNetwork() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return tunnel.Restore()
}

// disconnect ends the tunnel of the whole machine, if there is one.
func disconnect(ctx context.Context, h *person.Home) error {
	agent := h.Client()
	s, err := agent.Agent(ctx)
	if errors.Is(err, person.ErrNoAgent) {
		return restoreNetwork()
	}
	if err != nil || s.Mode == person.OnlyAgent {
		return err
	}
	return agent.Disconnect(ctx)
}
