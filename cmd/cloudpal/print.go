package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// withJSON adds --json to a command.
func (c *cli) withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	return cmd
}

// print writes v as JSON if that was asked for, else as text does.
func (c *cli) print(v any, text func(io.Writer)) error {
	if c.json {
		return c.printJSON(v)
	}
	if text != nil {
		text(c.out)
	}
	return nil
}

func (c *cli) printJSON(v any) error {
	// JSON escapes some control characters and not others.
	enc := json.NewEncoder(screenOf(c.out))
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// say tells the person something that is no result.
func (c *cli) say(format string, args ...any) {
	fmt.Fprintln(c.err, plain(fmt.Sprintf(format, args...)))
}

// table writes rows in columns. The cells' text may come from anywhere.
func table(out io.Writer, header string, rows [][]string) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(strings.Fields(header), "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = strings.Join(strings.Fields(plain(row[i])), " ")
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush()
}

// orDash makes an empty cell visible.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// formatSince says how long ago t was, or "-" where there is no such time.
func formatSince(t time.Time) string {
	if t.Unix() <= 0 { // what is built reproducibly has the first second of all
		return "-"
	}
	return formatAge(time.Since(t))
}

// formatAge says how long something was: "5 s", "3 min", "2 h", "4 d".
func formatAge(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// formatTime says how long something took: "3.21 ms", "1.5 s", "2m10s".
func formatTime(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/1e6)
	case d < 2*time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
