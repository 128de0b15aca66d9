package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/proxy"

	"github.com/tradle/cloudpal"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/oblivious"
	"github.com/tradle/cloudpal/person"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

const walletHelp = `Buy tickets, keep them, pay your pal's center with them, and send them to others.

A ticket is worth compute at any center that takes it: one of 64 units is a day of
the smallest VM. Who sold it cannot tell it from the others when it comes back. So
that nobody can guess it from the hour either, tickets rest for a while before they
are used, and what has nothing to do with each other is asked at different times.
--now leaves all that out.

Tickets follow from your recovery phrase: "cloudpal wallet restore" finds those of
a device that is lost. A backup finds them faster, and also what was sent.`

// wallet returns "cloudpal wallet".
func (c *cli) wallet() *cobra.Command {
	cmd := group("wallet", "Buy tickets, keep them, pay with them, send them to others", walletHelp, `  cloudpal wallet buy --mint mint.json
  cloudpal wallet buy week --method card
  cloudpal wallet list
  cloudpal wallet send 64 > tickets.txt
  cloudpal wallet backup ~/Documents/wallet.backup`)
	cmd.AddCommand(c.walletBuy(), c.walletList(), c.walletSync(), c.walletSend(), c.walletReceive(),
		c.walletPay(), c.walletTabs(), c.walletClose(),
		c.walletBackup(), c.walletRestore(), c.walletDispute())
	return cmd
}

// A purse is how the command line finds a wallet, and how it asks the mint.
type purse struct {
	mint  string // a file, or the name of a mint that there is a wallet of
	relay string
	proxy string
	now   bool
}

// withPurse adds the flags of a wallet to a command.
func (c *cli) withPurse(cmd *cobra.Command, p *purse) *cobra.Command {
	cmd.Flags().StringVar(&p.mint, "mint", "", "`FILE` that the mint gives away, or the name of a mint that you have a wallet of")
	c.offerFlag(cmd, "mint", c.offerMints)
	return c.withHome(c.withJSON(cmd))
}

// withMintCalls adds the flags of how the mint is asked.
func (c *cli) withMintCalls(cmd *cobra.Command, p *purse) *cobra.Command {
	f := cmd.Flags()
	f.BoolVar(&p.now, "now", false, "do not wait to hide when you do what")
	f.StringVar(&p.relay, "relay", c.lookup("CLOUDPAL_RELAY", ""), "`URL` of a relay that hides from the mint where you are")
	f.StringVar(&p.proxy, "proxy", c.lookup("CLOUDPAL_PROXY", ""), "`HOST:PORT` of a SOCKS5 proxy, such as Tor's, for all connections")
	return c.withPurse(cmd, p)
}

// offerMints completes the name of a mint.
func (c *cli) offerMints(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	dir, _, err := c.homeDir()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return walletsIn(walletDir(dir)), cobra.ShellCompDirectiveDefault
}

func walletDir(home string) string { return person.WalletDir(home) }

// walletsIn returns the mints that there are wallets of.
func walletsIn(dir string) (names []string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, d := range list {
		if d.IsDir() {
			names = append(names, d.Name())
		}
	}
	return names
}

