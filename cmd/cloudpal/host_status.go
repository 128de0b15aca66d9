package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const hostStatusHelp = `Show what this machine's agent is and how its memory is used. The agent is not
started for it: without one the exit status is 1.`

func (c *cli) hostStatus() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "status", Short: "Show the agent and what its VMs take", Long: hostStatusHelp,
		Example: "  cloudpal host status\n  cloudpal host status --json | jq .asleep",
		Args:    args(0, 0, ""),
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			agent := api.Dial(c.socket)
			defer agent.Close()
			h, err := agent.Host(ctx)
			if err != nil {
				return err
			}
			return c.print(h, func(w io.Writer) { printHost(w, h) })
		}),
	})
}

func printHost(out io.Writer, h api.Host) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, plain(fmt.Sprintf(format, args...)))
	}
	row("agent", "cloudpal %s, pid %d, %s of memory", h.Version, h.PID, formatSize(h.AgentRSS))
	row("vms", "%d running, %d asleep", h.Running, h.Asleep)
	row("naps", "%s of memory, %s at most", formatSize(h.NapMemory), formatSize(h.NapLimit))
	row("machine", "%d CPUs, %s of memory", h.CPUs, formatSize(h.Memory))
	row("driver", "%s, %s", h.Driver, h.Accelerator)
	row("kernel", "%s", h.Kernel)
	row("state", "%s", h.StateDir)
	row("run", "%s", h.RunDir)
	t.Flush()
}
