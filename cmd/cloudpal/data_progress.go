package main

import (
	"context"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A bar shows on a terminal how far something is. Elsewhere, and with --json,
// it shows nothing.
type bar struct {
	all *mpb.Progress
	one *mpb.Bar
}

// progress begins a bar of a total in the units that say formats. Total may be
// 0 where it is not known yet.
func (c *cli) progress(ctx context.Context, what string, total int64, say func(decor.Statistics) string) *bar {
	t, ok := terminal(c.err)
	if !ok {
		return new(bar)
	}
	return newBar(ctx, t, what, total, say)
}

func newBar(ctx context.Context, t *os.File, what string, total int64, say func(decor.Statistics) string) *bar {
	all := mpb.NewWithContext(ctx, mpb.WithOutput(t), mpb.WithWidth(barWidth))
	one := all.AddBar(max(total, 1),
		mpb.PrependDecorators(decor.Name(plain(what)+" ")),
		mpb.AppendDecorators(decor.Any(say, decor.WCSyncSpace)))
	return &bar{all: all, one: one}
}

// set moves the bar.
func (b *bar) set(done, total int64) {
	if b.one == nil {
		return
	}
	b.one.SetTotal(max(total, done, 1), false)
	b.one.SetCurrent(done)
}

// end leaves the bar as it is, and waits until it is drawn.
func (b *bar) end() {
	if b.all == nil {
		return
	}
	b.one.Abort(false)
	b.all.Wait()
}

// barPause is how often a bar moves that follows something by looking at it.
const barPause = 200 * time.Millisecond

// follow has look move the bar until stop is called.
func (b *bar) follow(look func() (done, total int64)) (stop func()) {
	if b.one == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for ctx.Err() == nil {
			b.set(look())
			pause(ctx, barPause)
		}
		b.set(look())
	}()
	return func() {
		cancel()
		<-finished
		b.end()
	}
}
