package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperbee"
)

const beeLsHelp = `List the bees of your store, or, of one, its keys and values in the order of the
keys: all, or those that begin with PREFIX, or those from --from up to --to.
With --json each entry is a line.`

func (c *cli) beeLs() *cobra.Command {
	var o beeOptions
	var from, to string
	var r hyperbee.Range
	inside := c.onBee(&o, false, func(ctx context.Context, t *thing, b *hyperbee.Bee, args []string) error {
		if err := o.bound(&r, args, from, to); err != nil {
			return err
		}
		for e, err := range b.Range(ctx, r) {
			if err == nil && c.json {
				err = c.printLine(pairOf(e))
			} else if err == nil {
				_, err = fmt.Fprintf(c.out, "%s\t%s\n", o.text(e.Key), o.text(e.Value))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	outside := c.onStore(existing, func(ctx context.Context, s *corestore.Store, _ []string) error {
		return c.list(ctx, beeKind, s)
	})
	cmd := c.withStore(&cobra.Command{
		Use: "ls [NAME|KEY [PREFIX]]", Aliases: []string{"list"}, Short: "List bees, or what is in one", Long: beeLsHelp,
		Example:           "  cloudpal bee ls\n  cloudpal bee ls people\n  cloudpal bee ls people a --reverse --limit 10",
		Args:              args(0, 2, "the name or key of one bee, and a PREFIX"),
		ValidArgsFunction: c.offerNames(beeKind, words()),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return outside(cmd, args)
			}
			return inside(cmd, args)
		},
	})
	o.add(cmd, true)
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "first `KEY`")
	f.StringVar(&to, "to", "", "`KEY` behind the last")
	f.BoolVar(&r.Reverse, "reverse", false, "from the last to the first")
	f.IntVar(&r.Limit, "limit", 0, "at most this `NUMBER`")
	return cmd
}

// bound sets a range's ends.
func (o *beeOptions) bound(r *hyperbee.Range, args []string, from, to string) (err error) {
	if len(args) > 0 {
		prefix, err := o.bytes(args[0])
		if err != nil {
			return err
		}
		p := hyperbee.Prefix(prefix)
		p.Reverse, p.Limit = r.Reverse, r.Limit
		*r = p
	}
	if from != "" {
		if r.GTE, err = o.bytes(from); err != nil {
			return err
		}
	}
	if to != "" {
		r.LT, err = o.bytes(to)
	}
	return err
}
