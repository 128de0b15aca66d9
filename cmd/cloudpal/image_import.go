package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

const imageImportHelp = `Take in an image from a file or directory: an OCI layout, as a directory or as a
tar archive (oci-archive), or an archive that "docker save" and "podman save"
write (docker-archive). An index of many platforms gives this machine's.

Without --name the image keeps the name it has there, or gets that of the file.`

func (c *cli) imageImport() *cobra.Command {
	var name string
	cmd := c.withJSON(&cobra.Command{
		Use: "import PATH", Short: "Take in an image from a file or directory", Long: imageImportHelp,
		Example: "  docker save notes | gzip > notes.tar.gz && cloudpal image import notes.tar.gz\n  cloudpal image import ./layout --name notes:2",
		Args:    args(1, 1, "the PATH of an OCI layout or archive"),
		RunE: c.ask(func(ctx context.Context, agent *api.Client, args []string) error {
			image, err := c.importImage(ctx, agent, args[0], name)
			if err != nil {
				return err
			}
			return c.printImage(image)
		}),
	})
	cmd.Flags().StringVarP(&name, "name", "n", "", "the image's `NAME` on this machine, as in notes:2")
	c.offerFlag(cmd, "name", c.offer(true, imageNames))
	return cmd
}

// importImage takes in an image and shows how far it is.
func (c *cli) importImage(ctx context.Context, agent *api.Client, path, name string) (api.Image, error) {
	whole, err := filepath.Abs(path) // the agent is in another directory
	if err != nil {
		return api.Image{}, cloudpal.E("import "+path, "", err)
	}
	return c.withProgress(ctx, func(ctx context.Context, report func(api.Progress)) (api.Image, error) {
		return agent.Import(ctx, api.ImportRequest{Path: whole, Name: name}, report)
	})
}
