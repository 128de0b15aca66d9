package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/hyperdrive"
)

const driveCatHelp = `Write files of a drive to standard output, one after the other. Links are
followed. Only what is here is read: "cloudpal drive sync" fetches the rest.`

func (c *cli) driveCat() *cobra.Command {
	var version uint64
	cmd := c.withOnlyStore(&cobra.Command{
		Use: "cat NAME|KEY PATH...", Short: "Write files to standard output", Long: driveCatHelp,
		Example:           "  cloudpal drive cat papers /todo.txt\n  cloudpal drive cat papers /todo.txt --version 3",
		Args:              args(2, -1, "the name or key of one drive, and a PATH in it"),
		ValidArgsFunction: c.offerNames(driveKind),
		RunE: c.onDrive(&version, func(ctx context.Context, t *thing, d *hyperdrive.Drive, args []string) error {
			for _, name := range args {
				if err := t.readable(ctx, d, name); err != nil {
					return err
				}
				if err := c.catFile(ctx, d, name); err != nil {
					return err
				}
			}
			return nil
		}),
	})
	versionFlag(cmd, &version)
	return cmd
}

func (c *cli) catFile(ctx context.Context, d *hyperdrive.Drive, name string) error {
	from, err := d.Reader(ctx, name)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(screenOf(c.out), from)
	return err
}
