package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// A show prints what happens and how long it took. On a terminal a step is seen
// when it begins; elsewhere, and where colours are not wanted, there are lines
// of plain text.
type show struct {
	out  *os.File
	live bool
	open bool // a step's line has no end yet
}

func newShow(out *os.File) *show {
	return &show{out: out, live: term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == ""}
}

const (
	bold  = "\033[1m"
	dim   = "\033[2m"
	green = "\033[32m"
	plain = "\033[0m"
	clear = "\r\033[K"
)

func (s *show) styled(style, text string) string {
	if !s.live || text == "" {
		return text
	}
	return style + text + plain
}

func (s *show) title(text string) {
	fmt.Fprintf(s.out, "\n%s\n\n", s.styled(bold, text))
}

// begin starts a step; the function that it returns ends it, with a result.
func (s *show) begin(step string) (done func(format string, args ...any)) {
	if s.live {
		fmt.Fprintf(s.out, "%8s  %s ...", "", step)
		s.open = true
	}
	begun := time.Now()
	return func(format string, args ...any) {
		took := fmt.Sprintf("%8s", round(time.Since(begun)))
		if s.live {
			fmt.Fprint(s.out, clear)
			s.open = false
		}
		fmt.Fprintf(s.out, "%s  %s\n", s.styled(green, took), step)
		s.note(format, args...)
	}
}

// leave ends the line of a step that did not come to its end.
func (s *show) leave() {
	if s.open {
		fmt.Fprintln(s.out)
	}
}

// note adds to the step before.
func (s *show) note(format string, args ...any) {
	if text := strings.TrimSpace(fmt.Sprintf(format, args...)); text != "" {
		fmt.Fprintf(s.out, "%8s  %s\n", "", s.styled(dim, text))
	}
}

func (s *show) row(name, format string, args ...any) {
	fmt.Fprintf(s.out, "  %-10s %s\n", name, fmt.Sprintf(format, args...))
}

// round writes a time as a person would: "12 ms", "3.4 s".
func round(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
