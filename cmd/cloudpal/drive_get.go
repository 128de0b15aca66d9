package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

const driveGetHelp = `Write a file of a drive to a file here: FILE, or one of the same name in this
folder. It is written beside its place and moved there whole; one that is there
is replaced only with --replace. Links are followed. For folders take "cloudpal
drive mirror".`

func (c *cli) driveGet() *cobra.Command {
	var version uint64
	var replace bool
	cmd := c.withStore(&cobra.Command{
		Use: "get NAME|KEY PATH [FILE]", Short: "Write a file of a drive to a file here", Long: driveGetHelp,
		Example:           "  cloudpal drive get papers /letter.pdf\n  cloudpal drive get papers /letter.pdf old.pdf --version 3",
		Args:              args(2, 3, "the name or key of one drive, a PATH in it and a FILE"),
		ValidArgsFunction: c.offerNames(driveKind, words(), files),
		RunE: c.onDrive(&version, func(ctx context.Context, t *thing, d *hyperdrive.Drive, args []string) error {
			to := path.Base(args[0])
			if len(args) > 1 {
				to = args[1]
			}
			if _, err := os.Lstat(to); err == nil && !replace {
				return cloudpal.E("write "+to, cloudpal.Exist, nil).WithHint("add --replace, or name another FILE")
			}
			if err := t.readable(ctx, d, args[0]); err != nil {
				return err
			}
			return c.getFile(ctx, d, args[0], to)
		}),
	})
	versionFlag(cmd, &version)
	cmd.Flags().BoolVar(&replace, "replace", false, "replace a file that is there")
	return cmd
}

// gotten is what --json shows.
type gotten struct {
	Path  string `json:"path"`
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

func (c *cli) getFile(ctx context.Context, d *hyperdrive.Drive, name, to string) error {
	e, err := d.Follow(ctx, name)
	if err != nil {
		return err
	}
	from, err := d.EntryReader(ctx, e)
	if err != nil {
		return err
	}
	defer from.Close()
	b := c.progress(ctx, name, from.Size(), bytesOf)
	n, err := writeFile(to, &watched{from, func(n int64) { b.set(n, from.Size()) }, 0}, e.Executable)
	b.end()
	if err != nil {
		return cloudpal.E("write "+to, "", err).WithHint("check that the folder is there, yours to write, and on a disk with room")
	}
	return c.print(gotten{e.Name, to, n}, nil)
}

// writeFile puts a file in its place whole.
func writeFile(to string, from io.Reader, executable bool) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(to), ".cloudpal-*.tmp")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // nothing once it is moved
	mode := os.FileMode(0o644)
	if executable {
		mode = 0o755
	}
	n, err = io.Copy(f, from)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return n, err
	}
	return n, os.Rename(f.Name(), to)
}
