package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// program returns the program's command and a world whose output is in out and
// errs.
func program() (root *cobra.Command, out, errs *bytes.Buffer) {
	w, out, errs := newWorld("")
	return (&cli{world: w}).command(), out, errs
}

func newWorld(in string) (w *world, out, errs *bytes.Buffer) {
	out, errs = new(bytes.Buffer), new(bytes.Buffer)
	w = &world{
		in: strings.NewReader(in), out: out, err: errs,
		getenv:  func(string) (string, bool) { return "", false },
		signals: make(chan os.Signal), unhand: func() {},
	}
	return w, out, errs
}

// visit calls f for a command and all below it.
func visit(cmd *cobra.Command, f func(*cobra.Command)) {
	if cmd.Hidden {
		return
	}
	f(cmd)
	for _, sub := range cmd.Commands() {
		visit(sub, f)
	}
}

// noJSON are commands without --json, and why.
var noJSON = map[string]string{
	"cloudpal":                    "only has others",
	"cloudpal bee":                "only has others",
	"cloudpal completion":         "its result is a script",
	"cloudpal core":               "only has others",
	"cloudpal device":             "only has others",
	"cloudpal drive":              "only has others",
	"cloudpal drive cat":          "its result is the files",
	"cloudpal host":               "has no result",
	"cloudpal host stop":          "has no result",
	"cloudpal image":              "only has others",
	"cloudpal mint":               "only has others",
	"cloudpal mint centers add":   "has no result",
	"cloudpal mint init":          "has no result",
	"cloudpal mint keys add":      "has no result",
	"cloudpal mint keys revoke":   "has no result",
	"cloudpal mint relay":         "has no result",
	"cloudpal mint serve":         "has no result",
	"cloudpal mint signer":        "has no result",
	"cloudpal mint vouchers":      "only has others",
	"cloudpal mint vouchers void": "has no result",
	"cloudpal mint witness":       "its result is its key",
	"cloudpal usage":              "only has others",
	"cloudpal vm":                 "only has others",
	"cloudpal volume":             "only has others",
	"cloudpal wallet":             "only has others",
}

func TestEveryCommandIsExplained(t *testing.T) {
	root, _, _ := program()
	seen := 0
	visit(root, func(cmd *cobra.Command) {
		seen++
		path := cmd.CommandPath()
		switch {
		case cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || len(cmd.Short) > 60:
			t.Errorf("%s: Short is %q", path, cmd.Short)
		case len(cmd.Long) < 80:
			t.Errorf("%s: Long is %q, which explains nothing", path, cmd.Long)
		case !strings.Contains(cmd.Example, path):
			t.Errorf("%s: no example shows it: %q", path, cmd.Example)
		}
		for n, line := range strings.Split(cmd.Long, "\n") {
			if width := utf8.RuneCountInString(line); width > 84 {
				t.Errorf("%s: line %d of Long has %d columns", path, n+1, width)
			}
		}
		if has, why := cmd.Flags().Lookup("json") != nil, noJSON[path]; has == (why != "") {
			t.Errorf("%s: has --json: %v; it %s", path, has, why)
		}
	})
	if seen < 25 {
		t.Errorf("saw %d commands", seen)
	}
}

// Examples are command lines that this program takes.
func TestExamplesAreValid(t *testing.T) {
	root, _, _ := program()
	visit(root, func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			for part := range strings.SplitSeq(strings.TrimSpace(line), "&&") {
				args, ours := exampleArgs(part)
				if !ours {
					continue
				}
				if err := parseOnly(args); err != nil {
					t.Errorf("%s: example %q: %v", cmd.CommandPath(), part, err)
				}
			}
		}
	})
}

