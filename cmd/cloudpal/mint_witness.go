package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/keylog"
)

const mintWitnessHelp = `Be a witness of mints that others run, in the foreground: see to it that each shows
everybody the same keys. A witness remembers the last of a mint's log of keys that
it cosigned, and cosigns only what extends that. Wallets and centers believe a
mint's keys when enough witnesses cosigned them.

It prints its key, which mints give away in their mint.json, and answers over HTTP;
what it says is signed. Give it the key of each mint's log: the mint's operator
tells you, and it stands in the mint.json as "log".

What it must not lose is its folder: the key, and what it saw. Do not put back an
old copy of it, which would forget; make a new witness then. Checkpoints that it
refused stay there as refused-*: with log-* beside them, they show what a mint
did.`

// defaultWitnessListen is where a witness answers that is told nothing else.
const defaultWitnessListen = "127.0.0.1:7446"

// newMintWitness returns "cloudpal mint witness".
func (c *cli) newMintWitness() *cobra.Command {
	var folder, name, listen string
	var logs []string
	cmd := &cobra.Command{
		Use: "witness", Short: "See to it that mints show all the same keys", Long: mintWitnessHelp,
		Example: `  cloudpal mint witness --name witness.example --listen :7446 --log "$LOG_KEY"
  cloudpal mint witness --log "$LOG_KEY" --log "$OTHER_LOG_KEY"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.untilSignal(cmd.Context(), func(ctx context.Context) error {
				return c.witness(ctx, folder, name, listen, logs)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&folder, "folder", "", "`DIR` of its key and what it saw (default: witness in ~/.local/share/cloudpal)")
	f.StringVar(&name, "name", "", "`NAME` of its key, such as witness.example; asked for only the first time")
	f.StringVar(&listen, "listen", defaultWitnessListen, "TCP `[IP]:PORT` to answer on; port 0 takes a free one")
	f.StringArrayVar(&logs, "log", nil, "`KEY` of the log of a mint that it is a witness of")
	for _, name := range []string{"name", "listen", "log"} {
		c.offerFlag(cmd, name, words())
	}
	return cmd
}

func (c *cli) witness(ctx context.Context, folder, name, listen string, logs []string) error {
	if folder == "" {
		home, _, err := c.homeDir()
		if err != nil {
			return err
		}
		folder = filepath.Join(home, "witness")
	}
	w, err := keylog.OpenWitness(keylog.WitnessConfig{Folder: folder, Name: name, Logs: logs})
	if err != nil {
		return err
	}
	defer w.Close()
	if refused, err := w.Refused(); err != nil {
		return err
	} else if len(refused) > 0 {
		c.say("%d checkpoints were refused before; they are in %s", len(refused), folder)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return cannotListen(listen, err)
	}
	defer l.Close()
	if _, err := fmt.Fprintf(c.out, "%s\n", w.Key()); err != nil {
		return cloudpal.E("print the witness's key", "", err)
	}
	c.say("the witness answers at http://%s", reachedAt(l.Addr(), ""))
	return w.Serve(ctx, l)
}
