package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

const vmExecHelp = `Run one more process in a VM, beside its own, and exit as it does. A sleeping VM is
woken. Flags behind VM are COMMAND's.

The process has the environment, user and directory of the VM's own, unless
told otherwise. With --interactive it gets this command's standard input. With
--tty it gets a terminal of the size of this one: take both (-it) for a shell.
Without --tty its standard output and standard error stay apart, and a terminal
gets no control characters of them. A signal is passed on to the process; a
second one ends this command at once, and the process with it.

With --json each piece that the process writes is one line of JSON with its
time, stream and data (base64), and the last line tells how it ended.`

type execOptions struct {
	request       guest.ExecRequest
	env, envFiles []string
}

func (c *cli) vmExec() *cobra.Command {
	o := &execOptions{}
	q := &o.request
	cmd := c.exits(c.withJSON(&cobra.Command{
		Use: "exec [flags] VM COMMAND...", Short: "Run a process in a VM", Long: vmExecHelp,
		DisableFlagsInUseLine: true,
		Example: `  cloudpal vm exec -it web sh
  cloudpal vm exec db pg_dump -U postgres notes > notes.sql
  cloudpal vm exec -i -u postgres db psql notes < notes.sql`,
		Args:              args(2, -1, "the name of a VM and a COMMAND"),
		ValidArgsFunction: c.offer(false, vmNames(api.Running, api.Asleep, api.Cold)),
		PreRunE: func(_ *cobra.Command, args []string) (err error) {
			q.Args = args[1:]
			if q.Env, err = environment(o.envFiles, o.env, c.getenv); err != nil {
				return err
			}
			return c.checkTerminal(q)
		},
		RunE: c.ask(func(ctx context.Context, agent *api.Client, args []string) error {
			return c.execVM(ctx, agent, args[0], o.request)
		}),
	}))
	f := cmd.Flags()
	f.SetInterspersed(false) // what is behind VM is COMMAND's
	f.BoolVarP(&q.Stdin, "interactive", "i", false, "give it this command's standard input")
	f.BoolVarP(&q.TTY, "tty", "t", false, "give it a terminal")
	f.StringArrayVarP(&o.env, "env", "e", nil, "`NAME=value`, or NAME to pass on one of this command's")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "read variables from `FILE`, one a line")
	f.StringVarP(&q.User, "user", "u", "", "run as `USER[:GROUP]`, names or numbers")
	f.StringVarP(&q.Dir, "workdir", "w", "", "start in `DIR`")
	for _, name := range []string{"env", "user", "workdir"} {
		c.offerFlag(cmd, name, words())
	}
	return cmd
}

// checkTerminal completes a request for a terminal, or refuses it where there
// is none to connect it with.
func (c *cli) checkTerminal(q *guest.ExecRequest) error {
	if !q.TTY {
		return nil
	}
	if c.json {
		return usage{errors.New("--tty and --json do not go together")}
	}
	if _, ok := terminal(c.in); q.Stdin && !ok {
		return usage{errors.New("--tty with --interactive needs a terminal as standard input; leave --tty out")}
	}
	if s, ok := c.terminalSize(); ok {
		q.Rows, q.Cols = s.Rows, s.Cols
	}
	if name, ok := c.getenv("TERM"); ok {
		q.Env = append([]string{"TERM=" + name}, q.Env...)
	}
	return nil
}

// terminalSize returns the size of the terminal that the person looks at.
func (c *cli) terminalSize() (guest.Size, bool) {
	for _, v := range []any{c.out, c.in, c.err} {
		t, ok := terminal(v)
		if !ok {
			continue
		}
		if cols, rows, err := term.GetSize(int(t.Fd())); err == nil {
			return guest.Size{Rows: uint16(rows), Cols: uint16(cols)}, true
		}
	}
	return guest.Size{}, false
}

func (c *cli) execVM(ctx context.Context, agent *api.Client, name string, q guest.ExecRequest) error {
	// The first signal is for the process: it must not end the connection.
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	impatient := context.AfterFunc(ctx, cancel)
	conn, err := agent.Exec(live, name, q)
	if !impatient() || err != nil {
		return errors.Join(err, ctx.Err())
	}
	defer conn.Close()
	restore, err := c.rawTerminal(q)
	if err != nil {
		return err
	}
	defer restore()
	onSignal := context.AfterFunc(ctx, func() { passSignal(ctx, conn, q) })
	defer onSignal()
	stopResizing := c.passSize(conn, q)
	defer stopResizing()
	if q.Stdin {
		// Nothing ends a read of a terminal, so nobody waits for this.
		go passInput(conn, c.in)
	}
	exit, err := c.passOutput(conn, q)
	if err != nil {
		return cloudpal.E("exec in "+name, "", err).WithHint("see what became of the VM: cloudpal vm inspect " + name)
	}
	return c.execEnded(name, exit)
}

