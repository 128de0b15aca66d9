package console

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func hoursAgo(hours float64) time.Time { return noon.Add(-time.Duration(hours * float64(time.Hour))) }

func TestDay(t *testing.T) {
	for name, c := range map[string]struct {
		p    Page
		want string
	}{
		"nothing is known":           {Page{}, ""},
		"awake, and no more":         {Page{Awake: true, Since: hoursAgo(2)}, "awake 2h"},
		"asleep, and no more":        {Page{Since: hoursAgo(2)}, "asleep 2h"},
		"awake for days":             {Page{Awake: true, Since: hoursAgo(50)}, "awake 24h"},
		"asleep for days":            {Page{Since: hoursAgo(50)}, "asleep 24h"},
		"a nap":                      {Page{Awake: true, Since: hoursAgo(1), Naps: []Nap{{hoursAgo(3), hoursAgo(1), "x"}}}, "asleep 2h, awake 1h (x)"},
		"a nap, and all before":      {Page{Awake: true, From: hoursAgo(9), Naps: []Nap{{hoursAgo(3), hoursAgo(1), "x"}}}, "awake 6h, asleep 2h, awake 1h (x)"},
		"a nap from before the day":  {Page{Awake: true, From: hoursAgo(99), Naps: []Nap{{hoursAgo(30), hoursAgo(20), "x"}}}, "asleep 4h, awake 20h (x)"},
		"one before the day":         {Page{Awake: true, From: hoursAgo(99), Naps: []Nap{{hoursAgo(50), hoursAgo(40), "x"}}}, "awake 24h (x)"},
		"asleep again":               {Page{Since: hoursAgo(1), From: hoursAgo(9), Naps: []Nap{{hoursAgo(3), hoursAgo(2), "x"}}}, "awake 6h, asleep 1h, awake 1h (x), asleep 1h"},
		"out of order":               {Page{Awake: true, Naps: []Nap{{hoursAgo(3), hoursAgo(2), "y"}, {hoursAgo(6), hoursAgo(5), "x"}}}, "asleep 1h, awake 2h (x), asleep 1h, awake 2h (y)"},
		"over each other":            {Page{Awake: true, Naps: []Nap{{hoursAgo(6), hoursAgo(3), "x"}, {hoursAgo(5), hoursAgo(4), "y"}, {hoursAgo(4), hoursAgo(2), "z"}}}, "asleep 3h, asleep 1h, awake 2h (z)"},
		"backwards":                  {Page{Awake: true, Since: hoursAgo(1), Naps: []Nap{{hoursAgo(2), hoursAgo(3), "x"}}}, "awake 1h"},
		"from the future":            {Page{Awake: true, Since: hoursAgo(2), Naps: []Nap{{hoursAgo(-1), hoursAgo(-2), "x"}}}, "awake 2h"},
		"into the future":            {Page{Awake: true, Naps: []Nap{{hoursAgo(1), hoursAgo(-2), "x"}}}, "asleep 1h"},
		"asleep from the future":     {Page{Since: hoursAgo(-2), Naps: []Nap{{hoursAgo(2), hoursAgo(1), "x"}}}, "asleep 1h"},
		"asleep before it last woke": {Page{Since: hoursAgo(5), Naps: []Nap{{hoursAgo(2), hoursAgo(1), "x"}}}, "awake 3h, asleep 1h, asleep 1h"},
	} {
		c.p.Now = noon
		if got := story(newDay(c.p)); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func story(d day) string {
	var parts []string
	for _, b := range d.Bands {
		part := map[bool]string{true: "awake", false: "asleep"}[b.Awake] + fmt.Sprintf(" %.0fh", b.To.Sub(b.From).Hours())
		if b.Reason != "" {
			part += " (" + b.Reason + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// TestDayHasNoGaps tells random days: bands follow each other to the moment of
// looking, and stay within the day.
func TestDayHasNoGaps(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func() time.Time { return hoursAgo(40*r.Float64() - 5) }
	for range 2000 {
		p := Page{Now: noon, Awake: r.IntN(2) == 0, Since: some()}
		if r.IntN(2) == 0 {
			p.From = some()
		}
		for range r.IntN(20) {
			p.Naps = append(p.Naps, Nap{some(), some(), "x"})
		}
		d := newDay(p)
		for i, b := range d.Bands {
			if b.From.Before(d.From) || b.To.After(d.To) || !b.From.Before(b.To) {
				t.Fatalf("%+v: band %v to %v", p, b.From, b.To)
			}
			if i > 0 && !d.Bands[i-1].To.Equal(b.From) {
				t.Fatalf("%+v: a gap before %v", p, b.From)
			}
		}
		if awake, known := d.awake(); awake > known || known > dayLong {
			t.Fatalf("%+v: awake %v of %v", p, awake, known)
		}
	}
}

func TestDayShowsTheNewestNaps(t *testing.T) {
	p := Page{Now: noon, Awake: true, From: hoursAgo(99)}
	for i := range 2 * maxNaps {
		from := noon.Add(-time.Duration(2*maxNaps-i) * time.Minute)
		p.Naps = append(p.Naps, Nap{from, from.Add(30 * time.Second), "x"})
	}
	d := newDay(p)
	if len(d.Naps) != maxNaps {
		t.Errorf("got %d naps", len(d.Naps))
	}
	if _, known := d.awake(); known != maxNaps*time.Minute {
		t.Errorf("of what came before nothing is told, but %v are known", known)
	}
}

// TestHoursOfALongDay looks on the day that has 25 hours in Berlin.
func TestHoursOfALongDay(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here: ", err)
	}
	d := day{To: time.Date(2026, 10, 25, 12, 30, 0, 0, berlin)}
	d.From = d.To.Add(-dayLong)
	var got []string
	for _, h := range d.hours() {
		got = append(got, h.Format("15"))
	}
	if want := "14 15 16 17 18 19 20 21 22 23 00 01 02 02 03 04 05 06 07 08 09 10 11 12"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
