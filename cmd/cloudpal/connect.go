package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/tunnel"
	"github.com/tradle/cloudpal/person"
)

const connectHelp = `Lead this machine into your pal's network: all its programs then reach your devices,
by their addresses and by names such as laptop.pal. With --all everything else
goes through your pal, too, as through a VPN.

It makes the interface cloudpal0 and routes. Names are told to systemd-resolved;
without that they go to /etc/hosts, and with --all to /etc/resolv.conf, which is put
aside. "cloudpal disconnect" undoes all of it, also what a crash has left. It needs
root and Linux.`

func (c *cli) connect() *cobra.Command {
	var all, words bool
	cmd := c.withHome(c.withJSON(&cobra.Command{
		Use: "connect", Short: "Lead this machine into your pal's network", Long: connectHelp,
		Example: "  sudo cloudpal connect\n  sudo cloudpal connect --all",
		Args:    args(0, 0, ""),
		RunE: c.withHomeOf(func(ctx context.Context, h *person.Home, _ []string) error {
			if os.Geteuid() != 0 {
				return cloudpal.E("", cloudpal.Denied, errors.New("only root may change this machine's network")).
					WithHint("run: sudo cloudpal connect")
			}
			if err := c.confirm(ctx, h, words); err != nil {
				return err
			}
			agent, err := c.rootAgent(ctx, h)
			if err != nil {
				return err
			}
			if err := agent.Connect(ctx, person.ConnectRequest{Everything: all}); err != nil {
				return err
			}
			s, err := agent.Agent(ctx)
			if err != nil {
				return err
			}
			return c.print(s, func(w io.Writer) { fmt.Fprintln(w, "connected by", tunnel.LinkName) })
		}),
	}))
	cmd.Flags().BoolVar(&all, "all", false, "everything goes through your pal")
	c.phraseFlag(cmd, &words)
	return cmd
}

// rootAgent returns an agent that may change this machine's network.
func (c *cli) rootAgent(ctx context.Context, h *person.Home) (*person.Client, error) {
	agent := h.Client()
	s, err := agent.Agent(ctx)
	if err == nil && s.Root {
		return agent, nil
	}
	if err != nil && !errors.Is(err, person.ErrNoAgent) {
		return nil, err
	}
	if err := stopDeviceAgent(ctx, h); err != nil {
		return nil, err
	}
	return agent, c.startDeviceAgent(ctx, h, agent, person.Me())
}
