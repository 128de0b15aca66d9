package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperbee"
)

const beeDelHelp = `Remove keys from a bee of yours, all of them or none. Older versions still have
them, and so has who fetched those. It is on disk when this ends.`

func (c *cli) beeDel() *cobra.Command {
	var o beeOptions
	cmd := c.withStore(&cobra.Command{
		Use: "del NAME KEY...", Aliases: []string{"rm"}, Short: "Remove keys", Long: beeDelHelp,
		Example:           "  cloudpal bee del people ann bob",
		Args:              args(2, -1, "the name of one bee, and a KEY in it"),
		ValidArgsFunction: c.offerNames(beeKind),
		RunE: c.onBee(&o, true, func(ctx context.Context, t *thing, b *hyperbee.Bee, args []string) error {
			batch := b.Batch()
			defer batch.Close()
			for _, text := range args {
				key, err := o.bytes(text)
				if err != nil {
					return err
				}
				if _, err := batch.Get(ctx, key); errors.Is(err, cloudpal.NotExist) {
					return errNoKey(t, text)
				}
				if err := batch.Delete(ctx, key); err != nil {
					return err
				}
			}
			return c.changed(t, batch.Flush())
		}),
	})
	o.add(cmd, false)
	return cmd
}
