package signing

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"time"
)

// endWithin is how long a signer has to end before it is killed.
const endWithin = 5 * time.Second

// Keep runs a signer process until ctx ends, and another whenever it ends. Start
// makes the command anew each time; a Client waits meanwhile. Its standard input is a
// pipe that ends with this process, however that ends. Keep returns when the last one
// has ended.
func Keep(ctx context.Context, start func(context.Context) *exec.Cmd, log *slog.Logger) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		began := time.Now()
		cmd := start(ctx)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = endWithin
		err := runWithInput(cmd)
		if ctx.Err() != nil {
			return
		}
		log.Error("the signer ended; starting another", "err", err)
		if time.Since(began) > time.Minute {
			pause = 50 * time.Millisecond
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// runWithInput runs a command with an input that has nothing and does not end before
// the command, or this process, does.
func runWithInput(cmd *exec.Cmd) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	defer r.Close()
	cmd.Stdin = r
	return cmd.Run()
}
