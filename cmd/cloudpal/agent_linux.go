package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

const startTimeout = 2 * time.Minute // the first start probes the hypervisor

// startAgent starts "cloudpal host" in a session of its own and waits until it
// answers. Of many commands that want to, one does.
func (c *cli) startAgent(ctx context.Context, agent *api.Client) error {
	const op = "start the agent of this host"
	if os.Geteuid() != 0 {
		return cloudpal.E("", cloudpal.Denied, errors.New("only root may run VMs on this machine")).
			WithHint("run it again with sudo")
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// Beside the run directory and not in it: the agent mounts that.
	base := filepath.Clean(c.lookup("CLOUDPAL_RUN", defaultRun))
	lock, err := lockFile(ctx, base+".lock")
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer lock.Close()
	if _, err := agent.Host(ctx); !errors.Is(err, api.ErrNoAgent) {
		return err // another command was faster
	}
	log, err := os.OpenFile(base+".log", os.O_CREATE|os.O_RDWR|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer log.Close()
	pid, err := c.spawnAgent(log)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	if err := c.awaitAgent(ctx, agent, pid); err != nil {
		return cloudpal.E(op, cloudpal.Other, fmt.Errorf("%w%s", err, tail(log))).
			WithHint("read all of " + log.Name() + ", or run it here to watch it: cloudpal host")
	}
	return nil
}

// lockFile takes a lock that ends with this process.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
		if err := pause(ctx, pollEvery); err != nil {
			f.Close()
			return nil, fmt.Errorf("wait for another command that starts it: %w", err)
		}
	}
}

func (c *cli) spawnAgent(log *os.File) (pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, "host", "--socket", c.socket)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	return pid, cmd.Process.Release()
}

// awaitAgent waits until the agent answers or its process has ended.
func (c *cli) awaitAgent(ctx context.Context, agent *api.Client, pid int) error {
	begun, told := time.Now(), false
	for {
		var ended syscall.WaitStatus
		gone, _ := syscall.Wait4(pid, &ended, syscall.WNOHANG, nil)
		_, err := agent.Host(ctx)
		switch {
		case err == nil && told:
			c.say("the agent answers after %s", formatTime(time.Since(begun)))
			return nil
		case err == nil:
			return nil
		case gone == pid:
			return fmt.Errorf("it ended with status %d", ended.ExitStatus())
		case !errors.Is(err, api.ErrNoAgent) && ctx.Err() == nil:
			return err
		}
		if !told && time.Since(begun) > startQuiet {
			told = true
			c.say("starting the agent of this host; the first time it tries out the hypervisor...")
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}
