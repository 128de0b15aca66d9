package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/hyperbee"
)

const beeDiffHelp = `List the keys that differ between two versions of a bee, or between one and now:
"-" is before what it had, "+" what it has. "cloudpal bee history" shows which
versions there are. With --json each key is a line.`

// differing is what --json shows of a key that differs.
type differing struct {
	Before *pair `json:"before,omitempty"`
	After  *pair `json:"after,omitempty"`
}

func (c *cli) beeDiff() *cobra.Command {
	var o beeOptions
	cmd := c.withStore(&cobra.Command{
		Use: "diff NAME|KEY VERSION [VERSION]", Short: "Compare two versions of a bee", Long: beeDiffHelp,
		Example:           "  cloudpal bee diff people 3\n  cloudpal bee diff people 3 7 --json",
		Args:              args(2, 3, "the name or key of one bee, and one or two versions"),
		ValidArgsFunction: c.offerNames(beeKind, words(), words()),
		RunE: c.onBee(&o, false, func(ctx context.Context, t *thing, b *hyperbee.Bee, args []string) error {
			before, after, err := t.versions(args)
			if err != nil {
				return err
			}
			old, err := t.checkout(b, before)
			if err != nil {
				return err
			}
			defer old.Close()
			now, err := t.checkout(b, after)
			if err != nil {
				return err
			}
			defer now.Close()
			for d, err := range now.Diff(ctx, old, hyperbee.Range{}) {
				if err == nil {
					err = c.printDifference(&o, d)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	})
	o.add(cmd, false)
	return cmd
}

// versions reads one or two versions; the second is now by default.
func (t *thing) versions(args []string) (before, after uint64, err error) {
	after = max(t.core.Length(), 1)
	if before, err = parseVersion(args[0]); err == nil && len(args) > 1 {
		after, err = parseVersion(args[1])
	}
	return before, after, err
}

func (c *cli) printDifference(o *beeOptions, d hyperbee.Difference) (err error) {
	if c.json {
		var out differing
		if d.Right.Seq != 0 {
			p := pairOf(d.Right)
			out.Before = &p
		}
		if d.Left.Seq != 0 {
			p := pairOf(d.Left)
			out.After = &p
		}
		return c.printLine(out)
	}
	if d.Right.Seq != 0 {
		_, err = fmt.Fprintf(c.out, "-\t%s\t%s\n", o.text(d.Right.Key), o.text(d.Right.Value))
	}
	if err == nil && d.Left.Seq != 0 {
		_, err = fmt.Fprintf(c.out, "+\t%s\t%s\n", o.text(d.Left.Key), o.text(d.Left.Value))
	}
	return err
}
