package hyperdrive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"reflect"
	"strings"

	"github.com/tradle/cloudpal"
)

// MirrorOptions say what a mirror takes over.
type MirrorOptions struct {
	// From and To are the folders, of the source and of the destination, from
	// which names are seen; "" is all of the side. What is outside of To is
	// neither looked at nor removed.
	From, To string
	// Prefix is the file, or the folder with all that is below it, that is
	// mirrored, seen from From and To; "" is everything.
	Prefix string
	// Keep leaves alone what only the destination has. Otherwise it is
	// removed.
	Keep bool
	// DryRun finds out what there is to do, and does nothing.
	DryRun bool
	// Ignore tells which names, of files and of folders with all that is below
	// them, are neither copied nor removed. See Below.
	Ignore func(name string) bool
	// Progress is told what is done, when it is done, and how far the copying
	// of large files is.
	Progress func(Event)
}

// Below returns an Ignore that ignores what has one of the names, or is below
// one.
func Below(names ...string) func(string) bool {
	return func(name string) bool {
		for _, n := range names {
			n = "/" + strings.Trim(n, "/")
			if rest, ok := strings.CutPrefix(name, n); ok && (rest == "" || rest[0] == '/') {
				return true
			}
		}
		return false
	}
}

// An Op is what a mirror did to a file.
type Op string

// The ops. Skipped files could not be mirrored: the other side cannot have
// them, or they could not be read.
const (
	Added   Op = "add"
	Changed Op = "change"
	Removed Op = "remove"
	Equal   Op = "equal"
	Skipped Op = "skip"
	Copying Op = "copy" // of a large file, so far
)

// An Event is one of a mirror's steps.
type Event struct {
	Op           Op
	Name         string
	BytesAdded   int64 // of the file; while it is being copied, so far
	BytesRemoved int64
	Size         int64 // of the source's file, where there is one that can be read
	Reason       error // why it was skipped
}

// A Summary counts what a mirror did.
type Summary struct {
	Files        int // that the source has, links among them
	Links        int
	Added        int
	Changed      int
	Removed      int
	Equal        int
	Skipped      int
	BytesAdded   int64
	BytesRemoved int64
}

// A Side is one of a mirror's two: a Drive or a Folder.
type Side interface {
	// items yields what is at and below a prefix, ordered by the bytes of names.
	items(ctx context.Context, prefix string, ignore func(string) bool) iter.Seq2[item, error]
	size(ctx context.Context, e Entry) (int64, error)
	open(ctx context.Context, e Entry) (io.ReadCloser, error)
	// fetch begins to download what items yields, until the returned function
	// is called.
	fetch(ctx context.Context, prefix string, ignore func(string) bool) (stop func())
	sink(ctx context.Context) (sink, error)
	// hasFolder tells whether there is a folder of a clean name.
	hasFolder(ctx context.Context, name string) (bool, error)
	// is says what kind of side it is.
	is() traits
}

// traits are what sides differ in.
type traits struct {
	metadata bool // it has metadata, and entries of metadata only
	folders  bool // a file cannot be where others are below it: removing comes first
}

// An item is an Entry of a side.
type item struct {
	Entry
	trouble error // why it cannot be mirrored
	below   bool  // the trouble is with all that is below it
}

// A sink takes what a mirror writes. What is put may stay unseen until flush
// returns; it is then on disk.
type sink interface {
	put(ctx context.Context, e Entry, content io.Reader) (int64, error)
	link(ctx context.Context, e Entry) error
	meta(ctx context.Context, e, old Entry) error // the content is old's
	remove(ctx context.Context, e Entry) error
	flush(ctx context.Context) error
	cancel() // does nothing after flush
}

// Mirror makes what is in one side be in the other as well: files, links and
// what makes files executable, between drives also metadata. Files are equal
// when their content is, byte for byte; those are not written. A file that
// cannot be mirrored is skipped, with an Event that says why, and the others
// are mirrored; other trouble ends the mirror.
//
// A drive gets new files in batches, each of which is one version. A folder
// gets each file whole: it is written under another name, brought to the disk
// and renamed. When Mirror returns, all is on disk. One that is killed leaves
// every file as it was or as it will be, and the next takes on from there.
func Mirror(ctx context.Context, from, to Side, o MirrorOptions) (Summary, error) {
	prefix, err := cleanFolder(o.Prefix)
	if err != nil {
		return Summary{}, err
	}
	o.Prefix = prefix
	if o.Ignore == nil {
		o.Ignore = func(string) bool { return false }
	}
	if o.Progress == nil {
		o.Progress = func(Event) {}
	}
	if from, err = subOf(from, o.From); err != nil {
		return Summary{}, err
	}
	if part, ok := from.(sub); ok {
		if err := part.mustBe(ctx); err != nil {
			return Summary{}, err
		}
	}
	if to, err = subOf(to, o.To); err != nil {
		return Summary{}, err
	}
	m := &mirror{from: from, to: to, options: o}
	err = m.run(ctx)
	return m.sum, err
}

