package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
)

const mintHelp = `Be a mint: sell tickets that nobody can follow, and pay the centers that take them.

A mint is a folder. "cloudpal mint init" makes it, with all keys, and publishes the
keys of this month and the next; "cloudpal mint serve" answers. Give mint.json to
wallets and centers: it says where the mint is and by what keys it is known.

A mint of your own needs nobody else. One that others buy from needs witnesses, who
see to it that it shows everybody the same keys: see "cloudpal mint init --help".`

// mint returns "cloudpal mint".
func (c *cli) mint() *cobra.Command {
	cmd := group("mint", "Be a mint: make keys, sell tickets, pay centers", mintHelp, `  cloudpal mint init
  cloudpal mint serve
  cloudpal mint keys
  cloudpal mint orders
  cloudpal mint payouts
  cloudpal mint audit mint.json`)
	cmd.AddCommand(c.mintInit(), c.mintServe(), c.mintKeys(), c.mintOrders(), c.mintPayouts(), c.mintCenters(), c.newMintVouchers(), c.newMintAudit())
	cmd.AddCommand(c.newMintSigner(), c.newMintWitness(), c.newMintRelay())
	return cmd
}

// withMint adds --folder to a command of a mint's.
func (c *cli) withMint(cmd *cobra.Command, folder *string) *cobra.Command {
	cmd.Flags().StringVar(folder, "folder", c.lookup("CLOUDPAL_MINT", ""), "`DIR` of the mint (default: mint in ~/.local/share/cloudpal)")
	return cmd
}

// mintDir returns where the mint is.
func (c *cli) mintDir(folder string) (mintFolder, error) {
	if folder != "" {
		abs, err := filepath.Abs(folder)
		if err != nil {
			return "", cloudpal.E("find "+folder, cloudpal.Invalid, err)
		}
		return mintFolder(abs), nil
	}
	home, _, err := c.homeDir()
	if err != nil {
		return "", err
	}
	return mintFolder(filepath.Join(home, "mint")), nil
}
