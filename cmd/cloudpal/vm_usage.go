package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/meter"
)

const vmUsageHelp = `Show what a VM has used since it was made, as its usage records add up, and what
happened to it last. The records are checked on the way: if one is not as it was
written, the exit status is 1.

Memory counts as it is taken: a GiB·h is one GiB for an hour. With --json the
records themselves are printed, one a line, for "cloudpal usage verify".`

// maxEvents is how many events are shown.
const maxEvents = 10

func (c *cli) vmUsage() *cobra.Command {
	return c.withJSON(c.onVM(&cobra.Command{
		Use: "usage VM", Short: "Show what a VM has used in its life", Long: vmUsageHelp,
		Example: "  cloudpal vm usage web\n  cloudpal vm usage web --json | tail -n 1 | jq .total.cpu",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			records, err := agent.Usage(ctx, names[0])
			if err != nil {
				return err
			}
			defer records.Close()
			if c.json {
				_, err := io.Copy(screenOf(c.out), records)
				return err
			}
			return c.showUsage(records, names[0])
		}),
	}))
}

func (c *cli) showUsage(records io.Reader, name string) error {
	last := events{}
	s, err := meter.Verify(io.TeeReader(records, &last))
	printUsage(c.out, s)
	last.print(c.out)
	if err != nil {
		return cloudpal.E("usage of "+name, "", err).
			WithHint("what is printed is good; look at the rest: cloudpal vm usage " + name + " --json")
	}
	return nil
}

// events keeps the last events of the records that are written to it.
type events struct {
	part []byte // of a line
	last []meter.Record
}

// Write takes more of the records. It never fails.
func (e *events) Write(data []byte) (int, error) {
	e.part = append(e.part, data...)
	for {
		line, rest, whole := bytes.Cut(e.part, []byte("\n"))
		if !whole {
			return len(data), nil
		}
		e.take(line)
		e.part = rest
	}
}

func (e *events) take(line []byte) {
	var r meter.Record
	if !bytes.Contains(line, []byte(`"event":`)) || json.Unmarshal(line, &r) != nil || r.Event == "" {
		return
	}
	e.last = append(e.last, r)
	if len(e.last) > maxEvents {
		e.last = e.last[1:]
	}
}

func (e *events) print(w io.Writer) {
	if len(e.last) == 0 {
		return
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, r := range e.last {
		rows = append(rows, []string{r.Time.Local().Format(time.DateTime), r.Event})
	}
	table(w, "TIME EVENT", rows)
}
