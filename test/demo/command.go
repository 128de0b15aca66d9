package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/tradle/cloudpal/compute/api"
)

// ask runs a command of cloudpal with --json and reads its answer into v.
func ask(ctx context.Context, env []string, v any, args ...string) error {
	// Behind the verb: flags behind an image's name are its command's.
	out, err := run(ctx, env, nil, slices.Insert(args, 2, "--json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("cloudpal %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// tell runs a command whose answer is of no interest.
func tell(ctx context.Context, env []string, args ...string) error {
	_, err := run(ctx, env, nil, args...)
	return err
}

// run runs the program that was built beside this one.
func run(ctx context.Context, env []string, in io.Reader, args ...string) ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := command(ctx, filepath.Join(filepath.Dir(self), "cloudpal"), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = in
	return output(cmd)
}

// curl fetches a URL with the program of that name.
func curl(ctx context.Context, url string) (string, error) {
	out, err := output(command(ctx, "curl", "-sS", "--fail", "--max-time", "60", url))
	return strings.TrimSpace(string(out)), err
}

// command is exec's, but one that is interrupted is asked to end, and tidies up.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = cleanTimeout
	// Ctrl-C in a terminal goes to the demo alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path)+" "+strings.Join(cmd.Args[1:], " "), err, trouble.String())
	}
	return out.Bytes(), nil
}

// processes counts the processes whose root is the VM's run directory, where
// all that run for it have theirs.
func processes(runDir string, v api.VM) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	count := 0
	for _, e := range entries {
		root, err := os.Readlink(filepath.Join("/proc", e.Name(), "root"))
		if err == nil && root == filepath.Join(runDir, "vm", v.Name) {
			count++
		}
	}
	return count, nil
}

func isRunning(pid int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return pid > 0 && !errors.Is(err, os.ErrNotExist)
}

// verifyUsage has the command check the chain of the VM's usage records.
func (d *demo) verifyUsage(ctx context.Context) (records int64, err error) {
	lines, err := run(ctx, d.env, nil, "vm", "usage", "--json", vmName)
	if err != nil {
		return 0, err
	}
	out, err := run(ctx, d.env, bytes.NewReader(lines), "usage", "verify", "--json", "-")
	if err != nil {
		return 0, err
	}
	var found struct {
		Records int64 `json:"records"`
	}
	return found.Records, json.Unmarshal(out, &found)
}
