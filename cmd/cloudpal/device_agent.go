package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/person"
)

const deviceAgentHelp = `Run this device's agent, in the foreground: it holds the tunnel to your pal and
unlocks the pal when it has booted. The other commands start it where it does not
run.`

// deviceAgent is what runs in the background.
func (c *cli) deviceAgent() *cobra.Command {
	var debug bool
	cmd := c.withHome(&cobra.Command{
		Use: "agent", Short: "Run this device's agent", Long: deviceAgentHelp, Hidden: true,
		Example: "  cloudpal agent",
		Args:    args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The agent's memory holds the pal's secrets: it must not reach a disk.
			if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
				return cloudpal.E("forbid core dumps", "", err)
			}
			h, err := c.openHome()
			if err != nil {
				return err
			}
			defer h.Close()
			agent := person.NewAgent(h, versionName(), c.logger(debug))
			return c.untilSignal(cmd.Context(), agent.Run)
		},
	})
	cmd.Flags().BoolVar(&debug, "debug", false, "log every step")
	return cmd
}

// askDevice makes what a command does that needs this device's agent, and
// starts it where it does not run.
func (c *cli) askDevice(f func(ctx context.Context, h *person.Home, agent *person.Client, args []string) error) func(*cobra.Command, []string) error {
	return c.withHomeOf(func(ctx context.Context, h *person.Home, args []string) error {
		if _, err := h.Read(); err != nil {
			return err
		}
		agent, err := c.needAgent(ctx, h)
		if err != nil {
			return err
		}
		return f(ctx, h, agent, args)
	})
}

// withHomeOf makes what a command does that needs a home.
func (c *cli) withHomeOf(f func(ctx context.Context, h *person.Home, args []string) error) func(*cobra.Command, []string) error {
	return c.verb(func(ctx context.Context, args []string) error {
		h, err := c.openHome()
		if err != nil {
			return err
		}
		defer h.Close()
		return f(ctx, h, args)
	})
}

// needAgent returns a client of an agent that answers.
func (c *cli) needAgent(ctx context.Context, h *person.Home) (*person.Client, error) {
	agent := h.Client()
	_, err := agent.Agent(ctx)
	if errors.Is(err, person.ErrNoAgent) {
		err = c.startDeviceAgent(ctx, h, agent, h.Owner())
	}
	return agent, err
}

const agentTimeout = 10 * time.Second // to start, or to end

// startDeviceAgent starts "cloudpal agent" in a session of its own, as that
// user, and waits until it answers. Of two that start at once, one goes on.
func (c *cli) startDeviceAgent(ctx context.Context, h *person.Home, agent *person.Client, as person.Owner) error {
	const op = "start this device's agent"
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	log, err := h.Log()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer log.Close()
	cmd, err := background(log, "agent", "--home", h.Dir())
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	if me := person.Me(); me.UID == 0 && as != me {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(as.UID), Gid: uint32(as.GID)}
	}
	if err := cmd.Start(); err != nil {
		return cloudpal.E(op, "", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		_, err := agent.Agent(ctx)
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			if _, other := agent.Agent(ctx); other == nil {
				return nil // it was another's that was faster
			}
			return cloudpal.E(op, cloudpal.Other, fmt.Errorf("it ended: %w%s", err, tail(log)))
		default:
		}
		if err := pause(ctx, pollEvery); err != nil {
			return cloudpal.E(op, cloudpal.Timeout, fmt.Errorf("it does not answer%s", tail(log)))
		}
	}
}

// background prepares our own program in a session of its own, all of whose
// talk goes to a log.
func background(log *os.File, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// stopDeviceAgent ends the agent, if one runs, and waits until it has.
func stopDeviceAgent(ctx context.Context, h *person.Home) error {
	const op = "stop this device's agent"
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	agent := h.Client()
	err := agent.Stop(ctx)
	if errors.Is(err, person.ErrNoAgent) {
		return nil
	}
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	for h.Running() {
		if err := pause(ctx, pollEvery); err != nil {
			return cloudpal.E(op, cloudpal.Timeout, err)
		}
	}
	return nil
}
