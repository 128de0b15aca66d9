package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/meter"
)

const usageVerifyHelp = `Check a file of usage records, or standard input for "-", and print what they add
up to. Of an agent's own log the files that it put aside, with .1 and so on
behind the name, are read before it.

It fails at the first record that was changed, does not follow the one before,
or counts back. What is printed then is what the records before it add up to.
The last line may be half a record: it is being written, or its writer was
killed. That is said, and is no failure.

Records that are missing at the end cannot be seen. Keep the last record's
number and hash, which are printed, to compare them with later ones.`

func (c *cli) usageVerify() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "verify FILE|-", Short: "Check that usage records are whole and unaltered", Long: usageVerifyHelp,
		Example: "  cloudpal usage verify web.usage\n  cloudpal vm usage web --json | cloudpal usage verify - --json | jq .total",
		Args:    args(1, 1, "a FILE of usage records, or -"),
		RunE: c.verb(func(ctx context.Context, args []string) error {
			records, err := c.openUsage(args[0])
			if err != nil {
				return err
			}
			return c.verify(ctx, records, args[0])
		}),
	})
}

func (c *cli) openUsage(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(c.in), nil
	}
	records, err := meter.History(name)
	if err != nil {
		return nil, cloudpal.E("", "", err).WithHint("give a file of usage records, as from: cloudpal vm usage VM --json")
	}
	return records, nil
}

// A verdict is what was found in records, and what is wrong with them.
type verdict struct {
	meter.Summary
	err error
}

// readUsage checks the records, until ctx ends. Nothing ends a read of a terminal,
// so nobody waits for that.
func readUsage(ctx context.Context, records io.ReadCloser) (meter.Summary, error) {
	found := make(chan verdict, 1)
	go func() {
		defer records.Close()
		s, err := meter.Verify(records)
		found <- verdict{s, err}
	}()
	select {
	case v := <-found:
		return v.Summary, v.err
	case <-ctx.Done():
		return meter.Summary{}, ctx.Err()
	}
}

// verify prints what the records add up to, as far as they are good.
func (c *cli) verify(ctx context.Context, records io.ReadCloser, name string) error {
	s, bad := readUsage(ctx, records)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if bad != nil {
		bad = cloudpal.E(name, "", bad).WithHint(fmt.Sprintf("the first %d records are good; trust nothing behind them", s.Records))
	}
	if s.Torn {
		c.say("%s: the last line is no whole record: it is being written, or its writer was killed", name)
	}
	if err := c.print(checkedOf(s, bad), func(w io.Writer) { printUsage(w, s) }); err != nil {
		return err
	}
	return bad
}

// checked is what --json shows of records that were checked.
type checked struct {
	Good      bool           `json:"good"`
	Fault     string         `json:"fault,omitempty"`
	Records   int64          `json:"records"` // good ones
	FromStart bool           `json:"fromStart"`
	Torn      bool           `json:"torn"`
	Total     meter.Counters `json:"total"`
	Last      *meter.Record  `json:"last,omitempty"`
}

func checkedOf(s meter.Summary, bad error) checked {
	out := checked{Good: bad == nil, Records: s.Records, FromStart: s.FromStart, Torn: s.Torn, Total: s.Total}
	if bad != nil {
		out.Fault = bad.Error()
	}
	if s.Records > 0 {
		out.Last = &s.Last
	}
	return out
}

// printUsage shows what records add up to.
func printUsage(out io.Writer, s meter.Summary) {
	if s.Records == 0 {
		fmt.Fprintln(out, "no records")
		return
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, plain(fmt.Sprintf(format, args...)))
	}
	n := s.Total
	row("records", "%d to %d", s.First.Seq, s.Last.Seq)
	row("time", "%s to %s", s.First.Time.Format(time.RFC3339), s.Last.Time.Format(time.RFC3339))
	row("cpu", "%s", formatTime(n.CPU))
	row("memory", "%s", formatMemoryTime(n.MemoryTime))
	row("disk", "%s read, %s written", formatSize(n.DiskRead), formatSize(n.DiskWrite))
	row("network", "%s in, %s out", formatSize(n.NetIn), formatSize(n.NetOut))
	row("wakes", "%d", n.Wakes)
	row("awake", "%s", formatTime(n.Awake))
	row("asleep", "%s", formatTime(n.Asleep))
	row("last hash", "%s", s.Last.Hash)
	t.Flush()
}

// formatMemoryTime says how much memory was taken for how long, from MiB·ms.
func formatMemoryTime(n int64) string {
	const gibHour = 1024 * 3600 * 1000
	return fmt.Sprintf("%.3g GiB·h", float64(n)/gibHour)
}
