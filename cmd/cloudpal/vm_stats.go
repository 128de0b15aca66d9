package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

const vmStatsHelp = `Show what VMs use, or all VMs. CPU is that of the last second, of one core; MEM
is the memory that a VM takes of this machine now, of which a sleeping one on
disk takes none; STORAGE is what it takes on disk, without the layers of its
image and named volumes. The other columns count from when the VM was made.

With --watch it goes on, once a second, until Ctrl-C. With --json and --watch
each line is one array.`

// watchEvery is how often --watch looks.
const watchEvery = time.Second

func (c *cli) vmStats() *cobra.Command {
	var watch bool
	cmd := c.withJSON(&cobra.Command{
		Use: "stats [VM...]", Short: "Show what VMs use", Long: vmStatsHelp,
		Example: "  cloudpal vm stats\n  cloudpal vm stats --watch web db\n  cloudpal vm stats --json | jq 'map(.memory) | add'",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			if watch {
				return c.watchStats(ctx, agent, names)
			}
			stats, err := readStats(ctx, agent, names)
			return errors.Join(err, c.print(stats, func(w io.Writer) { printStats(w, stats) }))
		}),
	})
	cmd.ValidArgsFunction = c.offer(true, vmNames())
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again each second")
	return cmd
}

// readStats reads the counters of the VMs named, or of all there are.
func readStats(ctx context.Context, agent *api.Client, names []string) ([]api.Stats, error) {
	if len(names) > 0 {
		return each(ctx, names, agent.Stats)
	}
	names, err := vmNames()(ctx, agent)
	if err != nil {
		return nil, err
	}
	return presentStats(ctx, agent, names)
}

// presentStats leaves out VMs that were removed since they were listed.
func presentStats(ctx context.Context, agent *api.Client, names []string) ([]api.Stats, error) {
	lists, err := each(ctx, names, func(ctx context.Context, name string) ([]api.Stats, error) {
		s, err := agent.Stats(ctx, name)
		if errors.Is(err, cloudpal.NotExist) {
			return nil, nil
		}
		return []api.Stats{s}, err
	})
	all := []api.Stats{}
	for _, list := range lists {
		all = append(all, list...)
	}
	return all, err
}

// clearScreen moves a terminal's cursor to its first line and clears what is
// below (ECMA-48, CUP and ED).
const clearScreen = "\x1b[H\x1b[J"

func (c *cli) watchStats(ctx context.Context, agent *api.Client, names []string) error {
	for {
		stats, err := readStats(ctx, agent, names)
		if err == nil {
			err = c.showStats(stats)
		}
		if err == nil {
			err = pause(ctx, watchEvery)
		}
		if err != nil {
			return err
		}
	}
}

func (c *cli) showStats(stats []api.Stats) error {
	if c.json {
		return json.NewEncoder(screenOf(c.out)).Encode(stats)
	}
	if _, ok := terminal(c.out); ok {
		if _, err := io.WriteString(c.out, clearScreen); err != nil {
			return err
		}
	}
	printStats(c.out, stats)
	return nil
}

func printStats(w io.Writer, stats []api.Stats) {
	var rows [][]string
	for _, s := range stats {
		rows = append(rows, []string{
			s.Name, string(s.State), fmt.Sprintf("%.1f%%", s.CPUPercent), formatTime(s.CPU),
			formatSize(s.Memory) + " / " + formatSize(s.MemoryLimit), formatSize(s.Storage),
			formatSize(s.DiskRead) + " / " + formatSize(s.DiskWrite),
			formatSize(s.NetIn) + " / " + formatSize(s.NetOut),
			strconv.FormatInt(s.Wakes, 10), formatAge(s.Awake), formatAge(s.Asleep),
		})
	}
	table(w, "NAME STATE CPU CPU-TIME MEM/LIMIT STORAGE DISK-R/W NET-IN/OUT WAKES AWAKE ASLEEP", rows)
}
