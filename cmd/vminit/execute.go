package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// maxExec bounds an exec request in bytes.
const maxExec = 1 << 20

// exec starts one more process and carries its frames.
func (s *service) exec(w http.ResponseWriter, r *http.Request) {
	var q guest.ExecRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, maxExec)).Decode(&q); err != nil {
		http.Error(w, "not an exec request", http.StatusBadRequest)
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), guest.ExecProtocol) {
		http.Error(w, "upgrade to "+guest.ExecProtocol, http.StatusUpgradeRequired)
		return
	}
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", guest.ExecProtocol)
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	e := &execution{s: s, conn: conn, in: buf.Reader}
	e.run(q)
}

// An execution is one process and its connection.
type execution struct {
	s    *service
	conn net.Conn
	in   io.Reader
	mu   sync.Mutex // of writes to conn
	pid  int
	// What the process has: its terminal, or the ends of its pipes.
	tty     *os.File
	stdin   *os.File
	output  sync.WaitGroup
	toClose []*os.File
}

func (e *execution) run(q guest.ExecRequest) {
	main := e.s.cfg.Process
	env := main.Env
	for _, entry := range q.Env {
		env = withEntry(env, entry)
	}
	if q.Dir == "" {
		q.Dir = main.Dir
	}
	if q.User == "" {
		q.User = main.User
	}
	if q.TTY {
		env = withDefault(env, "TERM=xterm")
	}
	l, err := prepare(q.Args, env, q.Dir, q.User)
	if err != nil {
		e.exit(startFailure(guest.Process{Args: q.Args}, err))
		return
	}
	defer e.close()
	inner, err := e.open(q)
	if err != nil {
		e.exit(guest.Exit{Code: exitFailed, Error: err.Error()})
		return
	}
	l.files, l.tty = inner, q.TTY
	pid, ended, err := l.start(e.s.reaper)
	for _, f := range inner {
		f.Close()
	}
	if err != nil {
		e.exit(startFailure(guest.Process{Args: q.Args}, err))
		return
	}
	e.pid = pid
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		e.obey()
	}()
	e.await(ended, gone)
}

// await tells how the process ended. When the host goes first, so does the
// process, and its whole session.
func (e *execution) await(ended <-chan unix.WaitStatus, gone <-chan struct{}) {
	var status unix.WaitStatus
	select {
	case status = <-ended:
	case <-gone:
		_ = unix.Kill(-e.pid, unix.SIGKILL)
		status = <-ended
	}
	done := make(chan struct{})
	go func() {
		e.output.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(settleTime):
	}
	e.close()
	e.exit(describe(status))
}

// close lets go of this end of the process's descriptors.
func (e *execution) close() {
	for _, f := range e.toClose {
		f.Close()
	}
}

// open makes the process's descriptors, all or none.
func (e *execution) open(q guest.ExecRequest) ([]*os.File, error) {
	if q.TTY {
		outer, tty, err := pty.Open()
		if err != nil {
			return nil, err
		}
		e.tty, e.stdin, e.toClose = outer, outer, []*os.File{outer}
		e.resize(guest.Size{Rows: q.Rows, Cols: q.Cols})
		e.carry(outer, guest.FrameStdout)
		return []*os.File{tty, tty, tty}, nil
	}
	in, err := e.input(q)
	if err != nil {
		return nil, err
	}
	inner := []*os.File{in}
	for _, kind := range []guest.FrameKind{guest.FrameStdout, guest.FrameStderr} {
		r, w, err := os.Pipe()
		if err != nil {
			for _, f := range inner {
				f.Close()
			}
			return nil, err
		}
		e.toClose = append(e.toClose, r)
		e.carry(r, kind)
		inner = append(inner, w)
	}
	return inner, nil
}

// input makes what the process reads.
func (e *execution) input(q guest.ExecRequest) (*os.File, error) {
	if !q.Stdin {
		return os.Open(os.DevNull)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	e.stdin = out
	e.toClose = append(e.toClose, out)
	return in, nil
}

// carry sends what comes out of r.
func (e *execution) carry(r io.Reader, kind guest.FrameKind) {
	e.output.Go(func() {
		buf := make([]byte, guest.MaxFrame)
		for {
			n, err := r.Read(buf)
			if n > 0 && e.send(kind, buf[:n]) != nil {
				return
			}
			if err != nil {
				return
			}
		}
	})
}

func (e *execution) send(kind guest.FrameKind, payload []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return guest.WriteFrame(e.conn, kind, payload)
}

func (e *execution) exit(x guest.Exit) {
	data, err := json.Marshal(x)
	if err != nil {
		return
	}
	_ = e.send(guest.FrameExit, data)
}

// obey does what the host's frames say, until there are no more.
func (e *execution) obey() {
	buf := make([]byte, guest.MaxFrame)
	for {
		kind, payload, err := guest.ReadFrame(e.in, buf)
		if err != nil {
			return
		}
		switch kind {
		case guest.FrameStdin:
			if e.stdin != nil {
				// A process that no longer reads is its own affair.
				_, _ = e.stdin.Write(payload)
			}
		case guest.FrameStdinEOF:
			e.endStdin()
		case guest.FrameResize:
			var size guest.Size
			if json.Unmarshal(payload, &size) == nil {
				e.resize(size)
			}
		case guest.FrameSignal:
			if sig, err := parseSignal(string(payload)); err == nil {
				_ = e.s.reaper.signal(e.pid, sig)
			}
		}
	}
}

func (e *execution) endStdin() {
	switch {
	case e.stdin == nil:
	case e.tty != nil:
		_, _ = e.tty.Write([]byte{4}) // end of transmission, as Ctrl-D
	default:
		if err := e.stdin.Close(); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

func (e *execution) resize(s guest.Size) {
	if e.tty != nil && s.Rows > 0 && s.Cols > 0 {
		_ = pty.Setsize(e.tty, &pty.Winsize{Rows: s.Rows, Cols: s.Cols})
	}
}

// withEntry returns env with one entry set.
func withEntry(env []string, entry string) []string {
	name, _, _ := strings.Cut(entry, "=")
	out := make([]string, 0, len(env)+1)
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			out = append(out, e)
		}
	}
	return append(out, entry)
}
