package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
)

// A run collects figures. It is the testing.TB of the worlds it makes, so that
// benchmarks and tests use the same ones.
type run struct {
	testing.TB
	figures  []figure
	cleanups []func()
	dirs     []string
	failed   bool
}

// one runs a benchmark; a Fatal in it ends only that one.
func (b *run) one(bench bench) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.clean()
		b.failed = false
		err = fmt.Errorf("it was ended by a fatal error")
		err = bench.run(b)
	}()
	<-done
	return err
}

func (b *run) add(f ...figure) {
	b.figures = append(b.figures, f...)
	for _, f := range f {
		fmt.Fprintf(os.Stderr, "  %s: %s %s (%.2f of %s)\n", f.Figure, short(f.Ours), f.Unit, f.Ratio, f.OtherName)
	}
}

func (b *run) clean() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
	for _, d := range b.dirs {
		os.RemoveAll(d)
	}
	b.cleanups, b.dirs = nil, nil
}

// The parts of testing.TB that worlds use.

func (b *run) Helper()                           {}
func (b *run) Cleanup(f func())                  { b.cleanups = append(b.cleanups, f) }
func (b *run) Failed() bool                      { return b.failed }
func (b *run) Name() string                      { return "bench" }
func (b *run) Context() context.Context          { return context.Background() }
func (b *run) Log(args ...any)                   { fmt.Fprintln(os.Stderr, args...) }
func (b *run) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (b *run) Errorf(format string, args ...any) { b.failed = true; b.Logf(format, args...) }
func (b *run) Error(args ...any)                 { b.failed = true; b.Log(args...) }
func (b *run) Fatal(args ...any)                 { b.Error(args...); runtime.Goexit() }
func (b *run) Fatalf(format string, args ...any) { b.Errorf(format, args...); runtime.Goexit() }
func (b *run) Skip(args ...any)                  { b.Fatal(args...) }

func (b *run) TempDir() string {
	dir, err := os.MkdirTemp("", "cloudpal-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.dirs = append(b.dirs, dir)
	return dir
}

// A sample is a set of durations.
type sample []time.Duration

// at returns the p-quantile in milliseconds.
func (s sample) at(p float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	i := int(p * float64(len(sorted)))
	return ms(sorted[min(i, len(sorted)-1)])
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
