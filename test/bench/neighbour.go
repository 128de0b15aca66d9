package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// A neighbour is asked in short windows, twice in quiet and once under attack in
// each turn: a shared machine drifts, and windows that lie side by side drift
// together.
const (
	turns   = 8
	window  = 6 * time.Second
	between = 20 * time.Millisecond // from one answer to the next question
)

// attacks are what the hostile guest does (test/images/web).
var attacks = []string{"fork", "memory", "console", "logs", "packets", "spoof", "control", "disk"}

// benchNeighbour holds a neighbour's answers while a hostile guest does its
// worst against those in quiet: the median of the windows' p99s, for one window
// that this machine's own neighbours disturb says nothing of ours. What one
// quiet window differs by from the next is told beside it.
func benchNeighbour(b *run) error {
	w := world.New(b)
	w.Image("web")
	good := web(w, "good")
	b.must(ask(w, good))
	bad := w.Start(api.CreateRequest{
		Name: "bad", Image: "web", Memory: vmMemory, Disk: 64 << 20,
		Limits: api.Limits{CPU: 0.25, NetBytes: 1 << 20, DiskBytes: 16 << 20, DiskOps: 500},
	})
	b.must(awaited(w, bad))
	var first, second, attacked windows
	for range turns {
		first = append(first, b.answers(w, good))
		second = append(second, b.answers(w, good))
		b.attack(w, bad)
		attacked = append(attacked, b.answers(w, good))
		// The attacks last ten seconds; what they leave behind ends with
		// the VM.
		b.must(w.API.Kill(context.Background(), "bad", api.SignalRequest{}))
		b.must(func() error { _, err := w.API.Start(context.Background(), "bad"); return err }())
		b.must(awaited(w, bad))
	}
	quiet := slices.Concat(first, second)
	for name, all := range map[string]windows{"in quiet": quiet, "attacked": attacked} {
		fmt.Fprintf(os.Stderr, "    %s: p50 %s ms, p99 %s ms, that of each window %v\n", name, short(all.at(0.5)), short(all.at(0.99)), all.each(0.99))
	}
	b.add(most("neighbour of a hostile guest on 0.25 cores, answer p99", "ms", attacked.at(0.99), quiet.at(0.99), "in quiet", 1.2),
		told("the same without an attack, answer p99", "ms", second.at(0.99), first.at(0.99), "the window before"))
	return nil
}

// awaited asks until there is an answer: a quarter of a core boots slowly, and
// the agent does not wait for ever.
func awaited(w *world.World, v api.VM) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(between) {
		if err := ask(w, v); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// windows are the answers of some windows of time.
type windows []sample

// at returns the median of the windows' p-quantiles, in milliseconds.
func (w windows) at(p float64) float64 {
	each := w.each(p)
	slices.Sort(each)
	return (each[(len(each)-1)/2] + each[len(each)/2]) / 2
}

// each returns the p-quantile of each window, in milliseconds.
func (w windows) each(p float64) []float64 {
	var each []float64
	for _, s := range w {
		each = append(each, s.at(p))
	}
	return each
}

// answers asks a VM for a window of time.
func (b *run) answers(w *world.World, v api.VM) sample {
	var all sample
	for end := time.Now().Add(window); time.Now().Before(end); time.Sleep(between) {
		d, err := timed(func() error { return ask(w, v) })
		b.must(err)
		all = append(all, d)
	}
	return all
}

// attack has the bad VM begin everything that it knows. That one or the other
// hurts itself is its own affair.
func (b *run) attack(w *world.World, bad api.VM) {
	for _, kind := range attacks {
		go w.Get("http://" + world.Addr(bad, port) + "/attack?kind=" + kind)
	}
}
