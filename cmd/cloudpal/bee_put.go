package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperbee"
)

const beePutHelp = `Set a key of a bee of yours to a value, which "-" reads from standard input. It
is on disk when this ends.`

// maxValue is the most that is read as one value.
const maxValue = 8 << 20

func (c *cli) beePut() *cobra.Command {
	var o beeOptions
	cmd := c.withStore(&cobra.Command{
		Use: "put NAME KEY VALUE|-", Short: "Set a key to a value", Long: beePutHelp,
		Example:           "  cloudpal bee put people ann 12\n  cloudpal bee put people ann - < ann.json",
		Args:              args(3, 3, "the name of one bee, a KEY and a VALUE"),
		ValidArgsFunction: c.offerNames(beeKind, words(), words()),
		RunE: c.onBee(&o, true, func(ctx context.Context, t *thing, b *hyperbee.Bee, args []string) error {
			key, err := o.bytes(args[0])
			if err != nil {
				return err
			}
			value, err := c.value(o, args[1])
			if err != nil {
				return err
			}
			return c.changed(t, b.Put(ctx, key, value))
		}),
	})
	o.add(cmd, false)
	return cmd
}

func (c *cli) value(o beeOptions, text string) ([]byte, error) {
	if text != "-" {
		return o.bytes(text)
	}
	b, err := io.ReadAll(io.LimitReader(c.in, maxValue+1))
	if err == nil && len(b) > maxValue {
		err = cloudpal.E("read the value", cloudpal.Invalid, nil).WithHint("a value has at most " + formatSize(maxValue) + "; files are for a drive: cloudpal drive put")
	}
	return b, err
}
