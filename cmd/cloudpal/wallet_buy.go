package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

const walletBuyHelp = `Buy a pack of tickets; without PACK, show what there is.

The mint sees how you pay and which pack you buy, and never sees the tickets. It
says where to pay; this waits until you have, and takes the tickets. It may be
interrupted: "cloudpal wallet sync" takes them later. A voucher's code, or the
secret of an account for free tickets, is read from a file, or with - asked for.

The first time, --mint names the file that the mint gives away: by it the wallet
knows the mint's keys, and takes no others. Buy ahead: tickets rest before they are
used.`

// soldHere is what "wallet buy" prints without a pack.
type soldHere struct {
	Issuer  string           `json:"issuer"`
	Packs   []mintapi.Pack   `json:"packs"`
	Methods []mintapi.Method `json:"methods"`
}

func (c *cli) walletBuy() *cobra.Command {
	var p purse
	var method, voucher, account string
	var leave bool
	cmd := c.withMintCalls(&cobra.Command{
		Use: "buy [PACK]", Short: "Buy a pack of tickets, or see what there is", Long: walletBuyHelp,
		Example: `  cloudpal wallet buy --mint mint.json
  cloudpal wallet buy week --method card
  cloudpal wallet buy day --voucher -`,
		Args: args(0, 1, "a PACK"),
	}, &p)
	cmd.RunE = c.withWallet(&p, true, func(ctx context.Context, w *wallet.Wallet, args []string) error {
		if len(args) == 0 {
			return c.showSold(ctx, w)
		}
		o := wallet.Order{Pack: args[0], Method: method}
		if err := c.payWith(ctx, w, &o, voucher, account); err != nil {
			return err
		}
		bought, err := w.Buy(ctx, o)
		if err == nil && !bought.Done && !leave {
			bought, err = c.awaitPayment(ctx, w, bought)
		}
		if err != nil {
			return err
		}
		return c.print(bought, func(out io.Writer) { printBought(out, bought) })
	})
	f := cmd.Flags()
	f.StringVar(&method, "method", "", "`NAME` of how you pay (default: with a voucher, or the mint's only other)")
	f.StringVar(&voucher, "voucher", "", "`FILE` with the code of a voucher; - asks for it")
	f.StringVar(&account, "account", "", "`FILE` with the secret of an account for free tickets; - asks for it")
	f.BoolVar(&leave, "no-wait", false, "do not wait for the payment")
	cmd.MarkFlagsMutuallyExclusive("voucher", "account")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func (c *cli) showSold(ctx context.Context, w *wallet.Wallet) error {
	var m mintapi.Mint
	var err error
	c.whileSlow("asking the mint", func() { m, err = w.Mint(ctx) })
	if err != nil {
		return err
	}
	s := soldHere{m.Issuer, m.Packs, m.Methods}
	return c.print(s, func(out io.Writer) {
		var rows [][]string
		for _, k := range s.Packs {
			rows = append(rows, []string{k.Name, strconv.Itoa(len(k.Tickets)), formatUnits(ticket.Sum(k.Tickets)), formatPrice(k.Price, k.Code)})
		}
		table(out, "PACK TICKETS WORTH PRICE", rows)
		var names []string
		for _, k := range s.Methods {
			names = append(names, k.Name)
		}
		fmt.Fprintf(out, "\npay by --method: %s\n", plain(orDash(strings.Join(names, ", "))))
	})
}

// formatPrice says a price in the usual coin, of which most currencies have a
// hundredth.
func formatPrice(minor int64, code string) string {
	return fmt.Sprintf("%d.%02d %s", minor/100, minor%100, code)
}

// payWith reads secrets, and chooses a method where only one can be meant.
func (c *cli) payWith(ctx context.Context, w *wallet.Wallet, o *wallet.Order, voucher, account string) (err error) {
	switch {
	case account != "":
		o.Account, err = c.readWord(account, "the account's secret")
		return err
	case voucher != "":
		if o.Voucher, err = c.readWord(voucher, "the voucher's code"); err != nil {
			return err
		}
	}
	if o.Method != "" {
		return nil
	}
	m, err := w.Mint(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, k := range m.Methods {
		if k.Here == (voucher != "") && k.Class == ticket.Paid {
			names = append(names, k.Name)
		}
	}
	if len(names) != 1 {
		return cloudpal.E("buy tickets", cloudpal.Invalid, errors.New("it is not clear how you want to pay")).
			WithHint("say it with --method or --voucher; without a PACK this shows the methods that there are")
	}
	o.Method = names[0]
	return nil
}

// readWord reads a secret of one line from a file, or asks for it.
func (c *cli) readWord(path, what string) (string, error) {
	text, err := c.readHidden(path, what+": ")
	if err != nil {
		return "", cloudpal.E("read "+what, "", err)
	}
	word := strings.TrimSpace(string(text))
	clear(text)
	if word == "" || len(word) > 512 {
		return "", cloudpal.E("read "+what, cloudpal.Invalid, errors.New("there is none"))
	}
	return word, nil
}

// maxHidden bounds a secret that is read, in bytes.
const maxHidden = 4 << 10

func (c *cli) readHidden(path, prompt string) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, cloudpal.E("", cloudpal.NotExist, err).WithHint("give a file that has it, or - to be asked for it")
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxHidden))
	}
	if t, ok := terminal(c.in); ok {
		fmt.Fprint(c.err, prompt)
		defer fmt.Fprintln(c.err)
		return term.ReadPassword(int(t.Fd()))
	}
	return io.ReadAll(io.LimitReader(c.in, maxHidden))
}

