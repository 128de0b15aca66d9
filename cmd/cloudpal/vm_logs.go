package main

import (
	"context"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

const vmLogsHelp = `Show what a VM's process wrote: its standard output on standard output, its
standard error on standard error. At least the last 4 MiB are kept, in memory,
until the VM is removed or the machine restarts.

With --json each piece is one line of JSON with its time, stream and data
(base64).`

func (c *cli) vmLogs() *cobra.Command {
	var follow, times bool
	cmd := c.withJSON(c.onVM(&cobra.Command{
		Use: "logs VM", Short: "Show what a VM's process wrote", Long: vmLogsHelp,
		Example: "  cloudpal vm logs web\n  cloudpal vm logs -f web\n  cloudpal vm logs --json web | jq -r '.data | @base64d'",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			return agent.Logs(ctx, names[0], follow, c.logPrinter(times))
		}),
	}))
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the process has ended")
	cmd.Flags().BoolVar(&times, "timestamps", false, "say when each piece was written")
	return cmd
}

// logPrinter returns what shows an entry as the command line asks for.
func (c *cli) logPrinter(times bool) func(api.LogEntry) error {
	if c.json {
		enc := json.NewEncoder(screenOf(c.out))
		return func(e api.LogEntry) error { return enc.Encode(e) }
	}
	return printTo(c.out, c.err, times)
}

// printTo returns what writes entries to a writer for each stream.
func printTo(stdout, stderr io.Writer, times bool) func(api.LogEntry) error {
	out, errs := screenOf(stdout), screenOf(stderr)
	return func(e api.LogEntry) error {
		w := out
		if e.Stream == guest.Stderr {
			w = errs
		}
		if times {
			if _, err := io.WriteString(w, e.Time.Format("2006-01-02T15:04:05.000Z07:00 ")); err != nil {
				return err
			}
		}
		_, err := w.Write(e.Data)
		return err
	}
}
