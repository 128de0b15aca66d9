package main

import (
	"context"
	"io"
	"path"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

const driveLsHelp = `List the drives of your store, or, of one, what is in a folder of it: the root,
or PATH. With --all it lists all files below that. An x marks what can be
executed, an l links, a d folders.`

func (c *cli) driveLs() *cobra.Command {
	var version uint64
	var all bool
	inside := c.onDrive(&version, func(ctx context.Context, t *thing, d *hyperdrive.Drive, args []string) error {
		folder := "/"
		if len(args) > 0 {
			folder = args[0]
		}
		found, err := filesOf(ctx, d, folder, all)
		if err != nil {
			return err
		}
		if len(found) == 0 && folder != "/" {
			e, err := d.Entry(ctx, folder)
			if err != nil {
				return t.noFile(folder, err)
			}
			found = append(found, fileOf(e))
		}
		return c.print(found, func(w io.Writer) { printFiles(w, found) })
	})
	outside := c.onStore(existing, func(ctx context.Context, s *corestore.Store, _ []string) error {
		return c.list(ctx, driveKind, s)
	})
	cmd := c.withStore(&cobra.Command{
		Use: "ls [NAME|KEY [PATH]]", Aliases: []string{"list"}, Short: "List drives, or what is in one", Long: driveLsHelp,
		Example:           "  cloudpal drive ls\n  cloudpal drive ls papers /scans\n  cloudpal drive ls papers --all --json | jq -r '.[].path'",
		Args:              args(0, 2, "the name or key of one drive, and a PATH"),
		ValidArgsFunction: c.offerNames(driveKind, words()),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return outside(cmd, args)
			}
			return inside(cmd, args)
		},
	})
	versionFlag(cmd, &version)
	cmd.Flags().BoolVar(&all, "all", false, "all files, in folders below as well")
	return cmd
}

// filesOf lists what is in a folder.
func filesOf(ctx context.Context, d *hyperdrive.Drive, folder string, all bool) (found []file, err error) {
	found = []file{}
	if all {
		for e, err := range d.List(ctx, folder) {
			if err != nil {
				return nil, err
			}
			found = append(found, fileOf(e))
		}
		return found, nil
	}
	clean, err := hyperdrive.Resolve("/", folder)
	if err != nil {
		return nil, err
	}
	for child, err := range d.ReadDir(ctx, folder) {
		switch {
		case err != nil:
			return nil, err
		case child.Folder:
			found = append(found, file{Path: path.Join(clean, child.Name), Folder: true})
		default:
			found = append(found, fileOf(child.Entry))
		}
	}
	return found, nil
}

func printFiles(w io.Writer, found []file) {
	var rows [][]string
	for _, f := range found {
		rows = append(rows, f.row())
	}
	table(w, "KIND SIZE PATH", rows)
}
