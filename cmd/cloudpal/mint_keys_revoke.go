package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

const mintKeysRevokeHelp = `Revoke a key of a MONTH, such as 2026-11, for a CLASS, paid or free, and a
DENOMINATION, such as 64. It needs the root key.

That is for a key that somebody stole: they can make tickets that look like yours.
The revocation goes into the log of keys, where everybody reads it, and cannot be
taken back: wallets and centers refuse all tickets of the key, also those that you
sold. Who had them signed has their wallet change them for good ones, once, by what
only they can show. You cannot make another key for that month.`

func (c *cli) mintKeysRevoke() *cobra.Command {
	var folder, root, reason string
	cmd := c.withMint(&cobra.Command{
		Use: "revoke MONTH CLASS DENOMINATION", Short: "Have a month's key refused by all, for good", Long: mintKeysRevokeHelp,
		Example: `  cloudpal mint keys revoke 2026-11 paid 64 --reason "the signer's disk was stolen"`,
		Args:    exactArgs(3, "it takes MONTH CLASS DENOMINATION, such as: 2026-11 paid 64"),
		RunE: c.verb(func(ctx context.Context, args []string) error {
			return c.revoke(ctx, folder, root, reason, args)
		}),
	}, &folder)
	cmd.Flags().StringVar(&root, "root", "", "`FILE` of the root key, where the folder has it not")
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` of one line, which everybody will read")
	c.offerFlag(cmd, "reason", words())
	return cmd
}

func (c *cli) revoke(ctx context.Context, folder, root, reason string, args []string) error {
	if reason == "" {
		return usage{errors.New("--reason is missing: say why, in a line that everybody will read")}
	}
	month, class, denomination, err := parseSlot(args)
	if err != nil {
		return err
	}
	f, err := c.mintDir(folder)
	if err != nil {
		return err
	}
	config, err := f.config()
	if err != nil {
		return err
	}
	log, trust, err := f.openLog(config, time.Now)
	if err != nil {
		return err
	}
	defer log.Close()
	m, _, err := shownLog{log, trust, time.Now}.Epoch(ctx, month)
	if err != nil {
		return err
	}
	k, err := m.Key(class, denomination)
	if err != nil {
		return err
	}
	signer, err := c.openRoot(f, root)
	if err != nil {
		return err
	}
	entry, err := manifest.Revocation{Issuer: trust.Issuer, Epoch: month, Key: k.ID(), Reason: reason}.Sign(signer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	if err := log.Publish(ctx, entry, nil); err != nil {
		return err
	}
	c.say("the key for %s %d of %s is revoked", class, denomination, args[0])
	return nil
}

// parseSlot reads which key is meant.
func parseSlot(args []string) (e ticket.Epoch, c ticket.Class, d ticket.Denomination, err error) {
	month, err := time.Parse("2006-01", args[0])
	if err != nil {
		return 0, 0, 0, usage{fmt.Errorf("%.20q is no month such as 2026-11", args[0])}
	}
	for _, known := range ticket.Classes {
		if known.String() == args[1] {
			c = known
		}
	}
	n, err := strconv.ParseUint(args[2], 10, 32)
	if err != nil || c == 0 || !ticket.Denomination(n).Valid() {
		return 0, 0, 0, usage{fmt.Errorf("there are no tickets of %.20q %.20q", args[1], args[2])}
	}
	return ticket.EpochAt(month), c, ticket.Denomination(n), nil
}
