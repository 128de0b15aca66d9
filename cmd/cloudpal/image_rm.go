package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const imageRmHelp = `Remove images by name or ID, and the layers that nothing else needs. An image that
a VM uses stays: remove the VM first. Of an image with two names only the one
that is given goes; an ID stands for all names.`

func (c *cli) imageRm() *cobra.Command {
	cmd := c.withJSON(&cobra.Command{
		Use: "rm IMAGE...", Short: "Remove images", Long: imageRmHelp,
		Example: "  cloudpal image rm nginx\n  cloudpal image rm 3f2a91c07d5e --json | jq '.[].freed'",
		Args:    args(1, -1, "the name of an image"),
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			gone, err := each(ctx, names, agent.RemoveImage)
			return errors.Join(err, c.print(gone, func(w io.Writer) { printFreed(w, gone) }))
		}),
	})
	cmd.ValidArgsFunction = c.offer(true, imageNames)
	return cmd
}

func printFreed(w io.Writer, gone []api.RemovedImage) {
	for _, g := range gone {
		fmt.Fprintf(w, "%s: %s freed\n", plain(g.Name), formatSize(g.Freed))
	}
}
