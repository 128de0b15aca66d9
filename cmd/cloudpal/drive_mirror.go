package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

const driveMirrorHelp = `Make a FOLDER equal to a drive: what is new or changed is written, what the
drive does not have is removed. With --from it comes from another machine, which
runs "cloudpal drive serve"; without, from your store.

Every block that arrives is checked against the drive's key before it is used;
then each file is written beside its place and moved there whole. So an
interrupted one has left nothing half, and goes on where it was when it is run
again; run it again, too, to get what was changed since.

The FOLDER must be new or empty, or one that was made equal to this drive
before; --replace takes any, and removes what is in it. --keep removes nothing.`

// mirrorOptions are what "drive mirror" is told.
type mirrorOptions struct {
	remoteFlags
	version       uint64
	prefix        string
	keep, replace bool
	check, live   bool
	name          string
	secretFile    string
}

func (c *cli) driveMirror() *cobra.Command {
	var o mirrorOptions
	cmd := c.withStore(&cobra.Command{
		Use: "mirror KEY|NAME FOLDER", Short: "Make a folder equal to a drive", Long: driveMirrorHelp,
		Example: `  cloudpal drive mirror 2zz…key…zz ~/Pictures --from 192.168.1.5:7447
  cloudpal drive mirror photos ./old --version 12
  cloudpal drive mirror photos ./albums --below /albums --keep`,
		Args:              args(2, 2, "the key or name of a drive, and a FOLDER"),
		ValidArgsFunction: c.offerNames(driveKind, files),
		PreRunE: func(*cobra.Command, []string) error {
			if o.name != "" {
				if err := checkName(o.name); err != nil {
					return err
				}
			}
			if !o.given() {
				return nil
			}
			return o.remoteFlags.check()
		},
		RunE: c.onStore(making, func(ctx context.Context, s *corestore.Store, args []string) error {
			t, err := c.toMirror(s, args[0], o)
			if err != nil {
				return err
			}
			return t.leave(c.runMirror(ctx, t, args[1], o))
		}),
	})
	c.limitFlag(cmd)
	o.add(cmd)
	f := cmd.Flags()
	f.Uint64Var(&o.version, "version", 0, "take the drive as it was at this `VERSION`")
	f.StringVar(&o.prefix, "below", "", "take only what is at and below this `PATH` of the drive; it keeps its place in the folder")
	f.BoolVar(&o.keep, "keep", false, "leave what only the folder has")
	f.BoolVar(&o.replace, "replace", false, "take a folder that has other things in it")
	f.BoolVar(&o.check, "check", false, "read the folder again in the end, and compare every byte")
	f.StringVar(&o.name, "name", "", "`NAME` to give the drive in your store")
	f.BoolVar(&o.live, "live", false, "follow the drive, until Ctrl-C")
	secretFlag(cmd, &o.secretFile)
	return cmd
}

func (c *cli) toMirror(s *corestore.Store, ref string, o mirrorOptions) (*thing, error) {
	if o.given() {
		return c.toFetch(driveKind, s, ref, o.name, o.secretFile)
	}
	return c.find(driveKind, s, ref)
}

// mirrored is what --json shows.
type mirrored struct {
	Key      string `json:"key"`
	Folder   string `json:"folder"`
	Version  uint64 `json:"version"`
	Files    int    `json:"files"` // that the folder has now
	Bytes    int64  `json:"bytes"` // of those
	Added    int    `json:"added"`
	Changed  int    `json:"changed"`
	Removed  int    `json:"removed"`
	Skipped  int    `json:"skipped"`
	Received int64  `json:"received"` // bytes over the network
	Verified bool   `json:"verified"` // every block
	Compared bool   `json:"compared"` // every byte, read again
}

func (c *cli) runMirror(ctx context.Context, t *thing, path string, o mirrorOptions) error {
	if err := t.mayFill(path, o); err != nil {
		return err
	}
	if !o.given() {
		m, err := c.mirrorOnce(ctx, t, path, o)
		if err != nil {
			return err
		}
		return c.printMirrored(t, m, o)
	}
	l := c.newLine(t)
	err := l.with(ctx, o.remoteFlags, func(ctx context.Context) error { return c.mirrorFrom(ctx, t, l, path, o) })
	if err != nil && ctx.Err() != nil {
		c.say("what was fetched stays: run it again to go on")
	}
	return err
}

// mirrorFrom mirrors what the other side has, and with --live what it will have.
func (c *cli) mirrorFrom(ctx context.Context, t *thing, l *line, path string, o mirrorOptions) error {
	if err := t.meet(ctx, l, o.remoteFlags); err != nil {
		return err
	}
	if !o.live && t.core.Length() == 0 {
		return errEmptyDrive(t)
	}
	fill := func() error {
		if t.core.Length() == 0 {
			return nil // it is live: something will come
		}
		if err := c.fetchNames(ctx, t); err != nil {
			return err
		}
		m, err := c.mirrorOnce(ctx, t, path, o)
		if err != nil {
			return err
		}
		m.Received, m.Verified = l.in.Load(), true
		return c.printMirrored(t, m, o)
	}
	if !o.live {
		return fill()
	}
	return t.live(ctx, fill)
}

