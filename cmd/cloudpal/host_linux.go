package main

import (
	"context"
	"errors"
)

// runHost puts an agent together and runs it until ctx ends.
func (c *cli) runHost(ctx context.Context, o hostOptions) error {
	return errors.New("the agent is not wired yet")
}
