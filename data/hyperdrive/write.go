package hyperdrive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperblobs"
)

// An Attr is what a file has besides its content.
type Attr struct {
	Executable bool
	Metadata   json.RawMessage // anything, as JSON; nil for none
}

// Put sets a file's content.
func (d *Drive) Put(ctx context.Context, name string, data []byte, a Attr) error {
	return d.one(ctx, func(b *Batch) error { return b.Put(ctx, name, data, a) })
}

// PutEntry sets what is known of a name, with a Blob that is there already, or
// none. It is how a file is copied or renamed without copying its content.
func (d *Drive) PutEntry(ctx context.Context, name string, e Entry) error {
	return d.one(ctx, func(b *Batch) error { return b.PutEntry(name, e) })
}

// Symlink sets a link to another name, of which nothing needs to be there.
func (d *Drive) Symlink(ctx context.Context, name, target string) error {
	return d.one(ctx, func(b *Batch) error { return b.Symlink(name, target) })
}

// Delete removes a name. One that is not there is no error. The content stays,
// for old versions, until Reclaim.
func (d *Drive) Delete(ctx context.Context, name string) error {
	return d.one(ctx, func(b *Batch) error { return b.Delete(name) })
}

func (d *Drive) one(ctx context.Context, do func(*Batch) error) error {
	b := d.Batch()
	defer b.Cancel()
	if err := do(b); err != nil {
		return err
	}
	return b.Flush(ctx)
}

// maxHeld is how much content of small files a batch holds until it appends
// it: 4 MiB, in one step.
const (
	maxHeld  = 4 << 20
	maxSmall = 16 * hyperblobs.BlockSize // a file that is larger is written by itself
)

// A Batch is a set of changes that Flush makes one version of: after a crash
// all are there, or none. Of the content it holds at most some MiB, and appends
// what is more before Flush, to where no name leads yet. It is for one
// goroutine; others may change the drive meanwhile.
type Batch struct {
	drive   *Drive
	changes []change
	held    []byte   // content of small files
	small   [][]byte // parts of held
	waiting []int    // the changes that they belong to
	hold    *hold
	written []hyperblobs.ID // content that is of no use if the batch is cancelled
}

type change struct {
	name   string
	entry  Entry
	delete bool
}

// Batch returns an empty batch. Flush or Cancel it.
func (d *Drive) Batch() *Batch { return &Batch{drive: d} }

// Len returns how many changes Flush will make.
func (b *Batch) Len() int { return len(b.changes) }

// Put sets a file's content. data may be used again.
func (b *Batch) Put(ctx context.Context, name string, data []byte, a Attr) error {
	clean, err := b.check(name)
	if err != nil {
		return err
	}
	if len(data) > maxSmall {
		blobs, err := b.begin(ctx)
		if err != nil {
			return err
		}
		id, err := blobs.Put(ctx, data)
		if err != nil {
			return err
		}
		return b.wrote(clean, id, a)
	}
	if err := b.room(ctx, len(data)); err != nil {
		return err
	}
	b.add(clean, append(b.held, data...), a)
	return nil
}

// ReadFrom sets a file's content to what r has, of any length, and returns
// that length.
func (b *Batch) ReadFrom(ctx context.Context, name string, r io.Reader, a Attr) (int64, error) {
	clean, err := b.check(name)
	if err != nil {
		return 0, err
	}
	if err := b.room(ctx, maxSmall+1); err != nil {
		return 0, err
	}
	data, err := readInto(b.held, r, maxSmall)
	switch {
	case err == io.EOF:
		n := len(data) - len(b.held)
		b.add(clean, data, a)
		return int64(n), nil
	case err != nil:
		return 0, cloudpal.E("read a file", "", err)
	}
	read := data[len(b.held):]
	b.held = data[:len(b.held)] // which may have grown
	return b.large(ctx, clean, io.MultiReader(bytes.NewReader(read), r), a)
}

