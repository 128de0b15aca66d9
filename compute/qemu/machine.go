//go:build linux && amd64

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/jail"
)

// A machine is one QEMU process.
type machine struct {
	d    *Driver
	spec compute.Spec
	proc *jail.Process
	qmp  *monitor
	con  *console
	done chan struct{}
	exit compute.Exit // valid after done

	attached bool // it may be in the middle of what another run of the program began

	mu        sync.Mutex
	suspended bool
	shutdown  string // the reason of QEMU's SHUTDOWN event
	migration chan string
	last      blockStats
}

func newMachine(d *Driver, s compute.Spec, p *jail.Process) *machine {
	return &machine{d: d, spec: s, proc: p, done: make(chan struct{}), migration: make(chan string, 16)}
}

// follow waits for the end of the process in the background. It comes after
// connect, however that went: what is connected has to do with the end.
func (m *machine) follow() {
	go func() {
		<-m.proc.Done()
		m.ended()
	}()
}

// connect opens the monitor and the console. A machine that is new is told what
// its migrations can do.
func (m *machine) connect(ctx context.Context, isNew bool) error {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	con, err := dial(filepath.Join(m.spec.Dir, consoleSoc))
	if err != nil {
		return err
	}
	m.con = readConsole(con)
	conn, err := dial(filepath.Join(m.spec.Dir, qmpName))
	if err != nil {
		return err
	}
	m.qmp = newMonitor(conn, m.happened)
	setup := []command{{Execute: "qmp_capabilities"}}
	if isNew {
		setup = append(setup, capabilities, parameters)
	}
	_, err = m.qmp.run(ctx, setup...)
	if errors.Is(err, context.DeadlineExceeded) {
		return cloudpal.E("connect to QEMU", cloudpal.Timeout, err)
	}
	return err
}

// disconnect lets go of a process that lives on.
func (m *machine) disconnect() {
	if m.qmp != nil {
		m.qmp.close()
	}
	if m.con != nil {
		m.con.conn.Close()
	}
}

// capabilities let the memory file be the snapshot's memory, and tell of the
// migration's end.
var capabilities = command{Execute: "migrate-set-capabilities", Arguments: map[string]any{
	"capabilities": []map[string]any{
		{"capability": "x-ignore-shared", "state": true},
		{"capability": "events", "state": true},
	},
}}

// parameters lift the bound of 128 MiB a second, and keep QEMU from announcing
// the guest to a network where everybody knows where it is.
var parameters = command{Execute: "migrate-set-parameters", Arguments: map[string]any{
	"max-bandwidth": int64(1) << 40, "announce-rounds": 0,
}}

// happened takes note of an event.
func (m *machine) happened(e event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.name {
	case "SHUTDOWN":
		var data struct{ Reason string }
		_ = json.Unmarshal(e.data, &data)
		m.shutdown = data.Reason
	case "MIGRATION":
		var data struct{ Status string }
		_ = json.Unmarshal(e.data, &data)
		select {
		case m.migration <- data.Status:
		default: // nobody waits for so many
		}
	}
}

// Process names the process.
func (m *machine) Process() compute.Process {
	return compute.Process{PID: m.proc.PID(), Start: m.proc.Started()}
}

const stateFD = "state"

// Load reads the device state that Suspend wrote.
func (m *machine) Load(ctx context.Context, state *os.File) error {
	err := m.migrate(ctx, state, command{Execute: "migrate-incoming", Arguments: map[string]any{"uri": "fd:" + stateFD}})
	if err != nil {
		return cloudpal.E("load the state of "+m.spec.Name, "", err)
	}
	return nil
}

