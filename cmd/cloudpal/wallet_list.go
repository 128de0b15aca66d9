package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

const walletListHelp = `List your tickets, and what is on its way. It asks nobody, so it works offline.

CROWD is how many tickets of the same kind the mint has ever sold: yours is one of
them, and nobody can tell which. "cloudpal wallet sync" asks for it anew. What
rests is too young to be used without showing when it was made.`

func (c *cli) walletList() *cobra.Command {
	var p purse
	cmd := c.withPurse(&cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List your tickets", Long: walletListHelp,
		Example: "  cloudpal wallet list\n  cloudpal wallet list --json | jq .paid",
		Args:    args(0, 0, ""),
	}, &p)
	cmd.RunE = c.withWallet(&p, false, func(_ context.Context, w *wallet.Wallet, _ []string) error {
		b, err := w.Balance()
		if err != nil {
			return err
		}
		return c.print(b, func(out io.Writer) { printBalance(out, b) })
	})
	return cmd
}

func printBalance(out io.Writer, b wallet.Balance) {
	var rows [][]string
	for _, h := range b.Holdings {
		rest := "-"
		if h.Resting > 0 {
			rest = fmt.Sprintf("%d until %s", h.Resting, h.Ready.Local().Format("Jan 2 15:04"))
		}
		crowd := "?"
		if !h.Crowd.At.IsZero() {
			crowd = strconv.FormatUint(h.Crowd.Issued, 10)
		}
		rows = append(rows, []string{h.Class.String(), strconv.FormatUint(uint64(h.Denomination), 10), strconv.Itoa(h.Tickets), rest, h.Spend.Local().Format(time.DateOnly), crowd})
	}
	if len(rows) > 0 {
		table(out, "KIND UNITS TICKETS RESTING SPEND-BY CROWD", rows)
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "%s of %s", formatUnits(b.Paid), plain(b.Issuer))
	if b.Free > 0 {
		fmt.Fprintf(out, ", and %s free", formatUnits(b.Free))
	}
	fmt.Fprintln(out)
	printPending(out, b)
}

// printPending tells what is on its way.
func printPending(out io.Writer, b wallet.Balance) {
	for _, p := range b.Purchases {
		fmt.Fprintf(out, "purchase %d: %s, %s", p.N, plain(p.Pack), plain(orDash(string(p.State))))
		if p.State == mintapi.Unpaid && p.Pay != "" {
			fmt.Fprintf(out, ", pay %s here: %s", plain(formatPrice(p.Price, p.Code)), plain(p.Pay))
		}
		fmt.Fprintln(out)
	}
	if b.Moving > 0 {
		fmt.Fprintf(out, "being changed: %s; \"cloudpal wallet sync\" goes on\n", formatUnits(b.Moving))
	}
	if b.Revoked > 0 {
		fmt.Fprintln(out, revokedText(b.Revoked)+": \"cloudpal wallet sync\" does it")
	}
	for _, t := range b.Tabs {
		fmt.Fprintf(out, "tab %s at %s: paid %d, used %d, ahead %d%s\n", t.ID, plain(orDash(t.Address)), t.Paid, t.Used, t.Ahead, tabState(t))
	}
	for _, g := range b.Gifts {
		fmt.Fprintf(out, "sent %d: %s in %d tickets, %s ago", g.N, formatUnits(g.Units), g.Tickets, formatSince(g.Begun))
		if g.Taken > 0 {
			fmt.Fprintf(out, "; %d were taken", g.Taken)
		}
		fmt.Fprintln(out)
	}
	if b.Lost > 0 {
		fmt.Fprintf(out, "lost: %s were spent already when this wallet used them; it has the proof\n", formatUnits(b.Lost))
	}
	if b.Alone {
		fmt.Fprintln(out, "this mint has no witnesses: trust it only if it is your own")
	}
}

// revokedText says what becomes of tickets whose key was revoked, and what that costs.
func revokedText(u ticket.Units) string {
	return "the mint has revoked a key, since it was stolen: " + formatUnits(u) + " of it are changed for good tickets, and the mint sees in which purchase it had sold them"
}

func tabState(t wallet.Tab) string {
	switch {
	case t.Ended:
		return ", closed, and the rest is back"
	case t.Dispute != nil:
		return ", in dispute: " + strings.ToLower(string(t.Dispute.State))
	case t.Closed:
		return ", closed, and the rest is on its way"
	}
	return ""
}
