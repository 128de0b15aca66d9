package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// What a shell and every container tool return where a process could not be
// started.
const (
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// The process that a VM is for.
type mainProcess struct {
	reaper *reaper
	log    *ring

	mu      sync.Mutex
	config  guest.Process
	pid     int
	started time.Time
	exit    *guest.Exit
	ended   chan struct{} // closed when exit is set
}

func newMainProcess(r *reaper, log *ring) *mainProcess {
	return &mainProcess{reaper: r, log: log, ended: make(chan struct{})}
}

// start runs p. Where that cannot be, its exit says so.
func (m *mainProcess) start(p guest.Process) {
	oom := countOOM()
	pid, ended, output, err := m.launch(p)
	if err != nil {
		m.end(startFailure(p, err))
		return
	}
	m.mu.Lock()
	m.config, m.pid, m.started = p, pid, time.Now()
	m.mu.Unlock()
	go func() {
		status := <-ended
		// What it wrote is read before its end is told, but an orphan that
		// holds its output open is not waited for.
		output.settle()
		exit := describe(status)
		exit.OOM = exit.Code == 128+int(unix.SIGKILL) && countOOM() > oom
		m.end(exit)
	}()
}

func (m *mainProcess) end(e guest.Exit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.exit = &e
	m.log.finish()
	close(m.ended)
}

func (m *mainProcess) launch(p guest.Process) (int, <-chan unix.WaitStatus, *output, error) {
	l, err := prepare(p.Args, p.Env, p.Dir, p.User)
	if err != nil {
		return 0, nil, nil, err
	}
	out := &output{}
	defer out.closeInner()
	if p.TTY {
		err = out.terminal(m.log)
	} else {
		err = out.pipes(m.log)
	}
	if err != nil {
		out.closeOuter()
		return 0, nil, nil, err
	}
	l.files = out.inner
	l.tty = p.TTY
	pid, ended, err := l.start(m.reaper)
	if err != nil {
		out.closeOuter()
		return 0, nil, nil, err
	}
	return pid, ended, out, nil
}

// status tells how the process is.
func (m *mainProcess) status() guest.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return guest.Status{Running: m.pid != 0 && m.exit == nil, Started: m.started, Exit: m.exit}
}

func (m *mainProcess) signal(sig unix.Signal) error {
	m.mu.Lock()
	pid := m.pid
	m.mu.Unlock()
	return m.reaper.signal(pid, sig)
}

// output carries what a process writes to the log.
type output struct {
	inner []*os.File // the process's descriptors 0, 1, 2
	outer []*os.File
	done  sync.WaitGroup
}

// settleTime is how long to read on after the process's end.
const settleTime = time.Second

func (o *output) settle() {
	read := make(chan struct{})
	go func() {
		o.done.Wait()
		close(read)
	}()
	select {
	case <-read:
	case <-time.After(settleTime):
	}
	o.closeOuter()
}

func (o *output) closeInner() {
	for _, f := range o.inner {
		f.Close()
	}
}

func (o *output) closeOuter() {
	for _, f := range o.outer {
		f.Close()
	}
}

func (o *output) pipes(log *ring) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	o.inner = append(o.inner, null)
	for _, stream := range []string{guest.Stdout, guest.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		o.inner, o.outer = append(o.inner, w), append(o.outer, r)
		o.done.Go(func() { copyLog(log, stream, r) })
	}
	return nil
}

func (o *output) terminal(log *ring) error {
	outer, inner, err := pty.Open()
	if err != nil {
		return err
	}
	o.inner, o.outer = []*os.File{inner, inner, inner}, []*os.File{outer}
	o.done.Go(func() { copyLog(log, guest.Stdout, outer) })
	return nil
}

func copyLog(log *ring, stream string, r io.Reader) {
	buf := make([]byte, guest.MaxLogData)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			log.write(stream, buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// A launch is a process that is ready to start.
type launch struct {
	path  string
	args  []string
	env   []string
	dir   string
	cred  *syscall.Credential
	files []*os.File
	tty   bool
}

func (l *launch) start(r *reaper) (int, <-chan unix.WaitStatus, error) {
	attr := &syscall.ProcAttr{
		Dir: l.dir, Env: l.env,
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: l.tty, Credential: l.cred},
	}
	for _, f := range l.files {
		attr.Files = append(attr.Files, f.Fd())
	}
	return r.start(l.path, l.args, attr)
}

// defaultPath is where programs are looked for when the image does not say.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// prepare finds out who runs what, and where.
func prepare(args, env []string, dir, user string) (*launch, error) {
	if len(args) == 0 {
		return nil, errors.New("there is nothing to run")
	}
	who, err := lookUp(user)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = "/"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("working directory %s: %w", dir, err)
	}
	env = withDefault(env, defaultPath)
	env = withDefault(env, "HOME="+who.home)
	path, err := find(args[0], dir, env)
	if err != nil {
		return nil, err
	}
	return &launch{path: path, args: args, env: env, dir: dir, cred: who.credential()}, nil
}

// withDefault adds NAME=value where env does not have NAME.
func withDefault(env []string, entry string) []string {
	name, _, _ := strings.Cut(entry, "=")
	for _, e := range env {
		if strings.HasPrefix(e, name+"=") {
			return env
		}
	}
	return append(env, entry)
}

// find looks for a program as execvp(3) does, in the process's own PATH.
func find(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	found := error(&exec.Error{Name: name, Err: exec.ErrNotFound})
	for _, e := range env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			path := filepath.Join(dir, d, name)
			if filepath.IsAbs(d) {
				path = filepath.Join(d, name)
			}
			err := executable(path)
			if err == nil {
				return path, nil
			}
			if errors.Is(err, fs.ErrPermission) {
				found = err
			}
		}
	}
	return "", found
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s: %w", path, fs.ErrPermission)
	}
	return nil
}

// startFailure says why a process could not be started, with the status that a
// shell would give.
func startFailure(p guest.Process, err error) guest.Exit {
	e := guest.Exit{Code: exitFailed, Error: err.Error()}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		e.Code = exitNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.ENOEXEC):
		e.Code = exitNotExecutable
	}
	if len(p.Args) > 0 {
		e.Error = fmt.Sprintf("%.200s: %s", p.Args[0], e.Error)
	}
	return e
}

func describe(s unix.WaitStatus) guest.Exit {
	if s.Signaled() {
		return guest.Exit{Code: 128 + int(s.Signal()), Signal: unix.SignalName(s.Signal())}
	}
	return guest.Exit{Code: s.ExitStatus()}
}
