package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tradle/cloudpal/compute/api"
)

// startQuiet is how long things may take before the person is told what it is
// that takes so long.
const startQuiet = time.Second

// barWidth is the columns of a bar without the text around it.
const barWidth = 40

// A fetcher gets an image and reports how far it is, one call at a time.
type fetcher func(ctx context.Context, report func(api.Progress)) (api.Image, error)

// withProgress shows on standard error how far get is: bars on a terminal,
// else one line for each layer that is done.
func (c *cli) withProgress(ctx context.Context, get fetcher) (api.Image, error) {
	if t, ok := terminal(c.err); ok {
		return withBars(ctx, t, get)
	}
	told := map[string]bool{}
	return get(ctx, func(p api.Progress) {
		if p.Done == p.Total && !told[p.Layer] {
			told[p.Layer] = true
			c.say("%s %s: %s", p.Phase, shortID(p.Layer), formatSize(p.Total))
		}
	})
}

func withBars(ctx context.Context, t *os.File, get fetcher) (api.Image, error) {
	b := bars{
		all: mpb.NewWithContext(ctx, mpb.WithOutput(t), mpb.WithWidth(barWidth)),
		of:  map[string]*mpb.Bar{},
	}
	image, err := get(ctx, b.report)
	b.end()
	return image, err
}

// bars are one bar for each layer.
type bars struct {
	all *mpb.Progress
	of  map[string]*mpb.Bar
}

func (b bars) report(p api.Progress) {
	bar, ok := b.of[p.Layer]
	if !ok {
		bar = b.all.AddBar(p.Total, barText(p)...)
		b.of[p.Layer] = bar
	}
	bar.SetCurrent(p.Done)
	if p.Done == p.Total {
		bar.SetTotal(p.Total, true) // also where none was known before
	}
}

func barText(p api.Progress) []mpb.BarOption {
	name := strings.TrimSpace(plain(p.Phase + " " + shortID(p.Layer)))
	size := func(s decor.Statistics) string {
		if s.Completed || s.Total <= 0 {
			return formatSize(s.Current)
		}
		return formatSize(s.Current) + " of " + formatSize(s.Total)
	}
	return []mpb.BarOption{
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(size, decor.WCSyncSpace)),
	}
}

// end leaves all bars as they are and waits until they are drawn.
func (b bars) end() {
	for _, bar := range b.of {
		bar.Abort(false) // nothing to one that is complete
	}
	b.all.Wait()
}

// whileSlow does f, and tells a person at a terminal what it is where it takes
// a while. It reports whether it did. Elsewhere standard error is the process's.
func (c *cli) whileSlow(what string, f func()) bool {
	if _, ok := terminal(c.err); !ok {
		f()
		return false
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	t := time.NewTimer(startQuiet)
	defer t.Stop()
	select {
	case <-done:
		return false
	case <-t.C:
	}
	c.say("%s ...", what)
	<-done
	return true
}
