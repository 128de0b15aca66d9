//go:build !(linux && amd64)

package main

import "context"

// serveCenter refuses as runHost does.
func (c *cli) serveCenter(ctx context.Context, o centerOptions) error {
	return c.runHost(ctx, o.host)
}