// rawTerminal hands every key to the guest's terminal, which has its own
// notion of them. Restore must be called.
func (c *cli) rawTerminal(q guest.ExecRequest) (restore func(), err error) {
	t, ok := terminal(c.in)
	if !ok || !q.TTY || !q.Stdin {
		return func() {}, nil
	}
	before, err := term.MakeRaw(int(t.Fd()))
	if err != nil {
		return nil, cloudpal.E("set up the terminal", "", err)
	}
	return func() { term.Restore(int(t.Fd()), before) }, nil
}

// passSignal passes on the signal that ended ctx. With a raw terminal it ends
// the connection instead: a second one would leave the terminal raw.
func passSignal(ctx context.Context, conn io.WriteCloser, q guest.ExecRequest) {
	var i interrupt
	if q.TTY && q.Stdin || !errors.As(context.Cause(ctx), &i) {
		conn.Close()
		return
	}
	// If it fails, the connection is gone, which ends all.
	_ = guest.WriteFrame(conn, guest.FrameSignal, []byte(i.name()))
}

// name is the signal's as guests know it.
func (i interrupt) name() string {
	switch i.Signal {
	case os.Interrupt:
		return "SIGINT"
	case syscall.SIGHUP:
		return "SIGHUP"
	}
	return "SIGTERM"
}

// passSize tells the guest of the terminal's size whenever it changes.
func (c *cli) passSize(conn io.Writer, q guest.ExecRequest) (stop func()) {
	if !q.TTY {
		return func() {}
	}
	return onResize(func() {
		s, ok := c.terminalSize()
		if !ok {
			return
		}
		if data, err := json.Marshal(s); err == nil {
			_ = guest.WriteFrame(conn, guest.FrameResize, data)
		}
	})
}

// passInput carries standard input to the process until either ends.
func passInput(conn io.Writer, in io.Reader) {
	buf := make([]byte, guest.MaxFrame)
	for {
		n, err := in.Read(buf)
		if n > 0 && guest.WriteFrame(conn, guest.FrameStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = guest.WriteFrame(conn, guest.FrameStdinEOF, nil)
			return
		}
	}
}

// passOutput shows what the process writes until the guest says how it ended.
func (c *cli) passOutput(conn io.Reader, q guest.ExecRequest) (guest.Exit, error) {
	show := c.execPrinter(q)
	buf := make([]byte, guest.MaxFrame)
	for {
		kind, payload, err := guest.ReadFrame(conn, buf)
		switch {
		case errors.Is(err, io.EOF):
			return guest.Exit{}, errors.New("the VM went away before the process ended")
		case err != nil:
			return guest.Exit{}, err
		case kind == guest.FrameExit:
			var exit guest.Exit
			err := json.Unmarshal(payload, &exit)
			return exit, err
		}
		if err := show(kind, payload); err != nil {
			return guest.Exit{}, err
		}
	}
}

// execPrinter returns what shows a frame. Who asked for a terminal gets all
// that a terminal's program writes.
func (c *cli) execPrinter(q guest.ExecRequest) func(guest.FrameKind, []byte) error {
	out, errs := io.Writer(screenOf(c.out)), io.Writer(screenOf(c.err))
	if q.TTY {
		out, errs = c.out, c.err
	}
	print := func(stream string, data []byte) error {
		w := out
		if stream == guest.Stderr {
			w = errs
		}
		_, err := w.Write(data)
		return err
	}
	if c.json {
		enc := json.NewEncoder(screenOf(c.out))
		print = func(stream string, data []byte) error {
			return enc.Encode(api.LogEntry{Time: time.Now(), Stream: stream, Data: data})
		}
	}
	return func(kind guest.FrameKind, data []byte) error {
		switch kind {
		case guest.FrameStdout:
			return print(guest.Stdout, data)
		case guest.FrameStderr:
			return print(guest.Stderr, data)
		}
		return fmt.Errorf("the guest sent a frame of kind %q, which there is not", kind)
	}
}

// execEnded turns how the process ended into how this command does.
func (c *cli) execEnded(name string, e guest.Exit) error {
	if c.json {
		if err := json.NewEncoder(screenOf(c.out)).Encode(e); err != nil {
			return err
		}
	}
	switch {
	case e.Error != "":
		c.say("cloudpal: vm %s: %s", name, strings.TrimSpace(e.Error))
	case e.OOM:
		c.say("cloudpal: vm %s: the process was killed: the VM's memory is used up; give it more with --memory", name)
	}
	return statusOf(e.Code)
}
