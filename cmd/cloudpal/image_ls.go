package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const imageLsHelp = `List the images of this machine. SIZE is that of all layers of an image; layers
that images share take it only once. An image whose name was given to another
one, while a VM uses it, has the name "-".`

func (c *cli) imageLs() *cobra.Command {
	var quiet bool
	cmd := c.withJSON(&cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List images", Long: imageLsHelp,
		Example: "  cloudpal image ls\n  cloudpal image ls --json | jq -r '.[] | select(.usedBy == null).name'",
		Args:    args(0, 0, ""),
		RunE: c.ask(func(ctx context.Context, agent *api.Client, _ []string) error {
			images, err := agent.Images(ctx)
			if err != nil {
				return err
			}
			return c.print(images, func(w io.Writer) { printImages(w, images, quiet) })
		}),
	})
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "names only")
	return cmd
}

func printImages(w io.Writer, images []api.Image, quiet bool) {
	var rows [][]string
	for _, i := range images {
		if quiet {
			fmt.Fprintln(w, plain(nameOrID(i)))
			continue
		}
		rows = append(rows, []string{
			orDash(i.Name), shortID(i.ID), formatSince(i.Created), i.Arch,
			fmt.Sprint(i.Layers), formatSize(i.Size), orDash(strings.Join(i.UsedBy, ", ")),
		})
	}
	if !quiet {
		table(w, "NAME ID AGE ARCH LAYERS SIZE USED-BY", rows)
	}
}

// nameOrID is what other commands take for the image.
func nameOrID(i api.Image) string {
	if i.Name != "" {
		return i.Name
	}
	return i.ID
}

// idDigits is how many digits of a digest tell it from all others in practice.
const idDigits = 12

// shortID returns the beginning of a digest, as other commands take it too.
func shortID(digest string) string {
	digits := strings.TrimPrefix(digest, "sha256:")
	return digits[:min(len(digits), idDigits)]
}