// exampleArgs returns the arguments of a simple command line, if it is one of
// this program's.
func exampleArgs(line string) (args []string, ours bool) {
	words := shellWord.FindAllString(line, -1)
	if len(words) == 0 || words[0] != "cloudpal" {
		return nil, false
	}
	for _, w := range words[1:] {
		if strings.HasPrefix(w, "$(") {
			return append(args, "words-of-another-command"), true
		}
		if strings.ContainsAny(w[:1], "|<>#") {
			break
		}
		args = append(args, strings.ReplaceAll(w, `"`, ""))
	}
	return args, true
}

// shellWord is a word of a command line, which has spaces only within quotes.
var shellWord = regexp.MustCompile(`(?:[^\s"]|"[^"]*")+`)

// parseOnly does all that a command does before it runs.
func parseOnly(args []string) error {
	root, _, _ := program()
	cmd, rest, err := root.Find(args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err != nil {
		return err
	}
	rest = cmd.Flags().Args()
	if err := cmd.ValidateArgs(rest); err != nil {
		return err
	}
	if cmd.HasSubCommands() && len(rest) > 0 {
		return fmt.Errorf("no command %q", rest[0])
	}
	if cmd.PreRunE != nil && cmd.Name() != "exec" { // which wants a terminal
		return cmd.PreRunE(cmd, rest)
	}
	return nil
}

// A command that completes nothing itself would have the shell offer files.
func TestCompletionIsDecided(t *testing.T) {
	files := []string{"cloudpal drive serve", "cloudpal image import", "cloudpal mint audit", "cloudpal mint relay", "cloudpal usage verify", "cloudpal wallet backup", "cloudpal wallet receive"}
	root, _, _ := program()
	visit(root, func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		decided := cmd.ValidArgsFunction != nil || cmd.ValidArgs != nil || cmd.HasSubCommands()
		if want := !slices.Contains(files, path) && takesArgs(cmd); want && !decided {
			t.Errorf("%s takes arguments and offers none", path)
		}
	})
}

func takesArgs(cmd *cobra.Command) bool {
	return cmd.Args == nil || cmd.Args(cmd, []string{"x"}) == nil
}

// Of a wrong command line the exit status is 2, or 125 where the status is
// else the guest's, and help is named.
func TestWrongCommandLines(t *testing.T) {
	for line, want := range map[string]int{
		"nonsense":                      2,
		"vm nonsense":                   2,
		"image nonsense":                2,
		"--nonsense":                    2,
		"vm ps extra":                   2,
		"vm rm":                         2,
		"vm suspend --depth deep web":   2,
		"vm stop --timeout soon web":    2,
		"volume rm":                     2,
		"image pull":                    2,
		"image pull a b":                2,
		"usage verify":                  2,
		"host nonsense":                 2,
		"completion tcsh":               2,
		"vm wait":                       125,
		"vm run":                        125,
		"vm run --memory much img":      125,
		"vm run --memory -1 img":        125,
		"vm run --cpus 0 img":           125,
		"vm run --publish 80:http img":  125,
		"vm run --volume /etc:/etc img": 125,
		"vm run --env =x img":           125,
		"vm run --limit-cpu -1 img":     125,
		"vm run --limit-cpu NaN img":    125,
		"vm run --disk-ops -5 img":      125,
		"vm run --budget-cpu -1s img":   125,
		"vm run --nap-after 1ms img":    125,
		"vm run --seal-after -1h img":   125,
		"vm run --nonsense img":         125,
		"vm exec web":                   125,
		"vm exec --json --tty web sh":   125,
		"vm exec -it web sh":            125,
		"vm exec --env =x web sh":       125,
	} {
		w, out, errs := newWorld("")
		got := run(context.Background(), w, strings.Fields(line))
		if got != want || out.Len() > 0 {
			t.Errorf("%s: got status %d and output %q, want %d", line, got, out, want)
		}
		if !strings.HasPrefix(errs.String(), "cloudpal: ") || !strings.Contains(errs.String(), "\nhint: cloudpal") {
			t.Errorf("%s: said %q, want a sentence and a hint", line, errs)
		}
	}
}
