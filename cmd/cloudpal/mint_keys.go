package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

const mintKeysHelp = `Show the months that the mint has published keys for. Tickets are issued in their
month, paid with in three more, and swapped for newer ones in a fifth; then they are
worth nothing.

"cloudpal mint keys add" makes and publishes those of this month and the next, for
which it needs the root key. Do that once a month. A mint that was made with --own
does it by itself.`

// A mintMonth is one that has keys, as --json shows it.
type mintMonth struct {
	Epoch ticket.Epoch `json:"epoch"`
	Month string       `json:"month"`
	Keys  int          `json:"keys"` // that are not revoked
	Spend time.Time    `json:"spendEnds"`
	Swap  time.Time    `json:"swapEnds"`
}

func (c *cli) mintKeys() *cobra.Command {
	var folder string
	cmd := c.withJSON(c.withMint(&cobra.Command{
		Use: "keys", Short: "Show the months that have keys, make the next", Long: mintKeysHelp,
		Example: `  cloudpal mint keys
  cloudpal mint keys add
  cloudpal mint keys add --root /media/stick/root.key`,
		Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error { return c.listMonths(ctx, folder) }),
	}, &folder))
	cmd.AddCommand(c.mintKeysAdd(), c.mintKeysRevoke())
	return cmd
}

func (c *cli) mintKeysAdd() *cobra.Command {
	var folder, root string
	cmd := c.withMint(&cobra.Command{
		Use: "add", Short: "Make and publish the keys of this month and the next", Long: mintKeysHelp,
		Example: `  cloudpal mint keys add
  cloudpal mint keys add --root /media/stick/root.key`,
		Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			f, err := c.mintDir(folder)
			if err != nil {
				return err
			}
			config, err := f.config()
			if err != nil {
				return err
			}
			key, err := c.openRoot(f, root)
			if err != nil {
				return err
			}
			return f.publish(ctx, config, key)
		}),
	}, &folder)
	cmd.Flags().StringVar(&root, "root", "", "`FILE` of the root key, where the folder has it not")
	return cmd
}

func (c *cli) listMonths(ctx context.Context, folder string) error {
	f, err := c.mintDir(folder)
	if err != nil {
		return err
	}
	config, err := f.config()
	if err != nil {
		return err
	}
	log, trust, err := f.openLog(config, time.Now)
	if err != nil {
		return err
	}
	defer log.Close()
	months := []mintMonth{}
	for e := ticket.EpochAt(time.Now()) + 1; ; e-- {
		m, _, err := shownLog{log, trust, time.Now}.Epoch(ctx, e)
		if errors.Is(err, cloudpal.NotExist) && e >= ticket.EpochAt(time.Now()) {
			continue
		}
		if errors.Is(err, cloudpal.NotExist) || e == 0 {
			break
		}
		if err != nil {
			return err
		}
		months = append(months, mintMonth{e, e.Begins().Format("2006-01"), len(m.Keys()), e.SpendEnds(), e.SwapEnds()})
	}
	return c.print(months, func(w io.Writer) { printMonths(w, months) })
}

func printMonths(w io.Writer, months []mintMonth) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "MONTH\tKEYS\tPAID WITH UNTIL\tSWAPPED UNTIL")
	for _, m := range months {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", m.Month, m.Keys, m.Spend.Format(time.DateOnly), m.Swap.Format(time.DateOnly))
	}
}
