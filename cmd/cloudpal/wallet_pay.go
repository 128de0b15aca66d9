package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

const walletPayHelp = `Pay your pal's center: what is lacking now, and tickets that are due later, so that
the pal goes on for --ahead, awake all the time, while none of your devices is there
to pay. Where nothing is lacking it pays nothing, so it may be run again and again.

The agent of a device does that by itself, three days ahead. CENTER may be left out:
it is your pal's. Tickets that are not due yet come back with "wallet close".`

// walletPaid is what "wallet pay" prints.
type walletPaid struct {
	Tab   api.TabID    `json:"tab"`
	Stage api.Stage    `json:"stage"`
	Left  ticket.Units `json:"left"`
	Ahead ticket.Units `json:"ahead"`
	Ends  time.Time    `json:"ends,omitzero"`
}

func (c *cli) walletPay() *cobra.Command {
	var p purse
	ahead := days(wallet.DefaultAhead)
	cmd := c.withMintCalls(&cobra.Command{
		Use: "pay [CENTER]", Short: "Pay your pal's center ahead of time", Long: walletPayHelp,
		Example: "  cloudpal wallet pay\n  cloudpal wallet pay --ahead 14d",
		Args: func(cmd *cobra.Command, list []string) error {
			if err := args(0, 1, "a CENTER")(cmd, list); err != nil || len(list) == 0 {
				return err
			}
			if _, err := api.ParseAddress(list[0]); err != nil {
				return usage{fmt.Errorf("%w: %s", err, cloudpal.HintOf(err))}
			}
			return nil
		},
		ValidArgsFunction: c.offerCenter,
	}, &p)
	cmd.Flags().Var(&ahead, "ahead", "how long the pal is to go on when nobody pays, such as 36h or 14d")
	c.offerFlag(cmd, "ahead", words("1d", "3d", "7d", "14d", "30d"))
	cmd.RunE = c.verb(func(ctx context.Context, list []string) error {
		s, client, err := c.counter(list)
		if err != nil {
			return err
		}
		defer client.Close()
		at, err := s.Stay(client)
		if err != nil {
			return err
		}
		w, err := c.openWallet(p, false)
		if err != nil {
			return err
		}
		defer w.Close()
		tab, err := w.Fund(ctx, at, time.Duration(ahead))
		if err != nil {
			return err
		}
		r := walletPaid{Tab: tab.ID, Stage: tab.Stage, Left: tab.Paid - min(tab.Used, tab.Paid), Ahead: tab.Ahead, Ends: tab.Ends}
		return c.print(r, func(out io.Writer) {
			fmt.Fprintf(out, "paid: %d units, and %d for later; the tab is %s\n", r.Left, r.Ahead, plain(string(r.Stage)))
		})
	})
	return cmd
}

// counter returns the person whose pal is paid for, at that center, and the center.
func (c *cli) counter(list []string) (person.State, *api.Client, error) {
	s, err := c.payer(list)
	if err != nil {
		return s, nil, err
	}
	client, err := s.Ask(nil)
	return s, client, err
}

// payer returns the person whose pal is paid for, at that center.
func (c *cli) payer(list []string) (s person.State, err error) {
	h, err := c.openHome()
	if err != nil {
		return s, err
	}
	defer h.Close()
	if s, err = h.Read(); err != nil || len(list) == 0 {
		return s, err
	}
	a, err := api.ParseAddress(list[0])
	if err == nil && a.Key != s.Center.Address.Key {
		err = cloudpal.E("pay a center", cloudpal.Denied, errors.New("your pal is at "+s.Center.Address.String())).
			WithHint("leave CENTER out; a pal elsewhere has a --home of its own: cloudpal up --center CENTER --home DIR")
	}
	return s, err
}

// offerCenter completes the address of the pal's center.
func (c *cli) offerCenter(_ *cobra.Command, list []string, _ string) ([]string, cobra.ShellCompDirective) {
	const no = cobra.ShellCompDirectiveNoFileComp
	if s, err := c.payer(nil); err == nil && len(list) == 0 {
		return []string{s.Center.Address.String()}, no
	}
	return nil, no
}

// days is a flag's time of hours or days, up to what can be paid ahead.
type days time.Duration

// String writes it as Set reads it.
func (d *days) String() string {
	const day = 24 * time.Hour
	if t := time.Duration(*d); t%day == 0 {
		return fmt.Sprintf("%dd", t/day)
	}
	return time.Duration(*d).String()
}