// readInto appends what r has to buf, until that is more than limit, and
// returns io.EOF where it is not.
func readInto(buf []byte, r io.Reader, limit int) ([]byte, error) {
	end := len(buf) + limit
	for len(buf) <= end {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):min(cap(buf), end+1)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// large writes a file that is not small.
func (b *Batch) large(ctx context.Context, clean string, r io.Reader, a Attr) (int64, error) {
	blobs, err := b.begin(ctx)
	if err != nil {
		return 0, err
	}
	w := blobs.NewWriter(ctx, hyperblobs.Options{})
	defer w.Cancel()
	if _, err := w.ReadFrom(r); err != nil {
		return 0, cloudpal.E("write a file", "", err)
	}
	if err := w.Close(); err != nil {
		return 0, err
	}
	return w.Size(), b.wrote(clean, w.ID(), a)
}

// check returns a name as the drive has it, if the drive can be changed.
func (b *Batch) check(name string) (string, error) {
	if !b.drive.Writable() {
		return "", cloudpal.E("change a drive", cloudpal.Denied, errors.New("it is somebody else's, or an old version"))
	}
	return cleanName(name)
}

// room sees to it that n more bytes can be held.
func (b *Batch) room(ctx context.Context, n int) error {
	if len(b.held)+n <= maxHeld {
		return nil
	}
	return b.appendHeld(ctx)
}

// add notes a small file, whose content is what held has more than before.
func (b *Batch) add(clean string, held []byte, a Attr) {
	b.small = append(b.small, held[len(b.held):])
	b.waiting = append(b.waiting, len(b.changes))
	b.held = held
	b.changes = append(b.changes, change{name: clean, entry: Entry{Executable: a.Executable, Metadata: a.Metadata}})
}

// wrote notes a file whose content is appended.
func (b *Batch) wrote(clean string, id hyperblobs.ID, a Attr) error {
	b.written = append(b.written, id)
	b.changes = append(b.changes, change{name: clean, entry: Entry{Executable: a.Executable, Metadata: a.Metadata, Blob: &id}})
	return nil
}

// begin returns the blobs, of which those that come now are kept.
func (b *Batch) begin(ctx context.Context) (*hyperblobs.Blobs, error) {
	blobs, err := b.drive.content.blobs(ctx)
	if err == nil && b.hold == nil {
		b.hold = b.drive.content.hold(b.drive.content.core.Length())
	}
	return blobs, err
}

// appendHeld appends the content that is held, of all files at once.
func (b *Batch) appendHeld(ctx context.Context) error {
	if len(b.small) == 0 {
		return nil
	}
	blobs, err := b.begin(ctx)
	if err != nil {
		return err
	}
	ids, err := blobs.PutAll(ctx, b.small...)
	if err != nil {
		return err
	}
	for i := range ids {
		b.changes[b.waiting[i]].entry.Blob = &ids[i]
	}
	b.written = append(b.written, ids...)
	b.held, b.small, b.waiting = b.held[:0], b.small[:0], b.waiting[:0]
	return nil
}

// PutEntry sets what is known of a name. Its Name and Seq do not count.
func (b *Batch) PutEntry(name string, e Entry) error {
	clean, err := b.check(name)
	if err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return err
	}
	b.changes = append(b.changes, change{name: clean, entry: e})
	return nil
}

// check refuses what no reader should have to make sense of.
func (e *Entry) check() error {
	switch {
	case e.Blob != nil && e.IsLink():
		return cloudpal.E("set an entry", cloudpal.Invalid, errors.New("a link has no content"))
	case e.Blob != nil:
		return e.Blob.Check()
	case len(e.Linkname) > MaxName || !utf8.ValidString(e.Linkname) || strings.ContainsRune(e.Linkname, 0):
		return badName("what a link leads to is too long, or not UTF-8, or has a zero byte")
	}
	return nil
}

// Symlink sets a link to another name.
func (b *Batch) Symlink(name, target string) error {
	if target == "" {
		return badName("a link leads to something")
	}
	return b.PutEntry(name, Entry{Linkname: target})
}

