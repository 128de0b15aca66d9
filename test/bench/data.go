package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/test/images"
)

// data are the figures of the logs and what is made of them, beside the
// JavaScript originals (test/data): both do the same work on the same data, in
// processes of their own, in turn, each pinned to one CPU. Unpinned, the
// originals are slower, for much of their time is handing over between threads.
var data = []bench{
	{"append", benchAppend},
	{"get", benchGet},
	{"replicate", benchReplicate},
	{"bee", benchBee},
	{"drive", benchDrive},
	{"grow", benchGrow},
	{"cores", benchCores},
}

// A side is one of the two: a program that knows the words of
// test/data/js/bench.js.
type side struct {
	name    string
	command []string
	dir     string // where it keeps what it writes
}

// at is where the side keeps something.
func (s side) at(name string) string { return filepath.Join(s.dir, name) }

// said is what a program says when it has done something.
type said struct {
	Seconds float64
	CPU     float64 // seconds that it computed
	Ops     float64
	Bytes   float64
	Sum     string // the same from both sides, or they have not done the same
	Peak    float64
	Port    int
	Key     string
}

// sides returns both, with folders of their own on disk.
func (b *run) sides() (ours, theirs side) {
	self, err := os.Executable()
	b.must(err)
	ours = side{"ours", []string{self, workerWord}, filepath.Join(b.TempDir(), "ours")}
	script := filepath.Join(images.ModuleRoot(), "test", "data", "js", "bench.js")
	theirs = side{"JavaScript", []string{"node", script}, filepath.Join(b.TempDir(), "theirs")}
	for _, s := range []side{ours, theirs} {
		b.must(os.Mkdir(s.dir, 0o755))
	}
	return ours, theirs
}

// cpus returns those this process may use.
func (b *run) cpus() []int {
	var set unix.CPUSet
	b.must(unix.SchedGetaffinity(0, &set))
	var all []int
	for i := range 1024 {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all
}

// A worker is a side's process.
type worker struct {
	b     *run
	cmd   *exec.Cmd
	lines *bufio.Reader
	err   bytes.Buffer
}

// start starts one on the nth CPU, of which there may be fewer.
func (b *run) start(s side, nth int, words ...any) *worker {
	cpus := b.cpus()
	args := []string{"-c", fmt.Sprint(cpus[nth%len(cpus)])}
	args = append(args, s.command...)
	for _, w := range words {
		args = append(args, fmt.Sprint(w))
	}
	w := &worker{b: b, cmd: exec.Command("taskset", args...)}
	w.cmd.Stderr = &w.err
	out, err := w.cmd.StdoutPipe()
	b.must(err)
	w.lines = bufio.NewReader(out)
	b.must(w.cmd.Start())
	return w
}

// line reads what it says next.
func (w *worker) line() (s said, more bool) {
	text, err := w.lines.ReadBytes('\n')
	if err == io.EOF && len(text) == 0 {
		return s, false
	}
	if err != nil {
		w.b.Fatal(err)
	}
	w.b.must(json.Unmarshal(text, &s))
	return s, true
}

// end reads what it says last, and waits for its end.
func (w *worker) end() said {
	var last said
	for {
		s, more := w.line()
		if !more {
			break
		}
		last = s
	}
	if err := w.cmd.Wait(); err != nil {
		w.b.Fatalf("%s: %v\n%s", strings.Join(w.cmd.Args[3:], " "), err, &w.err)
	}
	return last
}

// do has a side do something to its end.
func (b *run) do(s side, words ...any) said { return b.start(s, 1, words...).end() }

// turns lets both sides do the same, in turn, and returns what each said. Who
// goes first changes.
func (b *run) turns(rounds int, f func(s side, round int) said) (ours, theirs told2) {
	us, them := b.sides()
	return b.turnsOf(us, them, rounds, f)
}

func (b *run) turnsOf(us, them side, rounds int, f func(s side, round int) said) (ours, theirs told2) {
	for round := range rounds {
		order := []side{us, them}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			r := f(s, round)
			fmt.Fprintf(os.Stderr, "    %s: %.0f operations in %.2f s, of which %.2f computing, %.0f MiB\n", s.name, r.Ops, r.Seconds, r.CPU, r.Peak/(1<<20))
			if s.name == us.name {
				ours = append(ours, r)
			} else {
				theirs = append(theirs, r)
			}
		}
		if a, z := ours[round], theirs[round]; a.Sum != z.Sum {
			b.Fatalf("they have not done the same: ours %s, JavaScript %s", a.Sum, z.Sum)
		}
	}
	return ours, theirs
}

// told2 is what one side said, round by round.
type told2 []said

func (t told2) median(f func(said) float64) float64 {
	var all []float64
	for _, s := range t {
		all = append(all, f(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func (t told2) perSecond() float64 {
	return t.median(func(s said) float64 { return s.Ops / s.Seconds })
}

func (t told2) megabytes() float64 {
	return t.median(func(s said) float64 { return s.Bytes / s.Seconds / 1e6 })
}

// peak is the most memory that the process ever held (VmHWM), in MiB.
func (t told2) peak() float64 {
	return t.median(func(s said) float64 { return s.Peak / (1 << 20) })
}

const original = "JavaScript"

// faster adds the two rows of what both sides did: how fast, and at what peak of
// memory.
func (b *run) faster(name, unit string, ours, theirs told2, goal float64) {
	b.add(least(name, unit, ours.perSecond(), theirs.perSecond(), original, goal),
		most("  peak memory", "MiB", ours.peak(), theirs.peak(), original, 0.5))
}
