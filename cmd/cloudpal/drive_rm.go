package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/hyperdrive"
)

const driveRmHelp = `Remove files from a drive of yours, in one step. Older versions still have them,
and so has who fetched those; --reclaim frees the room in this store of all
content that no file has any more, after which old versions show names only.
With --recursive a PATH may be a folder. It is on disk when this ends.`

func (c *cli) driveRm() *cobra.Command {
	var recursive, reclaim bool
	cmd := c.withStore(&cobra.Command{
		Use: "rm NAME PATH...", Aliases: []string{"del"}, Short: "Remove files from a drive", Long: driveRmHelp,
		Example:           "  cloudpal drive rm papers /letter.pdf\n  cloudpal drive rm papers /scans --recursive --reclaim",
		Args:              args(2, -1, "the name of one drive, and a PATH in it"),
		ValidArgsFunction: c.offerNames(driveKind),
		RunE: c.onOurDrive(func(ctx context.Context, t *thing, d *hyperdrive.Drive, args []string) error {
			if err := remove(ctx, t, d, args, recursive); err != nil {
				return err
			}
			if reclaim {
				return c.changed(t, d.Reclaim(ctx, d.Version()))
			}
			return c.changed(t, nil)
		}),
	})
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "remove folders with all that is in them")
	cmd.Flags().BoolVar(&reclaim, "reclaim", false, "free the room of what only old versions have")
	return cmd
}

// remove removes names, all or none.
func remove(ctx context.Context, t *thing, d *hyperdrive.Drive, paths []string, recursive bool) error {
	b := d.Batch()
	defer b.Cancel()
	for _, path := range paths {
		n := b.Len()
		if _, err := d.Entry(ctx, path); err == nil {
			if err := b.Delete(path); err != nil {
				return err
			}
		}
		if recursive {
			for e, err := range d.List(ctx, path) {
				if err != nil {
					return err
				}
				if err := b.Delete(e.Name); err != nil {
					return err
				}
			}
		}
		if b.Len() == n {
			_, err := d.Entry(ctx, path)
			return t.noFile(path, err)
		}
	}
	return b.Flush(ctx)
}
