package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

const walletSendHelp = `Send tickets worth UNITS to somebody: they come as a text, which is money to
whoever reads it first. Give it to them so that nobody else does; they are to take
it at once with "cloudpal wallet receive". 64 units are a day of the smallest VM.

What nobody took yet comes back with --back N; N stands in "cloudpal wallet list".
With --again N the text is printed once more.`

// sent is what "wallet send" prints as JSON.
type sent struct {
	wallet.Gift
	Text string `json:"text,omitempty"`
}

func (c *cli) walletSend() *cobra.Command {
	var p purse
	var file string
	var back, again uint64
	var free bool
	cmd := c.withMintCalls(&cobra.Command{
		Use: "send UNITS", Short: "Send tickets to somebody, or take them back", Long: walletSendHelp,
		Example: `  cloudpal wallet send 64 > tickets.txt
  cloudpal wallet send 64 --file tickets.txt
  cloudpal wallet send --back 7`,
		Args: func(cmd *cobra.Command, list []string) error {
			if back != 0 || again != 0 {
				return args(0, 0, "")(cmd, list)
			}
			if err := args(1, 1, "how many UNITS")(cmd, list); err != nil {
				return err
			}
			_, err := parseUnits(list[0])
			return err
		},
	}, &p)
	cmd.RunE = c.withWallet(&p, false, func(ctx context.Context, w *wallet.Wallet, args []string) error {
		if back != 0 {
			return c.takeBack(ctx, w, back)
		}
		f, err := newSecretFile(file)
		if err != nil {
			return err
		}
		s, err := c.doSend(ctx, w, args, again, free)
		if err == nil && f != nil {
			err = writeAll(f, s.Text+"\n")
			s.Text = ""
		}
		if err != nil {
			return errors.Join(err, discard(f))
		}
		return c.print(s, func(out io.Writer) {
			if f == nil {
				fmt.Fprintln(out, s.Text)
			}
		})
	})
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "`FILE` to write the text to, which must not exist; it is money")
	f.Uint64Var(&back, "back", 0, "take back what was sent as number `N`")
	f.Uint64Var(&again, "again", 0, "print the text of what was sent as number `N` again")
	f.BoolVar(&free, "free", false, "send free tickets")
	cmd.MarkFlagsMutuallyExclusive("back", "again")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func (c *cli) doSend(ctx context.Context, w *wallet.Wallet, args []string, again uint64, free bool) (s sent, err error) {
	if again != 0 {
		s.Gift, s.Text, err = w.SentText(again)
		return s, err
	}
	units, err := parseUnits(args[0])
	if err != nil {
		return s, err
	}
	class := ticket.Paid
	if free {
		class = ticket.Free
	}
	c.whileSlow("changing tickets", func() { s.Gift, s.Text, err = w.Send(ctx, class, units) })
	return s, err
}

func (c *cli) takeBack(ctx context.Context, w *wallet.Wallet, n uint64) error {
	var g wallet.Gift
	var err error
	c.whileSlow("taking the tickets back, one at a time", func() { g, err = w.TakeBack(ctx, n) })
	if err != nil {
		return err
	}
	return c.print(g, func(out io.Writer) {
		if g.Taken > 0 {
			fmt.Fprintf(out, "%d tickets were taken before\n", g.Taken)
			return
		}
		fmt.Fprintln(out, "all is back")
	})
}

const walletReceiveHelp = `Take tickets that somebody sent: the text stands in FILE, or comes on standard
input. They are changed for tickets of your own at once, since until then who sent
them, or anybody who read the text, can do the same.`

func (c *cli) walletReceive() *cobra.Command {
	var p purse
	cmd := c.withMintCalls(&cobra.Command{
		Use: "receive [FILE]", Short: "Take tickets that somebody sent", Long: walletReceiveHelp,
		Example: "  cloudpal wallet receive tickets.txt\n  cloudpal wallet receive < tickets.txt",
		Args:    args(0, 1, "a FILE"),
	}, &p)
	cmd.RunE = c.withWallet(&p, true, func(ctx context.Context, w *wallet.Wallet, args []string) error {
		text, err := c.readGift(args)
		if err != nil {
			return err
		}
		bar := c.progress(ctx, "taking tickets", 0, func(s decor.Statistics) string { return fmt.Sprintf("%d of %d", s.Current, s.Total) })
		g, err := w.Receive(ctx, text, func(done, of int) { bar.set(int64(done), int64(of)) })
		bar.end()
		if err != nil {
			return err
		}
		return c.print(g, func(out io.Writer) {
			fmt.Fprintf(out, "received %d tickets: %s\n", g.Tickets, formatUnits(g.Units))
		})
	})
	return cmd
}

func (c *cli) readGift(args []string) (string, error) {
	in := c.in
	if len(args) > 0 {
		f, err := os.Open(args[0])
		if err != nil {
			return "", cloudpal.E("read tickets that were sent", cloudpal.NotExist, err)
		}
		defer f.Close()
		in = f
	} else if _, ok := terminal(c.in); ok {
		c.say("paste the text, then press Enter and Ctrl-D:")
	}
	text, err := io.ReadAll(io.LimitReader(in, wallet.MaxGiftText+1))
	if err != nil {
		return "", cloudpal.E("read tickets that were sent", "", err)
	}
	return string(text), nil
}
