package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

// ask makes what a command does that needs the agent.
func (c *cli) ask(f func(ctx context.Context, agent *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return c.verb(func(ctx context.Context, args []string) error {
		agent, err := c.agent(ctx)
		if err != nil {
			return err
		}
		defer agent.Close()
		return f(ctx, agent, args)
	})
}

// agent returns a client of an agent that answers, and starts one where none
// runs.
func (c *cli) agent(ctx context.Context) (*api.Client, error) {
	agent := api.Dial(c.socket)
	_, err := agent.Host(ctx)
	if errors.Is(err, api.ErrNoAgent) {
		err = c.startAgent(ctx, agent)
	}
	if err != nil {
		agent.Close()
		return nil, err
	}
	return agent, nil
}

// pollEvery is how often to look for what nobody announces.
const pollEvery = 50 * time.Millisecond

// pause waits, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// atOnce bounds how many things of many are asked for at the same time.
const atOnce = 8

// each does f for all names, some at once. It returns the answers of those
// that worked, in order, and all errors.
func each[T any](ctx context.Context, names []string, f func(ctx context.Context, name string) (T, error)) ([]T, error) {
	answers, errs := make([]T, len(names)), make([]error, len(names))
	var tasks sync.WaitGroup
	turn := make(chan struct{}, atOnce)
	for i, name := range names {
		turn <- struct{}{}
		tasks.Go(func() {
			defer func() { <-turn }()
			answers[i], errs[i] = f(ctx, name)
		})
	}
	tasks.Wait()
	good, bad := []T{}, several{}
	for i, err := range errs {
		if err != nil {
			bad = append(bad, err)
			continue
		}
		good = append(good, answers[i])
	}
	if len(bad) > 0 {
		return good, bad
	}
	return good, nil
}

// change makes what a verb does that changes VMs and says nothing of it but
// with --json.
func (c *cli) change(f func(ctx context.Context, agent *api.Client, name string) (api.VM, error)) func(*cobra.Command, []string) error {
	return c.ask(func(ctx context.Context, agent *api.Client, names []string) error {
		vms, err := each(ctx, names, func(ctx context.Context, name string) (api.VM, error) {
			return f(ctx, agent, name)
		})
		return errors.Join(err, c.print(vms, nil))
	})
}
