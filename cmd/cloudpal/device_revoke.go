package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/person"
)

const deviceRevokeHelp = `Revoke a device: it is cut off as soon as your pal knows, which is at once if it
answers. Its keys never come back. If your pal does not answer, the exit status
is 1, and this device tells it as soon as it does.`

func (c *cli) deviceRevoke() *cobra.Command {
	var words bool
	cmd := c.withHome(c.withJSON(&cobra.Command{
		Use: "revoke NAME", Aliases: []string{"rm"}, Short: "Cut a device off for good", Long: deviceRevokeHelp,
		Example: "  cloudpal device revoke phone",
		Args:    deviceArgs(1, "the NAME of a device"),
		RunE: c.askDevice(func(ctx context.Context, h *person.Home, agent *person.Client, names []string) error {
			if err := c.confirm(ctx, h, words); err != nil {
				return err
			}
			d, err := agent.Revoke(ctx, names[0])
			if err != nil {
				return err
			}
			if err := c.print(d, nil); err != nil || d.Delivered {
				return err
			}
			return cloudpal.E("revoke "+names[0], cloudpal.Missing, errors.New("your pal does not answer, so it does not know yet")).
				WithHint("leave this machine on: its agent tells the pal as soon as it answers")
		}),
	}))
	c.phraseFlag(cmd, &words)
	cmd.ValidArgsFunction = c.offerDevices
	return cmd
}
