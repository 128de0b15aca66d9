package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const imagePullHelp = `Fetch an image from a registry. A reference is read as docker reads it: "nginx" is
library/nginx:latest of the default registry. Passwords are those that docker
and podman keep in root's home directory. A registry on a loopback address is
spoken to without TLS.

Layers that are here already are not fetched again. "cloudpal vm run" pulls an
image that is not here; pull it again to get a newer one. VMs keep the image
they were made of.

How far it is goes to standard error: bars on a terminal, else one line for
each layer. The image's name goes to standard output.`

func (c *cli) imagePull() *cobra.Command {
	cmd := c.withJSON(&cobra.Command{
		Use: "pull REFERENCE", Short: "Fetch an image from a registry", Long: imagePullHelp,
		Example: "  cloudpal image pull nginx\n  cloudpal image pull registry.example/team/app:1.2 --json | jq -r .id",
		Args:    args(1, 1, "one REFERENCE, as in nginx:1.27"),
		RunE: c.ask(func(ctx context.Context, agent *api.Client, args []string) error {
			image, err := c.pull(ctx, agent, args[0])
			if err != nil {
				return err
			}
			return c.printImage(image)
		}),
	})
	cmd.ValidArgsFunction = c.offer(false, imageNames) // to get newer ones
	return cmd
}

// pull fetches an image and shows how far it is.
func (c *cli) pull(ctx context.Context, agent *api.Client, ref string) (api.Image, error) {
	return c.withProgress(ctx, func(ctx context.Context, report func(api.Progress)) (api.Image, error) {
		return agent.Pull(ctx, api.PullRequest{Ref: ref}, report)
	})
}

func (c *cli) printImage(i api.Image) error {
	return c.print(i, func(w io.Writer) { fmt.Fprintln(w, plain(nameOrID(i))) })
}
