package meter

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"
)

// A trial shows a judge a VM, a second at a time, and obeys its verdicts.
type trial struct {
	judge *Judge
	plan  Plan
	now   time.Time
	cpu   time.Duration
}

func newTrial(cores float64) *trial {
	p := Plan{Cores: cores}
	return &trial{judge: p.Judge(), plan: p, now: start}
}

// run lets the VM want so many cores for d. It returns the first verdict but
// Keep, and after how long it fell.
func (r *trial) run(d time.Duration, cores float64) (Verdict, time.Duration) {
	for t := time.Duration(0); t < d; t += time.Second {
		use := cores
		if r.judge.Throttled() {
			use = min(use, r.plan.Cores)
		}
		r.now = r.now.Add(time.Second)
		r.cpu += time.Duration(use * float64(time.Second))
		if v := r.judge.Observe(r.now, r.cpu); v != Keep {
			return v, t + time.Second
		}
	}
	return Keep, d
}

// sleep lets time pass in which nobody looks.
func (r *trial) sleep(d time.Duration) { r.now = r.now.Add(d) }

func (r *trial) want(t *testing.T, d time.Duration, cores float64, want Verdict, from, to time.Duration) {
	t.Helper()
	got, after := r.run(d, cores)
	if got != want || after < from || after > to {
		t.Errorf("%v at %v cores: got %v after %v, want %v after %v to %v", d, cores, got, after, want, from, to)
	}
}

const hour = time.Hour

func TestJudgeStopsAMiner(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	// Half of five minutes at one core is the plan's average.
	r.want(t, hour, 1, Throttle, 150*time.Second, 165*time.Second)
	r.want(t, hour, 1, Stop, 10*time.Minute, 10*time.Minute+5*time.Second)
	r.want(t, time.Second, 0, Stop, 0, time.Second)
}

func TestJudgeLetsBurstsBe(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	for range 10 {
		r.want(t, 2*time.Minute, 1, Keep, 0, hour)
		r.want(t, 3*time.Minute, 0.1, Keep, 0, hour)
	}
}

func TestJudgeToleratesThePlan(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	r.want(t, 3*hour, 0.52, Keep, 0, 3*hour)
	r.want(t, hour, 0.6, Throttle, 0, 5*time.Minute)
}

func TestJudgeReleasesWhoBehaves(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	r.want(t, hour, 2, Throttle, 0, 2*time.Minute)
	r.want(t, hour, 0.1, Release, 5*time.Minute, 5*time.Minute+5*time.Second)
	r.want(t, hour, 0.1, Keep, 0, hour)
	r.want(t, hour, 2, Throttle, 0, 2*time.Minute)
}

func TestJudgeKeepsTheCapBetween(t *testing.T) {
	t.Parallel()
	r := newTrial(1)
	r.want(t, hour, 2, Throttle, 0, 3*time.Minute)
	r.want(t, 3*hour, 0.7, Keep, 0, 3*hour)
}

func TestJudgeIsNotFooledByShortPauses(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	r.want(t, hour, 1, Throttle, 0, 3*time.Minute)
	for range 12 { // a miner that rests three seconds in a minute
		if v, _ := r.run(57*time.Second, 1); v == Stop {
			return
		}
		r.run(3*time.Second, 0)
	}
	t.Error("a miner that rests 5 % of its time is not stopped")
}

func TestJudgeCountsSleepAsNoUse(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	for range 20 {
		r.want(t, 2*time.Minute, 1, Keep, 0, hour)
		r.sleep(4 * time.Minute)
	}
	r.sleep(24 * hour)
	r.want(t, 2*time.Minute, 1, Keep, 0, hour)
}

func TestJudgeReleasesAfterSleep(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	r.want(t, hour, 1, Throttle, 0, 3*time.Minute)
	r.sleep(hour)
	r.want(t, 2*time.Second, 0.5, Release, 0, time.Second)
}

func TestJudgeWithoutAPlan(t *testing.T) {
	t.Parallel()
	newTrial(0).want(t, hour, 32, Keep, 0, hour)
}

func TestJudgeOfAnOldVM(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	r.cpu = 1000 * hour // used before this judge came
	r.want(t, hour, 0.2, Keep, 0, hour)
}

func TestJudgeWhenTheClockGoesBack(t *testing.T) {
	t.Parallel()
	r := newTrial(0.5)
	r.want(t, 2*time.Minute, 1, Keep, 0, hour)
	r.sleep(-24 * hour)
	r.want(t, 2*time.Minute, 1, Keep, 0, hour)
	r.want(t, hour, 1, Throttle, 0, 2*time.Minute)
	r.sleep(-24 * hour)
	r.want(t, hour, 1, Stop, 10*time.Minute, 11*time.Minute)
}

// TestJudgeThrottlesExactly compares with an average over every second.
func TestJudgeThrottlesExactly(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		r, window := newTrial(1), 300
		used := make([]float64, window)
		for i := range 3000 {
			cores := rnd.Float64() * 2 * float64(rnd.IntN(3)) / 1.4
			used[i%window] = cores
			got, _ := r.run(time.Second, cores)
			average := 0.0
			for _, u := range used {
				average += u / float64(window)
			}
			if got == Throttle && average < 1.03 || got == Keep && average > 1.07 {
				t.Fatalf("seed %d: %v at an average of %.3f", seed, got, average)
			}
			if got != Keep {
				break
			}
		}
	}
}

func TestJudgeTakesLittleMemory(t *testing.T) {
	t.Parallel()
	j := Plan{Cores: 1}.Judge()
	for i := range 1_000_000 {
		j.Observe(start.Add(time.Duration(i)*time.Millisecond), 0)
	}
	if got := cap(j.past) * int(unsafe.Sizeof(point{})); got > 16<<10 {
		t.Errorf("a judge takes %d bytes", got)
	}
}
