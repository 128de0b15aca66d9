package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/mint/books"
)

const mintOrdersHelp = `Show the newest purchases, and the mint's accounts: what money came, what tickets
are outstanding, what each center is owed. The mint knows of a purchase what was
paid and how; it does not know the tickets.`

// A mintOrder is a purchase, as --json shows it.
type mintOrder struct {
	ID       string    `json:"id"`
	State    string    `json:"state"`
	Class    string    `json:"class"`
	Pack     string    `json:"pack"`
	Method   string    `json:"method"`
	Price    int64     `json:"price"`
	Currency string    `json:"currency"`
	Expires  time.Time `json:"expires"`
}

// mintBooks is what --json shows.
type mintBooks struct {
	Orders   []mintOrder     `json:"orders"`
	Accounts []books.Account `json:"accounts"`
}

func (c *cli) mintOrders() *cobra.Command {
	var folder string
	var most int
	cmd := c.withJSON(c.withMint(&cobra.Command{
		Use: "orders", Short: "Show purchases and the mint's accounts", Long: mintOrdersHelp,
		Example: `  cloudpal mint orders
  cloudpal mint orders --last 1000 --json`,
		Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error { return c.listOrders(ctx, folder, most) }),
	}, &folder))
	cmd.Flags().IntVar(&most, "last", 20, "how many purchases to show")
	return cmd
}

func (c *cli) listOrders(ctx context.Context, folder string, most int) error {
	if most < 0 {
		return usage{errors.New("--last is how many, such as 20")}
	}
	return c.onBooks(ctx, folder, func(b *books.Books) error {
		quotes, err := b.Quotes(ctx, most)
		if err != nil {
			return err
		}
		shown := mintBooks{Orders: []mintOrder{}}
		for _, q := range quotes {
			shown.Orders = append(shown.Orders, mintOrder{q.ID, string(q.State), q.Class.String(), q.Pack, q.Method, q.Price, q.Currency, q.Expires})
		}
		if shown.Accounts, err = b.Accounts(ctx); err != nil {
			return err
		}
		return c.print(shown, func(w io.Writer) { printOrders(w, shown) })
	})
}

func printOrders(w io.Writer, b mintBooks) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	fmt.Fprintln(t, "ORDER\tSTATE\tPACK\tPAID BY\tPRICE")
	for _, o := range b.Orders {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d.%02d %s\n", o.ID, o.State, o.Pack, o.Method, o.Price/100, o.Price%100, o.Currency)
	}
	fmt.Fprintln(t, "\nACCOUNT\tBALANCE\t")
	for _, a := range b.Accounts {
		fmt.Fprintf(t, "%.24s\t%d %s\n", a.Name, a.Balance, a.Unit)
	}
}
