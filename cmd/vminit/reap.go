package main

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A reaper starts processes and collects the dead: its own, whose end it
// tells, and the orphans of others, which fall to PID 1.
type reaper struct {
	mu   sync.Mutex
	wait map[int]chan<- unix.WaitStatus
}

func newReaper() *reaper {
	r := &reaper{wait: map[int]chan<- unix.WaitStatus{}}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			for r.reapOne() {
			}
		}
	}()
	return r
}

// start starts a process. Its end comes over the channel.
func (r *reaper) start(path string, args []string, attr *syscall.ProcAttr) (pid int, ended <-chan unix.WaitStatus, err error) {
	// Held until the process is known: it may end at once.
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err = syscall.ForkExec(path, args, attr)
	if err != nil {
		return 0, nil, err
	}
	done := make(chan unix.WaitStatus, 1)
	r.wait[pid] = done
	return pid, done, nil
}

func (r *reaper) reapOne() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if done := r.wait[pid]; done != nil {
		delete(r.wait, pid)
		done <- status
	}
	return true
}

// signal sends a signal to a process that was started here and has not been
// collected, so that the number cannot be another's.
func (r *reaper) signal(pid int, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wait[pid] == nil {
		return os.ErrProcessDone
	}
	return unix.Kill(pid, sig)
}
