package main

import (
	"github.com/spf13/cobra"
)

const coreHelp = `Make logs, append to them, and share them.

A core is a log of blocks of bytes, in the format of Hypercore: each block is in
a Merkle tree whose root is signed, so whoever has it, in full or in part, can
check that it is what its maker wrote, whomever it came from.` + dataHelp

func (c *cli) core() *cobra.Command {
	cmd := group("core", "Make logs, append to them, share them", coreHelp, `  cloudpal core create notes
  cloudpal core append notes "buy milk"
  cloudpal core cat notes
  cloudpal core serve notes`)
	cmd.AddCommand(
		c.dataCreate(coreKind), c.coreAppend(), c.coreCat(), c.coreGet(), c.coreLs(), c.dataInfo(coreKind),
		c.dataServe(coreKind), c.dataSync(coreKind), c.dataVerify(coreKind), c.coreClear(), c.coreTruncate(),
	)
	return cmd
}

const coreLsHelp = `List the cores of your store: those that you made, those that you fetched, and
those that your bees and drives are made of.`

func (c *cli) coreLs() *cobra.Command { return c.dataLs(coreKind, coreLsHelp) }