// Set reads it.
func (d *days) Set(text string) error {
	t, err := time.ParseDuration(text)
	var n int
	if k, scanErr := fmt.Sscanf(text, "%dd", &n); k == 1 && scanErr == nil && fmt.Sprintf("%dd", n) == text {
		t, err = time.Duration(min(n, 1000))*24*time.Hour, nil
	}
	if err != nil || t < 0 || t > wallet.MaxAhead {
		return fmt.Errorf("it is a time such as 36h or 14d, of %d days at most", wallet.MaxAhead/(24*time.Hour))
	}
	*d = days(t)
	return nil
}

// Type implements pflag.Value.
func (*days) Type() string { return "TIME" }

const walletTabsHelp = `List what is paid at centers: each tab is one pal's, and its tickets are spent one
after the other. It asks nobody, so it works offline: what is USED is by the last
record that both the center and your pal have signed.`

func (c *cli) walletTabs() *cobra.Command {
	var p purse
	cmd := c.withPurse(&cobra.Command{
		Use: "tabs", Short: "List what is paid at centers", Long: walletTabsHelp,
		Example: "  cloudpal wallet tabs\n  cloudpal wallet tabs --json | jq -r '.[].id'",
		Args:    args(0, 0, ""),
	}, &p)
	cmd.RunE = c.withWallet(&p, false, func(_ context.Context, w *wallet.Wallet, _ []string) error {
		b, err := w.Balance()
		if err != nil {
			return err
		}
		return c.print(b.Tabs, func(out io.Writer) {
			var rows [][]string
			for _, t := range b.Tabs {
				rows = append(rows, []string{
					t.ID.String(), plain(orDash(t.Address)), t.Opened.Local().Format(time.DateOnly),
					fmt.Sprint(t.Paid), fmt.Sprint(t.Used), fmt.Sprint(t.Ahead), tabWord(t),
				})
			}
			table(out, "TAB CENTER OPENED PAID USED AHEAD STATE", rows)
		})
	})
	return cmd
}

// tabWord says how a tab is in a word.
func tabWord(t wallet.Tab) string {
	switch {
	case t.Ended:
		return "ended"
	case t.Dispute != nil:
		return "disputed"
	case t.Closed:
		return "closed"
	}
	return "open"
}

const walletCloseHelp = `Close a tab at your pal's center, and bring back what is not used of it, as new
tickets. Without a tab the pal naps, and is sealed and deleted as the center's offer
says: an agent that runs pays for another tab at once. To leave for good:
"cloudpal destroy".

It waits until the center has deposited what it keeps, for at most --wait; what has
not come by then, "cloudpal wallet sync" brings.`

// walletClosed is what "wallet close" prints.
type walletClosed struct {
	Back ticket.Units `json:"back"`
}

func (c *cli) walletClose() *cobra.Command {
	var p purse
	wait := time.Minute
	cmd := c.withMintCalls(&cobra.Command{
		Use: "close TAB", Short: "Close a tab, and bring back what is not used", Long: walletCloseHelp,
		Example:           "  cloudpal wallet close 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
		Args:              oneTab,
		ValidArgsFunction: c.offerTabs,
	}, &p)
	cmd.Flags().DurationVar(&wait, "wait", wait, "`TIME` to wait for the rest")
	c.offerFlag(cmd, "wait", words())
	cmd.RunE = c.withWallet(&p, false, func(ctx context.Context, w *wallet.Wallet, list []string) error {
		var id api.TabID
		if err := id.UnmarshalText([]byte(list[0])); err != nil {
			return usage{err}
		}
		_, client, err := c.counter(nil)
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		back, err := w.EndTab(ctx, client, id)
		if err != nil {
			return err
		}
		return c.print(walletClosed{back}, func(out io.Writer) { fmt.Fprintf(out, "closed: %s are back\n", formatUnits(back)) })
	})
	return cmd
}

// oneTab checks the arguments of a command that takes a tab.
func oneTab(cmd *cobra.Command, list []string) error {
	if err := args(1, 1, "a TAB")(cmd, list); err != nil {
		return err
	}
	var id api.TabID
	if err := id.UnmarshalText([]byte(list[0])); err != nil {
		return usage{err}
	}
	return nil
}
