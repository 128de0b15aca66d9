//go:build unix

package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// onResize calls f whenever the terminal's size changes. Stop must be called;
// it waits.
func onResize(f func()) (stop func()) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	var task sync.WaitGroup
	task.Go(func() {
		for range changes {
			f()
		}
	})
	return func() {
		signal.Stop(changes)
		close(changes)
		task.Wait()
	}
}
