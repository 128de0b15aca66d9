package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
)

const coreCatHelp = `Write the blocks of a core to standard output, one after the other, each with a
line end behind it. With --raw they follow each other as they are, as a file
that was appended with --size needs it. Only blocks that are here are read.`

// A shownBlock is what --json shows of a block, a line each. Exactly one of Text and Hex is
// there.
type shownBlock struct {
	Index uint64  `json:"index"`
	Text  *string `json:"text,omitempty"`
	Hex   *string `json:"hex,omitempty"`
}

func (c *cli) coreCat() *cobra.Command {
	var start, end uint64
	var raw bool
	cmd := c.withStore(&cobra.Command{
		Use: "cat NAME|KEY", Short: "Write a core's blocks to standard output", Long: coreCatHelp,
		Example: `  cloudpal core cat notes
  cloudpal core cat notes --start 10 --end 20
  cloudpal core cat films --raw > film.mkv`,
		Args:              args(1, 1, "the name or key of one core"),
		ValidArgsFunction: c.offerNames(coreKind),
		RunE: c.on(coreKind, func(ctx context.Context, t *thing, _ []string) error {
			if end == 0 {
				end = t.core.Length()
			}
			if start > end || end > t.core.Length() {
				return outside(t)
			}
			for i := start; i < end; i++ {
				if err := errors.Join(ctx.Err(), c.writeBlock(t, i, raw)); err != nil {
					return err
				}
			}
			return nil
		}),
	})
	cmd.Flags().Uint64Var(&start, "start", 0, "the first block's `INDEX`")
	cmd.Flags().Uint64Var(&end, "end", 0, "the `INDEX` behind the last block (default: that of the end)")
	cmd.Flags().BoolVar(&raw, "raw", false, "nothing between the blocks")
	return cmd
}

func outside(t *thing) error {
	return cloudpal.E("read "+t.ref, cloudpal.NotExist, fmt.Errorf("it has %d blocks, numbered from 0", t.core.Length())).
		WithHint("cloudpal core info NAME shows how many there are")
}

func (c *cli) writeBlock(t *thing, i uint64, raw bool) error {
	data, err := t.core.Local(i)
	if errors.Is(err, cloudpal.NotExist) {
		return t.partly(fmt.Sprintf("block %d is not here", i))
	}
	if err != nil {
		return err
	}
	if c.json {
		text, hex := textOrHex(data)
		return c.printLine(shownBlock{i, text, hex})
	}
	if !raw {
		data = append(data, '\n')
	}
	_, err = screenOf(c.out).Write(data)
	return err
}
