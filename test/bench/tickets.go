package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// tickets are the figures of tickets: what a mint, a center and a wallet compute
// and write, and from them, what 100 million people would need. What is computed is
// measured by the thread's own time, since the machine is shared.
var tickets = func() []bench {
	var c prices
	return []bench{
		{"sign", c.benchSign},
		{"pay", c.benchPay},
		{"spent", c.benchSpent},
		{"wallet", c.benchWallet},
		{"people", c.benchPeople},
	}
}()

// prices are what was measured so far: seconds of one core for each, and a row's
// bytes on disk.
type prices struct{ signature, openssl, payment, spend, row float64 }

// atLeast is a goal for ours alone.
func atLeast(name, unit string, ours, goal float64) figure {
	return least(name, unit, ours, goal, "the goal", 1)
}

// A task is one of several that are measured in turn.
type task struct {
	name string
	run  func() error
	best time.Duration // the least that one round of it took, for each run
}

// inTurn measures tasks, a round of one after a round of the other, on one thread.
// Of each the best round counts: what disturbs only ever slows down.
func (b *run) inTurn(rounds, times int, tasks ...*task) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range rounds {
		for _, t := range tasks {
			before := b.threadTime()
			for range times {
				b.must(t.run())
			}
			took := (b.threadTime() - before) / time.Duration(times)
			if t.best == 0 || took < t.best {
				t.best = took
			}
		}
	}
}

// rate is how often a task runs in a second of one core.
func (t *task) rate() float64 { return float64(time.Second) / float64(t.best) }

// A contestant is one of several that are measured by the clock, in turn, a round
// each, by what they do together in several goroutines.
type contestant struct {
	name  string
	rates []float64       // a second, by rounds
	cpu   []time.Duration // of this process, for each
}

func (c *contestant) rate() float64 { return middle(c.rates) }

func (c *contestant) micros() float64 { return float64(middle(c.cpu).Nanoseconds()) / 1000 }

func middle[T float64 | time.Duration](all []T) T {
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

// measure measures a round, in which f does something so many times.
func (b *run) measure(c *contestant, count int, f func() sample) sample {
	cpu, began := b.processTime(), time.Now()
	took := f()
	elapsed, computed := time.Since(began), b.processTime()-cpu
	c.rates = append(c.rates, float64(count)/elapsed.Seconds())
	c.cpu = append(c.cpu, computed/time.Duration(count))
	fmt.Fprintf(os.Stderr, "    %s: %d in %.2f s, of which %.2f computing\n", c.name, count, elapsed.Seconds(), computed.Seconds())
	return took
}

// threadTime is how long this thread has computed.
func (b *run) threadTime() time.Duration { return b.clock(unix.CLOCK_THREAD_CPUTIME_ID) }

// processTime is how long this process has computed.
func (b *run) processTime() time.Duration { return b.clock(unix.CLOCK_PROCESS_CPUTIME_ID) }

func (b *run) clock(which int32) time.Duration {
	var t unix.Timespec
	b.must(unix.ClockGettime(which, &t))
	return time.Duration(t.Nano())
}
