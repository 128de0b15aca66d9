package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/hyperdrive"
)

const driveDiffHelp = `List the files that differ between two versions of a drive, or between one and
now: "+" marks what is new, "-" what is gone, "~" what was written again.
"cloudpal drive history" shows which versions there are. With --json each file
is a line.`

// differingFile is what --json shows of a file that differs.
type differingFile struct {
	Path   string `json:"path"`
	Before *file  `json:"before,omitempty"`
	After  *file  `json:"after,omitempty"`
}

func (c *cli) driveDiff() *cobra.Command {
	return c.withStore(&cobra.Command{
		Use: "diff NAME|KEY VERSION [VERSION]", Short: "Compare two versions of a drive", Long: driveDiffHelp,
		Example:           "  cloudpal drive diff papers 3\n  cloudpal drive diff papers 3 7 --json",
		Args:              args(2, 3, "the name or key of one drive, and one or two versions"),
		ValidArgsFunction: c.offerNames(driveKind, words(), words()),
		RunE: c.onDrive(nil, func(ctx context.Context, t *thing, d *hyperdrive.Drive, args []string) error {
			before, after, err := t.versions(args)
			if err != nil {
				return err
			}
			if _, err := t.driveAt(d, before); err != nil {
				return err
			}
			now, err := t.driveAt(d, after)
			if err != nil {
				return err
			}
			defer now.Close()
			for change, err := range now.Diff(ctx, before, "/") {
				if err == nil {
					err = c.printChange(change)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	})
}

func (c *cli) printChange(change hyperdrive.Change) error {
	out, mark := differingFile{Path: change.Name}, "~"
	if change.Before != nil {
		f := fileOf(*change.Before)
		out.Before = &f
	} else {
		mark = "+"
	}
	if change.Now != nil {
		f := fileOf(*change.Now)
		out.After = &f
	} else {
		mark = "-"
	}
	if c.json {
		return c.printLine(out)
	}
	_, err := fmt.Fprintf(c.out, "%s\t%s\n", mark, plain(out.Path))
	return err
}
