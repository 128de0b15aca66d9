package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
)

const mintCentersHelp = `Show the directory of centers that the mint signs, for people to choose from. A
center needs no entry to be paid: its account is its key.`

// A mintCenter is an entry, as --json shows it.
type mintCenter struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	URL  string `json:"url"`
}

func (c *cli) mintCenters() *cobra.Command {
	var folder string
	cmd := c.withJSON(c.withMint(&cobra.Command{
		Use: "centers", Short: "Show the directory of centers, add to it", Long: mintCentersHelp,
		Example: `  cloudpal mint centers
  cloudpal mint centers add KEY Helsinki https://center.example:7443#...`,
		Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			return c.onBooks(ctx, folder, func(b *books.Books) error { return c.listCenters(ctx, b) })
		}),
	}, &folder))
	cmd.AddCommand(c.mintCentersAdd())
	return cmd
}

func (c *cli) mintCentersAdd() *cobra.Command {
	var folder string
	return c.withMint(&cobra.Command{
		Use: "add KEY NAME URL", Short: "Add a center to the directory, or change its entry",
		Long: `Add a center to the directory, or change what it says of one. KEY is the key that
the center's offers are signed with, in base64; URL is the center's address.`,
		Example: `  cloudpal mint centers add KEY Helsinki https://center.example:7443#...`,
		Args:    cobra.ExactArgs(3),
		RunE: c.verb(func(ctx context.Context, args []string) error {
			key, err := base64.StdEncoding.DecodeString(args[0])
			if err != nil || len(key) != len(ticket.CenterID{}) {
				return usage{errors.New("KEY is a center's key, 44 characters of base64")}
			}
			return c.onBooks(ctx, folder, func(b *books.Books) error {
				return b.List(ctx, books.Center{ID: ticket.CenterID(key), Name: args[1], URL: args[2]})
			})
		}),
	}, &folder)
}

// onBooks does something with the books of a mint, which may be running.
func (c *cli) onBooks(ctx context.Context, folder string, do func(*books.Books) error) error {
	f, err := c.mintDir(folder)
	if err != nil {
		return err
	}
	config, err := f.config()
	if err != nil {
		return err
	}
	b, err := f.openBooks(ctx, config)
	if err != nil {
		return err
	}
	return errors.Join(do(b), b.Close())
}

func (c *cli) listCenters(ctx context.Context, b *books.Books) error {
	list, err := b.Centers(ctx)
	if err != nil {
		return err
	}
	shown := []mintCenter{}
	for _, e := range list {
		shown = append(shown, mintCenter{base64.StdEncoding.EncodeToString(e.ID[:]), e.Name, e.URL})
	}
	return c.print(shown, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		defer t.Flush()
		fmt.Fprintln(t, "NAME\tURL\tKEY")
		for _, e := range shown {
			fmt.Fprintf(t, "%s\t%s\t%s\n", e.Name, e.URL, e.Key)
		}
	})
}
