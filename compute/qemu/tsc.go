package qemu

import "time"

// rdtsc reads the processor's time-stamp counter.
func rdtsc() uint64

// measureTSC returns the frequency of this machine's time-stamp counter in
// kHz, good to a few parts in a million.
func measureTSC() uint64 {
	const window = 60 * time.Millisecond
	start, from := bothClocks()
	time.Sleep(window)
	end, to := bothClocks()
	return (to - from) * uint64(time.Millisecond) / uint64(end.Sub(start))
}

// bothClocks reads the clock and the counter at the same instant, as near as
// the best of some tries is.
func bothClocks() (at time.Time, ticks uint64) {
	best := time.Hour
	for range 16 {
		before := time.Now()
		t := rdtsc()
		if took := time.Since(before); took < best {
			best, at, ticks = took, before.Add(took/2), t
		}
	}
	return at, ticks
}
