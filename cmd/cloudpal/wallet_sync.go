package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person/wallet"
)

const walletSyncHelp = `Go on with all that was begun: take what was bought and paid, what comes back from
centers, and what was interrupted. Change tickets that can soon no longer be spent
for newer ones, and ask how large the crowds are that yours hide in.

It takes its time between questions that have nothing to do with each other; --now
does not.`

func (c *cli) walletSync() *cobra.Command {
	var p purse
	cmd := c.withMintCalls(&cobra.Command{
		Use: "sync", Short: "Go on with what was begun, and renew tickets", Long: walletSyncHelp,
		Example: "  cloudpal wallet sync\n  cloudpal wallet sync --now",
		Args:    args(0, 0, ""),
	}, &p)
	cmd.RunE = c.withWallet(&p, false, func(ctx context.Context, w *wallet.Wallet, _ []string) error {
		var err error
		c.whileSlow("asking the mint", func() { err = c.syncWallet(ctx, w) })
		if err != nil {
			return err
		}
		b, err := w.Balance()
		if err != nil {
			return err
		}
		return c.print(b, func(out io.Writer) { printBalance(out, b) })
	})
	return cmd
}

func (c *cli) syncWallet(ctx context.Context, w *wallet.Wallet) error {
	if err := c.resume(ctx, w); err != nil {
		return err
	}
	if _, err := w.Renew(ctx); err != nil {
		return err
	}
	if err := w.Forget(ctx); err != nil {
		return err
	}
	if err := w.Count(ctx); err != nil {
		return err
	}
	// The mint's log may have been read anew for that, and have revoked a key.
	b, err := w.Balance()
	if err != nil || b.Revoked == 0 {
		return err
	}
	return c.resume(ctx, w)
}

// resume goes on with what was begun, and says what it costs where a key was revoked.
func (c *cli) resume(ctx context.Context, w *wallet.Wallet) error {
	b, err := w.Balance()
	if err != nil {
		return err
	}
	if b.Revoked > 0 {
		c.say("%s", revokedText(b.Revoked))
	}
	return w.Resume(ctx)
}

const walletDisputeHelp = `Ask the mint for what a center owes you and does not give back. The mint gives the
center a day to show that you used more; then it gives you the rest, as tickets.

It shows the mint all payments of that tab: it learns that they were one stay at
that center, and still not whose. TAB stands in "cloudpal wallet list". Once the
day is over, "cloudpal wallet sync" takes what was decided.`

func (c *cli) walletDispute() *cobra.Command {
	var p purse
	cmd := c.withMintCalls(&cobra.Command{
		Use: "dispute TAB", Short: "Get back what a center does not give back", Long: walletDisputeHelp,
		Example:           "  cloudpal wallet dispute 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
		Args:              oneTab,
		ValidArgsFunction: c.offerTabs,
	}, &p)
	cmd.RunE = c.withWallet(&p, false, func(ctx context.Context, w *wallet.Wallet, list []string) error {
		var id api.TabID
		if err := id.UnmarshalText([]byte(list[0])); err != nil {
			return usage{err}
		}
		d, err := w.Dispute(ctx, id)
		if err != nil {
			return err
		}
		return c.print(d, func(out io.Writer) {
			fmt.Fprintf(out, "%s: %s, until %s\n", d.State, formatUnits(d.Units), d.Until.Local().Format("Jan 2 15:04"))
		})
	})
	return cmd
}

// offerTabs completes a tab, as the only wallet knows them.
func (c *cli) offerTabs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const no = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, no
	}
	w, err := c.openWallet(purse{}, false)
	if err != nil {
		return nil, no
	}
	defer w.Close()
	b, err := w.Balance()
	if err != nil {
		return nil, no
	}
	var ids []string
	for _, t := range b.Tabs {
		if !t.Ended {
			ids = append(ids, t.ID.String())
		}
	}
	return ids, no
}
