package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

const rootHelp = `CloudPal is a personal cloud: your pal, a computer in a data center that is yours
alone, and a private network of your devices with it. It sleeps when nobody
needs it and wakes on the first packet. "cloudpal up" makes one; "status",
"device", "connect" and "open" use it.

Data is in logs that nobody can change unseen ("core"), sorted maps ("bee") and
drives of files ("drive"), which go from machine to machine; they need no pal.

Below that it runs microVMs on this machine. Each VM is an OCI image with a
kernel of its own. The commands "vm", "image" and "volume" talk to the machine's
agent ("cloudpal host") over a Unix socket and start it where it does not run.

Results go to standard output, all talk to standard error. With --json a
result is JSON, for other programs.

Environment:
  CLOUDPAL_HOME    where your keys are (~/.local/share/cloudpal)
  CLOUDPAL_STORE   where your data is (~/.local/share/cloudpal/data)
  CLOUDPAL_SOCKET  where the agent listens (` + api.DefaultSocket + `)
  CLOUDPAL_STATE   where an agent that a command starts keeps its state
  CLOUDPAL_RUN     likewise, what need not outlive the machine
  CLOUDPAL_KERNEL  likewise, where the guests' kernel is

Exit status:
  0    it worked
  1    it did not; one sentence says why, and a hint what to do
  2    the command line is wrong
  125  "vm run" and "vm exec": either of the two above; every other status is
       that of the process in the VM`

// A cli is one run of the program.
type cli struct {
	*world
	socket string
	home   string // of a person's keys, or ""
	store  string // of a person's data, or ""
	limit  size   // of that data, over the network, bytes a second
	json   bool
}

// run is the program: it does what args say and returns the exit status.
func run(ctx context.Context, w *world, args []string) int {
	c := &cli{world: w}
	root := c.command()
	root.SetArgs(args)
	root.SetIn(w.in)
	root.SetOut(w.out)
	root.SetErr(w.err)
	cmd, err := root.ExecuteContextC(ctx)
	return c.report(cmd, err)
}

func (c *cli) command() *cobra.Command {
	root := group("cloudpal", "Your personal cloud, and microVMs that sleep and wake", rootHelp, `  sudo cloudpal up
  cloudpal status
  cloudpal vm run --name notes --publish 8080:80 nginx
  cloudpal vm suspend notes
  curl http://127.0.0.1:8080     # wakes it
  cloudpal vm ps`)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.PersistentFlags().StringVar(&c.socket, "socket", c.lookup("CLOUDPAL_SOCKET", api.DefaultSocket), "the agent's `PATH`")
	root.AddCommand(c.up(), c.status(), c.down(), c.device(), c.connect(), c.disconnect(), c.open(), c.destroy(), c.deviceAgent())
	root.AddCommand(c.core(), c.bee(), c.drive())
	root.AddCommand(c.vm(), c.image(), c.volume(), c.host(), c.center(), c.mint(), c.wallet(), c.usage(), c.version(), c.completion())
	root.AddCommand(c.pal(), c.coreImage()) // inner roles
	return root
}

// group makes a command that only has others below it.
func group(use, short, long, example string) *cobra.Command {
	return &cobra.Command{
		Use: use + " COMMAND", Short: short, Long: long, Example: example,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usage{unknown(cmd, args[0])}
		},
	}
}

func unknown(cmd *cobra.Command, name string) error {
	err := fmt.Errorf("%s has no command %q", cmd.CommandPath(), name)
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		err = fmt.Errorf("%w; is it %q?", err, near[0])
	}
	return err
}

// verb makes what a command does: f, under a context that Ctrl-C ends.
func (c *cli) verb(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, done := c.interruptible(cmd.Context())
		defer done()
		err := f(ctx, args)
		var s status
		var i interrupt
		if err != nil && !errors.As(err, &s) && errors.As(context.Cause(ctx), &i) {
			return i
		}
		return err
	}
}

// args makes what checks a command's arguments. Least and most bound how many
// there are; most may be -1.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage{fmt.Errorf("%s needs %s", cmd.CommandPath(), what)}
		case most == 0 && len(args) > 0:
			return usage{fmt.Errorf("%s takes no arguments, not %q", cmd.CommandPath(), args[0])}
		case most >= 0 && len(args) > most:
			return usage{fmt.Errorf("%s takes only %s, not also %q", cmd.CommandPath(), what, args[most])}
		}
		return nil
	}
}

// usage is an error in the command line.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// status is an exit status that needs no words: the guest's process has had
// its say.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// failed is an error of our own in a command whose exit status is else the
// guest's.
const failed = 125

// report says what went wrong and returns the exit status.
func (c *cli) report(cmd *cobra.Command, err error) int {
	var s status
	var i interrupt
	var u usage
	code := 1
	switch {
	case err == nil:
		return 0
	case errors.As(err, &s):
		return int(s)
	case errors.As(err, &i):
		return i.code()
	case errors.As(err, &u):
		code = 2
		complain(c.err, u.Error(), cmd.CommandPath()+" --help shows how it is used")
	default:
		complainAll(c.err, err)
	}
	if cmd.Annotations[exitsAsGuest] != "" {
		return failed
	}
	return code
}

// exitsAsGuest marks commands that exit with the guest's status.
const exitsAsGuest = "exits as guest"

// several are the errors of a command that was given many names.
type several []error

func (s several) Error() string { return errors.Join(s...).Error() }

func complainAll(w io.Writer, err error) {
	var many several
	if !errors.As(err, &many) {
		many = several{err}
	}
	for _, err := range many {
		complain(w, err.Error(), cloudpal.HintOf(err))
	}
}

// complain prints an error as one sentence and its remedy as another.
func complain(w io.Writer, text, hint string) {
	fmt.Fprintf(w, "cloudpal: %s\n", strings.ReplaceAll(strings.TrimSpace(plain(text)), "\n", "\n  "))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", plain(hint))
	}
}

// plain makes text of any origin fit for a terminal: no control characters but
// line ends and tabs.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