// Delete removes a name.
func (b *Batch) Delete(name string) error {
	clean, err := b.check(name)
	if err == nil {
		b.changes = append(b.changes, change{name: clean, delete: true})
	}
	return err
}

// Flush makes all changes, in their order. The batch is empty afterwards, also
// when that failed.
func (b *Batch) Flush(ctx context.Context) error {
	defer b.Cancel()
	if len(b.changes) == 0 {
		return nil
	}
	if err := b.appendHeld(ctx); err != nil {
		return err
	}
	if err := b.apply(ctx); err != nil {
		return cloudpal.E("change a drive", "", err)
	}
	return nil
}

func (b *Batch) apply(ctx context.Context) error {
	names := b.drive.files.Batch()
	defer names.Close()
	var value []byte
	for i := range b.changes {
		c := &b.changes[i]
		if c.delete {
			if err := names.Delete(ctx, []byte(c.name)); err != nil {
				return err
			}
			continue
		}
		var err error
		if value, err = appendEntry(value[:0], &c.entry); err != nil {
			return err
		}
		if err := names.Put(ctx, []byte(c.name), value); err != nil {
			return err
		}
	}
	b.written = nil // names lead there now, or may, if this fails
	return names.Flush()
}

// Cancel forgets all changes, and the content that was written for them. It
// does nothing after Flush.
func (b *Batch) Cancel() {
	for _, id := range b.written {
		_ = b.drive.content.found.Load().Clear(context.Background(), id) // it only takes room
	}
	if b.hold != nil {
		b.drive.content.release(b.hold)
	}
	*b = Batch{drive: b.drive, held: b.held[:0]}
}

// WriterOptions say how a file is written by a Writer.
type WriterOptions struct {
	Attr
	// Shared lets others write at the same time as this one, as long as it
	// takes: a large file is kept with a list of its blocks. Otherwise, writers
	// of more than 1 MiB wait for each other.
	Shared bool
	// Deduplicate writes each block once that the file, or the one before of
	// that name, has more than once.
	Deduplicate bool
}

// A Writer writes a file's content. The file is as it was until Close returns;
// Cancel leaves it so. One of both must be called. It holds about 1 MiB.
type Writer struct {
	*hyperblobs.Writer
	ctx   context.Context // of the write
	drive *Drive
	name  string
	attr  Attr
	hold  *hold
}

// Writer returns a Writer for a file; ctx ends all its waiting.
func (d *Drive) Writer(ctx context.Context, name string, o WriterOptions) (*Writer, error) {
	b := d.Batch()
	clean, err := b.check(name)
	if err != nil {
		return nil, err
	}
	blobs, err := b.begin(ctx)
	if err != nil {
		return nil, err
	}
	options := hyperblobs.Options{Shared: o.Shared, Deduplicate: o.Deduplicate}
	if o.Deduplicate {
		b.hold.from = 0 // any block may be used again
		if e, err := d.entry(ctx, clean); err == nil {
			options.Like = e.Blob
		}
	}
	return &Writer{Writer: blobs.NewWriter(ctx, options), ctx: ctx, drive: d, name: clean, attr: o.Attr, hold: b.hold}, nil
}

// Close ends the content, and makes it the file's.
func (w *Writer) Close() error {
	id, release, err := w.Finish()
	if err != nil {
		return err
	}
	defer release()
	return w.drive.PutEntry(w.ctx, w.name, Entry{Executable: w.attr.Executable, Metadata: w.attr.Metadata, Blob: &id})
}

// Finish ends the content, and makes it no file's: the caller puts it where it
// belongs, and then calls release, until when Reclaim leaves it alone.
func (w *Writer) Finish() (id hyperblobs.ID, release func(), err error) {
	if err := w.Writer.Close(); err != nil {
		w.release()
		return id, nil, err
	}
	return w.ID(), w.release, nil
}

// Cancel gives the content up.
func (w *Writer) Cancel() {
	w.Writer.Cancel()
	w.release()
}

func (w *Writer) release() { w.drive.content.release(w.hold) }