// migrate runs commands that move state, and waits for the outcome.
func (m *machine) migrate(ctx context.Context, state *os.File, commands ...command) error {
	m.drain()
	get := command{Execute: "getfd", Arguments: map[string]any{"fdname": stateFD}, file: state}
	if _, err := m.qmp.run(ctx, append([]command{get}, commands...)...); err != nil {
		return err
	}
	for {
		select {
		case status := <-m.migration:
			switch status {
			case "completed":
				return nil
			case "failed", "cancelled":
				return fmt.Errorf("QEMU says that it %s", status)
			}
		case <-m.done:
			return fmt.Errorf("QEMU ended: %s", m.exit)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *machine) drain() {
	for {
		select {
		case <-m.migration:
		default:
			return
		}
	}
}

// Run lets the vCPUs go. A process that was taken over may still be writing a
// snapshot, at whose end it would stop them again, and forgets it first.
func (m *machine) Run(ctx context.Context) error {
	run := m.cont
	if m.attached {
		run = m.cancelAndRun
	}
	if err := run(ctx); err != nil {
		return cloudpal.E("run "+m.spec.Name, "", err)
	}
	return nil
}

func (m *machine) cont(ctx context.Context) error {
	_, err := m.qmp.run(ctx, command{Execute: "cont"})
	return err
}

// Suspend stops the vCPUs, writes the device state to state and ends the
// process.
func (m *machine) Suspend(ctx context.Context, state *os.File) error {
	err := m.migrate(ctx, state,
		command{Execute: "stop"},
		command{Execute: "migrate", Arguments: map[string]any{"uri": "fd:" + stateFD}})
	if err != nil {
		return cloudpal.E("suspend "+m.spec.Name, "", errors.Join(err, m.runOn()))
	}
	if ctx.Err() != nil {
		// It came too late to spare the work, not too late to be of use.
		return cloudpal.E("suspend "+m.spec.Name, "", errors.Join(context.Cause(ctx), m.runOn()))
	}
	// From here on it is done, whatever comes.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastStatsWait)
	defer cancel()
	if _, err := m.blocks(last); err != nil {
		m.d.log.Warn("the last disk counters are lost", "vm", m.spec.Name, "err", err)
	}
	m.mu.Lock()
	m.suspended = true
	m.mu.Unlock()
	return m.proc.Kill()
}

// lastStatsWait bounds how long a suspended QEMU may take to tell its counters.
const lastStatsWait = time.Second

// How long a suspend may take to be undone, and how often to try. QEMU answers
// nothing while it waits for the host's disk, which on a busy host takes seconds.
const (
	runOnWait  = time.Minute
	runOnPause = time.Millisecond
)

// runOn undoes a suspend that was not finished. Where that cannot be, it ends
// the process: a guest that stands still for good is worse than one that boots.
func (m *machine) runOn() error {
	select {
	case <-m.done:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), runOnWait)
	defer cancel()
	err := m.cancelAndRun(ctx)
	if err != nil {
		err = errors.Join(err, m.Kill())
	}
	return err
}

// cancelAndRun gives up the writing of a snapshot, if there is any, and lets
// the vCPUs go as soon as QEMU allows it: not while a migration is being
// finalized, which it does after it has said how that ended.
func (m *machine) cancelAndRun(ctx context.Context) error {
	if _, err := m.qmp.run(ctx, command{Execute: "migrate_cancel"}); err != nil {
		return err
	}
	for {
		err := m.cont(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-m.done:
			return err
		case <-ctx.Done():
			return err
		case <-time.After(runOnPause):
		}
	}
}

// Kill ends the process at once.
func (m *machine) Kill() error {
	err := m.proc.Kill()
	if err == nil {
		<-m.done
	}
	return err
}

// giveUp ends a process that did not come up, and returns what it said.
func (m *machine) giveUp() error {
	select {
	case <-m.done:
	case <-time.After(2 * eventWait):
		if err := m.Kill(); err != nil {
			return err
		}
	}
	return errors.New(m.exit.String())
}

// Done is closed when the process is gone.
func (m *machine) Done() <-chan struct{} { return m.done }

// Exit says why the process is gone.
func (m *machine) Exit() compute.Exit {
	<-m.done
	return m.exit
}

// eventWait is how long to wait for QEMU's last words, which are on their way
// when its process ends.
const eventWait = time.Second

// ended finds out why the process is gone.
func (m *machine) ended() {
	if m.qmp != nil {
		select {
		case <-m.qmp.gone:
		case <-time.After(eventWait):
			m.qmp.close()
		}
	}
	if m.con != nil {
		m.con.finish()
	}
	m.exit = m.explain(m.proc.End())
	close(m.done)
}

func (m *machine) explain(e jail.End) compute.Exit {
	m.mu.Lock()
	suspended, shutdown := m.suspended, m.shutdown
	m.mu.Unlock()
	words := m.lastWords()
	switch {
	case suspended:
		return compute.Exit{Reason: compute.Suspended}
	case e.OutOfRoom:
		return compute.Exit{Reason: compute.OutOfLimit, Detail: fmt.Sprintf("it took more than %d MiB beyond the guest's memory", m.spec.Limits.Memory>>20)}
	case e.Killed:
		return compute.Exit{Reason: compute.Killed}
	case strings.HasPrefix(shutdown, "guest"):
		return compute.Exit{Reason: compute.PoweredOff}
	case e.Status == nil:
		return compute.Exit{Reason: compute.Lost, Detail: words}
	case e.Status.Signaled():
		return compute.Exit{Reason: compute.Crashed, Detail: strings.TrimSpace(e.Status.Signal().String() + " " + words)}
	default:
		return compute.Exit{Reason: compute.Crashed, Detail: strings.TrimSpace(fmt.Sprintf("status %d %s", e.Status.ExitStatus(), words))}
	}
}

// maxWords bounds what is repeated of QEMU's own messages, in bytes.
const maxWords = 500

// lastWords returns the end of what QEMU wrote to its standard error, on one
// line.
func (m *machine) lastWords() string {
	f, err := os.Open(filepath.Join(m.spec.Dir, errorsName))
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-maxWords), io.SeekStart)
	}
	data, _ := io.ReadAll(io.LimitReader(f, maxWords))
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(data), "?")), " ")
}

// Console returns the last bytes of the serial console.
func (m *machine) Console() []byte {
	if m.con == nil {
		return nil
	}
	return m.con.bytes()
}

// SetCPU changes how many cores the process may use, and whether it gives way.
func (m *machine) SetCPU(cores float64, giveWay bool) error { return m.proc.SetCPU(cores, giveWay) }
