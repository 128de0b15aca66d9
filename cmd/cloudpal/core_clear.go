package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
)

const coreClearHelp = `Remove blocks of a core from this store, to save space: from START up to END,
END not included. The core stays what it is, and its length too: what is removed
can be fetched again from who has it, and from nobody else. So --yes is needed
where the core is yours.`

func (c *cli) coreClear() *cobra.Command {
	var yes bool
	cmd := c.withStore(&cobra.Command{
		Use: "clear NAME|KEY START END", Short: "Remove blocks from this store", Long: coreClearHelp,
		Example:           "  cloudpal core clear films 0 1000\n  cloudpal core clear notes 0 10 --yes",
		Args:              args(3, 3, "the name or key of one core, a START and an END"),
		ValidArgsFunction: c.offerNames(coreKind, words(), words()),
		RunE: c.on(coreKind, func(_ context.Context, t *thing, args []string) error {
			start, err1 := strconv.ParseUint(args[0], 10, 64)
			end, err2 := strconv.ParseUint(args[1], 10, 64)
			if err1 != nil || err2 != nil || start >= end {
				return usage{fmt.Errorf("%.40q to %.40q are no blocks; give two numbers, the second above the first", args[0], args[1])}
			}
			if t.core.Writable() && !yes {
				return cloudpal.E("clear "+t.ref, cloudpal.Denied, errors.New("it is yours, and maybe nobody else has these blocks")).
					WithHint("add --yes where somebody has, or where nobody needs them")
			}
			return c.changed(t, t.core.Clear(start, end))
		}),
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "also of a core that is yours")
	return cmd
}
