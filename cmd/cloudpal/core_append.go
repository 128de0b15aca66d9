package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
)

const coreAppendHelp = `Append blocks to a core of yours and print its new length: each TEXT is one
block, and all of them are appended together or not at all. Without TEXT, blocks
come from standard input: each line is one, without its line end, or with --size
every so many bytes are one. What was appended is on disk when this ends.`

func (c *cli) coreAppend() *cobra.Command {
	var block size
	cmd := c.withStore(&cobra.Command{
		Use: "append NAME [TEXT...]", Short: "Append blocks to a core", Long: coreAppendHelp,
		Example: `  cloudpal core append notes "buy milk" "call ann"
  journalctl -o json | cloudpal core append journal
  cloudpal core append films --size 64K < film.mkv`,
		Args:              args(1, -1, "the name of one core"),
		ValidArgsFunction: c.offerNames(coreKind),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if block < 0 || block > hypercore.MaxBlock {
				return usage{fmt.Errorf("--size %v: a block has at most %s", &block, formatSize(hypercore.MaxBlock))}
			}
			if len(args) > 1 && block > 0 {
				return usage{errors.New("--size is for standard input, not for TEXT")}
			}
			return nil
		},
		RunE: c.on(coreKind, func(ctx context.Context, t *thing, texts []string) error {
			if err := t.writable(); err != nil {
				return err
			}
			if err := t.notInside(); err != nil {
				return err
			}
			if err := c.append(ctx, t, texts, int(block)); err != nil {
				return err
			}
			return c.print(t.made(), func(w io.Writer) { fmt.Fprintln(w, t.core.Length()) })
		}),
	})
	cmd.Flags().Var(&block, "size", "`SIZE` of the blocks that standard input is cut into")
	return cmd
}

// notInside refuses to write into a bee or a drive past its own format.
func (t *thing) notInside() error {
	is, err := kindOf(t.core)
	if err != nil || is == coreKind || is == "" {
		return err
	}
	return cloudpal.E("change "+t.ref+" as a core", cloudpal.Denied, fmt.Errorf("it is a %s, and would be one no longer", is)).
		WithHint(fmt.Sprintf("cloudpal %s --help shows how it is changed", is))
}

func (c *cli) append(ctx context.Context, t *thing, texts []string, block int) error {
	if len(texts) == 0 {
		err := c.appendInput(ctx, t.core, block)
		if syncing := t.store.Sync(); err == nil {
			err = syncing
		}
		return err
	}
	blocks := make([][]byte, len(texts))
	for i, text := range texts {
		blocks[i] = []byte(text)
	}
	if _, err := t.core.Append(blocks...); err != nil {
		return err
	}
	return t.store.Sync()
}

// appendBatch is how many bytes of standard input are appended at once.
const appendBatch = 1 << 20

func (c *cli) appendInput(ctx context.Context, core *hypercore.Core, block int) error {
	in := bufio.NewScanner(c.in)
	in.Buffer(make([]byte, 0, 64<<10), hypercore.MaxBlock+1)
	if block > 0 {
		in.Split(pieces(block))
	}
	var batch [][]byte
	var bytesOfBatch int
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := core.Append(batch...)
		batch, bytesOfBatch = batch[:0], 0
		return err
	}
	for ctx.Err() == nil && in.Scan() {
		batch = append(batch, bytes.Clone(in.Bytes()))
		if bytesOfBatch += len(in.Bytes()); bytesOfBatch >= appendBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return cloudpal.E("append", cloudpal.Invalid, fmt.Errorf("a line is longer than a block may be, %s", formatSize(hypercore.MaxBlock))).
			WithHint("cut it into blocks: --size 64K")
	}
	return errors.Join(in.Err(), ctx.Err())
}

// pieces cuts what is scanned into blocks of n bytes.
func pieces(n int) bufio.SplitFunc {
	return func(data []byte, end bool) (int, []byte, error) {
		switch {
		case len(data) >= n:
			return n, data[:n], nil
		case end && len(data) > 0:
			return len(data), data, nil
		}
		return 0, nil, nil
	}
}
