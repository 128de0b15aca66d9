package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/person"
)

const openHelp = `Show your pal's page in this machine's browser. The page is served on a port of
127.0.0.1 to nobody but the browser that comes by the address this prints, which
works once and for a minute.`

func (c *cli) open() *cobra.Command {
	var quiet bool
	cmd := c.withHome(c.withJSON(&cobra.Command{
		Use: "open", Short: "Show your pal's page in the browser", Long: openHelp,
		Example: "  cloudpal open\n  cloudpal open --no-browser",
		Args:    args(0, 0, ""),
		RunE: c.askDevice(func(ctx context.Context, _ *person.Home, agent *person.Client, _ []string) error {
			o, err := agent.Open(ctx)
			if err != nil {
				return err
			}
			if !quiet && !c.json {
				c.browse(o.URL)
			}
			return c.print(o, func(w io.Writer) { fmt.Fprintln(w, o.URL) })
		}),
	}))
	cmd.Flags().BoolVar(&quiet, "no-browser", false, "only print the address")
	return cmd
}

// browse starts the person's browser, where they sit at this machine. Root has
// none. The address is in a command line for a moment; it is spent as soon as
// the browser has used it.
func (c *cli) browse(url string) {
	_, seen := terminal(c.out)
	if !seen || os.Geteuid() == 0 {
		return
	}
	opener := "xdg-open"
	if runtime.GOOS == "darwin" {
		opener = "open"
	}
	if _, err := exec.LookPath(opener); err != nil {
		return
	}
	cmd := exec.Command(opener, url)
	if cmd.Start() == nil {
		go cmd.Wait()
	}
}
