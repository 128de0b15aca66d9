package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/hyperbee"
)

const beeHistoryHelp = `List all changes of a bee, the oldest first: which version each made, whether it
set a key or removed it, and the value. With --json each change is a line.`

func (c *cli) beeHistory() *cobra.Command {
	var o beeOptions
	var s hyperbee.Span
	cmd := c.withStore(&cobra.Command{
		Use: "history NAME|KEY", Short: "List all changes of a bee", Long: beeHistoryHelp,
		Example:           "  cloudpal bee history people\n  cloudpal bee history people --reverse --limit 5",
		Args:              args(1, 1, "the name or key of one bee"),
		ValidArgsFunction: c.offerNames(beeKind),
		RunE: c.onBee(&o, false, func(ctx context.Context, t *thing, b *hyperbee.Bee, _ []string) error {
			for op, err := range b.History(ctx, s) {
				if err == nil {
					err = c.printOperation(&o, op)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	})
	o.add(cmd, false)
	cmd.Flags().BoolVar(&s.Reverse, "reverse", false, "the newest first")
	cmd.Flags().IntVar(&s.Limit, "limit", 0, "at most this `NUMBER`")
	return cmd
}

func (c *cli) printOperation(o *beeOptions, op hyperbee.Operation) error {
	if c.json {
		p := pairOf(op.Entry)
		p.Deleted = op.Deleted
		return c.printLine(p)
	}
	var err error
	if op.Deleted {
		_, err = fmt.Fprintf(c.out, "%d\tdel\t%s\n", op.Seq+1, o.text(op.Key))
	} else {
		_, err = fmt.Fprintf(c.out, "%d\tput\t%s\t%s\n", op.Seq+1, o.text(op.Key), o.text(op.Value))
	}
	return err
}