// find returns the directory of the wallet that is meant, and whom it believes where
// it is yet to be made.
func (p purse) find(dir string) (string, *manifest.Trust, error) {
	names := walletsIn(dir)
	switch {
	case p.mint == "" && len(names) == 1:
		return filepath.Join(dir, names[0]), nil, nil
	case p.mint == "" && len(names) == 0:
		return "", nil, cloudpal.E("", cloudpal.NotExist, errors.New("there is no wallet yet in "+dir)).
			WithHint("name the mint whose tickets you want: --mint FILE, with the file that it gives away")
	case p.mint == "":
		return "", nil, cloudpal.E("", cloudpal.Invalid, fmt.Errorf("there are wallets of %s", strings.Join(names, ", "))).
			WithHint("say which: --mint " + names[0])
	case slices.Contains(names, p.mint):
		return filepath.Join(dir, p.mint), nil, nil
	}
	trust, err := manifest.Load(p.mint)
	if err != nil {
		return "", nil, err
	}
	if strings.ContainsAny(trust.Issuer, `/\`) || strings.HasPrefix(trust.Issuer, ".") || trust.Issuer == "seed" {
		return "", nil, cloudpal.E("use the mint "+trust.Issuer, cloudpal.Invalid, errors.New("it has no name that a folder can have"))
	}
	return filepath.Join(dir, trust.Issuer), trust, nil
}

// openWallet opens the wallet that p means. Where there is none yet, it is made if
// fresh says so, of the person's seed.
func (c *cli) openWallet(p purse, fresh bool) (*wallet.Wallet, error) {
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
	if errors.Is(err, cloudpal.NotExist) && fresh {
		seed, err = c.newSeed(home, base, own)
	}
	if err != nil {
		return nil, err
	}
	config := p.config(dir, seed)
	w, err := wallet.Open(config.Config)
	if errors.Is(err, cloudpal.NotExist) && fresh && trust != nil {
		w, err = c.createWallet(config.Config, trust)
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

func (c *cli) createWallet(config wallet.Config, trust *manifest.Trust) (*wallet.Wallet, error) {
	if trust.Alone() {
		c.say("the mint %s has no witnesses: it could sell you tickets that it knows again. That is right for a mint of your own only", trust.Issuer)
	}
	return wallet.Create(config, trust, wallet.FirstDevice)
}

// sameTrust refuses another file for a mint than the wallet was made with: who it
// believes is pinned.
func sameTrust(w *wallet.Wallet, trust *manifest.Trust) error {
	pinned := w.Trust()
	if pinned.Root == trust.Root && pinned.Log == trust.Log {
		return nil
	}
	return errors.Join(cloudpal.E("use the mint "+trust.Issuer, cloudpal.Denied, errors.New("the file has other keys of it than your wallet was made with")).
		WithHint("do not buy there now; ask the mint, by another way, which is right"), w.Close())
}

// A purseConfig is what a wallet is opened with; its relay's keys are checked by the
// wallet itself.
type purseConfig struct {
	wallet.Config
	wallet *wallet.Wallet
}

func (p purse) config(dir string, seed ticket.Seed) *purseConfig {
	config := &purseConfig{Config: wallet.Config{Dir: dir, Seed: seed, Policy: wallet.Careful}}
	if p.now {
		config.Policy = wallet.Now
	}
	config.Direct = func() (wallet.Mint, error) {
		through, err := p.through()
		if err != nil {
			return nil, err
		}
		return mintapi.Dial(config.wallet.Trust().URL, through)
	}
	config.Connect = config.Direct
	if p.relay != "" {
		config.Connect = func() (wallet.Mint, error) { return p.viaRelay(config) }
	}
	return config
}

// through returns how connections are made. Each is another stranger to Tor: it parts
// those that have other credentials.
func (p purse) through() (mintapi.Dialer, error) {
	if p.proxy == "" {
		return nil, nil
	}
	name := make([]byte, 16)
	rand.Read(name)
	d, err := proxy.SOCKS5("tcp", p.proxy, &proxy.Auth{User: hex.EncodeToString(name), Password: "cloudpal"}, &net.Dialer{Timeout: 30 * time.Second})
	if err != nil {
		return nil, cloudpal.E("use the proxy "+p.proxy, cloudpal.Invalid, err)
	}
	return d.(mintapi.Dialer), nil
}

// viaRelay asks the mint through a relay, which learns where we are and nothing else.
func (p purse) viaRelay(config *purseConfig) (wallet.Mint, error) {
	through, err := p.through()
	if err != nil {
		return nil, err
	}
	relay, by, err := mintapi.Transport(p.relay, through)
	if err != nil {
		return nil, err
	}
	mint, _, err := mintapi.Transport(config.wallet.Trust().URL, nil)
	if err != nil {
		return nil, err
	}
	return mintapi.Over(mint, oblivious.NewTransport(relay, by, config.wallet.Receipt, time.Now)), nil
}

// withWallet makes what a command does that needs a wallet.
func (c *cli) withWallet(p *purse, fresh bool, f func(context.Context, *wallet.Wallet, []string) error) func(*cobra.Command, []string) error {
	return c.verb(func(ctx context.Context, args []string) error {
		w, err := c.openWallet(*p, fresh)
		if err != nil {
			return err
		}
		defer w.Close()
		return f(ctx, w, args)
	})
}

// newSeed returns the seed of a home's person, and keeps it for the wallets. Who has
// no pal yet is made here: the phrase is shown once.
func (c *cli) newSeed(home, base string, own person.Owner) (seed ticket.Seed, err error) {
	h, err := person.Make(home, own)
	if err != nil {
		return seed, err
	}
	defer h.Close()
	s, err := h.Read()
	switch {
	case errors.Is(err, cloudpal.NotExist), err == nil && !s.Shown:
		return c.firstSeed(base) // nobody has seen a phrase yet by which tickets could be restored
	case err != nil:
		return seed, err
	case len(s.Wallet) != len(seed):
		return seed, cloudpal.E("make a wallet", cloudpal.Missing, errors.New("your pal is older than wallets are: this device has no seed for one")).
			WithHint("bring it here with your recovery phrase: cloudpal wallet restore --mint FILE")
	}
	seed = ticket.Seed(s.Wallet)
	return seed, wallet.KeepSeed(base, seed)
}

func printWalletPhrase(c *cli, words []string) {
	printPhrase(c.err, words)
	c.say("It is your wallet's. A pal that you make later gets a phrase of its own.")
}

// parseUnits reads an amount.
func parseUnits(text string) (ticket.Units, error) {
	var u ticket.Units
	if n, err := fmt.Sscan(text, &u); err != nil || n != 1 || u == 0 || fmt.Sprint(uint64(u)) != text {
		return 0, usage{fmt.Errorf("%q is no number of units; 64 are a day of the smallest VM", text)}
	}
	return u, nil
}

// formatUnits says what units are worth: "64 units (1 day)".
func formatUnits(u ticket.Units) string {
	const day, hour = 64, 64.0 / 24
	switch {
	case u >= day:
		return fmt.Sprintf("%d units (%.3g days)", u, float64(u)/day)
	case u > 0:
		return fmt.Sprintf("%d units (%.2g h)", u, float64(u)/hour)
	}
	return "0 units"
}
