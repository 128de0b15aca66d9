package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/mint/payment/voucher"
)

const mintVouchersHelp = `Make vouchers, which others sell: codes that pay for a pack each, once. The mint
never sees who buys one.

The codes are printed, and nowhere else: the mint keeps what it knows them again by,
from which nobody can make one. Who has a code can use it.`

// newMintVouchers returns "cloudpal mint vouchers".
func (c *cli) newMintVouchers() *cobra.Command {
	cmd := group("vouchers", "Make and void vouchers", mintVouchersHelp, `  cloudpal mint vouchers make week 20 --batch "kiosk, main street"
  cloudpal mint vouchers void "kiosk, main street"`)
	cmd.AddCommand(c.mintVouchersMake(), c.mintVouchersVoid())
	return cmd
}

const mintVouchersMakeHelp = `Print COUNT codes, each of which pays for one PACK at its price of now. Give them a
name, by which those that are not used can be made worthless: "cloudpal mint
vouchers void".`

func (c *cli) mintVouchersMake() *cobra.Command {
	var folder, batch string
	cmd := c.withJSON(c.withMint(&cobra.Command{
		Use: "make PACK COUNT", Short: "Print new vouchers", Long: mintVouchersMakeHelp,
		Example: `  cloudpal mint vouchers make week 20 --batch "kiosk, main street"`,
		Args:    exactArgs(2, "it takes a pack and how many, such as: week 20"),
		RunE: c.verb(func(ctx context.Context, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 || n > voucher.MaxBatch {
				return usage{fmt.Errorf("%.20q: it is how many, 1 to %d", args[1], voucher.MaxBatch)}
			}
			return c.makeVouchers(ctx, folder, args[0], batch, n)
		}),
	}, &folder))
	cmd.Flags().StringVar(&batch, "batch", "", "the `NAME` of these vouchers, such as of who sells them")
	c.offerFlag(cmd, "batch", words())
	return cmd
}

// Vouchers are what --json shows of those just made.
type mintVouchers struct {
	Batch string   `json:"batch"`
	Worth string   `json:"worth"`
	Codes []string `json:"codes"`
}

func (c *cli) makeVouchers(ctx context.Context, folder, pack, batch string, n int) error {
	return c.withVouchers(ctx, folder, func(config mintConfig, v *voucher.Vouchers) error {
		i := slices.IndexFunc(config.Packs, func(p api.Pack) bool { return p.Name == pack })
		if i < 0 {
			return cloudpal.E("make vouchers", cloudpal.NotExist, fmt.Errorf("there is no pack %.40q", pack)).WithHint("the packs are in the mint's config.json")
		}
		each := payment.Amount{Minor: config.Packs[i].Price, Currency: config.Packs[i].Code}
		codes, err := v.Make(ctx, batch, each, n)
		if err != nil {
			return err
		}
		made := mintVouchers{Batch: batch, Worth: each.String()}
		for _, code := range codes {
			made.Codes = append(made.Codes, code.Print())
		}
		fmt.Fprintf(c.err, "%d vouchers worth %s each, for one %s. The codes are only here.\n", n, each, pack)
		return c.print(made, func(w io.Writer) {
			for _, code := range made.Codes {
				fmt.Fprintln(w, code)
			}
		})
	})
}

const mintVouchersVoidHelp = `Make the vouchers of a name worthless that nobody has used, as when they are stolen.
It cannot be undone.`

func (c *cli) mintVouchersVoid() *cobra.Command {
	var folder string
	return c.withMint(&cobra.Command{
		Use: "void BATCH", Short: "Make vouchers worthless that nobody has used", Long: mintVouchersVoidHelp,
		Example: `  cloudpal mint vouchers void "kiosk, main street"`,
		Args:    exactArgs(1, "BATCH is the name that the vouchers were made with"), ValidArgsFunction: words(),
		RunE: c.verb(func(ctx context.Context, args []string) error {
			return c.withVouchers(ctx, folder, func(_ mintConfig, v *voucher.Vouchers) error {
				n, err := v.Void(ctx, args[0])
				if err == nil && n == 0 {
					err = cloudpal.E("void vouchers", cloudpal.NotExist, errors.New("no unused voucher has that name"))
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.out, "%d vouchers are worthless now\n", n)
				return err
			})
		}),
	}, &folder)
}

// withVouchers opens the vouchers of a mint, which may be running.
func (c *cli) withVouchers(ctx context.Context, folder string, do func(mintConfig, *voucher.Vouchers) error) (err error) {
	f, err := c.mintDir(folder)
	if err != nil {
		return err
	}
	config, err := f.config()
	if err != nil {
		return err
	}
	b, err := f.openBooks(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	v, err := voucher.Open(ctx, b.DB())
	if err != nil {
		return err
	}
	return do(config, v)
}
