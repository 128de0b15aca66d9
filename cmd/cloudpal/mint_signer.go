package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/mint/signing/vault"
)

const mintSignerHelp = `Run the process that has a mint's private ticket keys, in the foreground. It makes
keys, signs with them and destroys them when their tickets are worth nothing, as
the mint asks it over a Unix socket; a key never leaves it. It answers the
processes of one user alone, and once it answers it can open no socket, start no
program, be traced by nobody and leaves no core dump.

Run it as a user of its own, which is not the mint's: then who breaks into the
mint can read no key. When it ends, start it again: the mint waits for it.

Keep a copy of --keys where the mint cannot reach it. Tickets that a lost key has
signed are worth nothing.`

// What mint signer is told where it is not told otherwise.
const (
	defaultSignerKeys   = defaultState + "/mint/keys"
	defaultSignerSocket = "/run/cloudpal-mint/signer.sock"
)

// newMintSigner returns "cloudpal mint signer".
func (c *cli) newMintSigner() *cobra.Command {
	var keys, socket, asker string
	var withInput bool
	cmd := &cobra.Command{
		Use: "signer", Short: "Run the process that has a mint's private keys", Long: mintSignerHelp,
		Example: `  cloudpal mint signer --mint-user cloudpal-mint
  cloudpal mint signer --keys /srv/mint/keys --listen /run/mint/signer.sock`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			uid, err := userID(asker)
			if err != nil {
				return usage{err}
			}
			return c.untilSignal(cmd.Context(), func(ctx context.Context) error {
				if !withInput {
					return vault.Serve(ctx, keys, socket, uid, c.logger(false), nil)
				}
				return untilEnd(ctx, c.in, func(ctx context.Context) error {
					return vault.Serve(ctx, keys, socket, uid, c.logger(false), nil)
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&keys, "keys", defaultSignerKeys, "`DIR` of the keys, which nobody else can read")
	f.StringVar(&socket, "listen", defaultSignerSocket, "`PATH` of the Unix socket to answer on")
	f.StringVar(&asker, "mint-user", "", "the `USER` that the mint runs as, by name or number (default: this one)")
	f.BoolVar(&withInput, "end-with-input", false, "end when standard input ends: for a mint that runs it, and may be killed")
	c.offerFlag(cmd, "mint-user", words())
	return cmd
}

// userID finds the number of a user.
func userID(name string) (int, error) {
	if name == "" {
		return os.Geteuid(), nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("--mint-user %.40q: there is no such user", name)
	}
	return strconv.Atoi(u.Uid)
}

// untilEnd runs f until it ends, or r does, which is no error.
func untilEnd(ctx context.Context, r io.Reader, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // it ends with the process, at the latest
		io.Copy(io.Discard, r)
		cancel(io.EOF)
	}()
	err := f(ctx)
	if errors.Is(err, context.Canceled) && context.Cause(ctx) == io.EOF {
		return nil
	}
	return err
}
