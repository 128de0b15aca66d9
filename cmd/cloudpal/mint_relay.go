package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/oblivious"
	"github.com/tradle/cloudpal/ticket/manifest"
)

const mintRelayHelp = `Carry questions of wallets to a mint, in the foreground, so that the mint does not
learn from where they come (Oblivious HTTP, RFC 9458). The relay cannot read what it
carries, keeps nothing and writes nothing down.

Run it for a mint that is not yours: who runs both could join who asks with what is
asked. MINT is the mint's mint.json, or its address. It prints its own address when
it answers: wallets need it.`

// relayConns is how many connections a relay has to its mint.
const relayConns = 16

// newMintRelay returns "cloudpal mint relay".
func (c *cli) newMintRelay() *cobra.Command {
	var folder, listen, name string
	cmd := &cobra.Command{
		Use: "relay MINT", Short: "Hide from a mint who asks it", Long: mintRelayHelp,
		Example: `  cloudpal mint relay mint.json
  cloudpal mint relay mint.json --listen :443 --name relay.example`,
		Args: exactArgs(1, "MINT is a mint.json, or an address such as https://mint.example:7445#..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.untilSignal(cmd.Context(), func(ctx context.Context) error {
				return c.serveRelay(ctx, args[0], folder, listen, name)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&folder, "folder", "", "`DIR` of the relay's own key (default: relay in ~/.local/share/cloudpal)")
	f.StringVar(&listen, "listen", ":7446", "TCP `[IP]:PORT` to answer on; port 0 takes a free one")
	f.StringVar(&name, "name", "", "the `HOST` that wallets reach it at (default: where it listens)")
	c.offerFlag(cmd, "listen", words())
	c.offerFlag(cmd, "name", words())
	return cmd
}

func (c *cli) serveRelay(ctx context.Context, mintAt, folder, listen, name string) error {
	address := mintAt
	if !strings.HasPrefix(mintAt, "https://") {
		trust, err := manifest.Load(mintAt)
		if err != nil {
			return err
		}
		address = trust.URL
	}
	base, by, err := api.Transport(address, nil)
	if err != nil {
		return err
	}
	defer by.CloseIdleConnections()
	// A mint limits those of one network: questions wait here for one that is free.
	by.MaxConnsPerHost, by.MaxIdleConnsPerHost, by.MaxIdleConns = relayConns, relayConns, relayConns
	f, err := c.relayFolder(folder)
	if err != nil {
		return err
	}
	key, err := f.key("tls.pem")
	if err != nil {
		return err
	}
	cert, err := mint.Certificate(key)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return cannotListen(listen, err)
	}
	defer l.Close()
	if _, err := fmt.Fprintf(c.out, "the relay answers at https://%s#%s\n", reachedAt(l.Addr(), name), mint.Fingerprint(cert)); err != nil {
		return err
	}
	return oblivious.NewRelay(base, by, time.Now).Serve(ctx, l, cert)
}

// relayFolder returns where the relay's key is.
func (c *cli) relayFolder(folder string) (mintFolder, error) {
	if folder == "" {
		home, _, err := c.homeDir()
		if err != nil {
			return "", err
		}
		folder = filepath.Join(home, "relay")
	}
	abs, err := filepath.Abs(folder)
	if err == nil {
		err = os.MkdirAll(abs, 0o700)
	}
	if err != nil {
		return "", cloudpal.E("make the relay's folder", "", err)
	}
	return mintFolder(abs), nil
}

// reachedAt is where others reach who listens at an address.
func reachedAt(at net.Addr, name string) string {
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return at.String()
	}
	switch ip := net.ParseIP(host); {
	case name != "":
		host = name
	case ip == nil || ip.IsUnspecified():
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// exactArgs wants so many arguments, and says what they are.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usage{errors.New(what)}
		}
		return nil
	}
}
