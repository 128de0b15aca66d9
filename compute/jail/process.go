//go:build linux

package jail

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process runs in a jail. Its methods may be called from many goroutines.
type Process struct {
	pid   int
	start uint64
	fd    int // a pidfd: cannot come to mean another process
	group group
	done  chan struct{}

	mu     sync.Mutex
	end    End
	killed bool
}

// An End tells how a process ended.
type End struct {
	Status    *syscall.WaitStatus // nil where it was not this program's child
	Killed    bool                // by Kill
	OutOfRoom bool                // the kernel ended it for its memory limit
	CPU       time.Duration       // that it had in all
}

// Attach finds a process that another run of this program started, by its pid
// and its start time.
func Attach(c Config, pid int, started uint64) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	// Looked at after the pidfd is held, it cannot be another's.
	if now, err := startTime(pid); err != nil || now != started {
		unix.Close(fd)
		return nil, fmt.Errorf("process %d: %w", pid, errors.Join(unix.ESRCH, err))
	}
	g, err := loadGroup(c.Name)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	p := &Process{pid: pid, start: started, fd: fd, group: g, done: make(chan struct{})}
	go func() {
		awaitExit(fd)
		p.ended(nil)
	}()
	return p, nil
}

// awaitExit waits until the process behind a pidfd has ended.
func awaitExit(fd int) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, -1)
		if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return
		}
	}
}

// ended records the end once, and removes the cgroup.
func (p *Process) ended(status *syscall.WaitStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = End{Status: status, Killed: p.killed, OutOfRoom: p.group.outOfRoom() && !p.killed}
	p.end.CPU, _ = p.group.cpu()
	// An error leaves a group behind, which the next start of the same name
	// takes over.
	_ = errors.Join(p.group.clear(), p.group.remove())
	unix.Close(p.fd)
	p.fd = -1
	close(p.done)
}

// PID returns the process's number.
func (p *Process) PID() int { return p.pid }

// Started returns the process's start time, which with its number names it for
// good.
func (p *Process) Started() uint64 { return p.start }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// End tells how the process ended. It is only valid after Done.
func (p *Process) End() End {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end
}

// Kill ends the process and waits until it is gone.
func (p *Process) Kill() error {
	p.mu.Lock()
	var err error
	if p.fd >= 0 {
		p.killed = true
		err = unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	}
	p.mu.Unlock()
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(killWait):
		return fmt.Errorf("process %d does not die: it hangs in the kernel", p.pid)
	}
}

// CPU returns the processor time that the process has had.
func (p *Process) CPU() (time.Duration, error) {
	select {
	case <-p.done:
		return p.End().CPU, nil
	default:
		return p.group.cpu()
	}
}

// SetCPU changes how many cores the process may use; 0 is no bound. One that
// gives way runs only while no other jail's process wants to, as far as the
// kernel knows of such a thing (Linux 5.15).
func (p *Process) SetCPU(cores float64, giveWay bool) error { return p.group.setCPU(cores, giveWay) }
