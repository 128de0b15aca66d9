package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

const hostStopHelp = `End this machine's agent. Its VMs go on as they are: running ones run,
sleeping ones sleep. Until the next agent nobody wakes those that sleep, and
published ports are closed.

Where systemd runs the agent, use "systemctl stop cloudpal" instead.`

const stopTimeout = 30 * time.Second

func (c *cli) hostStop() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "End the agent and leave its VMs as they are", Long: hostStopHelp,
		Example: "  cloudpal host stop",
		Args:    args(0, 0, ""),
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			agent := api.Dial(c.socket)
			defer agent.Close()
			h, err := agent.Host(ctx)
			if err != nil {
				return err
			}
			return stopAgent(ctx, agent, h.PID)
		}),
	}
}

// stopAgent asks the agent's process to end and waits until it has.
func stopAgent(ctx context.Context, agent *api.Client, pid int) error {
	op := fmt.Sprintf("stop the agent, pid %d", pid)
	if pid <= 1 {
		return cloudpal.E(op, cloudpal.Invalid, errors.New("it gives no process of this machine"))
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer p.Release()
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return cloudpal.E(op, "", err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	for {
		if h, err := agent.Host(ctx); errors.Is(err, api.ErrNoAgent) || err == nil && h.PID != pid {
			return awaitProcess(ctx, op, p)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return cloudpal.E(op, cloudpal.Timeout, err).WithHint("its log may say what it waits for")
		}
	}
}

// awaitProcess waits until p is gone: the socket closes before the agent has
// let go of its state.
func awaitProcess(ctx context.Context, op string, p *os.Process) error {
	for p.Signal(syscall.Signal(0)) == nil {
		if err := pause(ctx, pollEvery); err != nil {
			return cloudpal.E(op, cloudpal.Timeout, err)
		}
	}
	return nil
}
