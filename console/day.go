package console

import (
	"slices"
	"time"
)

const (
	dayLong = 24 * time.Hour
	maxNaps = 300 // that a page shows, the newest of them
)

// A band is a part of the day in which the pal was one thing.
type band struct {
	From, To time.Time
	Awake    bool
	Reason   string // why it woke, where that is the band's beginning
}

// A day is the 24 hours before a moment.
type day struct {
	From, To time.Time
	Bands    []band // of what is known, without gaps, oldest first
	Naps     []Nap  // that ended in it, newest first
}

// newDay lays out what is known. Naps that contradict each other or the clock
// are cut to fit: whose clock was wrong is not to be known here.
func newDay(p Page) day {
	d := day{From: p.Now.Add(-dayLong), To: p.Now}
	naps := orderly(p.Naps, p.Now)
	from := p.From
	if len(naps) > maxNaps {
		naps = naps[len(naps)-maxNaps:]
		from = later(from, naps[0].From)
	}
	asleep := !p.Awake && !p.Since.IsZero() && p.Since.Before(p.Now)
	if from.IsZero() {
		from = firstKnown(p, naps)
	}
	at := later(from, d.From)
	reason := ""
	for _, n := range naps {
		if n.To.Before(at) || !n.To.After(d.From) {
			reason = n.Reason
			continue
		}
		if n.From.After(at) {
			d.add(band{at, n.From, true, reason})
			at = n.From
		}
		d.add(band{at, n.To, false, ""})
		d.Naps = append(d.Naps, n)
		at, reason = n.To, n.Reason
	}
	if since := later(p.Since, at); asleep && since.Before(d.To) {
		d.add(band{at, since, true, reason})
		d.add(band{since, d.To, false, ""})
	} else if p.Awake {
		d.add(band{at, d.To, true, reason})
	}
	slices.Reverse(d.Naps)
	return d
}

// firstKnown is the beginning of the first thing that is known, or now.
func firstKnown(p Page, naps []Nap) time.Time {
	first := p.Now
	if len(naps) > 0 {
		first = naps[0].From
	}
	if !p.Since.IsZero() && p.Since.Before(first) {
		first = p.Since
	}
	return first
}

// orderly returns the naps that can be, oldest first, each after the other.
func orderly(naps []Nap, now time.Time) []Nap {
	naps = slices.Clone(naps)
	slices.SortStableFunc(naps, func(a, b Nap) int { return a.From.Compare(b.From) })
	fit := naps[:0]
	var end time.Time
	for _, n := range naps {
		if n.To.After(now) {
			n.To = now
		}
		if n.From = later(n.From, end); !n.From.Before(n.To) {
			continue
		}
		fit, end = append(fit, n), n.To
	}
	return fit
}

func (d *day) add(b band) {
	if b.From.Before(b.To) {
		d.Bands = append(d.Bands, b)
	}
}

// awake returns how long the pal was awake, of the time that is known.
func (d day) awake() (awake, known time.Duration) {
	for _, b := range d.Bands {
		long := b.To.Sub(b.From)
		known += long
		if b.Awake {
			awake += long
		}
	}
	return awake, known
}

// at is where on the day a moment is, in percent of its length.
func (d day) at(t time.Time) float64 {
	return 100 * float64(t.Sub(d.From)) / float64(dayLong)
}

// hours returns the full hours of the day in its own zone.
func (d day) hours() (hours []time.Time) {
	y, m, day := d.From.Date()
	at := time.Date(y, m, day, d.From.Hour(), 0, 0, 0, d.From.Location())
	for ; !at.After(d.To); at = at.Add(time.Hour) {
		if !at.Before(d.From) {
			hours = append(hours, at)
		}
	}
	return hours
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
