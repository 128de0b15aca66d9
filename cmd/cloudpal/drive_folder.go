package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

// maxStep is how many files are put into a drive in one step.
const maxStep = 4096

// A putter puts a folder into a drive, at another place than in the folder: a
// mirror has the same names on both sides.
type putter struct {
	c     *cli
	drive *hyperdrive.Drive
	batch *hyperdrive.Batch
	base  string // of the folder
	at    string // in the drive
	skip  func(string) bool
	kept  map[string]bool // names in the drive that the folder has
}

// putFolder makes what is at a place of a drive equal to a folder.
func (c *cli) putFolder(ctx context.Context, d *hyperdrive.Drive, folder, at string) error {
	base, err := folderName(folder)
	if err != nil {
		return err
	}
	p := &putter{c: c, drive: d, batch: d.Batch(), base: base, at: at, skip: c.notTheStore(folder), kept: map[string]bool{}}
	defer func() { p.batch.Cancel() }()
	err = filepath.WalkDir(base, func(file string, e fs.DirEntry, err error) error {
		return p.visit(ctx, file, e, err)
	})
	if err == nil {
		err = p.prune(ctx)
	}
	if err != nil {
		return err
	}
	return p.batch.Flush(ctx)
}

func (p *putter) visit(ctx context.Context, file string, e fs.DirEntry, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	rel, relErr := filepath.Rel(p.base, file)
	if relErr != nil {
		return relErr
	}
	if err == nil && e.IsDir() {
		if p.skip != nil && p.skip("/"+filepath.ToSlash(rel)) {
			return fs.SkipDir
		}
		return nil
	}
	name := path.Join(p.at, filepath.ToSlash(rel))
	p.kept[name] = true // also what cannot be read: it is not gone
	if err == nil {
		err = p.put(ctx, file, name, e)
	}
	switch {
	case err == nil && p.batch.Len() >= maxStep:
		return p.batch.Flush(ctx)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, errOddFile):
		p.c.say("left out %s: %v", name, err)
		return nil
	}
	return err
}

var errOddFile = errors.New("it is neither file, link nor folder")

func (p *putter) put(ctx context.Context, file, name string, e fs.DirEntry) error {
	old, err := p.drive.Entry(ctx, name)
	if err != nil && !errors.Is(err, cloudpal.NotExist) {
		return err
	}
	had := err == nil
	switch {
	case e.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(file)
		if err != nil || had && old.Linkname == target {
			return err
		}
		return p.batch.Symlink(name, target)
	case !e.Type().IsRegular():
		return errOddFile
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a := hyperdrive.Attr{Executable: info.Mode()&0o111 != 0}
	if had && old.Executable == a.Executable && p.same(ctx, old, f, info.Size()) {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = p.batch.ReadFrom(ctx, name, f, a)
	return err
}

// same compares a file with what the drive has of it. Where that cannot be read
// they are not the same.
func (p *putter) same(ctx context.Context, old hyperdrive.Entry, f io.Reader, size int64) bool {
	if old.IsLink() || old.Blob == nil || old.Blob.BlockMap || int64(old.Blob.ByteLength) != size {
		return false
	}
	if here, err := p.drive.Has(ctx, old.Name); err != nil || !here {
		return false
	}
	r, err := p.drive.EntryReader(ctx, old)
	if err != nil {
		return false
	}
	defer r.Close()
	return sameBytes(r, f)
}

func sameBytes(a, b io.Reader) bool {
	var x, y [32 << 10]byte
	for {
		n, errA := io.ReadFull(a, x[:])
		m, errB := io.ReadFull(b, y[:])
		if !bytes.Equal(x[:n], y[:m]) || !atEnd(errA) || !atEnd(errB) {
			return false
		}
		if errA != nil || errB != nil {
			return true
		}
	}
}

func atEnd(err error) bool { return err == nil || err == io.EOF || err == io.ErrUnexpectedEOF }

// prune removes what the folder does not have.
func (p *putter) prune(ctx context.Context) error {
	for e, err := range p.drive.List(ctx, p.at) {
		if err != nil {
			return err
		}
		if p.kept[e.Name] {
			continue
		}
		if err := p.batch.Delete(e.Name); err != nil {
			return err
		}
	}
	return nil
}
