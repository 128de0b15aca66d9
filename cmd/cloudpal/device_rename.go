package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/person"
)

const deviceRenameHelp = `Give a device another name. Its keys and addresses stay, and so does its
configuration.`

func (c *cli) deviceRename() *cobra.Command {
	var words bool
	cmd := c.withHome(c.withJSON(&cobra.Command{
		Use: "rename NAME NEW-NAME", Short: "Give a device another name", Long: deviceRenameHelp,
		Example: "  cloudpal device rename phone old-phone",
		Args:    deviceArgs(2, "the NAME of a device and its NEW-NAME"),
		RunE: c.askDevice(func(ctx context.Context, h *person.Home, agent *person.Client, names []string) error {
			if err := c.confirm(ctx, h, words); err != nil {
				return err
			}
			d, err := agent.Rename(ctx, names[0], names[1])
			if err != nil {
				return err
			}
			c.sayDelivered(d)
			return c.print(d, nil)
		}),
	}))
	c.phraseFlag(cmd, &words)
	cmd.ValidArgsFunction = c.offerDevices
	return cmd
}