func errEmptyDrive(t *thing) error {
	return cloudpal.E("mirror the drive "+t.ref, cloudpal.NotExist, fmt.Errorf("it never had a file")).
		WithHint("put something into it where it was made: cloudpal drive put NAME FILE")
}

// fetchNames gets the drive's database.
func (c *cli) fetchNames(ctx context.Context, t *thing) error {
	look := func() (int64, int64) {
		i := t.core.Info()
		return int64(i.Blocks), int64(i.Length)
	}
	defer c.progress(ctx, "names", 0, countOf("names")).follow(look)()
	return fetchCore(ctx, t.core)
}

// mayFill refuses a folder that has something in it which is not this drive's.
func (t *thing) mayFill(path string, o mirrorOptions) error {
	name, err := folderName(path)
	if err != nil {
		return err
	}
	record := "cloudpal/folder:" + name
	ours, err := t.core.UserData(record)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cloudpal.E("open the folder "+path, "", err).WithHint("take another FOLDER, or a new one")
	}
	if len(entries) > 0 && ours == nil && !o.replace && !o.keep {
		return cloudpal.E("fill the folder "+path, cloudpal.Exist, errors.New("it has other things in it, which would be removed")).
			WithHint("take a new FOLDER, or --keep to leave them, or --replace to remove them")
	}
	return t.note(record, []byte(t.core.Key().String()))
}

// mirrorOnce makes the folder equal to what the drive is now.
func (c *cli) mirrorOnce(ctx context.Context, t *thing, path string, o mirrorOptions) (m mirrored, err error) {
	if err := t.whole(); err != nil {
		return m, err
	}
	d, err := t.drive()
	if err != nil {
		return m, err
	}
	defer d.Close()
	from := d
	if o.version != 0 {
		from = d.Checkout(o.version)
		defer from.Close()
	}
	m = mirrored{Key: t.core.Key().String(), Folder: path, Version: from.Version()}
	if err := c.measure(ctx, t, from, o, &m); err != nil {
		return m, err
	}
	to, err := hyperdrive.MakeFolder(path)
	if err != nil {
		return m, cloudpal.E("", "", err).WithHint("take a FOLDER in a place that you can write")
	}
	defer to.Close()
	options := hyperdrive.MirrorOptions{Prefix: o.prefix, Keep: o.keep, Ignore: c.notTheStore(path)}
	sum, err := c.mirror(ctx, from, to, c.progress(ctx, "fetching", m.Bytes, bytesOf), m.Bytes, options)
	m.Added, m.Changed, m.Removed, m.Skipped = sum.Added, sum.Changed, sum.Removed, sum.Skipped
	m.Files -= sum.Skipped
	if err == nil && o.check {
		options.DryRun = true
		err = c.compare(ctx, from, to, m.Bytes, options)
		m.Compared = err == nil
	}
	return m, err
}

// measure adds up what the drive has, and, without a connection, that it is
// here.
func (c *cli) measure(ctx context.Context, t *thing, d *hyperdrive.Drive, o mirrorOptions, m *mirrored) error {
	below, err := hyperdrive.Resolve("/", o.prefix)
	if err != nil {
		return usage{fmt.Errorf("--below %.80q: %w", o.prefix, err)}
	}
	if !o.given() && t.core.Length() > 0 {
		if here, err := d.Has(ctx, below); err != nil || !here {
			return errors.Join(err, t.partly("not all content is here"))
		}
	}
	for e, err := range d.List(ctx, "/") {
		if err != nil {
			return err
		}
		if below != "/" && e.Name != below && !strings.HasPrefix(e.Name, below+"/") {
			continue
		}
		m.Files++
		if e.Blob != nil {
			m.Bytes += int64(e.Blob.ByteLength)
		}
	}
	return nil
}

// compare reads both sides again.
func (c *cli) compare(ctx context.Context, from, to hyperdrive.Side, total int64, o hyperdrive.MirrorOptions) error {
	sum, err := c.mirror(ctx, from, to, c.progress(ctx, "comparing", total, bytesOf), total, o)
	if err == nil && sum.Added+sum.Changed+sum.Removed > 0 {
		err = cloudpal.E("compare the folder with the drive", cloudpal.Corrupt, fmt.Errorf("%d files differ", sum.Added+sum.Changed+sum.Removed)).
			WithHint("something else writes to the folder, or its disk does not keep what is written; run it again")
	}
	return err
}

func (c *cli) printMirrored(t *thing, m mirrored, o mirrorOptions) error {
	return c.print(m, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d files, %s (%d new, %d changed, %d removed)", plain(m.Folder), m.Files, formatSize(m.Bytes), m.Added, m.Changed, m.Removed)
		if m.Verified {
			fmt.Fprintf(w, "; every block verified")
		}
		if m.Compared {
			fmt.Fprintf(w, "; every byte read again and equal")
		}
		fmt.Fprintln(w)
	})
}
