package hyperdrive

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperblobs"
)

// What makes a Drive a Side of a mirror.

// items yields the entry of a name and those below it, as items.
func (d *Drive) items(ctx context.Context, prefix string, ignore func(string) bool) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		s := d.Snapshot()
		defer s.Close()
		if prefix != "" && !ignore(prefix) {
			e, err := s.entry(ctx, prefix)
			if err == nil && !yield(item{Entry: e}, nil) {
				return
			}
			if err != nil && !errors.Is(err, cloudpal.NotExist) {
				yield(item{}, err)
				return
			}
		}
		s.list(ctx, below(prefix), func(e Entry, err error) bool {
			if err == nil && ignored(ignore, e.Name) {
				return true
			}
			return yield(item{Entry: e}, err)
		})
	}
}

// ignored asks about a name and the folders that it is in.
func ignored(ignore func(string) bool, name string) bool {
	for ; name != "/"; name = folderOf(name) {
		if ignore(name) {
			return true
		}
	}
	return false
}

func (d *Drive) size(ctx context.Context, e Entry) (int64, error) { return d.Size(ctx, e) }

func (d *Drive) open(ctx context.Context, e Entry) (io.ReadCloser, error) {
	return d.EntryReader(ctx, e)
}

func (d *Drive) hasFolder(ctx context.Context, name string) (bool, error) {
	n, err := d.look(ctx, name)
	if errors.Is(err, cloudpal.NotExist) {
		return false, nil
	}
	return n.folder, err
}

func (d *Drive) is() traits { return traits{metadata: true} }

// aheadFiles is of how many files the content is asked for at once.
const aheadFiles = 1024

// fetch downloads the content of all items, some hundred files ahead of
// whoever reads them, where not all of it is here.
func (d *Drive) fetch(ctx context.Context, prefix string, ignore func(string) bool) (stop func()) {
	if b := d.content.found.Load(); b != nil && d.content.core.HasAll(0, d.content.core.Length()) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.fetchItems(ctx, prefix, ignore) // the reader asks itself for what it needs, and finds out why
	}()
	return func() {
		cancel()
		<-done
	}
}

func (d *Drive) fetchItems(ctx context.Context, prefix string, ignore func(string) bool) error {
	blobs, err := d.content.blobs(ctx)
	if err != nil {
		return err
	}
	var spans []hyperblobs.Span
	for it, err := range d.items(ctx, prefix, ignore) {
		if err != nil {
			return err
		}
		if it.Blob == nil {
			continue
		}
		more, err := blobs.Spans(ctx, *it.Blob)
		if err != nil {
			return err
		}
		if spans = append(spans, more...); len(spans) >= aheadFiles {
			if err := d.fetchSpans(ctx, merge(spans)); err != nil {
				return err
			}
			spans = spans[:0]
		}
	}
	return d.fetchSpans(ctx, merge(spans))
}

// maxChanges is how many files a mirror makes one version of.
const maxChanges = 8192

// A driveSink writes into a drive, in batches.
type driveSink struct {
	drive *Drive
	batch *Batch
}

func (d *Drive) sink(context.Context) (sink, error) {
	if !d.Writable() {
		return nil, cloudpal.E("mirror into a drive", cloudpal.Denied, errors.New("it is somebody else's, or an old version"))
	}
	return &driveSink{d, d.Batch()}, nil
}

func (s *driveSink) put(ctx context.Context, e Entry, content io.Reader) (int64, error) {
	n, err := s.batch.ReadFrom(ctx, e.Name, content, Attr{Executable: e.Executable, Metadata: e.Metadata})
	if err != nil {
		return n, err
	}
	return n, s.full(ctx)
}

func (s *driveSink) link(ctx context.Context, e Entry) error { return s.entry(ctx, e) }

func (s *driveSink) meta(ctx context.Context, e, old Entry) error {
	e.Blob = old.Blob
	return s.entry(ctx, e)
}

func (s *driveSink) entry(ctx context.Context, e Entry) error {
	if err := s.batch.PutEntry(e.Name, e); err != nil {
		return &skipped{err}
	}
	return s.full(ctx)
}

func (s *driveSink) remove(ctx context.Context, e Entry) error {
	if err := s.batch.Delete(e.Name); err != nil {
		return err
	}
	return s.full(ctx)
}

// full flushes a batch that is large enough.
func (s *driveSink) full(ctx context.Context) error {
	if s.batch.Len() < maxChanges {
		return nil
	}
	return s.batch.Flush(ctx)
}

func (s *driveSink) flush(ctx context.Context) error {
	if err := s.batch.Flush(ctx); err != nil {
		return err
	}
	return s.drive.Sync()
}

func (s *driveSink) cancel() { s.batch.Cancel() }
