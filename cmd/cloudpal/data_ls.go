package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/data/corestore"
)

// listed is what --json shows of a thing.
type listed struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Key       string `json:"key"`
	Blocks    uint64 `json:"blocks"`
	Here      uint64 `json:"here"` // blocks
	Bytes     uint64 `json:"bytes"`
	Writable  bool   `json:"writable"`
	Encrypted bool   `json:"encrypted"`
}

// list prints the things of a kind that a store has; of cores, all.
func (c *cli) list(ctx context.Context, k kind, s *corestore.Store) error {
	all := []listed{}
	for discovery, err := range s.List() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		l, err := look(s, discovery)
		if err != nil {
			return err
		}
		if k == coreKind || l.Kind == string(k) {
			all = append(all, l)
		}
	}
	return c.print(all, func(w io.Writer) { printListed(w, all) })
}

// look opens a stored core and sees what it is.
func look(s *corestore.Store, discovery [32]byte) (l listed, err error) {
	core, err := s.Core(corestore.CoreOptions{DiscoveryKey: &discovery})
	if err != nil {
		return l, err
	}
	defer core.Close()
	k, err := kindOf(core)
	if err != nil {
		return l, err
	}
	t := thing{kind: k, core: core, store: s}
	secret, err := core.UserData(secretRecord)
	i := core.Info()
	return listed{
		Name: t.name(), Kind: string(k), Key: i.Key.String(), Blocks: i.Length, Here: i.Blocks,
		Bytes: i.ByteLength, Writable: i.Writable, Encrypted: secret != nil,
	}, err
}

func printListed(w io.Writer, all []listed) {
	var rows [][]string
	for _, l := range all {
		blocks := fmt.Sprint(l.Blocks)
		if l.Here < l.Blocks {
			blocks = fmt.Sprintf("%d of %d", l.Here, l.Blocks)
		}
		rows = append(rows, []string{orDash(l.Name), orDash(l.Kind), blocks, formatSize(int64(l.Bytes)), yes(l.Writable), l.Key})
	}
	table(w, "NAME KIND BLOCKS SIZE OURS KEY", rows)
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

const infoHelp = `Show what there is to say of a KIND: its key, how many blocks and bytes it has,
how many of them are here, the hash that is signed.

--write-encryption-key writes the key that it is encrypted with to a new file,
for another machine, where --encryption-key FILE takes it. Whoever has it, and
the KIND's key, can read everything.`

// informed is what --json shows.
type informed struct {
	listed
	Discovery  string `json:"discoveryKey"`
	Contiguous uint64 `json:"contiguous"` // blocks here from the first on
	Fork       uint64 `json:"fork"`       // how often it was truncated
	TreeHash   string `json:"treeHash"`
}

func (c *cli) dataInfo(k kind) *cobra.Command {
	var secretFile string
	cmd := c.withStore(&cobra.Command{
		Use: "info NAME|KEY", Short: k.text("Show what there is to say of a KIND"), Long: k.text(infoHelp),
		Example:           k.text("  cloudpal KIND info notes\n  cloudpal KIND info notes --json | jq -r .key\n  cloudpal KIND info diary --write-encryption-key diary.key"),
		Args:              args(1, 1, k.text("the name or key of one KIND")),
		ValidArgsFunction: c.offerNames(k),
		RunE: c.on(k, func(_ context.Context, t *thing, _ []string) error {
			if secretFile != "" {
				return t.writeSecret(secretFile)
			}
			return c.info(t)
		}),
	})
	cmd.Flags().StringVar(&secretFile, "write-encryption-key", "", "new `FILE` to write the encryption key to")
	return cmd
}

func (c *cli) info(t *thing) error {
	l, err := look(t.store, t.core.DiscoveryKey())
	if err != nil {
		return err
	}
	i := t.core.Info()
	l.Bytes = i.ByteLength
	out := informed{l, hex.EncodeToString(i.DiscoveryKey[:]), i.Contiguous, i.Fork, hex.EncodeToString(i.TreeHash[:])}
	return c.print(out, func(w io.Writer) { printInfo(w, out) })
}

func printInfo(out io.Writer, i informed) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, plain(fmt.Sprintf(format, args...)))
	}
	row("name", "%s", orDash(i.Name))
	row("kind", "%s", orDash(i.Kind))
	row("key", "%s", i.Key)
	row("discovery key", "%s", i.Discovery)
	row("blocks", "%d, %d of them here", i.Blocks, i.Here)
	row("bytes", "%d (%s)", i.Bytes, formatSize(int64(i.Bytes)))
	row("fork", "%d", i.Fork)
	row("tree hash", "%s", i.TreeHash)
	row("ours", "%s", yes(i.Writable))
	row("encrypted", "%s", yes(i.Encrypted))
	t.Flush()
}

// dataLs is "ls" for a kind whose things have no inside to be listed.
func (c *cli) dataLs(k kind, long string) *cobra.Command {
	return c.withStore(&cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: k.text("List the KINDs of your store"), Long: long,
		Example: k.text("  cloudpal KIND ls\n  cloudpal KIND ls --json | jq -r '.[].key'"),
		Args:    args(0, 0, ""),
		RunE: c.onStore(existing, func(ctx context.Context, s *corestore.Store, _ []string) error {
			return c.list(ctx, k, s)
		}),
	})
}
