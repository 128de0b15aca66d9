package main

import (
	"context"
	"hash/maphash"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/tradle/cloudpal/data/hyperdrive"
)

const (
	followPause = 2 * time.Second // between two looks at a folder, and
	followShare = 20              // this many times as long as a look takes: looking is a small part of a processor
	unsettled   = 2 * time.Second // what is younger may change again within one tick of the file system's clock
)

// A follower brings into a drive what changes in its folder, while that is
// served. It looks, rather than being told: what tells of changes sees none on
// network file systems, and costs a watch for each folder.
type follower struct {
	c     *cli
	t     *thing
	path  string
	drive *hyperdrive.Drive
	seen  stamps
	seed  maphash.Seed
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// stamps have, by the hash of each file's name, the hash of what tells that it
// is another than before, or 0 where nothing does yet.
type stamps map[uint64]uint64

// begin takes in the folder as it is, and follows it until end is called.
func (f *follower) begin(ctx context.Context) (err error) {
	if f.drive, err = f.t.drive(); err != nil {
		return err
	}
	f.seed = maphash.MakeSeed()
	seen, _ := f.look() // before the files are read
	if _, err := f.c.takeIn(ctx, f.drive, "", f.path, nil); err != nil {
		f.drive.Close()
		return err
	}
	f.seen = seen
	ctx, f.stop = context.WithCancel(ctx)
	f.done.Go(func() { f.follow(ctx) })
	return nil
}

func (f *follower) end() {
	f.stop()
	f.done.Wait()
	f.drive.Close()
}

func (f *follower) follow(ctx context.Context) {
	var trouble string
	for wait := followPause; ; {
		pause(ctx, wait)
		if ctx.Err() != nil {
			return
		}
		begun := time.Now()
		err := f.takeChanges(ctx)
		wait = max(followPause, followShare*time.Since(begun))
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			trouble = ""
		case err.Error() != trouble: // said once
			trouble = err.Error()
			f.c.say("%v; what was there before is still served", err)
		}
	}
}

// takeChanges looks at the folder, and takes in what is not as it was seen.
func (f *follower) takeChanges(ctx context.Context) error {
	if err := mustBeFolder(f.path); err != nil {
		return err // one that is gone, as where a disk was unplugged, has not lost its files
	}
	now, err := f.look()
	if err != nil || !f.differs(now) {
		return err
	}
	sum, err := f.c.takeIn(ctx, f.drive, "", f.path, func(name string) bool { return f.settled(now, name) })
	if err != nil {
		return err
	}
	f.seen = now
	if sum.Added+sum.Changed+sum.Removed > 0 {
		f.c.say("%s: %d new, %d changed, %d removed; version %d", f.path, sum.Added, sum.Changed, sum.Removed, f.drive.Version())
	}
	return nil
}

// settled tells whether a name is a file's that is as it was seen.
func (f *follower) settled(now stamps, name string) bool {
	h := maphash.String(f.seed, name)
	stamp := now[h]
	return stamp != 0 && stamp == f.seen[h]
}

func (f *follower) differs(now stamps) bool {
	if len(now) != len(f.seen) {
		return true
	}
	for h, stamp := range now {
		if stamp == 0 || stamp != f.seen[h] {
			return true
		}
	}
	return false
}

// look notes what the folder's files look like from outside.
func (f *follower) look() (stamps, error) {
	begun := time.Now()
	now := make(stamps, len(f.seen))
	base, err := folderName(f.path)
	if err != nil {
		return now, err
	}
	skip := f.c.notTheStore(f.path)
	err = filepath.WalkDir(base, func(path string, e fs.DirEntry, err error) error {
		if err != nil && path == base {
			return err
		}
		name := filepath.ToSlash(path[len(base):])
		switch {
		case err != nil:
			return nil // the mirror says so
		case skip != nil && name != "" && skip(name):
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil // it went away
		}
		stamp, changed := uint64(0), changeTime(info)
		if begun.Sub(changed).Abs() > unsettled {
			stamp = maphash.Comparable(f.seed, [4]int64{info.Size(), info.ModTime().UnixNano(), changed.UnixNano(), int64(info.Mode())})
		}
		now[maphash.String(f.seed, name)] = stamp
		return nil
	})
	return now, err
}
