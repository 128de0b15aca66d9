package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
)

const mintPayoutsHelp = `Show what each center is owed for the paid tickets that it deposited: what is left
of them after refunds and payouts, what is held of that for disputes, and what is
due now. What was deposited in the last seven days is not due yet, since its payers
may get some of it back.

All is added up anew from the deposits, refunds and payouts, and compared with the
mint's accounts: it fails where they differ.

The mint moves no money. Pay a center as you have agreed with it, so much for a
unit, then note it with "cloudpal mint payouts add".`

// A mintDebt is what a center is owed, as --json shows it, in units.
type mintDebt struct {
	Center    string       `json:"center"`
	Name      string       `json:"name,omitempty"`
	Deposited ticket.Units `json:"deposited"`
	Refunded  ticket.Units `json:"refunded"`
	PaidOut   ticket.Units `json:"paidOut"`
	Owed      ticket.Units `json:"owed"`
	Held      ticket.Units `json:"held"`
	Due       ticket.Units `json:"due"`
}

// A mintPayout is a payout, as --json shows it.
type mintPayout struct {
	Center    string       `json:"center"`
	N         int64        `json:"n"`
	Units     ticket.Units `json:"units"`
	Reference string       `json:"reference"`
	At        time.Time    `json:"at"`
}

// restTime is how long a deposit rests before it is paid out.
const restTime = 7 * 24 * time.Hour

func resting() int64 { return api.HourOf(time.Now().Add(-restTime)) }

func (c *cli) mintPayouts() *cobra.Command {
	var folder string
	cmd := c.withJSON(c.withMint(&cobra.Command{
		Use: "payouts", Short: "Show what centers are owed, note that they were paid", Long: mintPayoutsHelp,
		Example: `  cloudpal mint payouts
  cloudpal mint payouts add KEY 6400 "transfer 2026-48-1"`,
		Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			return c.onBooks(ctx, folder, func(b *books.Books) error { return c.listDebts(ctx, b) })
		}),
	}, &folder))
	cmd.AddCommand(c.mintPayoutsAdd())
	return cmd
}

func (c *cli) listDebts(ctx context.Context, b *books.Books) error {
	debts, err := b.Debts(ctx, resting())
	if err != nil {
		return err
	}
	list, err := b.Centers(ctx)
	if err != nil {
		return err
	}
	names := map[ticket.CenterID]string{}
	for _, e := range list {
		names[e.ID] = e.Name
	}
	shown := []mintDebt{}
	for _, d := range debts {
		shown = append(shown, mintDebt{
			base64.StdEncoding.EncodeToString(d.Center[:]), names[d.Center], d.Deposited, d.Refunded, d.PaidOut, d.Owed(), d.Held, d.Due(),
		})
	}
	return c.print(shown, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		defer t.Flush()
		fmt.Fprintln(t, "CENTER\tNAME\tDEPOSITED\tREFUNDED\tPAID OUT\tOWED\tHELD\tDUE")
		for _, d := range shown {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", d.Center, orDash(plain(d.Name)), d.Deposited, d.Refunded, d.PaidOut, d.Owed, d.Held, d.Due)
		}
	})
}

func (c *cli) mintPayoutsAdd() *cobra.Command {
	var folder string
	return c.withJSON(c.withMint(&cobra.Command{
		Use: "add KEY UNITS REFERENCE", Short: "Note that a center was paid",
		Long: `Note that a center was paid for units that it is owed. KEY is the center's, as
"cloudpal mint payouts" shows it. REFERENCE names the payout, such as a bank's
transfer: the same one again is noted once, so that a command which was cut off can
be repeated. The center sees it. No more is noted than is due.`,
		Example: `  cloudpal mint payouts add KEY 6400 "transfer 2026-48-1"`,
		Args:    cobra.ExactArgs(3),
		RunE: c.verb(func(ctx context.Context, args []string) error {
			key, err := base64.StdEncoding.DecodeString(args[0])
			if err != nil || len(key) != len(ticket.CenterID{}) {
				return usage{errors.New("KEY is a center's key, 44 characters of base64")}
			}
			units, err := strconv.ParseUint(args[1], 10, 53)
			if err != nil || units == 0 {
				return usage{errors.New("UNITS is a number, such as 6400")}
			}
			p := books.Payout{Reference: args[2], Center: ticket.CenterID(key), Units: ticket.Units(units), At: time.Now().Truncate(time.Second)}
			return c.onBooks(ctx, folder, func(b *books.Books) error { return c.notePayout(ctx, b, p) })
		}),
	}, &folder))
}

func (c *cli) notePayout(ctx context.Context, b *books.Books, p books.Payout) error {
	p, err := b.Payout(ctx, p, resting())
	if err != nil {
		return err
	}
	shown := mintPayout{base64.StdEncoding.EncodeToString(p.Center[:]), p.N, p.Units, p.Reference, p.At}
	return c.print(shown, func(w io.Writer) {
		fmt.Fprintf(w, "payout %d of the center: %d units, noted at %s\n", p.N, p.Units, p.At.Format(time.RFC3339))
	})
}
