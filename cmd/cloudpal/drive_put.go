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

const drivePutHelp = `Put a FILE, or a FOLDER with all that is in it, into a drive of yours. It gets
the name that it has here, below the drive's root, or the PATH that you give.
"-" is standard input, and needs a PATH. What was there is replaced, and is
still in older versions; of a FOLDER, what is at PATH and not in it is removed.
It is on disk when this ends.`

func (c *cli) drivePut() *cobra.Command {
	return c.withStore(&cobra.Command{
		Use: "put NAME FILE|FOLDER|- [PATH]", Short: "Put a file or folder into a drive", Long: drivePutHelp,
		Example: `  cloudpal drive put papers letter.pdf
  cloudpal drive put papers ~/Scans /scans/2026
  pg_dump shop | cloudpal drive put backups - /shop.sql`,
		Args:              args(2, 3, "the name of one drive, a FILE and a PATH"),
		ValidArgsFunction: c.offerNames(driveKind, files, words()),
		RunE: c.onOurDrive(func(ctx context.Context, t *thing, d *hyperdrive.Drive, args []string) error {
			name, err := nameInDrive(args)
			if err != nil {
				return err
			}
			if info, err := os.Stat(args[0]); args[0] != "-" && err == nil && info.IsDir() {
				return c.changed(t, c.putFolder(ctx, d, name, args[0]))
			}
			return c.changed(t, c.putFile(ctx, d, args[0], name))
		}),
	})
}

// nameInDrive is where a file goes.
func nameInDrive(args []string) (string, error) {
	switch {
	case len(args) > 1:
		return hyperdrive.Resolve("/", args[1])
	case args[0] == "-":
		return "", usage{errors.New("say where in the drive standard input goes: put NAME - PATH")}
	}
	abs, err := filepath.Abs(args[0])
	return path.Join("/", filepath.Base(abs)), err
}

// putFolder puts a folder in the place of what is there.
func (c *cli) putFolder(ctx context.Context, d *hyperdrive.Drive, at, path string) error {
	if at != "/" {
		if err := d.Delete(ctx, at); err != nil { // a file: no folder has an entry
			return err
		}
	}
	_, err := c.takeIn(ctx, d, at, path, nil)
	return err
}

func (c *cli) putFile(ctx context.Context, d *hyperdrive.Drive, from, name string) error {
	in, o, size := c.in, hyperdrive.WriterOptions{}, int64(0)
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return cloudpal.E("read "+from, kindOfFile(err), err).WithHint("give a file that is there and yours to read")
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil {
			o.Executable, size = info.Mode()&0o111 != 0, info.Size()
		}
		in = f
	}
	w, err := d.Writer(ctx, name, o)
	if err != nil {
		return err
	}
	b := c.progress(ctx, name, size, bytesOf)
	_, err = io.Copy(w, &watched{in, func(n int64) { b.set(n, size) }, 0})
	b.end()
	if err != nil {
		w.Cancel()
		return err
	}
	return w.Close()
}

// kindOfFile sorts what opening a file says.
func kindOfFile(err error) cloudpal.Kind {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return cloudpal.NotExist
	case errors.Is(err, os.ErrPermission):
		return cloudpal.Denied
	}
	return ""
}

// A watched reader tells how far it is.
type watched struct {
	io.Reader
	tell func(int64)
	n    int64
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.n += int64(n)
	w.tell(w.n)
	return n, err
}
