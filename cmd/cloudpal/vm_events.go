package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmEventsHelp = `Show what happened to a VM, the last 1,000 events:

  booted   it runs, from nothing but its disks
  napped   it sleeps
  woke     it runs on
  sealed   its snapshot was dropped, as it was meant to be
  lost     its memory was lost; the next wake boots it
  stopped  its process ended, or it was stopped

They are on this machine's disk and name nobody: from where the packet came
that woke it last is in "vm inspect". With --json each event is one line.`

func (c *cli) vmEvents() *cobra.Command {
	var follow bool
	cmd := c.withJSON(c.onVM(&cobra.Command{
		Use: "events VM", Short: "Show when a VM slept and why it woke", Long: vmEventsHelp,
		Example: "  cloudpal vm events web\n  cloudpal vm events --follow web\n  cloudpal vm events --json web | jq -r 'select(.what == \"woke\").reason'",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			return c.showEvents(ctx, agent, names[0], follow)
		}),
	}))
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those to come")
	return cmd
}

// showEvents prints what happened to a VM and, with follow, what does until ctx
// ends.
func (c *cli) showEvents(ctx context.Context, agent *api.Client, name string, follow bool) error {
	print := c.eventPrinter()
	wait := time.Duration(0)
	for after := int64(0); ; {
		events, err := agent.Events(ctx, name, after, wait)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := print(e); err != nil {
				return err
			}
			after = e.N
		}
		if !follow {
			return nil
		}
		wait = api.MaxWait
	}
}

// eventPrinter returns what shows an event as the command line asks for.
func (c *cli) eventPrinter() func(api.Event) error {
	out := screenOf(c.out)
	if c.json {
		enc := json.NewEncoder(out)
		return func(e api.Event) error { return enc.Encode(e) }
	}
	return func(e api.Event) error {
		_, err := io.WriteString(out, formatEvent(e)+"\n")
		return err
	}
}

// formatEvent says what happened in a line.
func formatEvent(e api.Event) string {
	var more []string
	if e.Depth != "" {
		more = append(more, string(e.Depth))
	}
	if e.Slept > 0 {
		more = append(more, "after "+formatAge(e.Slept))
	}
	what := string(e.What)
	if len(more) > 0 {
		what += " (" + strings.Join(more, ", ") + ")"
	}
	return plain(strings.TrimSpace(fmt.Sprintf("%s  %-22s %s", e.Time.Local().Format(time.DateTime), what, e.Reason)))
}
