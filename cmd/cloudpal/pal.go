package main

import (
	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/network/names"
)

const palHelp = `Run a pal's core. This is what the core's image starts in its VM, as root: it waits,
locked, for one of the person's devices to unlock it, and then is the hub of their
network. It works nowhere else.`

func (c *cli) pal() *cobra.Command {
	var servers []string
	cmd := &cobra.Command{
		Use: "pal", Short: "Run a pal's core", Long: palHelp, Hidden: true,
		Example: "  cloudpal pal",
		Args:    args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var upstreams []names.Upstream
			for _, s := range servers {
				u, err := names.ParseUpstream(s)
				if err != nil {
					return usage{err}
				}
				upstreams = append(upstreams, u)
			}
			return c.runPal(cmd.Context(), upstreams)
		},
	}
	cmd.Flags().StringSliceVar(&servers, "dns", nil, "`SERVER` to ask for the internet's names, as tls://9.9.9.9#dns.quad9.net (default: Quad9 and Cloudflare, over TLS)")
	return cmd
}
