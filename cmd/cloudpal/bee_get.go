package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperbee"
)

const beeGetHelp = `Write the value of a key to standard output, as it is, or with --hex as digits.
Who has no such key gets nothing, and exit status 1.`

func (c *cli) beeGet() *cobra.Command {
	var o beeOptions
	cmd := c.withStore(&cobra.Command{
		Use: "get NAME|KEY KEY", Short: "Write the value of a key", Long: beeGetHelp,
		Example:           "  cloudpal bee get people ann\n  cloudpal bee get people ann --version 3 --json | jq -r .value",
		Args:              args(2, 2, "the name or key of one bee, and a KEY in it"),
		ValidArgsFunction: c.offerNames(beeKind, words()),
		RunE: c.onBee(&o, false, func(ctx context.Context, t *thing, b *hyperbee.Bee, args []string) error {
			key, err := o.bytes(args[0])
			if err != nil {
				return err
			}
			e, err := b.Get(ctx, key)
			switch {
			case errors.Is(err, cloudpal.NotExist):
				return errNoKey(t, args[0])
			case err != nil:
				return err
			case c.json:
				return c.printJSON(pairOf(e))
			case o.hex:
				_, err = fmt.Fprintln(c.out, o.text(e.Value))
			default:
				_, err = screenOf(c.out).Write(e.Value)
			}
			return err
		}),
	})
	o.add(cmd, true)
	return cmd
}
