package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/hyperdrive"
	"github.com/tradle/cloudpal/data/manifest"
)

// drive opens the drive that a thing is. Close it.
func (t *thing) drive() (*hyperdrive.Drive, error) {
	return hyperdrive.Open(t.store, t.core.Key(), hyperdrive.Options{EncryptionKey: t.secret})
}

// cores returns all cores that a thing is made of, until done is called. Of a
// drive that was never here it waits for a peer.
func (t *thing) cores(ctx context.Context) (all []*hypercore.Core, done func(), err error) {
	if t.kind != driveKind {
		return []*hypercore.Core{t.core}, func() {}, nil
	}
	d, err := t.drive()
	if err != nil {
		return nil, nil, err
	}
	content, err := d.Content(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	return []*hypercore.Core{t.core, content}, func() { d.Close() }, nil
}

// contentKey returns the key of the core that has a drive's content.
func (t *thing) contentKey(ctx context.Context) ([]manifest.Key, error) {
	if err := t.whole(); err != nil {
		return nil, err
	}
	cores, done, err := t.cores(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return []manifest.Key{cores[1].Key()}, nil
}

// driveOf makes the drive of a folder, or finds the one that there is.
func (c *cli) driveOf(s *corestore.Store, path string) (*thing, error) {
	if err := mustBeFolder(path); err != nil {
		return nil, err
	}
	name, err := folderName(path)
	if err != nil {
		return nil, err
	}
	key, found, err := driveKind.names(s).Lookup(name)
	if err != nil {
		return nil, err
	}
	var t *thing
	if found {
		t, err = open(driveKind, s, key)
	} else {
		t, err = create(driveKind, s, name, false)
	}
	if err != nil {
		return nil, err
	}
	t.ref = path
	return t, nil
}

func mustBeFolder(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cloudpal.E("open the folder "+path, cloudpal.NotExist, nil).WithHint("check the path; cloudpal drive ls shows the drives that you have")
	case errors.Is(err, fs.ErrPermission):
		return cloudpal.E("open the folder "+path, cloudpal.Denied, err).WithHint("make it yours to read")
	case err != nil:
		return cloudpal.E("open the folder "+path, "", err)
	case !info.IsDir():
		return cloudpal.E("open the folder "+path, cloudpal.Invalid, errors.New("it is no folder")).
			WithHint("cloudpal drive put NAME FILE puts a file into a drive")
	}
	return nil
}

// takeIn makes what is at a place of a drive equal to a folder, but for what is
// to be left as it is. Without such it is a person's wish, and shows how far it
// is.
func (c *cli) takeIn(ctx context.Context, d *hyperdrive.Drive, at, path string, leave func(string) bool) (sum hyperdrive.Summary, err error) {
	from, err := hyperdrive.OpenFolder(path)
	if err != nil {
		return sum, err
	}
	defer from.Close()
	skip, b, total := c.notTheStore(path), new(bar), int64(0)
	ignore := func(name string) bool { return skip != nil && skip(name) || leave != nil && leave(name) }
	if leave == nil {
		total = folderSize(path)
		b = c.progress(ctx, "taking in", total, bytesOf)
	}
	return c.mirror(ctx, from, d, b, total, hyperdrive.MirrorOptions{To: at, Ignore: ignore})
}

// notTheStore keeps a store that is in a folder out of the drive of that folder.
func (c *cli) notTheStore(path string) func(string) bool {
	dir, err := c.storeDir()
	if err != nil {
		return nil
	}
	base, err := folderName(path)
	if err != nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	rel, err := filepath.Rel(base, dir)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return nil
	}
	return hyperdrive.Below(filepath.ToSlash(rel))
}

// folderSize adds up a folder's files, as far as they can be seen.
func folderSize(path string) (n int64) {
	filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

// mirror runs a mirror with a bar, and says what was left out.
func (c *cli) mirror(ctx context.Context, from, to hyperdrive.Side, b *bar, total int64, o hyperdrive.MirrorOptions) (hyperdrive.Summary, error) {
	var done, part int64
	o.Progress = func(e hyperdrive.Event) {
		switch e.Op {
		case hyperdrive.Copying:
			part = e.BytesAdded
		case hyperdrive.Skipped:
			c.say("left out %s: %v", e.Name, e.Reason)
		case hyperdrive.Removed:
		default:
			done, part = done+e.Size, 0
		}
		b.set(done+part, total)
	}
	sum, err := hyperdrive.Mirror(ctx, from, to, o)
	b.end()
	return sum, err
}

func bytesOf(s decor.Statistics) string {
	return formatSize(s.Current) + " of " + formatSize(s.Total)
}
