package meter

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestBudgetExhausted(t *testing.T) {
	t.Parallel()
	b := Budget{CPU: time.Second, Net: 100}
	for _, c := range []struct {
		used Counters
		want string
	}{
		{Counters{}, ""},
		{Counters{CPU: time.Second - 1, NetIn: 50, NetOut: 49}, ""},
		{Counters{CPU: time.Second}, "CPU budget of 1s"},
		{Counters{NetIn: 50, NetOut: 50}, "network budget of 100 bytes"},
	} {
		got := b.Exhausted(c.used)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: got %q, want %q", c.used, got, c.want)
		}
	}
	if got := (Budget{}).Exhausted(Counters{CPU: 1 << 60, NetIn: 1 << 60}); got != "" {
		t.Errorf("without a budget: got %q", got)
	}
}

// TestNextCheckIsInTime lets VMs use their cores in bursts and looks only when
// told to.
func TestNextCheckIsInTime(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		cores := 0.5 + 8*r.Float64()
		b := Budget{CPU: time.Duration(r.Int64N(int64(20 * time.Second)))}
		var c Counters
		for checks := 0; b.Exhausted(c) == ""; checks++ {
			wait := b.NextCheck(c, cores)
			if wait < 50*time.Millisecond || wait > time.Second {
				t.Fatalf("seed %d: told to wait %v", seed, wait)
			}
			if checks > 10_000 {
				t.Fatalf("seed %d: looked %d times", seed, checks)
			}
			load := 1.0
			if r.IntN(3) == 0 {
				load = r.Float64()
			}
			c.CPU += time.Duration(load * cores * float64(wait))
		}
		if b.CPU == 0 {
			continue
		}
		over := c.CPU - b.CPU
		if late := time.Duration(float64(over) / cores); late > 51*time.Millisecond {
			t.Fatalf("seed %d: found exhausted %v late", seed, late)
		}
	}
}

func TestNextCheckOfNet(t *testing.T) {
	t.Parallel()
	b := Budget{Net: 10e9}
	for _, c := range []struct {
		used int64
		want time.Duration
	}{{0, time.Second}, {9_375_000_000, 500 * time.Millisecond}, {10e9 - 1, 50 * time.Millisecond}, {11e9, 50 * time.Millisecond}} {
		if got := b.NextCheck(Counters{NetOut: c.used}, 1); got != c.want {
			t.Errorf("after %d bytes: got %v, want %v", c.used, got, c.want)
		}
	}
	if got := (Budget{}).NextCheck(Counters{}, 0); got != time.Second {
		t.Errorf("without a budget: got %v, want 1s", got)
	}
}
