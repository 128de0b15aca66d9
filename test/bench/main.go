// Bench measures CloudPal side by side with a peer or the raw limit, in the
// same run, for a shared machine's speed drifts from one minute to the next.
//
//	go run ./test/bench            every area
//	go run ./test/bench compute    one
//	go run ./test/bench compute boot resume   some figures of one
//
// It prints a table and writes test/out/bench-AREA.json.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tradle/cloudpal/test/world"
)

// A figure is one row: ours beside another's.
type figure struct {
	Figure    string  `json:"figure"`
	Unit      string  `json:"unit"`
	Ours      float64 `json:"ours"`
	Other     float64 `json:"other"`
	OtherName string  `json:"other_name"`
	Ratio     float64 `json:"ratio"`
	Goal      string  `json:"goal"`
	Met       bool    `json:"met"`
}

// most is a goal for ours/other that is better when small.
func most(name, unit string, ours, other float64, otherName string, goal float64) figure {
	f := figure{Figure: name, Unit: unit, Ours: ours, Other: other, OtherName: otherName, Goal: fmt.Sprintf("≤ %g", goal)}
	if other != 0 {
		f.Ratio = ours / other
	}
	f.Met = f.Ratio <= goal
	return f
}

// least is a goal for ours/other that is better when large.
func least(name, unit string, ours, other float64, otherName string, goal float64) figure {
	f := most(name, unit, ours, other, otherName, goal)
	f.Goal = fmt.Sprintf("≥ %g", goal)
	f.Met = f.Ratio >= goal
	return f
}

// upTo is a goal for ours alone.
func upTo(name, unit string, ours, goal float64) figure {
	f := most(name, unit, ours, goal, "the limit", 1)
	f.Goal, f.Met = fmt.Sprintf("≤ %g %s", goal, unit), ours <= goal
	return f
}

// told is a row that has no goal.
func told(name, unit string, ours, other float64, otherName string) figure {
	f := most(name, unit, ours, other, otherName, 0)
	f.Goal, f.Met = "", true
	return f
}

// An area's benchmarks, in the order they run.
type bench struct {
	name string
	run  func(b *run) error
}

var areas = map[string][]bench{"compute": compute, "network": network, "data": data, "tickets": tickets}

func main() {
	if len(os.Args) > 2 && os.Args[1] == workerWord {
		if err := work(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(world.Finish(runAreas(os.Args[1:])))
}

// runAreas measures all areas, or some figures of one, and returns the exit status.
func runAreas(args []string) int {
	names, only := []string{"compute", "network", "data", "tickets"}, []string(nil)
	if len(args) > 0 {
		names, only = args[:1], args[1:]
	}
	for _, area := range names {
		if err := runArea(area, only); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
	}
	return 0
}

func runArea(area string, only []string) error {
	benches, ok := areas[area]
	if !ok {
		return fmt.Errorf("no area %q", area)
	}
	b := &run{}
	defer b.clean()
	failed := 0
	for _, bench := range benches {
		if len(only) > 0 && !slices.Contains(only, bench.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s %s ...\n", area, bench.name)
		start := time.Now()
		if err := b.one(bench); err != nil {
			fmt.Fprintf(os.Stderr, "%s %s: %v\n", area, bench.name, err)
			failed++
		}
		fmt.Fprintf(os.Stderr, "%s %s took %v\n", area, bench.name, time.Since(start).Round(time.Second))
	}
	print(b.figures)
	if err := save(area, b.figures); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d benchmarks did not finish", failed)
	}
	return nil
}

func print(figures []figure) {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tOURS\tOTHER\tUNIT\tOTHER IS\tRATIO\tGOAL\t")
	for _, f := range figures {
		met := ""
		if f.Goal != "" {
			met = map[bool]string{true: "met", false: "NOT MET"}[f.Met]
		}
		other, ratio := "", ""
		if f.OtherName != "" {
			other, ratio = short(f.Other), fmt.Sprintf("%.2f", f.Ratio)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Figure, short(f.Ours), other, f.Unit, f.OtherName, ratio, f.Goal, met)
	}
	w.Flush()
}

func short(v float64) string {
	s := fmt.Sprintf("%.2f", v)
	if v >= 100 {
		s = fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSuffix(s, ".00")
}

func save(area string, figures []figure) error {
	dir := filepath.Join("test", "out")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bench-"+area+".json"), append(data, '\n'), 0o644)
}
