package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const volumeLsHelp = `List the named volumes of this machine. USED is what a volume takes on the
machine's disk, SIZE is the most that it can.`

func (c *cli) volumeLs() *cobra.Command {
	var quiet bool
	cmd := c.withJSON(&cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List volumes", Long: volumeLsHelp,
		Example: "  cloudpal volume ls\n  cloudpal volume ls --json | jq -r '.[] | select(.usedBy == null).name'",
		Args:    args(0, 0, ""),
		RunE: c.ask(func(ctx context.Context, agent *api.Client, _ []string) error {
			volumes, err := agent.Volumes(ctx)
			if err != nil {
				return err
			}
			return c.print(volumes, func(w io.Writer) { printVolumes(w, volumes, quiet) })
		}),
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "names only")
	return cmd
}

func printVolumes(w io.Writer, volumes []api.Volume, quiet bool) {
	var rows [][]string
	for _, v := range volumes {
		if quiet {
			fmt.Fprintln(w, plain(v.Name))
			continue
		}
		rows = append(rows, []string{
			v.Name, formatSize(v.Used), formatSize(v.Size), formatSince(v.Created), orDash(v.UsedBy),
		})
	}
	if !quiet {
		table(w, "NAME USED SIZE AGE USED-BY", rows)
	}
}
