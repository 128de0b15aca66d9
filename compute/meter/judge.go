package meter

import (
	"slices"
	"time"
)

// A Plan is how much CPU a VM is meant to use over time. It may burst above
// it; what stays above it is a runaway, a miner say.
type Plan struct {
	Cores  float64       // on average; 0 means no plan
	Window time.Duration // to average over; 0 means 5 minutes
	Grace  time.Duration // how long it may use all it is left when throttled; 0 means 10 minutes
}

// A Verdict is what to do with a VM.
type Verdict int

// The verdicts.
const (
	Keep     Verdict = iota // go on as before
	Throttle                // from now on cap it at the plan's cores
	Release                 // lift the cap
	Stop                    // it is a runaway
)

func (v Verdict) String() string {
	return [...]string{"keep", "throttle", "release", "stop"}[v]
}

const (
	tolerance = 1.05 // above the plan before it is throttled
	greedy    = 0.9  // share of the cap that a runaway keeps using
	modest    = 0.5  // share of the plan below which the cap is lifted
	points    = 128  // in a Judge's memory
)

// A Judge follows one VM from one start to its end:
//
//	        over the plan for a Window          all of the cap for Grace
//	kept ─────────────────────────────► throttled ──────────────────► stopped
//	  ◄────────────────────────────────
//	        under half the plan for a Window
//
// It has no clock of its own and takes at most about 4 KiB.
type Judge struct {
	plan      Plan
	past      []point // at least span/points apart, oldest first
	now       point
	throttled time.Time // zero while not
	stopped   bool
}

// A point is a reading of the CPU time used so far.
type point struct {
	at  time.Time
	cpu time.Duration
}

// Judge returns a judge for one start of a VM under plan p.
func (p Plan) Judge() *Judge {
	if p.Window <= 0 {
		p.Window = 5 * time.Minute
	}
	if p.Grace <= 0 {
		p.Grace = 10 * time.Minute
	}
	return &Judge{plan: p}
}

// Throttled reports whether the last verdicts leave the VM throttled.
func (j *Judge) Throttled() bool { return !j.throttled.IsZero() }

// Observe takes the VM's CPU time so far, which only grows, and says what to
// do. Time before the first observation, and time asleep, counts as time in
// which the VM used nothing. Once it says Stop it goes on saying it.
func (j *Judge) Observe(now time.Time, cpu time.Duration) Verdict {
	if j.plan.Cores <= 0 {
		return Keep
	}
	j.remember(point{now, cpu})
	switch {
	case j.stopped:
		return Stop
	case !j.Throttled() && j.average(j.plan.Window) > j.plan.Cores*tolerance:
		j.throttled = now
		return Throttle
	case !j.Throttled():
		return Keep
	case j.throttledFor(j.plan.Grace) && j.average(j.plan.Grace) >= j.plan.Cores*greedy:
		j.stopped = true
		return Stop
	case j.throttledFor(j.plan.Window) && j.average(j.plan.Window) < j.plan.Cores*modest:
		j.throttled = time.Time{}
		return Release
	}
	return Keep
}

func (j *Judge) throttledFor(d time.Duration) bool { return j.now.at.Sub(j.throttled) >= d }

// remember makes p the present and forgets what no average needs. If the clock
// or the counter went back, the past says nothing any more, and a
// cap begins anew.
func (j *Judge) remember(p point) {
	if p.at.Before(j.now.at) || p.cpu < j.now.cpu {
		j.past = j.past[:0]
		if j.Throttled() {
			j.throttled = p.at
		}
	}
	j.now = p
	span := max(j.plan.Window, j.plan.Grace)
	if n := len(j.past); n == 0 || p.at.Sub(j.past[n-1].at) >= span/points {
		j.past = append(j.past, p)
	}
	// One point older than the span stays, to draw a line from.
	old := 0
	for old+1 < len(j.past) && p.at.Sub(j.past[old+1].at) >= span {
		old++
	}
	j.past = slices.Delete(j.past, 0, old)
}

// average returns how many cores were in use over the last d.
func (j *Judge) average(d time.Duration) float64 {
	return float64(j.now.cpu-j.at(j.now.at.Add(-d))) / float64(d)
}

// at returns the CPU time used until t, on a line between the points around.
func (j *Judge) at(t time.Time) time.Duration {
	if !t.After(j.past[0].at) {
		return j.past[0].cpu
	}
	i, _ := slices.BinarySearchFunc(j.past, t, func(p point, t time.Time) int { return p.at.Compare(t) })
	a, b := j.past[i-1], j.now
	if i < len(j.past) {
		b = j.past[i]
	}
	if !b.at.After(a.at) {
		return a.cpu
	}
	share := float64(t.Sub(a.at)) / float64(b.at.Sub(a.at))
	return a.cpu + time.Duration(share*float64(b.cpu-a.cpu))
}
