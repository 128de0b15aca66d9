//go:build !(linux && amd64)

package main

import (
	"context"
	"errors"
	"runtime"

	"github.com/tradle/cloudpal"
)

// runHost refuses: hosts are Linux machines.
func (c *cli) runHost(context.Context, hostOptions) error {
	return cloudpal.E("", cloudpal.Missing, errors.New("VMs run on Linux on x86-64, and this is "+runtime.GOOS+"/"+runtime.GOARCH)).
		WithHint("run the agent on a Linux host and reach it by CLOUDPAL_SOCKET")
}
