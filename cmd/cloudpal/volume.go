package main

import (
	"github.com/spf13/cobra"
)

const volumeHelp = `List and remove named volumes.

A volume is a disk with a name that outlives the VMs it is put in. "cloudpal vm
run --volume NAME:/path" makes it where it is not there. It is in one VM at a
time.`

func (c *cli) volume() *cobra.Command {
	cmd := group("volume", "List and remove named volumes", volumeHelp, `  cloudpal vm run --detach --name db --volume data:/var/lib/postgresql postgres
  cloudpal volume ls
  cloudpal volume rm data`)
	cmd.AddCommand(c.volumeLs(), c.volumeRm())
	return cmd
}
