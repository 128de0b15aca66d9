package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmPsHelp = `List the VMs of this machine, sleeping and stopped ones too. SINCE is how long a
VM has been in its state. One that is busy has said so itself, and naps later.`

func (c *cli) vmPs() *cobra.Command {
	var quiet bool
	cmd := c.withJSON(&cobra.Command{
		Use: "ps", Aliases: []string{"ls"}, Short: "List VMs", Long: vmPsHelp,
		Example: "  cloudpal vm ps\n  cloudpal vm ps --json | jq -r '.[] | select(.state == \"asleep\").name'\n  cloudpal vm rm -f $(cloudpal vm ps -q)",
		Args:    args(0, 0, ""),
		RunE: c.ask(func(ctx context.Context, agent *api.Client, _ []string) error {
			vms, err := agent.VMs(ctx)
			if err != nil {
				return err
			}
			return c.print(vms, func(w io.Writer) { printVMs(w, vms, quiet) })
		}),
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "names only")
	return cmd
}

func printVMs(w io.Writer, vms []api.VM, quiet bool) {
	var rows [][]string
	for _, v := range vms {
		if quiet {
			fmt.Fprintln(w, plain(v.Name))
			continue
		}
		rows = append(rows, vmRow(v))
	}
	if !quiet {
		table(w, "NAME IMAGE STATE SINCE CPU MEM PORTS", rows)
	}
}

func vmRow(v api.VM) []string {
	var ports []string
	for _, p := range v.Ports {
		ports = append(ports, formatPort(p))
	}
	if w := v.WireGuard; w != nil {
		ports = append(ports, fmt.Sprintf("%d->%d/udp (WireGuard)", w.HostPort, w.Port))
	}
	return []string{
		v.Name, v.Image, formatState(v), formatAge(time.Since(v.Since)),
		strconv.Itoa(v.CPUs), formatSize(v.Memory), orDash(strings.Join(ports, ", ")),
	}
}

// formatState says what a VM is doing: "asleep (disk)", "stopped (137)".
func formatState(v api.VM) string {
	switch {
	case v.Depth != "" && (v.State == api.Asleep || v.State == api.Cold):
		return fmt.Sprintf("%s (%s)", v.State, v.Depth)
	case v.State == api.Stopped && v.Exit != nil:
		return fmt.Sprintf("%s (%d)", v.State, v.Exit.Code)
	case v.Throttled:
		return fmt.Sprintf("%s (throttled)", v.State)
	case v.State == api.Running && len(v.Busy) > 0:
		return fmt.Sprintf("%s (busy)", v.State)
	}
	return string(v.State)
}
