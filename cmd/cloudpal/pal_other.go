//go:build !(linux && amd64)

package main

import (
	"context"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/names"
)

// runPal refuses: a core is a Linux VM.
func (c *cli) runPal(context.Context, []names.Upstream) error {
	return cloudpal.E("", cloudpal.Missing, nil).WithHint("this runs in the VM of a pal's core: cloudpal up makes one")
}
