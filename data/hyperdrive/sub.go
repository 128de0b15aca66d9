package hyperdrive

import (
	"context"
	"errors"
	"io"
	"iter"
	"path"
	"strings"

	"github.com/tradle/cloudpal"
)

// A sub is the part of a Side that is below a folder, with names as seen from
// there. A link that leads out of it cannot be mirrored, as one that leads out
// of a whole Side cannot.
type sub struct {
	Side
	dir string // clean; never ""
}

// subOf returns the part of a side that is below a folder.
func subOf(s Side, folder string) (Side, error) {
	dir, err := cleanFolder(folder)
	if err != nil || dir == "" {
		return s, err
	}
	return sub{s, dir}, nil
}

// mustBe refuses to mirror from a folder that is not there: it would remove
// everything at the other side, where a name was only mistyped.
func (s sub) mustBe(ctx context.Context) error {
	there, err := s.Side.hasFolder(ctx, s.dir)
	if err == nil && !there {
		err = cloudpal.E("mirror "+s.dir, cloudpal.NotExist, errors.New("the source has no such folder"))
	}
	return err
}

func (s sub) items(ctx context.Context, prefix string, ignore func(string) bool) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		for it, err := range s.Side.items(ctx, s.dir+prefix, s.inner(ignore)) {
			if err == nil {
				if it.Name == s.dir {
					continue // a file where the folder should be
				}
				it = s.seen(it)
			}
			if !yield(it, err) {
				return
			}
		}
	}
}

// inner asks about names as the whole side has them.
func (s sub) inner(ignore func(string) bool) func(string) bool {
	return func(name string) bool {
		below, ok := strings.CutPrefix(name, s.dir+"/")
		return ok && ignore("/"+below)
	}
}

// seen is an item as it is seen from the folder.
func (s sub) seen(it item) item {
	it.Name = strings.TrimPrefix(it.Name, s.dir)
	if !it.IsLink() || it.trouble != nil {
		return it
	}
	if path.IsAbs(it.Linkname) {
		below, ok := strings.CutPrefix(it.Linkname, s.dir+"/")
		if !ok {
			it.trouble = errOutside
			return it
		}
		it.Linkname = "/" + below
	}
	it.trouble = checkLink(it.Name, it.Linkname)
	return it
}

// whole is an entry as the whole side has it.
func (s sub) whole(e Entry) Entry {
	e.Name = s.dir + e.Name
	if path.IsAbs(e.Linkname) {
		e.Linkname = s.dir + e.Linkname
	}
	return e
}

func (s sub) size(ctx context.Context, e Entry) (int64, error) { return s.Side.size(ctx, s.whole(e)) }

func (s sub) open(ctx context.Context, e Entry) (io.ReadCloser, error) {
	return s.Side.open(ctx, s.whole(e))
}

func (s sub) fetch(ctx context.Context, prefix string, ignore func(string) bool) (stop func()) {
	return s.Side.fetch(ctx, s.dir+prefix, s.inner(ignore))
}

func (s sub) sink(ctx context.Context) (sink, error) {
	out, err := s.Side.sink(ctx)
	if err != nil {
		return nil, err
	}
	return subSink{out, s}, nil
}

// A subSink writes below a folder.
type subSink struct {
	sink
	sub sub
}

func (s subSink) put(ctx context.Context, e Entry, content io.Reader) (int64, error) {
	return s.sink.put(ctx, s.sub.whole(e), content)
}

func (s subSink) link(ctx context.Context, e Entry) error { return s.sink.link(ctx, s.sub.whole(e)) }

func (s subSink) meta(ctx context.Context, e, old Entry) error {
	return s.sink.meta(ctx, s.sub.whole(e), s.sub.whole(old))
}

func (s subSink) remove(ctx context.Context, e Entry) error {
	return s.sink.remove(ctx, s.sub.whole(e))
}
