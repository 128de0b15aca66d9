package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/hyperdrive"
)

const driveHistoryHelp = `List all changes of a drive, the oldest first: which version each led to,
whether a file was written or removed, and its name. What was put in one step is
one version, that of its last line: those in between cannot be read. With --json
each change is a line.`

func (c *cli) driveHistory() *cobra.Command {
	var reverse bool
	cmd := c.withStore(&cobra.Command{
		Use: "history NAME|KEY", Short: "List all changes of a drive", Long: driveHistoryHelp,
		Example:           "  cloudpal drive history papers\n  cloudpal drive history papers --reverse | head",
		Args:              args(1, 1, "the name or key of one drive"),
		ValidArgsFunction: c.offerNames(driveKind),
		RunE: c.onDrive(nil, func(ctx context.Context, t *thing, d *hyperdrive.Drive, _ []string) error {
			if t.core.Length() == 0 {
				return nil
			}
			for op, err := range d.History(ctx, 0, reverse) {
				if err == nil {
					err = c.printStep(op)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	})
	cmd.Flags().BoolVar(&reverse, "reverse", false, "the newest first")
	return cmd
}

func (c *cli) printStep(op hyperdrive.Operation) error {
	f := fileOf(op.Entry)
	f.Deleted = op.Deleted
	if c.json {
		return c.printLine(f)
	}
	did := "put"
	if op.Deleted {
		did = "rm"
	}
	_, err := fmt.Fprintf(c.out, "%d\t%s\t%s\n", op.Seq+1, did, plain(f.Path))
	return err
}