// payEvery is how often the mint is asked whether it was paid.
const payEvery = 3 * time.Second

// awaitPayment says where to pay, and waits until that is done.
func (c *cli) awaitPayment(ctx context.Context, w *wallet.Wallet, bought wallet.Purchase) (wallet.Purchase, error) {
	c.say("pay %s here: %s", formatPrice(bought.Price, bought.Code), bought.Pay)
	c.say("waiting for the payment, until %s; \"cloudpal wallet sync\" goes on later ...", bought.Expires.Local().Format(time.DateTime))
	hint := ""
	for !bought.Done {
		if bought.Hint != hint && bought.Hint != "" {
			hint = bought.Hint
			c.say("%s", hint)
		}
		if bought.State == mintapi.Expired {
			return bought, cloudpal.E("buy tickets", cloudpal.Timeout, errors.New("it was not paid in time")).
				WithHint("if you did pay: cloudpal wallet sync, in some hours; else begin anew")
		}
		if err := pause(ctx, payEvery); err != nil {
			return bought, err
		}
		next, err := w.GoOn(ctx, bought.N)
		if err != nil && !errors.Is(err, cloudpal.Missing) && !errors.Is(err, cloudpal.Busy) {
			return bought, err
		}
		if err == nil {
			bought = next
		}
	}
	return bought, nil
}

func printBought(out io.Writer, p wallet.Purchase) {
	if p.Done {
		fmt.Fprintf(out, "bought %d tickets: %s\n", p.Tickets, formatUnits(p.Units))
		return
	}
	fmt.Fprintf(out, "pay %s here: %s\n", formatPrice(p.Price, p.Code), plain(p.Pay))
}

// firstSeed makes a person who has no pal yet, and shows their phrase.
func (c *cli) firstSeed(base string) (ticket.Seed, error) {
	phrase := identity.NewPhrase()
	defer phrase.Wipe()
	root := phrase.Root()
	defer root.Wipe()
	seed := ticket.Seed(root.WalletSeed())
	// Shown first: a seed whose phrase nobody saw is no loss, but tickets of it are.
	printWalletPhrase(c, phrase.Words())
	return seed, wallet.KeepSeed(base, seed)
}
