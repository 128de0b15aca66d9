package main

import (
	"github.com/spf13/cobra"
)

const coreImageHelp = `Make the image of pals' cores at DIR, an OCI layout: this program, the modules
that it needs of the guests' kernel, and mke2fs of this machine. Of the same parts
it is the same image.`

func (c *cli) coreImage() *cobra.Command {
	var kernel string
	cmd := &cobra.Command{
		Use: "core-image DIR", Short: "Make the image of pals' cores", Long: coreImageHelp, Hidden: true,
		Example: "  cloudpal core-image bin/core",
		Args:    args(1, 1, "the DIR to make it at"),
		RunE: func(_ *cobra.Command, args []string) error {
			return makeCoreImage(args[0], kernel)
		},
	}
	cmd.Flags().StringVar(&kernel, "kernel", c.lookup("CLOUDPAL_KERNEL", ""), "`DIR` of the guests' kernel (default: as host finds it)")
	return cmd
}
