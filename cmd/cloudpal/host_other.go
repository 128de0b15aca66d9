//go:build !linux

package main

import (
	"context"
	"errors"
	"runtime"

	"github.com/tradle/cloudpal"
)

// runHost refuses: hosts are Linux machines.
func (c *cli) runHost(context.Context, hostOptions) error {
	return cloudpal.E("", cloudpal.Missing, errors.New("VMs run on Linux, and this is "+runtime.GOOS)).
		WithHint("run the agent on a Linux host and reach it by CLOUDPAL_SOCKET")
}