type mirror struct {
	from, to Side
	options  MirrorOptions
	out      sink
	sum      Summary
	buffers  [2][]byte
}

func (m *mirror) run(ctx context.Context) (err error) {
	if m.out, err = m.to.sink(ctx); err != nil {
		return err
	}
	defer m.out.cancel()
	if !m.options.DryRun {
		stop := m.from.fetch(ctx, m.options.Prefix, m.options.Ignore)
		defer stop()
	}
	inOnePass := !m.to.is().folders
	if !inOnePass {
		if err := m.pass(ctx, m.prune); err != nil {
			return err
		}
	}
	err = m.pass(ctx, func(ctx context.Context, p pair) error {
		if inOnePass && p.from == nil {
			return m.prune(ctx, p)
		}
		return m.copy(ctx, p)
	})
	if err != nil || m.options.DryRun {
		return err
	}
	return m.out.flush(ctx)
}

// pass does something for each name that either side has.
func (m *mirror) pass(ctx context.Context, do func(context.Context, pair) error) error {
	from := m.from.items(ctx, m.options.Prefix, m.options.Ignore)
	to := m.to.items(ctx, m.options.Prefix, m.options.Ignore)
	var closed string // what is below is not known
	for p, err := range join(from, to) {
		if err != nil {
			return err
		}
		if p.from != nil && p.from.below {
			closed = p.from.Name + "/"
		}
		if p.from == nil && closed != "" && strings.HasPrefix(p.to.Name, closed) {
			continue
		}
		if err := do(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// A pair is what two sides have of a name; one of them may have nothing.
type pair struct{ from, to *item }

// join merges two lists that are ordered by name.
func join(from, to iter.Seq2[item, error]) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		a, b := newCursor(from), newCursor(to)
		defer a.stop()
		defer b.stop()
		for a.ok || b.ok {
			if err := errors.Join(a.err, b.err); err != nil {
				yield(pair{}, err)
				return
			}
			var p pair
			order := a.compare(b)
			if order <= 0 {
				it := a.item
				p.from = &it
				a.next()
			}
			if order >= 0 {
				it := b.item
				p.to = &it
				b.next()
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// A cursor is a place in a list.
type cursor struct {
	item item
	err  error
	ok   bool
	pull func() (item, error, bool)
	stop func()
}

func newCursor(list iter.Seq2[item, error]) *cursor {
	c := new(cursor)
	c.pull, c.stop = iter.Pull2(list)
	c.next()
	return c
}

func (c *cursor) next() { c.item, c.err, c.ok = c.pull() }

// compare orders two cursors by their items' names; the end comes last.
func (c *cursor) compare(d *cursor) int {
	switch {
	case !d.ok:
		return -1
	case !c.ok:
		return 1
	}
	return strings.Compare(c.item.Name, d.item.Name)
}

// prune removes what only the destination has.
func (m *mirror) prune(ctx context.Context, p pair) error {
	if p.from != nil || p.to.trouble != nil || m.options.Keep {
		return nil
	}
	size, err := m.to.size(ctx, p.to.Entry)
	if err != nil {
		return err
	}
	if !m.options.DryRun {
		if err := m.out.remove(ctx, p.to.Entry); err != nil {
			return m.judge(Event{Name: p.to.Name}, err)
		}
	}
	m.done(Event{Op: Removed, Name: p.to.Name, BytesRemoved: size})
	return nil
}

// copy brings a file of the source to the destination.
func (m *mirror) copy(ctx context.Context, p pair) error {
	if p.from == nil {
		return nil
	}
	m.sum.Files++
	event := Event{Op: Added, Name: p.from.Name}
	if p.from.trouble != nil {
		return m.judge(event, &skipped{p.from.trouble})
	}
	if p.from.IsLink() {
		m.sum.Links++
	}
	size, err := m.from.size(ctx, p.from.Entry)
	if err != nil {
		return m.judge(event, err)
	}
	event.Size = size
	onlyMeta := false
	if p.to != nil {
		event.Op = Changed
		if p.to.trouble == nil {
			same, meta, err := m.same(ctx, p.from.Entry, p.to.Entry)
			if err != nil {
				return m.judge(event, err)
			}
			if same && meta {
				event.Op = Equal
				m.done(event)
				return nil
			}
			onlyMeta = same
		}
	}
	if err := m.write(ctx, p, onlyMeta, &event); err != nil {
		return m.judge(event, err)
	}
	m.done(event)
	return nil
}

func (m *mirror) write(ctx context.Context, p pair, onlyMeta bool, event *Event) (err error) {
	if onlyMeta {
		if m.options.DryRun {
			return nil
		}
		return m.out.meta(ctx, p.from.Entry, p.to.Entry)
	}
	if p.to != nil && p.to.trouble == nil {
		if event.BytesRemoved, err = m.to.size(ctx, p.to.Entry); err != nil {
			return err
		}
	}
	if m.options.DryRun {
		event.BytesAdded = event.Size
		return nil
	}
	if p.from.IsLink() {
		return m.out.link(ctx, p.from.Entry)
	}
	if p.from.Blob == nil && m.to.is().metadata {
		return m.out.meta(ctx, p.from.Entry, Entry{})
	}
	content, err := m.from.open(ctx, p.from.Entry)
	if err != nil {
		return err
	}
	defer content.Close()
	event.BytesAdded, err = m.out.put(ctx, p.from.Entry, &meter{r: content, event: *event, tell: m.options.Progress})
	return err
}

// judge notes a file that has to be skipped, and returns any other trouble.
func (m *mirror) judge(e Event, err error) error {
	var skip *skipped
	if !errors.As(err, &skip) {
		return cloudpal.E("mirror "+e.Name, "", err)
	}
	m.done(Event{Op: Skipped, Name: e.Name, Size: e.Size, Reason: skip.cause})
	return nil
}

func (m *mirror) done(e Event) {
	switch e.Op {
	case Added:
		m.sum.Added++
	case Changed:
		m.sum.Changed++
	case Removed:
		m.sum.Removed++
	case Equal:
		m.sum.Equal++
	case Skipped:
		m.sum.Skipped++
	}
	m.sum.BytesAdded += e.BytesAdded
	m.sum.BytesRemoved += e.BytesRemoved
	m.options.Progress(e)
}

// same compares two entries' content, and whatever else both sides have.
func (m *mirror) same(ctx context.Context, a, b Entry) (content, meta bool, err error) {
	if a.IsLink() || b.IsLink() {
		same := a.Linkname == b.Linkname
		return same, same, nil
	}
	both := m.from.is().metadata && m.to.is().metadata
	if both && (a.Blob == nil) != (b.Blob == nil) {
		return false, false, nil
	}
	content, err = m.sameContent(ctx, a, b)
	if err != nil || !content {
		return false, false, err
	}
	return true, a.Executable == b.Executable && (!both || sameJSON(a.Metadata, b.Metadata)), nil
}

func (m *mirror) sameContent(ctx context.Context, a, b Entry) (bool, error) {
	sizeA, errA := m.from.size(ctx, a)
	sizeB, errB := m.to.size(ctx, b)
	if err := errors.Join(errA, errB); err != nil || sizeA != sizeB {
		return false, err
	}
	if sizeA == 0 {
		return true, nil
	}
	ra, err := m.from.open(ctx, a)
	if err != nil {
		return false, err
	}
	defer ra.Close()
	rb, err := m.to.open(ctx, b)
	if err != nil {
		return false, err
	}
	defer rb.Close()
	return m.sameBytes(ra, rb)
}

func (m *mirror) sameBytes(a, b io.Reader) (bool, error) {
	for i := range m.buffers {
		if m.buffers[i] == nil {
			m.buffers[i] = make([]byte, 64<<10)
		}
	}
	for {
		na, errA := io.ReadFull(a, m.buffers[0])
		nb, errB := io.ReadFull(b, m.buffers[1])
		if err := errors.Join(notEnd(errA), notEnd(errB)); err != nil {
			return false, err
		}
		if !bytes.Equal(m.buffers[0][:na], m.buffers[1][:nb]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			return true, nil
		}
	}
}

func notEnd(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

// sameJSON compares metadata by what it means. Null is as good as none.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var va, vb any
	if len(a) > 0 && json.Unmarshal(a, &va) != nil || len(b) > 0 && json.Unmarshal(b, &vb) != nil {
		return false
	}
	return reflect.DeepEqual(va, vb)
}

// plainSize is the size of an entry without a block map.
func plainSize(e Entry) int64 {
	if e.Blob == nil {
		return 0
	}
	return int64(e.Blob.ByteLength)
}

// A meter tells how far the reading of a large file is.
type meter struct {
	r     io.Reader
	event Event
	tell  func(Event)
	n     int64
	told  int64
}

const meterStep = 1 << 20

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.count(n)
	return n, err
}

// WriteTo implements io.WriterTo, for a source whose blocks need not be copied.
func (m *meter) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(metered{m, w}, m.r)
}

func (m *meter) count(n int) {
	m.n += int64(n)
	if m.n-m.told >= meterStep {
		m.told = m.n
		m.tell(Event{Op: Copying, Name: m.event.Name, BytesAdded: m.n, Size: m.event.Size})
	}
}

// metered is what a meter writes to.
type metered struct {
	meter *meter
	w     io.Writer
}

func (m metered) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.meter.count(n)
	return n, err
}
