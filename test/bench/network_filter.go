package main

import (
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tradle/cloudpal/test/images"
)

// benchFilter runs the wake filter's own benchmarks, which need what is inside
// of it, three times each.
func benchFilter(b *run) error {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "MAC1|Garbage", "-count", "3", "-benchtime", "300ms", "./network/wake")
	cmd.Dir = images.ModuleRoot()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	rates := packetRates(out)
	raw := rates["BenchmarkGarbage/raw"]
	if raw == nil || rates["BenchmarkMAC1"] == nil {
		return fmt.Errorf("no rates in it:\n%s", out)
	}
	for _, name := range slices.Sorted(maps.Keys(rates)) {
		if kind, ok := strings.CutPrefix(name, "BenchmarkGarbage/"); ok && kind != "raw" {
			b.add(told("garbage dropped on one core: "+kind, "packets/s", median(rates[name]), median(raw), "read from the TUN device only"))
		}
	}
	b.add(told("mac1 checked on one core", "checks/s", median(rates["BenchmarkMAC1"]), 0, ""))
	return nil
}

var rate = regexp.MustCompile(`^(Benchmark\S+?)(?:-\d+)?\s.*\s([0-9.e+]+) (?:packets|checks)/s`)

// packetRates reads what each benchmark tells, run by run.
func packetRates(out []byte) map[string][]float64 {
	rates := map[string][]float64{}
	for line := range strings.Lines(string(out)) {
		if m := rate.FindStringSubmatch(line); m != nil {
			n, _ := strconv.ParseFloat(m[2], 64)
			rates[m[1]] = append(rates[m[1]], n)
		}
	}
	return rates
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
