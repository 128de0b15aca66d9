package console

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What outsiders may fill in, in runes.
const (
	maxName = 40
	maxText = 400
	maxWhy  = 100
)

// clean makes text of others fit to be shown: one line of at most n runes,
// without what is not seen. That takes in the marks that turn the direction of
// writing, by which one name can look like another.
func clean(s string, n int) string {
	if len(s) > n*utf8.UTFMax {
		s = s[:n*utf8.UTFMax+1]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}

func named(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// capital makes the first letter large.
func capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return ""
	}
	return string(unicode.ToUpper(r)) + s[n:]
}

// units are the two largest that a duration has.
var units = []struct {
	size time.Duration
	name string
}{
	{24 * time.Hour, "d"},
	{time.Hour, "h"},
	{time.Minute, "min"},
	{time.Second, "s"},
}

// humane writes a duration with at most two units: "3 h 12 min", "340 ms". The
// spaces in it do not break.
func humane(d time.Duration) string {
	switch {
	case d < 0:
		return "no time"
	case d < time.Second:
		return fmt.Sprintf("%d\u00a0ms", d.Round(time.Millisecond).Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d\u00a0s", d/time.Second)
	}
	for i, u := range units {
		if d < u.size {
			continue
		}
		text := fmt.Sprintf("%d\u00a0%s", d/u.size, u.name)
		if rest := d % u.size; i+1 < len(units) && rest >= units[i+1].size {
			text += fmt.Sprintf("\u00a0%d\u00a0%s", rest/units[i+1].size, units[i+1].name)
		}
		return text
	}
	return ""
}

// ago writes how long before now t was, with one unit.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	if d < time.Minute {
		return "just now"
	}
	for _, u := range units {
		if d >= u.size {
			return fmt.Sprintf("%d\u00a0%s ago", d/u.size, u.name)
		}
	}
	return "just now"
}

// moment writes t as one says it at now, the time alone if it was today, and
// with the words that answer "when?".
func moment(t, now time.Time) (text, when string) {
	y, m, d := now.Date()
	today := time.Date(y, m, d, 0, 0, 0, 0, now.Location())
	date, at := t.Format("2 January 2006"), t.Format("15:04")
	switch {
	case !t.Before(today) && t.Before(today.AddDate(0, 0, 1)):
		return at, "at " + at
	case !t.Before(today.AddDate(0, 0, -1)) && t.Before(today):
		return "yesterday, " + at, "yesterday at " + at
	case t.Year() == y:
		date = t.Format("2 January")
	}
	return date + ", " + at, "on " + date + " at " + at
}

// size writes a count of bytes with three digits at most: "4.2 MB".
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d\u00a0B", max(n, 0))
	}
	f, unit := float64(n), 0
	for f >= 999.5 && unit < len("kMGTPE") {
		f, unit = f/1000, unit+1
	}
	digits := 0
	if f < 9.95 {
		digits = 1
	}
	return fmt.Sprintf("%.*f\u00a0%cB", digits, f, "kMGTPE"[unit-1])
}

// percent writes a share of 1: small ones with a digit more.
func percent(f float64) string {
	switch {
	case f > 0 && f < 0.001:
		return "<\u00a00.1\u00a0%"
	case f < 0.0995:
		return fmt.Sprintf("%.1f\u00a0%%", 100*f)
	}
	return fmt.Sprintf("%.0f\u00a0%%", 100*f)
}
