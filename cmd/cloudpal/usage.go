package main

import (
	"github.com/spf13/cobra"
)

const usageHelp = `Check usage records.

The agent appends a record of what each VM has used: CPU time, memory over time,
bytes to and from disk and network, wakes, time awake and asleep. Each record
has the hash of the one before, so that none can be changed, dropped or put in
between unseen. "cloudpal vm usage" shows those of a VM.`

func (c *cli) usage() *cobra.Command {
	cmd := group("usage", "Check usage records", usageHelp, `  cloudpal vm usage web
  cloudpal vm usage web --json > web.usage
  cloudpal usage verify web.usage`)
	cmd.AddCommand(c.usageVerify())
	return cmd
}
