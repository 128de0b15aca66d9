//go:build !linux

package main

import (
	"context"
	"errors"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

// startAgent refuses: hosts are Linux machines.
func (c *cli) startAgent(context.Context, *api.Client) error {
	return cloudpal.E("", cloudpal.Missing, errors.New("no agent answers on "+c.socket)).
		WithHint("VMs run on a Linux host; reach its agent by forwarding its socket: ssh -L ./host.sock:" + api.DefaultSocket + " HOST")
}
