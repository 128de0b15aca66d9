package hyperdrive

import (
	"context"
	"iter"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperbee"
)

// A Change is a name of which two versions do not have the same entry; one of
// them may have none, which is nil. Entries that were written again differ,
// even if they say the same.
type Change struct {
	Name        string
	Now, Before *Entry
}

// Diff yields what has changed below a folder since an older version. It reads
// only what differs.
func (d *Drive) Diff(ctx context.Context, since uint64, folder string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		before := d.Checkout(since)
		defer before.Close()
		d.diff(ctx, before, folder, yield)
	}
}

func (d *Drive) diff(ctx context.Context, before *Drive, folder string, yield func(Change, error) bool) {
	clean, err := cleanFolder(folder)
	if err != nil {
		yield(Change{}, err)
		return
	}
	for pair, err := range d.files.Diff(ctx, before.files, below(clean)) {
		c, err := newChange(pair, err)
		if err == nil && !isClean(c.Name) {
			continue
		}
		if !yield(c, err) || err != nil {
			return
		}
	}
}

func newChange(pair hyperbee.Difference, err error) (c Change, _ error) {
	if err != nil {
		return c, cloudpal.E("compare two versions", "", err)
	}
	if c.Now, err = optionalEntry(pair.Left); err != nil {
		return c, err
	}
	if c.Before, err = optionalEntry(pair.Right); err != nil {
		return c, err
	}
	if c.Now != nil {
		c.Name = c.Now.Name
	} else {
		c.Name = c.Before.Name
	}
	return c, nil
}

// optionalEntry returns nil for no entry.
func optionalEntry(found hyperbee.Entry) (*Entry, error) {
	if found.Seq == 0 {
		return nil, nil
	}
	e, err := newEntry(found)
	return &e, err
}

// An Operation is one step of a drive's history.
type Operation struct {
	Entry
	Deleted bool
}

// History yields the changes of a drive in the order in which they were made,
// from a block of its database on: 0 is the first. Reverse begins with the
// newest.
func (d *Drive) History(ctx context.Context, since uint64, reverse bool) iter.Seq2[Operation, error] {
	return func(yield func(Operation, error) bool) {
		for op, err := range d.files.History(ctx, hyperbee.Span{Since: since, Reverse: reverse}) {
			o := Operation{Deleted: op.Deleted}
			switch {
			case err != nil:
				err = cloudpal.E("read the history", "", err)
			case !isClean(string(op.Key)):
				continue
			case op.Deleted:
				o.Entry = Entry{Name: string(op.Key), Seq: op.Seq}
			default:
				o.Entry, err = newEntry(op.Entry)
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

// A Watched is what Watch saw: the version before and the one now. Both are
// closed when the watcher asks for the next.
type Watched struct{ Before, Now *Drive }

// Changes yields what differs between the two below a folder.
func (w Watched) Changes(ctx context.Context, folder string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) { w.Now.diff(ctx, w.Before, folder, yield) }
}

// Watch yields whenever something below a folder has changed, here or by a
// peer, until ctx ends. Changes that come faster than they are taken come as
// one.
func (d *Drive) Watch(ctx context.Context, folder string) iter.Seq2[Watched, error] {
	return func(yield func(Watched, error) bool) {
		clean, err := cleanFolder(folder)
		if err != nil {
			yield(Watched{}, err)
			return
		}
		for c, err := range d.bee.Watch(ctx, inFiles(below(clean))) {
			if err != nil {
				yield(Watched{}, cloudpal.E("watch a folder", "", err))
				return
			}
			if !yield(Watched{d.at(c.Previous), d.at(c.Current)}, nil) {
				return
			}
		}
	}
}

// inFiles returns a range of names as one of the database's keys.
func inFiles(r hyperbee.Range) hyperbee.Range {
	const prefix = "files\x00"
	return hyperbee.Range{GT: append([]byte(prefix), r.GT...), LT: append([]byte(prefix), r.LT...)}
}
