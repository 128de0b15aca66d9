package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/person"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

const walletBackupHelp = `Write all of a wallet to FILE, sealed so that only your recovery phrase opens it.
Keep it on your pal's drive, on other devices, or anywhere: it is of no use to
others. FILE is replaced, all at once.

"cloudpal wallet restore --from FILE" brings it back on another device.`

func (c *cli) walletBackup() *cobra.Command {
	var p purse
	cmd := c.withPurse(&cobra.Command{
		Use: "backup FILE", Short: "Write your wallet to a sealed file", Long: walletBackupHelp,
		Example: "  cloudpal wallet backup ~/Documents/wallet.backup",
		Args:    args(1, 1, "a FILE"),
	}, &p)
	cmd.RunE = c.withWallet(&p, false, func(_ context.Context, w *wallet.Wallet, list []string) error {
		path, err := filepath.Abs(list[0])
		if err == nil {
			err = w.Backup(path)
		}
		if err != nil {
			return err
		}
		return c.print(struct {
			File string `json:"file"`
		}{path}, nil)
	})
	return cmd
}

const walletRestoreHelp = `Bring back the tickets of a device that is lost, from your recovery phrase, which
is asked for or read from standard input. With --from a backup goes first: it has
what was sent, and how payments stand, which the phrase cannot tell.

It asks the mint, one thing after another over connections of their own, which
tickets that your phrase makes it ever signed, and changes each for a new one:
those of the lost device are worth nothing then, and payments for later days are
cancelled. It takes its time between questions, so that the mint cannot tell what
belongs together; --now does not, and shows the mint that all that it sees in this
hour is one person's. It may be interrupted: the same command goes on.`

func (c *cli) walletRestore() *cobra.Command {
	var p purse
	var from string
	cmd := c.withMintCalls(&cobra.Command{
		Use: "restore", Short: "Bring back a lost wallet from your phrase", Long: walletRestoreHelp,
		Example: `  cloudpal wallet restore --mint mint.json
  cloudpal wallet restore --mint mint.json --from wallet.backup`,
		Args: args(0, 0, ""),
	}, &p)
	cmd.RunE = c.verb(func(ctx context.Context, _ []string) error {
		w, err := c.restoredWallet(p, from)
		if err != nil {
			return err
		}
		defer w.Close()
		if err := c.runRestore(ctx, w); err != nil {
			return err
		}
		b, err := w.Balance()
		if err != nil {
			return err
		}
		return c.print(b, func(out io.Writer) { printBalance(out, b) })
	})
	cmd.Flags().StringVar(&from, "from", "", "`FILE` that \"cloudpal wallet backup\" wrote")
	return cmd
}

// restoredWallet opens the wallet to restore into, and makes it where it is missing.
func (c *cli) restoredWallet(p purse, from string) (*wallet.Wallet, error) {
	home, own, err := c.homeDir()
	if err != nil {
		return nil, err
	}
	base := walletDir(home)
	dir, trust, err := p.find(base)
	if err != nil {
		return nil, err
	}
	seed, err := wallet.ReadSeed(base)
	if errors.Is(err, cloudpal.NotExist) {
		seed, err = c.seedOfPhrase(home, base, own)
	}
	if err != nil {
		return nil, err
	}
	config := p.config(dir, seed)
	w, err := wallet.Open(config.Config)
	switch {
	case err == nil && from != "":
		err = errors.Join(cloudpal.E("restore from "+from, cloudpal.Exist, errors.New("there is a wallet in "+dir)).
			WithHint("to go on with a restore, leave --from out; else use another --home"), w.Close())
	case errors.Is(err, cloudpal.NotExist) && from != "":
		w, err = wallet.FromBackup(config.Config, from)
	case errors.Is(err, cloudpal.NotExist) && trust != nil:
		w, err = wallet.Create(config.Config, trust, 0)
	}
	if err == nil && trust != nil {
		err = sameTrust(w, trust)
	}
	if err != nil {
		return nil, err
	}
	config.wallet = w
	return w, nil
}

// seedOfPhrase asks for the phrase, and keeps what the wallets follow from.
func (c *cli) seedOfPhrase(home, base string, own person.Owner) (seed ticket.Seed, err error) {
	text, err := c.readHidden("-", "your recovery phrase, 24 words: ")
	if err != nil {
		return seed, cloudpal.E("read the recovery phrase", "", err)
	}
	phrase, err := identity.ParsePhrase(string(text))
	clear(text)
	if err != nil {
		return seed, err
	}
	defer phrase.Wipe()
	root := phrase.Root()
	defer root.Wipe()
	h, err := person.Make(home, own)
	if err != nil {
		return seed, err
	}
	defer h.Close()
	if s, err := h.Read(); err == nil && s.Person != root.ID() {
		return seed, cloudpal.E("restore a wallet", cloudpal.Denied, errors.New("the phrase is another person's than the pal's in "+home)).
			WithHint("use another --home for that person")
	}
	seed = ticket.Seed(root.WalletSeed())
	return seed, wallet.KeepSeed(base, seed)
}

func (c *cli) runRestore(ctx context.Context, w *wallet.Wallet) error {
	bar := c.progress(ctx, "looking for tickets", 0, func(s decor.Statistics) string { return fmt.Sprintf("%d questions", s.Current) })
	p, err := w.Restore(ctx, nil, func(p wallet.Progress) { bar.set(int64(p.Asked), int64(p.Asked+p.Left)) })
	bar.end()
	if err != nil {
		return err
	}
	if p.Found > 0 {
		c.say("the mint had signed %d tickets", p.Found)
	}
	return w.Resume(ctx)
}
