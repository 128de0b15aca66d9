package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

const driveHelp = `Make drives of files, change them, and bring them to other machines.

A drive is files and folders in two logs, in the format of Hyperdrive: every
version of it can still be read, as long as its content is kept, and who fetches
it can check that every byte is what its maker wrote. Names in a drive begin
with /.

To bring a folder to another machine, take two commands: "cloudpal drive serve
FOLDER" here, which prints the other one, "cloudpal drive mirror KEY FOLDER
--from HOST:PORT".` + dataHelp

func (c *cli) drive() *cobra.Command {
	cmd := group("drive", "Make drives of files, bring them to other machines", driveHelp, `  cloudpal drive serve ~/Pictures
  cloudpal drive mirror 2zz…key…zz ~/Pictures --from 192.168.1.5:7447
  cloudpal drive create papers
  cloudpal drive put papers letter.pdf
  cloudpal drive ls papers`)
	cmd.AddCommand(
		c.dataCreate(driveKind), c.drivePut(), c.driveGet(), c.driveCat(), c.driveLs(), c.driveRm(),
		c.driveHistory(), c.driveDiff(), c.driveMirror(),
		c.dataInfo(driveKind), c.dataServe(driveKind), c.dataSync(driveKind), c.dataVerify(driveKind),
	)
	return cmd
}

// versionFlag adds the flag for old versions.
func versionFlag(cmd *cobra.Command, version *uint64) {
	cmd.Flags().Uint64Var(version, "version", 0, "read it as it was at this `VERSION`")
}

// onDrive is on for a drive that is read, at a version or now.
func (c *cli) onDrive(version *uint64, f func(ctx context.Context, t *thing, d *hyperdrive.Drive, args []string) error) func(*cobra.Command, []string) error {
	return c.on(driveKind, func(ctx context.Context, t *thing, args []string) error {
		if err := t.whole(); err != nil {
			return err
		}
		d, err := t.drive()
		if err != nil {
			return err
		}
		defer d.Close()
		if version == nil || *version == 0 {
			return f(ctx, t, d, args)
		}
		old, err := t.driveAt(d, *version)
		if err != nil {
			return err
		}
		defer old.Close()
		return f(ctx, t, old, args)
	})
}

func (t *thing) driveAt(d *hyperdrive.Drive, version uint64) (*hyperdrive.Drive, error) {
	if version == 0 || version > max(t.core.Length(), 1) {
		return nil, cloudpal.E(fmt.Sprintf("read version %d of %s", version, t.ref), cloudpal.NotExist, fmt.Errorf("the newest is %d", t.core.Length())).
			WithHint("cloudpal drive history NAME lists the versions")
	}
	return d.Checkout(version), nil
}

// onOurDrive is on for a drive that is to be changed.
func (c *cli) onOurDrive(f func(ctx context.Context, t *thing, d *hyperdrive.Drive, args []string) error) func(*cobra.Command, []string) error {
	return c.on(driveKind, func(ctx context.Context, t *thing, args []string) error {
		if err := t.writable(); err != nil {
			return err
		}
		d, err := t.drive()
		if err != nil {
			return err
		}
		defer d.Close()
		return f(ctx, t, d, args)
	})
}

// readable refuses a file that is not in the drive, or whose content is not
// here: reading it would wait for peers.
func (t *thing) readable(ctx context.Context, d *hyperdrive.Drive, name string) error {
	if _, err := d.Entry(ctx, name); err != nil {
		return t.noFile(name, err)
	}
	here, err := d.Has(ctx, name)
	if err == nil && !here {
		err = t.partly("the content of " + name + " is not here")
	}
	return err
}

func (t *thing) noFile(name string, err error) error {
	if !errors.Is(err, cloudpal.NotExist) {
		return err
	}
	return cloudpal.E(fmt.Sprintf("find %s in %s", name, t.ref), cloudpal.NotExist, nil).
		WithHint("cloudpal drive ls NAME shows the files that it has")
}

// file is what --json shows of an entry.
type file struct {
	Path       string `json:"path"`
	Bytes      uint64 `json:"bytes"`
	Executable bool   `json:"executable,omitempty"`
	Link       string `json:"link,omitempty"`
	Folder     bool   `json:"folder,omitempty"`
	Seq        uint64 `json:"seq,omitempty"` // the block that has it
	Deleted    bool   `json:"deleted,omitempty"`
}

func fileOf(e hyperdrive.Entry) file {
	f := file{Path: e.Name, Executable: e.Executable, Link: e.Linkname, Seq: e.Seq}
	if e.Blob != nil {
		f.Bytes = e.Blob.ByteLength
	}
	return f
}

// row is the entry for a person.
func (f file) row() []string {
	kind := "-"
	switch {
	case f.Folder:
		return []string{"d", "-", f.Path + "/"}
	case f.Link != "":
		return []string{"l", "-", f.Path + " -> " + f.Link}
	case f.Executable:
		kind = "x"
	}
	return []string{kind, formatSize(int64(f.Bytes)), f.Path}
}
