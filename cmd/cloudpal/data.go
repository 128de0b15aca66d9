package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/storage"
)

// A kind is one of the three things that the data commands handle. What they
// have in common is written once, for any kind.
type kind string

const (
	coreKind  kind = "core"
	beeKind   kind = "bee"
	driveKind kind = "drive"
)

// text puts the kind in a help text or message, for KIND.
func (k kind) text(s string) string { return strings.ReplaceAll(s, "KIND", string(k)) }

// dataHelp is what the helps of all three groups end with.
const dataHelp = `

It has a NAME in your store, a folder on this machine, and a KEY, by which others
know it. Who has the key can read all of it and pass it on for ever; nobody can
change it but the store that made it. So give the key only to those who may read.
Nothing here needs root, a center or a pal.

One command at a time uses a store; while "serve" runs, others need --store with
another folder. Keep a backup of the store's file primary-key: without it nothing
that you made can be written again.

Environment:
  CLOUDPAL_STORE  the store's folder (~/.local/share/cloudpal/data)`

// withStore adds what all data commands take.
func (c *cli) withStore(cmd *cobra.Command) *cobra.Command {
	return c.withJSON(c.withOnlyStore(cmd))
}

// withOnlyStore is withStore for a command whose result is what was stored.
func (c *cli) withOnlyStore(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.store, "store", c.lookup("CLOUDPAL_STORE", ""), "`DIR` of the store (default: ~/.local/share/cloudpal/data)")
	return cmd
}

// storeDir returns where the store is.
func (c *cli) storeDir() (string, error) {
	if c.store != "" {
		return filepath.Abs(c.store)
	}
	if c.caller() != nil {
		return "", cloudpal.E("find your store", cloudpal.Denied, errors.New("what root makes there would be root's")).
			WithHint("leave sudo out, or say where the store is: --store DIR")
	}
	home, _, err := c.homeDir()
	if err != nil {
		return "", cloudpal.E("", "", err).WithHint("say where the store is to be: --store DIR")
	}
	return filepath.Join(home, "data"), nil
}

// A storeUse says what a command may do where there is no store.
type storeUse int

const (
	existing storeUse = iota
	making
)

// openStore opens the person's store.
func (c *cli) openStore(use storeUse) (*corestore.Store, error) {
	dir, err := c.storeDir()
	if err != nil {
		return nil, err
	}
	s, err := corestore.Open(dir, corestore.Options{
		Existing: use == existing, UploadLimit: c.limit.limiter(), DownloadLimit: c.limit.limiter(),
	})
	switch {
	case errors.Is(err, cloudpal.NotExist):
		err = cloudpal.E("", "", err).WithHint("cloudpal drive create NAME makes a store, and so do core and bee; --store DIR takes another")
	case errors.Is(err, cloudpal.Busy):
		err = cloudpal.E("", "", err).WithHint("another cloudpal uses it, maybe to serve: end that one first, or take another store with --store DIR")
	}
	return s, err
}

// limitFlag adds the flag that slows a command down, for the sake of what else
// the network is for.
func (c *cli) limitFlag(cmd *cobra.Command) {
	cmd.Flags().Var(&c.limit, "limit", "send and fetch at most this `SIZE` a second, as in 2M")
}

// limiter returns what keeps bytes a second to s, or nil where s is 0.
func (s size) limiter() *rate.Limiter {
	if s <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(s), int(max(s/4, 64<<10)))
}

// onStore makes what a command does with the store, which is closed in the
// end: what was written is on disk then.
func (c *cli) onStore(use storeUse, f func(ctx context.Context, s *corestore.Store, args []string) error) func(*cobra.Command, []string) error {
	return c.verb(func(ctx context.Context, args []string) error {
		s, err := c.openStore(use)
		if err != nil {
			return err
		}
		err = f(ctx, s, args)
		if closing := s.Close(); err == nil {
			err = closing
		}
		return err
	})
}

// on is onStore for a command whose first argument says which of a kind.
func (c *cli) on(k kind, f func(ctx context.Context, t *thing, args []string) error) func(*cobra.Command, []string) error {
	return c.onStore(existing, func(ctx context.Context, s *corestore.Store, args []string) error {
		t, err := c.find(k, s, args[0])
		if err != nil {
			return err
		}
		defer t.close()
		return f(ctx, t, args[1:])
	})
}

// offerNames completes a first argument with the kind's names. It only looks:
// nothing is made or changed, and a store that is in use has none.
func (c *cli) offerNames(k kind, then ...completer) completer {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			if len(args) <= len(then) {
				return then[len(args)-1](cmd, args, word)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		dir, err := c.storeDir()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := corestore.Open(dir, corestore.Options{Existing: true, Storage: storage.Options{ReadOnly: true}})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer s.Close()
		var names []string
		for a, err := range k.names(s).Aliases() {
			if err == nil {
				names = append(names, a.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// files has the shell offer files.
func files(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}
