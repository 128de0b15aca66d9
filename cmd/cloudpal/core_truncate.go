package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
)

const coreTruncateHelp = `Cut a core of yours to LENGTH blocks. What is behind that is gone, here at once,
and with all who have it as soon as they hear of it: their next "sync" cuts
theirs, too. There is no way back, so --yes is needed.`

func (c *cli) coreTruncate() *cobra.Command {
	var yes bool
	cmd := c.withStore(&cobra.Command{
		Use: "truncate NAME LENGTH", Short: "Cut a core to a length", Long: coreTruncateHelp,
		Example:           "  cloudpal core truncate notes 10 --yes",
		Args:              args(2, 2, "the name of one core, and a LENGTH"),
		ValidArgsFunction: c.offerNames(coreKind, words()),
		RunE: c.on(coreKind, func(_ context.Context, t *thing, args []string) error {
			length, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usage{fmt.Errorf("%.40q is no number of blocks", args[0])}
			}
			if err := errors.Join(t.writable(), t.notInside()); err != nil {
				return err
			}
			if length > t.core.Length() {
				return outside(t)
			}
			if !yes {
				return cloudpal.E("truncate "+t.ref, cloudpal.Denied, fmt.Errorf("%d blocks would be gone for good", t.core.Length()-length)).
					WithHint("add --yes if that is what you want")
			}
			return c.changed(t, t.core.Truncate(length))
		}),
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

// changed brings a change to disk and shows it to who asked for JSON.
func (c *cli) changed(t *thing, err error) error {
	if err != nil {
		return err
	}
	if err := t.store.Sync(); err != nil {
		return err
	}
	return c.print(t.made(), nil)
}
