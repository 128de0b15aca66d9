package main

import (
	"context"
	"io"
	"os"
	"syscall"

	"golang.org/x/term"
)

// A world is all that the program touches outside itself, so that tests can
// bring their own.
type world struct {
	in       io.Reader
	out, err io.Writer // results, and talk
	getenv   func(name string) (string, bool)
	signals  <-chan os.Signal
	unhand   func() // gives signals their usual effect again
}

// An interrupt is the cause of a context that a signal ended.
type interrupt struct{ os.Signal }

func (i interrupt) Error() string { return "interrupted: " + i.String() }

// code is what a shell would report.
func (i interrupt) code() int {
	if s, ok := i.Signal.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return 130
}

// interruptible returns a context that the first signal ends; a second one
// then ends the program. Done must be called; it waits.
func (w *world) interruptible(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case s := <-w.signals:
			w.unhand()
			cancel(interrupt{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-finished
	}
}

// terminal returns v as a file if it is a terminal.
func terminal(v any) (f *os.File, ok bool) {
	f, ok = v.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// lookup returns an environment variable, or other where it is unset or empty.
func (w *world) lookup(name, other string) string {
	if v, ok := w.getenv(name); ok && v != "" {
		return v
	}
	return other
}
