package main

import (
	"github.com/spf13/cobra"
)

const imageHelp = `Fetch images, list and remove them.

An image's layers become read-only block devices, one for each layer, which all
VMs on this machine share. Layers that no image and no VM needs any more go
when an image is removed.`

func (c *cli) image() *cobra.Command {
	cmd := group("image", "Fetch images, list and remove them", imageHelp, `  cloudpal image pull nginx
  cloudpal image import ./build/layout --name notes
  cloudpal image ls
  cloudpal image rm notes`)
	cmd.AddCommand(c.imageLs(), c.imagePull(), c.imageImport(), c.imageRm())
	return cmd
}
