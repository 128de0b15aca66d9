package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

const coreGetHelp = `Write one block of a core to standard output, as it is. Blocks are numbered from
0. Only a block that is here is read.`

func (c *cli) coreGet() *cobra.Command {
	return c.withStore(&cobra.Command{
		Use: "get NAME|KEY INDEX", Short: "Write one block to standard output", Long: coreGetHelp,
		Example:           "  cloudpal core get notes 0\n  cloudpal core get notes 7 --json",
		Args:              args(2, 2, "the name or key of one core, and an INDEX"),
		ValidArgsFunction: c.offerNames(coreKind, words()),
		RunE: c.on(coreKind, func(_ context.Context, t *thing, args []string) error {
			i, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usage{fmt.Errorf("%.40q is no block's number", args[0])}
			}
			if i >= t.core.Length() {
				return outside(t)
			}
			return c.writeBlock(t, i, true)
		}),
	})
}
