package hyperdrive

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/hyperblobs"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// Clear forgets a file's content here, to free its room. It can be had from
// peers again, who keep theirs; where there are none, it is gone. Files that
// share the content, as renamed versions do, lose it as well.
func (d *Drive) Clear(ctx context.Context, name string) error {
	id, blobs, err := d.find(ctx, name)
	if err != nil {
		return err
	}
	return blobs.Clear(ctx, id)
}

// ClearAll forgets all content here.
func (d *Drive) ClearAll(ctx context.Context) error {
	if _, err := d.content.blobs(ctx); err != nil {
		return err
	}
	return d.content.core.Clear(0, d.content.settled())
}

// Reclaim forgets the content here that no version from since on has. Older
// versions still have their names, and content only as far as later ones share
// it or peers have it. What is being written meanwhile is kept.
func (d *Drive) Reclaim(ctx context.Context, since uint64) error {
	blobs, err := d.content.blobs(ctx)
	if err != nil {
		return err
	}
	end := d.content.settled() // before the names are read: what is settled now has its name already
	used, err := d.used(ctx, blobs, since)
	if err != nil {
		return cloudpal.E("reclaim room", "", err)
	}
	var from uint64
	for _, s := range append(used, hyperblobs.Span{Start: end, End: end}) {
		if to := min(s.Start, end); to > from {
			if err := d.content.core.Clear(from, to); err != nil {
				return cloudpal.E("reclaim room", "", err)
			}
		}
		from = max(from, s.End)
	}
	return nil
}

// used returns the content that versions from since on have.
func (d *Drive) used(ctx context.Context, blobs *hyperblobs.Blobs, since uint64) ([]hyperblobs.Span, error) {
	now := d.Snapshot()
	defer now.Close()
	had, err := now.replay(ctx, since)
	if err != nil {
		return nil, err
	}
	var spans []hyperblobs.Span
	for _, id := range slices.AppendSeq(had.later, maps.Values(had.live)) {
		more, err := blobs.Spans(ctx, id)
		if err != nil {
			return nil, err
		}
		spans = append(spans, more...)
	}
	return merge(spans), nil
}

// A past is the content that the names of a drive had.
type past struct {
	live  map[string]hyperblobs.ID // at a version
	end   uint64                   // of all content until that version
	later []hyperblobs.ID          // since
}

// replay goes through the drive's history. The tree of the version is not
// asked: within a batch it is not all there.
func (d *Drive) replay(ctx context.Context, version uint64) (past, error) {
	had := past{live: map[string]hyperblobs.ID{}}
	for op, err := range d.files.History(ctx, hyperbee.Span{}) {
		var e Entry
		if err == nil && !op.Deleted {
			err = decodeEntry(op.Value, &e)
		}
		switch {
		case err != nil:
			return past{}, err
		case op.Seq < version:
			delete(had.live, string(op.Key))
			if e.Blob != nil {
				had.live[string(op.Key)] = *e.Blob
				had.end = max(had.end, e.Blob.End())
			}
		case e.Blob != nil:
			had.later = append(had.later, *e.Blob)
		}
	}
	return had, nil
}

// merge orders spans and joins those that meet.
func merge(spans []hyperblobs.Span) []hyperblobs.Span {
	slices.SortFunc(spans, func(a, b hyperblobs.Span) int { return cmp.Compare(a.Start, b.Start) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.Start <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, s.End)
			continue
		}
		out = append(out, s)
	}
	return out
}

// Truncate makes the drive what it was at a version, for good: peers that are
// told forget the later versions, too. It is refused while files are written,
// and for what is no version, because it is within a batch.
func (d *Drive) Truncate(ctx context.Context, version uint64) error {
	if !d.Writable() || version > d.db.Length() {
		return cloudpal.E("truncate a drive", cloudpal.Invalid, errors.New("it cannot be written here, or never had that version"))
	}
	if _, err := d.content.blobs(ctx); err != nil {
		return err
	}
	length, err := d.contentLength(ctx, version)
	if err != nil {
		return cloudpal.E("truncate a drive", "", err)
	}
	if d.content.settled() < d.content.core.Length() {
		return cloudpal.E("truncate a drive", cloudpal.Busy, errors.New("a file is being written"))
	}
	if err := d.db.Truncate(version); err != nil {
		return err
	}
	if length >= d.content.core.Length() {
		return nil
	}
	return d.content.core.Truncate(length)
}

