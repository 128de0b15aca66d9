package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center"
	centerapi "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/compute/api"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/audit"
	"github.com/tradle/cloudpal/ticket"
)

const centerReceiptsHelp = `Show what mints have confirmed of the tickets that this machine's center took to
them. With --json it prints the receipts themselves, those of one mint, as "cloudpal
mint audit --own" reads them: so two commands say whether the mint counts each of
your deposits. A mint publishes them a day late, so that one which is missing is
found on the day after.

The receipts are there until the tickets' keys are worth nothing any more. An audit
reads 64 MiB of them, some hundred thousand: --since leaves out those that were
audited before. Nothing in them says which tickets were one pal's.`

// receiptsOptions are what "cloudpal center receipts" is told.
type receiptsOptions struct {
	mint  string // name, or "" for all
	since date
}

// A mintReceipts sums up what a mint has confirmed.
type mintReceipts struct {
	deposits    int
	units       ticket.Units
	first, last time.Time
}

func (c *cli) centerReceipts() *cobra.Command {
	o := receiptsOptions{}
	cmd := c.withJSON(&cobra.Command{
		Use: "receipts", Short: "Show what mints have confirmed of the center's deposits", Long: centerReceiptsHelp,
		Example: `  cloudpal center receipts
  cloudpal center receipts --mint mint.example --json > receipts.json
  cloudpal mint audit mint.json --own receipts.json`,
		Args: args(0, 0, ""),
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			all, err := c.receipts(ctx, o)
			if err != nil {
				return err
			}
			if c.json {
				return c.printReceipts(all)
			}
			tableReceipts(c.out, all)
			return nil
		}),
	})
	f := cmd.Flags()
	f.StringVar(&o.mint, "mint", "", "`NAME` of the mint whose receipts are meant (default: all)")
	f.Var(&o.since, "since", "`DATE` of the first that are meant, in UTC, such as 2026-11-01")
	for _, name := range []string{"mint", "since"} {
		c.offerFlag(cmd, name, words())
	}
	return cmd
}

// receipts asks this machine's center, with its own key, for the receipts that are meant,
// by their mints.
func (c *cli) receipts(ctx context.Context, o receiptsOptions) (map[string][]mintapi.Receipt, error) {
	agent := api.Dial(c.socket)
	defer agent.Close()
	v, err := lookAtCenter(ctx, agent)
	if err != nil {
		return nil, err
	}
	h, err := agent.Host(ctx)
	if err != nil {
		return nil, err
	}
	key, err := center.ReadKey(filepath.Join(h.StateDir, "center"))
	if err != nil {
		return nil, err
	}
	at := v.Address
	at.Host, at.Port = v.Here.Addr().String(), v.Here.Port()
	client, err := centerapi.Dial(at, key, nil)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	all := map[string][]mintapi.Receipt{}
	for after := ""; ; {
		page, err := client.Receipts(ctx, after)
		if errors.Is(err, cloudpal.NotExist) {
			return nil, cloudpal.E("list the center's receipts", cloudpal.NotExist, errors.New("this center takes no money")).
				WithHint("with a mint's tickets it does: cloudpal center --tickets mint.json --tariff tariff.json")
		}
		if err != nil {
			return nil, err
		}
		if err := o.take(page, all); err != nil {
			return nil, err
		}
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// take adds those of a page that are meant.
func (o receiptsOptions) take(page centerapi.Receipts, all map[string][]mintapi.Receipt) error {
	for _, r := range page.Receipts {
		var signed mintapi.Receipt
		if err := json.Unmarshal(r.Signed, &signed); err != nil {
			return cloudpal.E("read a receipt", cloudpal.Corrupt, err)
		}
		if (o.mint == "" || o.mint == r.Issuer) && !signed.Credited.Before(time.Time(o.since)) {
			all[r.Issuer] = append(all[r.Issuer], signed)
		}
	}
	return nil
}

// printReceipts prints those of a mint as an audit reads them, in an order that tells
// nothing.
func (c *cli) printReceipts(all map[string][]mintapi.Receipt) error {
	names := slices.Sorted(maps.Keys(all))
	if len(names) > 1 {
		return cloudpal.E("print receipts", cloudpal.Invalid, fmt.Errorf("there are some of %s", strings.Join(names, ", "))).
			WithHint("an audit is of one mint; say which: --mint " + names[0])
	}
	own := audit.Own{}
	for _, list := range all {
		own.Receipts = list
	}
	slices.SortFunc(own.Receipts, func(a, b mintapi.Receipt) int { return slices.Compare(a.Serial, b.Serial) })
	return c.printJSON(own)
}

func tableReceipts(out io.Writer, all map[string][]mintapi.Receipt) {
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sum := sumReceipts(all[name])
		rows = append(rows, []string{
			name, fmt.Sprint(sum.deposits), fmt.Sprint(sum.units),
			sum.first.UTC().Format(time.DateOnly), sum.last.UTC().Format(time.DateOnly),
		})
	}
	table(out, "MINT DEPOSITS UNITS FIRST LAST", rows)
}

func sumReceipts(list []mintapi.Receipt) (sum mintReceipts) {
	for _, r := range list {
		sum.deposits++
		sum.units += ticket.Units(r.Amount)
		if sum.first.IsZero() || r.Credited.Before(sum.first) {
			sum.first = r.Credited
		}
		if r.Credited.After(sum.last) {
			sum.last = r.Credited
		}
	}
	return sum
}

// date is a flag's day, in UTC.
type date time.Time

// String writes it as Set reads it.
func (d *date) String() string {
	if time.Time(*d).IsZero() {
		return ""
	}
	return time.Time(*d).Format(time.DateOnly)
}

// Set reads it.
func (d *date) Set(text string) error {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return errors.New("it is a day such as 2026-11-01")
	}
	*d = date(t)
	return nil
}

// Type implements pflag.Value.
func (*date) Type() string { return "DATE" }
