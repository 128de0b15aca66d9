package till

import (
	"math/bits"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/ticket"
)

// A Use is what a pal's VMs have used so far, as their host counts it: the counters
// only grow, or begin anew with another VM.
type Use struct {
	Awake  time.Duration // of the core
	Sent   int64         // bytes
	Stored int64         // bytes on disk now
	Up     bool          // the core is awake now
}

// A count is what a tab's pal has used.
type count struct {
	Nano uint64    `json:"nano"` // of a unit, in billionths
	Was  Use       `json:"was"`
	At   time.Time `json:"at,omitzero"`
}

const (
	nano  = 1_000_000_000
	day   = 24 * time.Hour
	month = 30 * day
	gib   = 1 << 30
)

// used returns the whole units.
func (c *count) used() ticket.Units { return ticket.Units(c.Nano / nano) }

// add counts what was used since the last time. Where a counter is below what it was,
// it has begun anew. No more time is counted than has passed, by a clock that may
// have been set: what it is in doubt about is the person's.
func (c *count) add(t api.Tariff, u Use, now time.Time) {
	if c.At.IsZero() {
		// What was before the tab is not the tab's.
		c.Was, c.At = u, now
		return
	}
	passed := max(0, min(now.Sub(c.At), day))
	awake := min(since(u.Awake, c.Was.Awake), passed)
	c.Nano += share(uint64(t.Core)*nano, uint64(awake), uint64(day))
	c.Nano += share(uint64(t.Traffic)*nano, uint64(since(u.Sent, c.Was.Sent)), gib)
	stored := share(uint64(t.Storage)*nano, uint64(max(0, min(u.Stored, c.Was.Stored))), gib)
	c.Nano += share(stored, uint64(passed), uint64(month))
	c.Was, c.At = u, now
}

func since[T ~int64](now, before T) T {
	if now < before {
		return max(0, now)
	}
	return now - before
}

// share is n*part/whole, rounded down.
func share(n, part, whole uint64) uint64 {
	hi, lo := bits.Mul64(n, part)
	if hi >= whole {
		return 0 // more than there are units in the world: a counter that is broken
	}
	q, _ := bits.Div64(hi, lo, whole)
	return q
}

// rate is what a pal costs a day as it is now, rounded up.
func rate(t api.Tariff, u Use) ticket.Units {
	var n uint64
	if u.Up {
		n = uint64(t.Core) * nano
	}
	n += share(uint64(t.Storage)*nano, uint64(max(0, u.Stored)), gib) / uint64(month/day)
	return ticket.Units((n + nano - 1) / nano)
}

// endOf says when a tab's money ends that can be used up to most, at a rate a day:
// zero for never.
func endOf(most ticket.Units, c *count, rate ticket.Units, now time.Time) time.Time {
	if rate == 0 {
		return time.Time{}
	}
	var left uint64
	if all := uint64(most) * nano; all > c.Nano {
		left = all - c.Nano
	}
	const longest = 10 * 365 * day
	seconds := share(left, uint64(day/time.Second), uint64(rate)*nano)
	return now.Add(min(time.Duration(min(seconds, uint64(longest/time.Second)))*time.Second, longest)).Truncate(time.Second)
}