// contentLength returns how long the log of content must be for a version and
// those before it. (The original counts that version alone: what is written
// next then takes the place of what older versions had.)
func (d *Drive) contentLength(ctx context.Context, version uint64) (uint64, error) {
	had, err := d.replay(ctx, version)
	if err != nil {
		return 0, err
	}
	old := d.Checkout(version)
	defer old.Close()
	for found, err := range old.files.Range(ctx, hyperbee.Range{}) {
		var e Entry
		if err == nil {
			err = decodeEntry(found.Value, &e)
		}
		if errors.Is(err, cloudpal.Corrupt) {
			return 0, cloudpal.E("", cloudpal.Invalid, errors.Join(errWithinBatch, err))
		}
		if err != nil {
			return 0, err
		}
		if e.Blob == nil {
			continue
		}
		if had.live[string(found.Key)] != *e.Blob {
			return 0, errWithinBatch
		}
		delete(had.live, string(found.Key))
	}
	if len(had.live) > 0 {
		return 0, errWithinBatch
	}
	return had.end, nil
}

var errWithinBatch = cloudpal.E("", cloudpal.Invalid, errors.New("the version is within a batch"))

// Purge closes the drive and removes all of it from the store. Where it is not
// known yet where the content is, because no peer has told, there is none.
func (d *Drive) Purge(ctx context.Context) error {
	if d.old {
		return cloudpal.E("purge a drive", cloudpal.Invalid, errors.New("it is only an old version of one"))
	}
	keys := []manifest.Key{d.Key()}
	if d.db.Length() > 0 || d.db.Writable() {
		core, err := d.Content(ctx)
		if err != nil {
			return err
		}
		keys = append(keys, core.Key())
	}
	if err := d.Close(); err != nil {
		return err
	}
	for _, key := range keys {
		if err := d.content.store.Purge(key); err != nil {
			return cloudpal.E("purge a drive", "", err)
		}
	}
	return nil
}

// Has tells whether all content of a file, or of all files below a folder, is
// here. The names are waited for until ctx ends.
func (d *Drive) Has(ctx context.Context, name string) (bool, error) {
	spans, err := d.spans(ctx, name)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(spans, func(s hyperblobs.Span) bool { return !d.content.core.HasAll(s.Start, s.End) }), nil
}

// Download fetches all content of a file, or of all files below a folder, and
// returns when it is here, or when ctx ends.
func (d *Drive) Download(ctx context.Context, name string) error {
	spans, err := d.spans(ctx, name)
	if err != nil {
		return err
	}
	return d.fetchSpans(ctx, spans)
}

// spans returns the content of a file, or of all that is below a folder.
func (d *Drive) spans(ctx context.Context, name string) (spans []hyperblobs.Span, err error) {
	blobs, err := d.content.blobs(ctx)
	if err != nil {
		return nil, err
	}
	clean, err := cleanFolder(name)
	if err != nil {
		return nil, err
	}
	for it, err := range d.items(ctx, clean, func(string) bool { return false }) {
		if err != nil {
			return nil, err
		}
		if it.Blob == nil {
			continue
		}
		more, err := blobs.Spans(ctx, *it.Blob)
		if err != nil {
			return nil, err
		}
		spans = append(spans, more...)
	}
	return merge(spans), nil
}

// atOnce is how many parts of a drive are asked for at the same time.
const atOnce = 8

// fetchSpans returns when all spans are here.
func (d *Drive) fetchSpans(ctx context.Context, spans []hyperblobs.Span) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	log := d.content.core
	work := make(chan hyperblobs.Span)
	var all sync.WaitGroup
	for range min(atOnce, len(spans)) {
		all.Go(func() {
			for s := range work {
				if err := log.Download(ctx, hypercore.Range{Start: s.Start, End: s.End}); err != nil {
					stop(err)
				}
			}
		})
	}
	for _, s := range spans {
		if ctx.Err() == nil && !log.HasAll(s.Start, s.End) {
			work <- s
		}
	}
	close(work)
	all.Wait()
	return context.Cause(ctx)
}
