package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

const vmWaitHelp = `Wait until a VM's process has ended, and exit as it did. A sleeping VM's process
has not ended. Of one that was stopped already the last status is told.

With --json the exit status is 0 and the result tells the process's.`

func (c *cli) vmWait() *cobra.Command {
	return c.exits(c.withJSON(c.onVM(&cobra.Command{
		Use: "wait VM", Short: "Wait for a VM's process to end", Long: vmWaitHelp,
		Example: "  cloudpal vm wait job && echo done\n  cloudpal vm wait job --json | jq .reason",
		RunE: c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
			exit, err := agent.Wait(ctx, names[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(exit)
			}
			return c.exit(names[0], exit)
		}),
	})))
}

// exits marks a command that exits with the guest's status.
func (c *cli) exits(cmd *cobra.Command) *cobra.Command {
	cmd.Annotations = map[string]string{exitsAsGuest: "yes"}
	return cmd
}

// exit turns how a VM's process ended into how this one does. Why is said only
// where the process could not say it.
func (c *cli) exit(name string, e api.Exit) error {
	if e.OOM || e.Code > 124 {
		c.say("cloudpal: vm %s: %s", name, e.Reason)
	}
	if e.Console != "" {
		c.say("%s", e.Console)
	}
	return statusOf(e.Code)
}

// statusOf makes a process's exit status this one's. The guest's word may be
// any number, and the kernel would take one above 255 for another.
func statusOf(code int) error {
	switch {
	case code == 0:
		return nil
	case code < 0 || code > 255:
		return fmt.Errorf("the guest reports exit status %d, which there is not", code)
	}
	return status(code)
}
