package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person"
	"github.com/tradle/cloudpal/ticket"
)

const downHelp = `Put your pal to sleep, end this device's agent and, where "cloudpal up" started a
center on this machine, end that and its mint: the tickets that are not used come
back to your wallet before. Nothing is lost, and "cloudpal up" brings it all back.
While a center elsewhere runs, your other devices still wake the pal, and what was
paid for it stays: "cloudpal wallet close" brings that back, too.`

// downResult is what "cloudpal down" prints as JSON.
type downResult struct {
	Agent  bool         `json:"agent"`  // one runs
	Center bool         `json:"center"` // one on this machine runs
	Back   ticket.Units `json:"back"`   // that came back from it
}

func (c *cli) down() *cobra.Command {
	return c.withHome(c.withJSON(&cobra.Command{
		Use: "down", Short: "Put your pal to sleep and end what runs here", Long: downHelp,
		Example: "  sudo cloudpal down",
		Args:    args(0, 0, ""),
		RunE: c.withHomeOf(func(ctx context.Context, h *person.Home, _ []string) error {
			s, err := h.Read()
			if err != nil {
				return err
			}
			if err := sleepPal(ctx, s); err != nil {
				c.say("the pal is left as it is: %v", err)
			}
			r, err := c.putDown(ctx, h, s)
			if err != nil {
				return err
			}
			return c.print(r, func(w io.Writer) {
				if r.Center {
					fmt.Fprintln(w, "the center on this machine goes on; end it, too: sudo cloudpal down")
				}
			})
		}),
	}))
}

// sleepPal puts the pal to sleep: on disk, where the center is to end.
func sleepPal(ctx context.Context, s person.State) error {
	if s.Pal == nil {
		return nil
	}
	client, err := s.Ask(nil)
	if err != nil {
		return err
	}
	defer client.Close()
	depth := api.Depth("")
	if s.Center.Local != nil {
		depth = api.DepthDisk
	}
	return s.Sleep(ctx, client, depth)
}

// putDown ends the agent, and the center that "up" started.
func (c *cli) putDown(ctx context.Context, h *person.Home, s person.State) (r downResult, err error) {
	if err := disconnect(ctx, h); err != nil {
		return r, err
	}
	if err := stopDeviceAgent(ctx, h); err != nil {
		return r, err
	}
	if s.Center.Local == nil {
		return r, nil
	}
	if os.Geteuid() != 0 {
		r.Center = answers(ctx, s.Center.Address) == nil
		return r, nil
	}
	r.Back = c.leave(ctx, h)
	return r, c.stopLocal(ctx, *s.Center.Local)
}

// leaveTimeout is what a center has to deposit what it keeps.
const leaveTimeout = 15 * time.Second

// leave closes the pal's tab and returns what came back. What does not come now comes
// later: the wallet has written it down.
func (c *cli) leave(ctx context.Context, h *person.Home) ticket.Units {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	back, err := h.Leave(ctx)
	if err != nil {
		c.say("not all that is left at the center is back yet, and it comes later: %v", err)
	}
	return back
}
